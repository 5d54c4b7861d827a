"""The board's HTTP: pages, a read-only JSON API, and news as Server-Sent Events. What is shown is in service.py."""

import asyncio
import base64
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import yaml
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from events.cloudevents import quote_value
from events.times import parse_instant
from projections.promises import START_OF_LIST, STATES, PageMark, PromiseFilter
from services.board import pages
from services.board.service import Board, BoardSnapshot, Line, News, build_line
from services.errors import TRANSIENT_ERRORS
from services.queries.explanation import explain_ticket
from services.queries.point_in_time import NothingKnownError, PointInTime
from services.queries.report import Json, build_report
from services.queries.report_table import format_csv
from services.queries.ticket_status import check_filter, list_open_then, read_ticket_status
from services.runtime.http_limits import (
    GUESS_DELAY,
    GuessLimit,
    PeerLimit,
    count_allowed_connections,
    identify_peer,
)
from services.runtime.http_server import is_loopback
from services.text.phrases import write_news
from sla.calendar import get_zone
from sla.policy import Policy
from sla.versions import Versions

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000  # promises in one answer
BEAT_INTERVAL = 10.0  # seconds

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer: a page runs only our script, and asks nobody but us."""

STATIC = {
    name: (files("services.board").joinpath("static", name).read_bytes(), type)
    for name, type in (
        ("board.css", "text/css; charset=utf-8"),
        ("board.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    )
}


class ProblemError(Exception):
    """A refusal: an HTTP status, what is wrong and what to do (RFC 9457)."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase


def build_app(board: Callable[[], Board | None], token: str | None) -> ASGIApp:
    """Build the routes. `board` returns the service, None if it does not work yet; without `token` all may ask."""
    web = _Web(board)
    routes = [
        Route("/", web.answer_page(_show_board)),
        Route("/ticket", web.answer_page(_show_ticket)),
        Route("/report", web.answer_page(_show_report)),
        Route("/report.csv", web.answer_csv(_answer_csv)),
        Route("/policy", web.answer_page(_show_policy)),
        Route("/events", web.stream_events),
        Route("/static/{name}", _serve_static),
        Route("/api/promises", web.answer_json(_answer_promises)),
        Route("/api/tickets/{path:path}", web.answer_json(_answer_ticket)),
        Route("/api/report", web.answer_json(_answer_report)),
        Route("/api/openapi.json", _serve_openapi),
    ]
    handlers: dict[Any, Any] = {ProblemError: _refuse, HTTPException: _handle_no_such_page}
    handlers |= {NothingKnownError: _handle_too_early, Exception: _handle_fault}
    handlers |= dict.fromkeys(TRANSIENT_ERRORS, _handle_transient_error)
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_Guard, token=token)])


# ---- who may ask


