"""The board over HTTP: its API, its pages, news as Server-Sent Events, and who may ask."""

import asyncio
import base64
import json
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.requests import Request

from services.app import SERVICES
from services.board import pages, service
from services.board.routes import OPENAPI, STATIC, is_about_past
from services.board.service import Board, BoardSnapshot, LogTail
from services.runtime.settings import SHIPPED_POLICIES, Settings, load_policy
from sla.policy import Policy
from sla.versions import Versions
from tests.support.bus import (
    PATIENCE,
    SLA,
    Deployment,
    Up,
    ago,
    announced,
    connected,
    deployment,
    environment,
    fact,
    nats_server,
    open_all_hours,
    opened,
    publish,
    responded,
    until,
    up,
)
from tests.support.commands import call
from tests.support.stores import address, new_store

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("board")]

ODD = [
    "a/b", "a/explain", "../../etc/passwd", "100%", "ä ö é", "?x=1&y=2#z", "<script>alert(1)</script>", "'\"`", "日本",
    "%2F",
]  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Answer(NamedTuple):
    """What was answered: headers in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _ask(url: str, path: str, method: str, headers: dict[str, str]) -> Answer:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
    finally:
        connection.close()


async def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """The path is sent as it is, byte for byte."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await asyncio.to_thread(_ask, url, path, method, named)


async def wait_until_shown(url: str, nc: Any, store: Any) -> None:
    """Waits until the board shows all that is stored now."""
    await announced(nc, store)
    newest = (await asyncio.to_thread(store.open)).read_head()
    await until("the board shows all", lambda: _read_position(url) >= newest)


def _read_position(url: str) -> int:
    found = re.search(r'data-position="(\d+)"', _ask(url, "/", "GET", {}).body)
    return int(found[1]) if found else -1


class Live(NamedTuple):
    up: Up
    url: str


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """An engine with tickets in every stage."""
    folder = tmp_path_factory.mktemp("board")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as running:
        asyncio.run(_publish_history(running))
        yield Live(running, running.http_url)


async def _publish_history(running: Up) -> None:
    async with connected(running.nats_url) as nc:
        await publish(
            nc,
            *(opened(f"T-{n}", ago(minutes=n), "minor") for n in range(20)),
            opened("LATE", ago(hours=3)),
            opened("RISK", ago(hours=1.75)),
            opened("FOUNDATION", ago(minutes=1), "serious", "foundation"),
            opened("MET", ago(hours=3)),
            responded("MET", ago(hours=2)),
            opened("CLOSED", ago(hours=1)),
            fact("closed", "CLOSED", ago(minutes=30), reason="<b>spam</b>"),
            fact("escalated", "PENDING", ago(hours=1)),
            opened("WITHDRAWN", ago(hours=3)),
            *(opened(ticket, ago(minutes=1), "serious", customer=ticket) for ticket in ODD),
        )

        async def is_breached() -> bool:
            answer = await ask(running.http_url, "/api/tickets/WITHDRAWN")
            return answer.status == 200 and answer.json["breached"] is True

        await until("WITHDRAWN is breached", is_breached)
        await publish(nc, responded("WITHDRAWN", ago(hours=2)))  # late news
        await wait_until_shown(running.http_url, nc, running.store)


async def list_promises(url: str, query: str = "") -> list[dict[str, Any]]:
    """All pages of a list."""
    found, cursor = [], ""
    while True:
        answer = await ask(url, f"/api/promises?limit=7&{query}{cursor}")
        assert answer.status == 200, answer.body
        found += answer.json["promises"]
        if answer.json["next"] is None:
            return found
        cursor = f"&cursor={answer.json['next']}"


# ---- the API


async def test_open_tickets_come_first_by_time_left_and_every_ticket_comes_once(live: Live) -> None:
    found = await list_promises(live.url)
    assert sorted(t["ticket_id"] for t in found) == sorted(
        [*(f"T-{n}" for n in range(20)), "LATE", "RISK", "FOUNDATION", "MET", "WITHDRAWN", "CLOSED", "PENDING", *ODD]
    )
    waiting = [t for t in found if t["stage"] == "running"]
    assert [t["stage"] for t in found] == [
        *["running"] * len(waiting),
        "pending",
        "cancelled",
        "fulfilled",
        "fulfilled",
    ]
    assert all(one["due_at"] <= other["due_at"] for one, other in pairwise(waiting))
    assert found[0]["ticket_id"] == "LATE"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=pending", {"PENDING"}),
        ("state=fulfilled", {"MET", "WITHDRAWN"}),
        ("state=open&level=foundation", {"FOUNDATION"}),
        ("level=enterprise&priority=critical", {"LATE", "RISK", "MET", "WITHDRAWN", "CLOSED"}),
        ("level=professional", set()),
        ("level=none", {"PENDING"}),
    ],
)
async def test_a_list_can_be_of_a_level_a_priority_and_a_stage(live: Live, query: str, expected: set[str]) -> None:
    assert {ticket["ticket_id"] for ticket in await list_promises(live.url, query)} == expected


