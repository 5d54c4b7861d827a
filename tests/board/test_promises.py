"""The board of a policy with several objectives: every page speaks of promises, whatever objective they are of."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from events.times import to_microseconds
from services.board.routes import build_app
from services.board.service import Board
from tests.support.bus import fact, opened, responded, until
from tests.support.objectives import with_objectives
from tests.support.store_log import HOUR, START, Log

pytestmark = [pytest.mark.anyio, pytest.mark.stores]

DAY = timedelta(days=1)
NOW = START + 3 * DAY - HOUR  # Thursday, 08:00


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """The board at NOW: LATE was answered, and its resolution was due two and a half days ago."""
    log = Log(tmp_path_factory.mktemp("promises") / "sla.db", with_objectives("resolution", "next_response"))
    log.take(
        NOW,
        opened("LATE", START, "critical", "enterprise", customer="Nordic Bikes"),
        responded("LATE", START + HOUR / 2),
        opened("DONE", START, "critical", "enterprise"),
        responded("DONE", START + HOUR),
        fact("closed", "DONE", START + 2 * HOUR),
        opened("NEW", NOW - HOUR / 2, "minor", "enterprise"),
        opened("NIGHT", NOW - 12 * HOUR, "minor", "foundation"),
        opened("FRESH", NOW - 20 * HOUR, "serious", "enterprise"),
        responded("FRESH", NOW - 19 * HOUR),
        ticks=["LATE", "DONE", "FRESH"],
    )
    board = Board(log.store, lambda: to_microseconds(NOW))
    run = asyncio.create_task(board.run())
    await until("it has followed", lambda: board.position == log.store.read_head())
    transport = httpx.ASGITransport(build_app(lambda: board, None))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await board.stop()
    log.store.close()


async def read_page(web: httpx.AsyncClient, path: str) -> str:
    answer = await web.get(path)
    assert answer.status_code == 200, answer.text
    return html.unescape(re.sub(r"\s+", " ", answer.text))


def list_rows(page: str) -> list[tuple[str, str]]:
    return re.findall(r'<tr data-ticket="([^"]+)" data-objective="([^"]+)"', page)


def read_tile(page: str, name: str) -> str:
    found = re.search(rf"<dt>{name}</dt><dd>([^<]+)</dd>", page)
    assert found
    return found[1].strip()


def read_cells(page: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Kept and broken by level and priority, where there are any."""
    cells = re.findall(r'data-level="(.+?)" data-priority="(.+?)" data-kept="(\d+)" data-broken="(\d+)"', page)
    assert len(cells) == 9
    return {
        (level, priority): (int(kept), int(broken)) for level, priority, kept, broken in cells if kept + broken != "00"
    }