class _Guard:
    """Adds the headers that keep a browser safe to every answer; without the token the only answer is 401, or 429."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token
        self._guesses = GuessLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "private, no-cache")
            await send(message)

        problem = await self._check_access(Headers(scope=scope), identify_peer(scope["client"]))
        app: ASGIApp = self._app if problem is None else await _refuse(Request(scope), problem)
        await app(scope, receive, safely)

    async def _check_access(self, headers: Headers, peer: str) -> ProblemError | None:
        if self._token is None:
            if is_loopback(_parse_host(headers.get("host", ""))):
                return None
            return ProblemError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "without SLA_BOARD_TOKEN the board answers only to localhost and 127.0.0.1, so that no other site can "
                "ask in your name; use one of these names, or set a token",
            )
        if seconds := self._guesses.find_lockout(peer):
            return ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"there were too many wrong tokens from your address; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        if hmac.compare_digest(_read_token(headers.get("authorization", "")), self._token.encode()):
            return None
        what = "there is no token"
        if "authorization" in headers:
            what = "the token is wrong"
            self._guesses.record(peer)
            await asyncio.sleep(GUESS_DELAY)
        return ProblemError(
            HTTPStatus.UNAUTHORIZED,
            f"{what}; send the header `Authorization: Bearer TOKEN` with that of SLA_BOARD_TOKEN, or in a browser give "
            "it as the password of any user",
            {"WWW-Authenticate": 'Bearer realm="SLA board", Basic realm="SLA board", charset="UTF-8"'},
        )


def is_about_past(request: Request) -> bool:
    """Return whether the answer takes all of history, or much of it."""
    return request.url.path.endswith(("/report", "/report.csv")) or not {"as_of", "known_at"}.isdisjoint(
        request.query_params
    )


def _parse_host(host: str) -> str:
    """Return the name in a Host header, without the port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _read_token(authorization: str) -> bytes:
    """Return the token in the header of a program, or in that of a browser, where it is the password."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode()
        case "basic":
            with suppress(ValueError):
                return base64.b64decode(value).partition(b":")[2]
    return b""


# ---- answers


class _Web:
    """Makes endpoints of questions: each runs in a thread, and is answered with 304 if nothing has happened."""

    def __init__(self, board: Callable[[], Board | None]) -> None:
        self._board = board
        self._process = secrets.token_hex(4)
        self._streams = PeerLimit(count_allowed_connections() // 4)

    def answer_json(self, question: Callable[[Board, Request, BoardSnapshot], object]) -> Callable[[Request], Any]:
        """Return the endpoint that answers a question in JSON."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, question, "application/json", msgspec.json.encode)

        return endpoint

    def answer_page(self, question: Callable[[Board, Request, BoardSnapshot], str]) -> Callable[[Request], Any]:
        """Return the endpoint that answers a question with a page."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, question, "text/html; charset=utf-8", str.encode)

        return endpoint

    def answer_csv(self, question: Callable[[Board, Request, BoardSnapshot], str]) -> Callable[[Request], Any]:
        """Return the endpoint that answers a question with a sheet."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, question, "text/csv; charset=utf-8", str.encode)

        return endpoint

    async def _answer(
        self, request: Request, question: Callable[..., Any], type: str, encode: Callable[[Any], bytes]
    ) -> Response:
        board = self._get_board()
        snapshot = BoardSnapshot(board.read_now(), board.position)
        tag = f'W/"{self._process}-{snapshot.position}-{snapshot.now.timestamp() // 60:.0f}"'  # weak: the clock runs on
        headers = {"ETag": tag, "Vary": "Authorization"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        request.state.newest, request.state.breaches = board.list_newest(), board.list_breaches()
        answer = await board.ask(question, board, request, snapshot, is_long=is_about_past(request))
        return Response(encode(answer), 200, headers, type)

    def _get_board(self) -> Board:
        board = self._board()
        if board is None or board.problem == "starting":
            raise ProblemError(503, "the board does not work yet; /health/ready says why", {"Retry-After": "1"})
        return board

    async def stream_events(self, request: Request) -> Response:
        """Stream Server-Sent Events; the id of each is the position in the log, from which a browser resumes."""
        board, peer = self._get_board(), identify_peer(request.scope["client"])
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        position = int(after) if after.isascii() and after.isdigit() and len(after) < 19 else None
        if not self._streams.acquire(peer):
            raise ProblemError(
                503, "too many pages follow the news already; close some of them, or wait", {"Retry-After": "10"}
            )
        return _EventStream(_stream(board, position), partial(self._streams.release, peer))


class _EventStream(StreamingResponse):
    """An answer that ends with its connection; `release` is called then, whatever ends it."""

    def __init__(self, events: AsyncIterator[bytes], release: Callable[[], None]) -> None:
        super().__init__(events, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, "text/event-stream")
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _stream(board: Board, position: int | None) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n" + _send_heartbeat(board)
    async for turn in board.follow_updates(position, BEAT_INTERVAL):
        if turn is None:
            yield _send_heartbeat(board)
        else:
            news = None if turn.news is None else [_describe_news(each) for each in turn.news]
            body = msgspec.json.encode({"position": turn.position, "events": news})
            yield b"id: %d\ndata: %b\n\n" % (turn.position, body)


def _send_heartbeat(board: Board) -> bytes:
    return b"event: beat\ndata: %d\n\n" % (board.read_now().timestamp() * 1000)


def _describe_news(news: News) -> dict[str, object]:
    event = news.event
    return {
        "position": news.position,
        "ticket_id": news.ticket,
        "event": event.KIND,
        "time": event.time,
        "objective": event.objective,
        "service_level": event.state.judged[0],
        "priority": event.state.judged[1],
        "says": write_news(event),
    }


async def _serve_static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    body, type = STATIC[name]
    headers = {"ETag": f'"{sha256(body).hexdigest()[:16]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, type)


async def _serve_openapi(request: Request) -> Response:
    return Response(msgspec.json.encode(OPENAPI), 200, media_type="application/json")


OPENAPI = yaml.safe_load(files("services.board").joinpath("openapi.yaml").read_text(encoding="utf-8"))


async def _refuse(request: Request, problem: ProblemError) -> Response:
    """Answer a problem of the API in JSON, that of a page with a page."""
    if request.url.path.startswith(("/api/", "/events")):
        body = {"type": "about:blank", "title": problem.title, "status": problem.status, "detail": problem.detail}
        return Response(msgspec.json.encode(body), problem.status, problem.headers, "application/problem+json")
    html = pages.render_error(problem.status, problem.title, problem.detail)
    return Response(html, problem.status, problem.headers, "text/html; charset=utf-8")


async def _handle_no_such_page(request: Request, error: HTTPException) -> Response:
    detail = {
        404: f"there is nothing at {quote_value(request.url.path)}; see / for the board, /api/openapi.json for the API",
        405: f"{request.method} is not for here: the board can only be read, with GET",
    }
    problem = ProblemError(error.status_code, detail.get(error.status_code, error.detail), error.headers)
    return await _refuse(request, problem)


async def _handle_too_early(request: Request, error: Exception) -> Response:
    return await _refuse(request, ProblemError(404, str(error)))


async def _handle_fault(request: Request, error: Exception) -> Response:
    return await _refuse(request, ProblemError(500, "a fault of the board, which its log has; please report it"))


async def _handle_transient_error(request: Request, error: Exception) -> Response:
    text = str(error) or type(error).__name__
    return await _refuse(request, ProblemError(503, f"the store cannot be read now: {text}", {"Retry-After": "1"}))


# ---- questions of the API; each blocks


def _answer_promises(board: Board, request: Request, snapshot: BoardSnapshot) -> object:
    _check_names(request, *FILTERS, "limit", "cursor", "as_of", "known_at")
    wanted = _parse_filter(request, board.store.read_versions())
    limit = _parse_number(request, "limit", PAGE_SIZE, MAX_PAGE_SIZE)
    when, after = _parse_point_in_time(request, snapshot.now), _parse_cursor(request)
    lines = (
        board.list_lines(wanted, limit + 1, after, snapshot.now)
        if when.is_now
        else _list_past(board, wanted, after, when)
    )
    return {
        "promises": [each.status.to_json(when.at) for each in lines[:limit]],
        "next": _encode_cursor(lines[limit - 1].mark) if len(lines) > limit else None,
    }


def _list_past(board: Board, wanted: PromiseFilter, after: PageMark | None, when: PointInTime) -> list[Line]:
    """Return the promises that were open at another time, by deadline."""
    found = (build_line(status, when.at) for status in list_open_then(board.store, when, wanted))
    start = after if after and after.until is not None else START_OF_LIST
    return sorted((each for each in found if each.mark > start), key=lambda each: each.mark)


def _answer_ticket(board: Board, request: Request, snapshot: BoardSnapshot) -> object:
    ticket, part = _split_path(request, "/api/tickets/")
    when = _parse_point_in_time(request, snapshot.now)
    match part:
        case None:
            status = read_ticket_status(board.store, ticket, when) if _is_id(ticket) else None
            answer = status and status.to_json(when.at)
        case "explain":
            explained = explain_ticket(board.store, ticket, when) if _is_id(ticket) else None
            answer = explained and explained.to_json()
        case _:
            raise HTTPException(404)
    if answer is None:
        raise _build_unknown_ticket(ticket)
    return answer


def _answer_report(board: Board, request: Request, snapshot: BoardSnapshot) -> Json:
    return _build_asked_report(board, request, snapshot)


def _answer_csv(board: Board, request: Request, snapshot: BoardSnapshot) -> str:
    return format_csv(_build_asked_report(board, request, snapshot))


def _build_asked_report(board: Board, request: Request, snapshot: BoardSnapshot, default_by: str = "") -> Json:
    _check_names(request, "period", "by", "objective", "customer", "as_of", "known_at")
    when, period = _parse_point_in_time(request, snapshot.now), request.query_params.get("period") or "all"
    by = [name for name in request.query_params.get("by", default_by).split(",") if name]
    try:
        objective, customer = (request.query_params.get(name) or None for name in ("objective", "customer"))
        return build_report(board.store, when, period, by, objective, customer)
    except ValueError as error:
        raise ProblemError(400, str(error)) from None


# ---- pages


def _show_board(board: Board, request: Request, snapshot: BoardSnapshot) -> str:
    _check_names(request, "objective", "level", "priority", "search", "cursor")
    versions = board.store.read_versions()
    wanted = _parse_filter(request, versions)._replace(state="open")
    lines = board.list_lines(wanted, PAGE_SIZE + 1, _parse_cursor(request), snapshot.now)
    others: list[tuple[str, str | None]] = [("First page", None)] if "cursor" in request.query_params else []
    if len(lines) > PAGE_SIZE:
        others.append((f"Next {PAGE_SIZE}", _encode_cursor(lines[PAGE_SIZE - 1].mark)))
    return pages.render_board(
        snapshot,
        policy=_get_policy_in_force(versions, snapshot.now),
        wanted=wanted,
        lines=lines[:PAGE_SIZE],
        tallies=board.count_tallies(snapshot.now),
        breaches=request.state.breaches,
        newest=request.state.newest,
        pages=others,
    )


def _show_ticket(board: Board, request: Request, snapshot: BoardSnapshot) -> str:
    ticket, when = request.query_params.get("id", ""), _parse_point_in_time(request, snapshot.now)
    explained = explain_ticket(board.store, ticket, when) if _is_id(ticket) else None
    if explained is None:
        raise _build_unknown_ticket(ticket)
    given = {name: request.query_params.get(name, "") for name in ("as_of", "known_at")}
    lines = [build_line(status, when.at) for status in explained.status.promises]
    return pages.render_ticket(snapshot, explained, lines, given)


def _show_report(board: Board, request: Request, snapshot: BoardSnapshot) -> str:
    report = _build_asked_report(board, request, snapshot, default_by="objective,level,priority")
    given = {name: request.query_params.get(name) for name in ("as_of", "known_at")}
    objectives = dict.fromkeys(name for version in board.store.read_versions() for name in version.policy.objectives)
    return pages.render_report(snapshot, report, given, [*objectives])


def _show_policy(board: Board, request: Request, snapshot: BoardSnapshot) -> str:
    versions = board.store.read_versions()
    policy = _get_policy_in_force(versions, snapshot.now)
    if name := request.query_params.get("version"):
        try:
            policy = versions.get_named(name)
        except KeyError as error:
            raise ProblemError(404, str(error.args[0])) from None
    year = _parse_number(request, "year", snapshot.now.astimezone(get_zone(policy.zone)).year, 2100, least=2000)
    return pages.render_policy(snapshot, policy, list(versions), year)


# ---- what a request says


FILTERS = {"level": "service_level"} | {
    name: name for name in ("objective", "priority", "customer", "team", "state", "search")
}
"""Parameters that choose promises, and what they are called in a PromiseFilter."""


def _check_names(request: Request, *known: str) -> None:
    """Refuse a parameter that would be ignored."""
    for name in request.query_params:
        if name not in known:
            raise ProblemError(400, f"parameter {quote_value(name)} is not known; there are {', '.join(known)}")


def _parse_filter(request: Request, versions: Versions) -> PromiseFilter:
    given = {name: request.query_params.get(parameter) or None for parameter, name in FILTERS.items()}
    wanted = PromiseFilter(**given)
    try:
        check_filter(wanted, versions, STATES)
    except ValueError as error:
        raise ProblemError(400, str(error)) from None
    return wanted


def _parse_number(request: Request, name: str, default: int, most: int, least: int = 1) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0
    if not least <= number <= most:
        raise ProblemError(400, f"{name} {quote_value(given)} is not a number from {least} to {most}")
    return number


def _encode_cursor(mark: PageMark) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(mark)).decode().rstrip("=")


def _parse_cursor(request: Request) -> PageMark | None:
    given = request.query_params.get("cursor")
    if given is None:
        return None
    try:
        mark = msgspec.json.decode(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)), type=PageMark)
        numbers_fit = abs(mark.until or 0) < 2**63 and abs(mark.cycle) < 2**31
        if not ((mark.ticket + mark.objective).isprintable() and numbers_fit):
            raise ValueError("no store can have it")
        return mark
    except (ValueError, msgspec.MsgspecError):
        raise ProblemError(
            400, f"cursor {quote_value(given)} is not one of ours; take `next` of an answer, or none"
        ) from None