AGES = {"at", "elapsed_seconds", "remaining_seconds"}  # what is another one a second later


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/api/tickets/MET", ("show", "MET")),
        ("/api/tickets/MET/explain", ("explain", "MET")),
        ("/api/report?by=level,priority", ("report", "--period", "all", "--by", "level,priority")),
    ],
)
async def test_the_api_says_what_the_command_line_does(live: Live, path: str, command: tuple[str, ...]) -> None:
    said = await asyncio.to_thread(call, *command, "-o", "json", SLA_DATABASE_URL=address(live.up.store))
    found, expected = (await ask(live.url, path)).json, json.loads(said.out)
    assert {name: value for name, value in found.items() if name not in AGES} == {
        name: value for name, value in expected.items() if name not in AGES
    }


async def test_another_time_can_be_asked_about(live: Live) -> None:
    instant = ago(hours=2, minutes=30)
    then = quote(instant.isoformat())
    assert [ticket["ticket_id"] for ticket in await list_promises(live.url, f"as_of={then}")] == [
        "LATE",
        "MET",
        "WITHDRAWN",
    ]
    assert await list_promises(live.url, f"as_of={then}&level=foundation") == []
    found = (await ask(live.url, f"/api/tickets/MET?as_of={then}")).json
    since_opening = (instant - datetime.fromisoformat(found["started_at"])).total_seconds()
    assert (found["stage"], found["elapsed_seconds"]) == ("running", pytest.approx(since_opening, abs=0.001))
    page = (await ask(live.url, f"/ticket?id=MET&as_of={then}")).body
    assert "by what is known now" in page
    assert "data-hours=" not in page  # it does not count
    before = quote((await ask(live.url, "/api/tickets/MET/explain")).json["facts"][0]["recorded_at"])
    known = (await ask(live.url, f"/api/tickets/MET?known_at={before}")).json
    assert (known["stage"], known["facts"]) == ("running", 1)


@pytest.mark.parametrize("ticket", ODD)
async def test_any_id_can_be_asked_for(live: Live, ticket: str) -> None:
    answer = await ask(live.url, f"/api/tickets/{quote(ticket, safe='')}")
    assert (answer.status, answer.json.get("ticket_id")) == (200, ticket)
    page = await ask(live.url, f"/ticket?id={quote(ticket, safe='')}")
    assert page.status == 200