async def test_a_late_resolution_of_an_answered_ticket_is_on_top(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/")
    assert list_rows(page)[0] == ("LATE", "resolution")
    assert (read_tile(page, "Late"), read_tile(page, "Promises kept")) == ("2", "66.7 %")
    assert read_cells(page) == {("enterprise", "critical"): (3, 1), ("enterprise", "serious"): (1, 1)}
    assert '<td class="promise">resolution</td>' in page
    assert "resolution, enterprise, serious" in page  # of the breaches


async def test_an_objective_can_be_chosen_and_links_keep_it(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/?objective=first_response")
    assert set(list_rows(page)) == {("NEW", "first_response"), ("NIGHT", "first_response")}
    assert (read_tile(page, "Late"), read_tile(page, "Promises kept")) == ("0", "100 %")
    assert read_cells(page) == {("enterprise", "critical"): (2, 0), ("enterprise", "serious"): (1, 0)}
    assert "resolution:" not in page
    for link in ("/?objective=first_response&level=foundation", "/?objective=first_response&priority=minor"):
        assert f'href="{link}"' in page
    assert 'href="/?objective=next_response"' in page
    assert '<input type="hidden" name="objective" value="first_response">' in page


async def test_a_word_is_searched_in_ticket_and_customer_and_stands_in_the_address(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/?search=nordic")
    assert list_rows(page) == [("LATE", "resolution")]
    assert re.search(r'<input type="search" name="search" value="nordic"', page)
    assert 'href="/?level=enterprise&search=nordic"' in page
    assert "No open promise has this" in await read_page(web, "/?search=nobody")


async def test_an_unknown_parameter_is_refused_with_the_known_ones(web: httpx.AsyncClient) -> None:
    answer = await web.get("/?customer=x")
    assert answer.status_code == 400
    assert "there are objective, level, priority, search, cursor" in html.unescape(answer.text)


async def test_outside_support_hours_a_promise_is_closed_and_not_paused(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/?level=foundation")
    assert "closed until 09:00" in page
    assert "paused until" not in page


async def test_a_resolution_is_closed_and_not_answered(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/?objective=resolution")
    assert "resolution: closed in time" in page
    assert "answered" not in page


async def test_a_ticket_has_a_line_for_each_promise(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/ticket?id=LATE")
    lines = re.findall(r"<tr data-ticket.+?</tr>", page)
    cells = [[re.sub("<.+?>", "", cell).strip() for cell in re.findall("<t[dh].*?</t[dh]>", line)] for line in lines]
    assert [(name, state, kept) for name, state, *_, kept in cells] == [
        ("first response", "met", "kept"),
        ("resolution", "breached", "broken"),
    ]
    assert cells[1][4:7] == ["Mon 2 Nov 17:00:00", "71h 00m 00s of 8h 00m 00s", "late −63:00:00"]
    assert "resolution due Mon 2 Nov 17:00:00" in page  # at the head: the promise that is most urgent
    assert "first response: answered in time" in page
    assert "resolution: breached" in page


async def test_the_drawing_of_a_promise_marks_what_fulfilled_it(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/ticket?id=DONE")
    first, resolution = re.findall(r'<svg class="course".+?</svg>', page)
    assert re.findall(r'<text class="answer"[^>]*>([^<]+)', first) == ["responded"]
    assert re.findall(r'<text class="answer"[^>]*>([^<]+)', resolution) == ["closed"]


async def test_the_report_has_the_late_resolution_as_the_api_does(web: httpx.AsyncClient) -> None:
    page = await read_page(web, "/report")
    rows = re.findall(
        r'<tr data-kept="(\d+)" data-broken="(\d+)" data-objective="(\w+)" data-level="(\w+)" data-priority="(\w+)"',
        page,
    )
    answer = (await web.get("/api/report?by=objective,level,priority")).json()
    columns = ("kept", "broken", "objective", "service_level", "priority")
    assert rows == [tuple(str(row[name]) for name in columns) for row in answer["rows"]]
    assert ("1", "1", "resolution", "enterprise", "critical") in rows
    assert "50.0 %" in page


async def test_the_csv_of_a_report_keeps_what_was_asked(web: httpx.AsyncClient) -> None:
    asked = "period=2026-11&objective=resolution&customer=Nordic+Bikes&by=level,priority"
    page = await read_page(web, f"/report?{asked}")
    (link,) = re.findall(r'href="(/report\.csv[^"]+)"', page)
    assert link == f"/report.csv?{asked}"
    assert 'href="/report?period=2026-11&objective=resolution&customer=Nordic+Bikes&by=level"' in page
    answer = await web.get(link)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, line = answer.text.splitlines()
    assert (header[:37], line[:24]) == ("service_level,priority,promises,kept,", "enterprise,critical,1,0,1"[:24])


@pytest.mark.parametrize("path", ["/report", "/report.csv"])
async def test_a_report_refuses_what_it_does_not_know(web: httpx.AsyncClient, path: str) -> None:
    for asked, hint in (("period=soon", "write 2026-10"), ("team=x", "there are period, by, objective, customer")):
        answer = await web.get(f"{path}?{asked}")
        assert answer.status_code == 400
        assert hint in html.unescape(answer.text)