def _split_path(request: Request, prefix: str) -> tuple[str, str | None]:
    """Return the ticket in a path, which may have a percent-encoded slash, and what follows the next slash."""
    raw: bytes = request.scope["raw_path"]
    token, slash, rest = raw.partition(b"?")[0][len(prefix) :].partition(b"/")
    try:
        return unquote_to_bytes(token).decode(), rest.decode("ascii", "replace") if slash else None
    except UnicodeDecodeError:
        raise _build_unknown_ticket(token.decode("ascii", "replace")) from None


def _parse_point_in_time(request: Request, now: datetime) -> PointInTime:
    try:
        return PointInTime(_parse_time(request, "as_of"), _parse_time(request, "known_at"), now)
    except ValueError as error:
        raise ProblemError(400, str(error)) from None


def _parse_time(request: Request, name: str) -> datetime | None:
    given = request.query_params.get(name)
    if not given:
        return None
    try:
        return parse_instant(given)
    except ValueError as error:
        raise ProblemError(400, f"{name}: {error}") from None


def _is_id(ticket: str) -> bool:
    return 1 <= len(ticket) <= 128 and ticket.isprintable()


def _build_unknown_ticket(ticket: str) -> ProblemError:
    return ProblemError(
        404, f"nothing is known of a ticket {quote_value(ticket)}; see that its id is written as its helpdesk does"
    )


def _get_policy_in_force(versions: Versions, now: datetime) -> Policy:
    if not len(versions):
        raise ProblemError(503, "no policy is published yet; start intake", {"Retry-After": "1"})
    return versions.get_in_force(now)