def make_cursor(until: int | None, ticket: str) -> str:
    """As nobody would write it."""
    return base64.urlsafe_b64encode(json.dumps([until, ticket, "first_response", 1]).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/tickets/NOBODY", 404, "'NOBODY'"),
        ("/api/tickets/%FF", 404, "%FF"),
        ("/api/tickets/", 404, "''"),
        ("/api/tickets/LATE/more", 404, "there is nothing at"),
        ("/api/promises?level=gold", 400, "foundation, professional, enterprise"),
        ("/api/promises?priority=urgent", 400, "critical, serious, minor"),
        ("/api/promises?state=late", 400, "open, pending, running"),
        ("/api/promises?objective=joy", 400, "'joy' is not known; it is one of first_response"),
        ("/api/promises?stage=open", 400, "'stage' is not known; there are level, objective"),
        ("/api/report?level=foundation", 400, "'level' is not known; there are period, by, objective, customer"),
        ("/api/report?objective=joy", 400, "'joy' is not known; it is one of first_response"),
        ("/api/promises?limit=0", 400, "1 to 1000"),
        ("/api/promises?limit=x", 400, "1 to 1000"),
        ("/api/promises?cursor=x", 400, "cursor"),
        (f"/api/promises?cursor={make_cursor(2**63, 'a')}", 400, "cursor"),
        (f"/api/promises?cursor={make_cursor(1, chr(0))}", 400, "cursor"),
        (f"/api/promises?cursor={make_cursor(None, 'a')}&as_of=2001-01-01T00:00:00Z", 404, "nothing had happened"),
        ("/api/promises?as_of=yesterday", 400, "as_of: 'yesterday' is not a time"),
        ("/api/tickets/LATE?as_of=2026-13-01T00:00:00Z", 400, "as_of"),
        ("/api/tickets/LATE?as_of=2250-01-01T00:00:00Z", 400, "as_of: "),
        ("/api/promises?as_of=9999-12-31T23:59:59Z", 400, "as_of: "),
        ("/api/tickets/LATE?known_at=2099-01-01T00:00:00Z", 400, "lies ahead"),
        ("/api/tickets/LATE?known_at=2001-01-01T00:00:00Z", 404, "nothing was known of ticket 'LATE'"),
        ("/api/tickets/LATE/explain?as_of=2001-01-01T00:00:00Z", 404, "nothing had happened to ticket 'LATE'"),
        ("/api/tickets/NOBODY/explain", 404, "'NOBODY'"),
        ("/api/promises?as_of=2001-01-01T00:00:00Z", 404, "nothing had happened at 2001"),
        ("/api/report?period=2026-13", 400, "'2026-13' is not a period"),
        ("/api/report?period=soon", 400, "write 2026-10"),
        ("/api/report?by=colour", 400, "objective, level, priority, customer"),
        ("/api/report?known_at=2001-01-01T00:00:00Z", 404, "nothing was known"),
        ("/api/nothing", 404, "/api/openapi.json"),
        ("/ticket?id=NOBODY", 404, "NOBODY"),
        ("/ticket", 404, "nothing is known"),
        ("/ticket?id=LATE&as_of=soon", 400, "is not a time; write one like"),
        ("/ticket?id=LATE&as_of=2001-01-01T00:00:00Z", 404, "nothing had happened"),
        ("/?level=gold", 400, "gold"),
        ("/policy?version=1999", 404, "the versions are"),
        ("/policy?year=x", 400, "2000 to 2100"),
        ("/nothing", 404, "see / for the board"),
    ],
)
async def test_what_is_wrong_is_said_with_what_and_why(live: Live, path: str, status: int, says: str) -> None:
    answer = await ask(live.url, path)
    assert answer.status == status
    if path.startswith("/api"):
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json["status"], answer.json["type"]) == (status, "about:blank")
        assert says in answer.json["detail"]
    else:
        assert answer.headers["content-type"].startswith("text/html")
        assert says in answer.body


async def test_it_can_only_be_read(live: Live) -> None:
    for path in ("/", "/api/promises", "/api/tickets/LATE", "/events", "/api/report"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await ask(live.url, path, method)
            assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"}), path


@pytest.mark.parametrize("path", ["/", "/api/promises", "/policy", "/ticket?id=LATE", "/api/tickets/LATE"])
async def test_an_answer_is_304_until_something_happens(live: Live, path: str) -> None:
    for _ in range(2):  # the first may be at the end of a minute
        first = await ask(live.url, path)
        again = await ask(live.url, path, If_None_Match=first.headers["etag"])
        if again.status == 304:
            break
    assert (again.status, again.body) == (304, "")
    async with connected(live.up.nats_url) as nc:
        await publish(nc, fact("escalated", "T-0", ago(minutes=0)))
        await wait_until_shown(live.url, nc, live.up.store)
    assert (await ask(live.url, path, If_None_Match=first.headers["etag"])).status == 200


@pytest.mark.parts
def test_every_answer_is_as_its_own_description_says(live: Live) -> None:
    import schemathesis  # a second to load, for this test alone
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_url(f"{live.url}/api/openapi.json")
    wanted = [
        *(not_a_server_error, checks.status_code_conformance, checks.content_type_conformance),
        *(checks.response_headers_conformance, checks.response_schema_conformance, checks.unsupported_method),
    ]
    calls = 0
    for path in ("/api/promises", "/api/tickets/{id}", "/api/tickets/{id}/explain", "/api/report"):

        @given(case=schema[path]["GET"].as_strategy())
        @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def conforms(case: schemathesis.Case) -> None:
            nonlocal calls
            calls += 1
            case.call_and_validate(checks=wanted)

        conforms()
    assert calls > 100


def test_the_description_names_every_route_of_the_api(live: Live) -> None:
    assert set(OPENAPI["paths"]) == {"/api/promises", "/api/tickets/{id}", "/api/tickets/{id}/explain", "/api/report"}


# ---- pages


PAGES = (
    "/",
    "/report",
    "/?level=enterprise&priority=serious",
    "/ticket?id=LATE",
    "/policy",
    "/nothing",
    "/ticket?id=NOBODY",
)


@pytest.mark.parametrize("path", [*PAGES, "/api/promises", "/api/nothing", *(f"/static/{name}" for name in STATIC)])
async def test_every_answer_tells_a_browser_to_run_nothing_but_ours(live: Live, path: str) -> None:
    headers = (await ask(live.url, path)).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", [*PAGES, *(f"/ticket?id={quote(ticket)}" for ticket in ODD)])
async def test_no_page_has_a_script_or_a_style_of_its_own(live: Live, path: str) -> None:
    html = (await ask(live.url, path)).body
    assert "<h1" in html
    assert re.findall(r"<script\b[^>]*>", html) == re.findall(r'<script src="/static/board\.js\?\w+" defer>', html)
    assert not re.search(r"<[^>]*\s(on\w+|style)\s*=|<style|javascript:", html)
    assert re.findall(r'(?:href|src)="(?!/|#)', html) == []  # nothing from elsewhere


async def test_free_text_is_text(live: Live) -> None:
    html = (await ask(live.url, "/")).body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>alert" not in html
    closed = (await ask(live.url, "/ticket?id=CLOSED")).body
    assert "&lt;b&gt;spam&lt;/b&gt;" in closed
    assert "<b>" not in closed


def _read_colours() -> Iterator[tuple[str, dict[str, str]]]:
    css = STATIC["board.css"][0].decode()
    dark, light = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    named = dict(re.findall(r"--([\w-]+): (#\w{6});", dark))
    yield "dark", named
    yield "light", named | dict(re.findall(r"--([\w-]+): (#\w{6});", light))


def _measure_luminance(colour: str) -> float:
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


TEXTS = [
    *((text, ground) for text in ("text", "soft", "link") for ground in ("ground", "surface", "raised")),
    *((text, ground) for text in ("late", "risk", "ok") for ground in ("surface", f"{text}-ground")),
    *((text, ground) for text in ("text", "soft") for ground in ("late-ground", "risk-ground")),
    ("late", "ground"),
]


@pytest.mark.parametrize(("theme", "colours"), list(_read_colours()), ids=["dark", "light"])
def test_every_text_stands_out_from_its_ground(theme: str, colours: dict[str, str]) -> None:
    for text, ground in TEXTS:
        one, other = sorted((_measure_luminance(colours[text]), _measure_luminance(colours[ground])), reverse=True)
        assert (one + 0.05) / (other + 0.05) >= 4.5, f"{text} on {ground}, {theme}"


def test_the_policy_page_has_hours_targets_and_the_holidays_of_a_year() -> None:
    shipped = load_policy(SHIPPED_POLICIES)
    html = pages.render_policy(BoardSnapshot(ago(hours=1), 7), shipped, list(Versions.only(shipped)), 2027)
    html = re.sub(r"\s+", " ", html)
    assert "<dt>Mon-Fri</dt><dd>09:00-18:00</dd>" in html
    for day, name in (("Fri 26 Mar", "Good Friday"), ("Mon 29 Mar", "Easter Monday"), ("Sat 25 Dec", "Christmas Day")):
        assert f'<td>{day}</td><th scope="row">{name}</th><td>closed</td><td>all levels</td>' in html
    assert html.count("<td>closed</td>") == 13
    assert '<th scope="row">minor</th><td>24h</td><td>12h</td><td>8h</td>' in html
    assert "<dt>minor</dt><dd>Limited impact, minor feature issues. Examples: UI bugs, non-critical" in html


def test_the_policy_page_has_every_calendar_that_hours_are_joined_of() -> None:
    resolved = load_policy(SHIPPED_POLICIES).to_resolved()
    office = {"hours": {"fri": ["09:00-17:00"]}, "holidays": "closed", "hours_from": {}, "exceptions": {}}
    pune = {**office, "zone": "Asia/Kolkata", "hours": {"fri": ["09:30-18:30"]}, "yearly": {"12-24": ["09:30-12:00"]}}
    resolved["calendars"] = {"office": office, "pune": pune, "follow": {"any_of": ["office", "pune"]}}
    resolved["levels"][0]["hours"] = "follow"
    policy = Policy.from_resolved(resolved)
    html = pages.render_policy(BoardSnapshot(ago(hours=1), 7), policy, list(Versions.only(policy)), 2027)
    for pair in (("Fri", "09:00-17:00"), ("Fri", "09:30-18:30"), ("zone", "Asia/Kolkata")):
        assert "<dt>{}</dt><dd>{}</dd>".format(*pair) in html
    assert re.search(r"<dt>every 24 December</dt><dd>\s*09:30-12:00</dd>", html)
    assert html.count("Christmas Day") == 1


# ---- news


@asynccontextmanager
async def listen(url: str, last: int | None = None) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """What GET /events tells, one after the other."""
    host, port = urlsplit(url).netloc.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    resume = "" if last is None else f"Last-Event-ID: {last}\r\n"
    writer.write(f"GET /events HTTP/1.1\r\nHost: {host}\r\n{resume}\r\n".encode())

    async def told() -> AsyncIterator[dict[str, str]]:
        event: dict[str, str] = {}
        async for raw in reader:
            line = raw.decode().rstrip("\r\n")
            name, found, value = line.partition(": ")
            if found and name in ("id", "event", "data", "retry"):
                event[name] = value
            elif event and line == "":
                yield event
                event = {}

    try:
        async with asyncio.timeout(PATIENCE), aclosing(told()) as events:
            yield events
    finally:
        writer.close()


async def test_news_come_within_a_second_and_who_comes_back_misses_none(live: Live) -> None:
    async with connected(live.up.nats_url) as nc:
        async with listen(live.url) as events:
            assert (await anext(events))["event"] == "beat"
            await publish(nc, opened("NEWS-1", ago(minutes=1)))
            began = asyncio.get_running_loop().time()
            first = await anext(events)
            assert asyncio.get_running_loop().time() - began < 1
        told = json.loads(first["data"])
        assert int(first["id"]) == told["position"]
        assert [(each["ticket_id"], each["event"]) for each in told["events"]] == [("NEWS-1", "applied")]

        await publish(nc, opened("NEWS-2", ago(minutes=1)), opened("NEWS-3", ago(minutes=1)))
        await wait_until_shown(live.url, nc, live.up.store)
        async with listen(live.url, int(first["id"])) as events:
            assert "beat" in (await anext(events)).values()
            missed = json.loads((await anext(events))["data"])
        assert [each["ticket_id"] for each in missed["events"]] == ["NEWS-2", "NEWS-3"]


async def test_who_was_away_for_too_long_is_told_so(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = LogTail()
    monkeypatch.setattr(tail, "newest", type(tail.newest)(maxlen=3))
    store = live.up.store.open()
    tail.apply(store.read_log_rows(0, 50))
    store.close()
    monkeypatch.setattr(service, "MAX_REMEMBERED", 3)
    assert tail.list_between(0, tail.position) is None
    assert len(tail.list_between(tail.newest[0].position, tail.position) or []) == 2
    assert tail.list_between(tail.position + 1, tail.position) is None  # another log


@pytest.mark.parametrize("remembered", [1, 1_000])
async def test_after_a_restart_the_board_knows_the_breaches_of_the_day_that_stand(
    live: Live, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(service, "MAX_REMEMBERED", remembered)
    store = live.up.store.open()
    try:
        one = Board(store)
        run = asyncio.create_task(one.run())
        await until("it has followed", lambda: one.position == store.read_head())
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await one.stop()
    finally:
        store.close()
    assert [news.ticket for news in one.list_breaches()] == ["LATE"]


# ---- who may ask


@asynccontextmanager
async def deploy_boards(folder: Path) -> AsyncIterator[Deployment]:
    async with nats_server(folder / "nats") as server, deployment(folder, server) as deployed:
        yield deployed


@pytest.mark.parts
async def test_with_a_token_only_who_has_it_is_answered(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesam\n")
    async with deploy_boards(tmp_path) as deployed:
        service = deployed.run("intake", "board", SLA_BOARD_TOKEN_FILE=str(tmp_path / "token"))
        try:
            await service.ready()
            url = service.http_url
            basic = base64.b64encode(b"anybody:sesam").decode()
            for good in ("Bearer sesam", "bearer sesam", f"Basic {basic}"):
                assert (await ask(url, "/api/promises", Authorization=good, Host="sla.example")).status == 200
                assert (await ask(url, "/", Authorization=good)).status == 200
            wrong = base64.b64encode(b"sesam:").decode()
            for bad in (
                "Bearer sesamo",
                "Bearer",
                "Bearer ",
                f"Basic {wrong}",
                "Basic ?",
                "Digest sesam",
                "sesam",
                "é",
            ):
                answer = await ask(url, "/api/promises", Authorization=bad)
                assert answer.status == 401, bad
                assert "the token is wrong" in answer.json["detail"]
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["content-type"] == "application/problem+json"
            for path in ("/", "/policy", "/events", "/api/openapi.json", "/static/board.js", "/nothing"):
                refused = await ask(url, path)
                assert refused.status == 401
                assert "there is no token" in refused.body
            for path in ("/metrics", "/health/live", "/health/ready"):
                assert (await ask(url, path)).status == 200
            service.process.end()
        finally:
            service.process.kill()


async def test_without_a_token_it_does_not_start_where_others_could_ask(tmp_path: Path) -> None:
    settings = {"SLA_HTTP_HOST": "0.0.0.0", "SLA_NATS_URL": "nats://127.0.0.1:1", "SLA_DATABASE_URL": "sqlite:///x"}
    command = [SLA, "run", "board"]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=environment(**settings), cwd=tmp_path
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "SLA_BOARD_TOKEN" in line


def test_an_engine_that_others_could_ask_runs_without_a_board_rather_than_not_at_all() -> None:
    assert SERVICES["board"].is_wanted(Settings(http_host="127.0.0.1"))
    assert not SERVICES["board"].is_wanted(Settings(http_host="0.0.0.0"))
    assert SERVICES["board"].is_wanted(Settings(http_host="0.0.0.0", board_token="a long one"))
    assert SERVICES["metrics"].is_wanted(Settings(http_host="0.0.0.0"))


async def test_without_a_token_another_name_of_this_machine_is_refused(live: Live) -> None:
    for host in ("localhost:1", "127.0.0.1", "[::1]:8080"):
        assert (await ask(live.url, "/api/promises", Host=host)).status == 200
    answer = await ask(live.url, "/api/promises", Host="evil.example")
    assert answer.status == 421
    assert "SLA_BOARD_TOKEN" in answer.json["detail"]


@pytest.mark.parts
async def test_while_nats_is_away_the_board_is_still_there(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server, deployment(tmp_path, server) as deployed:
        service = deployed.run("intake", "board")
        try:
            await service.ready()
            await server.stop()
            assert (await ask(service.http_url, "/")).status == 200
            service.process.end()
        finally:
            service.process.kill()


@pytest.mark.parts
async def test_before_it_works_the_board_says_so(tmp_path: Path) -> None:
    service = Deployment(tmp_path, None, None, {"SLA_NATS_URL": "nats://127.0.0.1:1", "SLA_DATABASE_URL": "sqlite:///x"}).run("board")  # type: ignore[arg-type]  # fmt: skip
    try:
        answer = await until("it answers", lambda: _try_to_ask(service.http_url))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "/health/ready" in answer.json["detail"]
        service.process.end()
    finally:
        service.process.kill()


def _try_to_ask(url: str) -> Answer | None:
    try:
        return _ask(url, "/api/promises", "GET", {})
    except OSError:
        return None


# ---- questions about the past


async def test_six_questions_about_the_past_keep_nobody_waiting_who_asks_about_now(tmp_path: Path) -> None:
    board, answered = Board(new_store(tmp_path / "none.db")), threading.Event()  # type: ignore[arg-type]  # asks nothing
    try:
        past = [asyncio.create_task(board.ask(answered.wait, PATIENCE, is_long=True)) for _ in range(6)]
        await asyncio.sleep(0)  # each of them has asked
        async with asyncio.timeout(PATIENCE):
            assert await board.ask(lambda: "now") == "now"
        assert not any(each.done() for each in past)
        answered.set()
        assert await asyncio.gather(*past) == [True] * 6
    finally:
        answered.set()
        await board.stop()


@pytest.mark.parametrize(
    ("path", "query", "is_long"),
    [("/", "", False), ("/api/promises", "as_of=x", True), ("/ticket", "id=T&known_at=x", True), ("/report", "", True)],
)
def test_what_takes_all_of_history_is_a_question_about_the_past(path: str, query: str, is_long: bool) -> None:
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": [], "server": ("x", 80)}
    assert is_about_past(Request(scope)) == is_long
