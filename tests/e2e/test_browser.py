"""The board as people see it: what is published is there within a second, counts down, turns red, and moves."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from nats.aio.client import Client
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.browser import CHROMIUM, PHONE, PICTURE, QUIET, look_at, parse_clock, take_picture, write_policy
from tests.support.bus import (
    Service,
    Up,
    ago,
    announced,
    connected,
    deployment,
    fact,
    free_port,
    nats_server,
    now,
    opened,
    publish,
    responded,
    subscribed,
    up,
)
from tests.support.store_log import Log

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("e2e")]

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//",
    "\"><script>alert(1)</script>",
    "'><script>alert(1)</script>",
    "\" autofocus onfocus=alert(1) x=\"",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content=0;url=https://evil.example>",
    "<style>@import 'https://evil.example'</style>",
    "<form action=https://evil.example><button>x",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "${alert(1)}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\\u003cscript\\u003ealert(1)",
    "<math><mtext></p><script>alert(1)</script>",
]  # fmt: skip


STORY = "/ticket?id=ACME-4200"
TOO_WIDE = (  # what does not fit where it is, and cannot be scrolled there
    "[...document.querySelectorAll('section, .tiles > div, .tickets :is(th, td), .news li')]"
    ".filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 200))"
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing; apt-get install chromium")
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        await found.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("e2e")
    with up(folder, SLA_POLICY_DIR=write_policy(folder / "policy")) as running:
        yield running


def find_row(page: Page, ticket: str) -> Any:
    return page.locator(f'tr[data-ticket="{ticket}"]')


async def read_state(page: Page, ticket: str) -> tuple[str, str, int]:
    """Its colour, its words, and the seconds left."""
    found = await find_row(page, ticket).evaluate(
        "r => [r.dataset.state, r.querySelector('.note').textContent, r.querySelector('.clock').textContent]"
    )
    return found[0], found[1], parse_clock(found[2])


def test_there_are_thirty_hostile_strings() -> None:
    assert len(set(HOSTILE)) == 30


async def test_a_ticket_is_there_within_a_second_counts_warns_turns_red_and_an_answer_moves_it(
    live: Up, browser: Browser
) -> None:
    async with connected(live.nats_url) as nc, look_at(browser, live.http_url) as page:
        await expect(page.locator("#link")).to_have_text("live")
        began = time.monotonic()
        await publish(nc, opened("LIFE", now()))
        await expect(find_row(page, "LIFE")).to_be_visible(timeout=1_000)
        assert time.monotonic() - began < 1

        colour, words, left = await read_state(page, "LIFE")
        assert (colour, words) == ("ok", "")
        assert 5 <= left <= 8
        await expect(find_row(page, "LIFE").locator(".clock")).to_have_text("0:00:04", timeout=5_000)
        await expect(find_row(page, "LIFE")).to_have_attribute("data-state", "risk", timeout=5_000)
        assert (await read_state(page, "LIFE"))[1] == "at risk"
        await expect(find_row(page, "LIFE")).to_have_attribute("data-state", "late", timeout=5_000)
        assert (await read_state(page, "LIFE"))[1] == "late"
        red = await find_row(page, "LIFE").locator(".clock").evaluate("e => getComputedStyle(e).color")
        assert red == "rgb(255, 138, 128)"
        await expect(page.locator("#told")).to_have_text("LIFE, first response: breached")
        await expect(page.locator(".tiles .late dd")).to_have_text("1")
        await expect(find_row(page, "LIFE").locator(".clock")).to_have_text("−0:00:02", timeout=5_000)

        await publish(nc, responded("LIFE", now()))
        await expect(find_row(page, "LIFE")).to_have_count(0, timeout=1_000)
        await expect(page.locator(".tiles .late dd")).to_have_text("0")
        await expect(page.locator("#newest + .news li", has_text="LIFE").first).to_contain_text("answered late")


async def test_a_countdown_stands_still_outside_support_hours(live: Up, browser: Browser) -> None:
    async with connected(live.nats_url) as nc, look_at(browser, live.http_url) as page:
        await publish(nc, opened("NIGHT", now(), "serious", "foundation"))
        await expect(find_row(page, "NIGHT")).to_be_visible()
        colour, words, left = await read_state(page, "NIGHT")
        assert (colour, left) == ("ok", 8 * 3600)
        assert re.fullmatch(r"closed until \w{3} 09:00", words)
        await page.wait_for_timeout(2_500)
        assert await read_state(page, "NIGHT") == (colour, words, left)


async def test_a_wrong_clock_of_the_browser_does_not_matter(live: Up, browser: Browser) -> None:
    wrong = "const real = Date.now; Date.now = () => real() + 7 * 3600e3"
    async with connected(live.nats_url) as nc:
        await publish(nc, opened("CLOCK", now(), "minor"))
        async with look_at(browser, live.http_url) as right, look_at(browser, live.http_url, script=wrong) as other:
            await expect(find_row(right, "CLOCK")).to_be_visible()
            await expect(find_row(other, "CLOCK")).to_be_visible()
            assert abs((await read_state(right, "CLOCK"))[2] - (await read_state(other, "CLOCK"))[2]) <= 1


async def test_filters_live_in_the_address(live: Up, browser: Browser) -> None:
    async with connected(live.nats_url) as nc, look_at(browser, live.http_url) as page:
        await publish(
            nc,
            opened("F-1", now(), "minor"),
            opened("F-2", now(), "serious"),
            opened("F-3", now(), "minor", "foundation"),
        )
        await expect(find_row(page, "F-3")).to_be_visible()
        await page.get_by_role("link", name="minor", exact=True).click()
        await page.get_by_role("link", name="enterprise", exact=True).click()
        await page.wait_for_url("**/?level=enterprise&priority=minor")
        await expect(find_row(page, "F-1")).to_be_visible()
        for other in ("F-2", "F-3"):
            await expect(find_row(page, other)).to_have_count(0)
        await page.reload()
        await expect(page.locator('.filter [aria-current="true"]')).to_have_text(["enterprise", "minor"])
        await publish(nc, opened("F-4", now(), "minor"), opened("F-5", now(), "serious"))
        await expect(find_row(page, "F-4")).to_be_visible(timeout=1_500)
        await expect(find_row(page, "F-5")).to_have_count(0)


async def test_who_reconnects_after_a_restart_of_the_server_has_lost_nothing(tmp_path: Path, browser: Browser) -> None:
    async with nats_server(tmp_path / "nats") as server, deployment(tmp_path, server) as deployed:
        engine, port = deployed.run("intake", "clock", "announcer"), str(free_port())
        board = Service(deployed.run("board", SLA_HTTP_PORT=port).process, f"http://127.0.0.1:{port}")
        try:
            await engine.ready()
            await board.ready()
            async with connected(server.url) as nc, look_at(browser, board.http_url, away=True) as page:
                await page.evaluate(
                    "window.told_of = []; document.addEventListener('news', "
                    "(told) => told_of.push(...told.detail.events.map((event) => event.ticket_id)))"
                )
                await publish(nc, opened("BEFORE", now(), "minor"))
                await expect(find_row(page, "BEFORE")).to_be_visible()
                board.process.kill()
                await expect(page.locator("#link")).to_have_text("not connected, trying again")
                missed = [f"MISSED-{n}" for n in range(30)]
                await publish(nc, *(opened(ticket, now(), "minor") for ticket in missed))
                await announced(nc, deployed.store)
                board = Service(deployed.run("board", SLA_HTTP_PORT=port).process, board.http_url)
                await expect(page.locator("#link")).to_have_text("live", timeout=20_000)
                await expect(find_row(page, "MISSED-29")).to_be_visible()
                for ticket in missed:
                    await expect(find_row(page, ticket)).to_have_count(1)
                assert await page.evaluate("told_of") == ["BEFORE", *missed]
            board.process.end()
            engine.process.end()
        finally:
            for service in (board, engine):
                service.process.kill()


async def test_a_page_that_is_refused_tries_again(live: Up, browser: Browser) -> None:
    """A browser gives up on events that are answered with an error, as a board that starts does, or a proxy."""
    async with look_at(browser, live.http_url, away=True) as page:
        await expect(page.locator("#link")).to_have_text("live")
        await page.route("**/events*", lambda route: route.fulfill(status=503))
        await page.evaluate("begin()")
        await expect(page.locator("#link")).to_have_text("not connected, trying again")
        await page.unroute("**/events*")
        await expect(page.locator("#link")).to_have_text("live", timeout=10_000)


async def test_ten_thousand_open_tickets_stay_usable(tmp_path: Path, browser: Browser) -> None:
    async with nats_server(tmp_path / "nats") as server, deployment(tmp_path, server) as deployed:
        await asyncio.to_thread(_fill, Log(tmp_path / "sla.db"))
        board = deployed.run("board")
        try:
            await board.ready()
            began = time.monotonic()
            async with look_at(browser, board.http_url) as page:
                await expect(page.locator("#waiting .count")).to_have_text("10000")
                print(f"10,000 open tickets: the first page after {time.monotonic() - began:.2f} s", end="")
                assert time.monotonic() - began < 2
                await expect(page.locator("tr[data-ticket]")).to_have_count(100)
                cost = await page.evaluate(
                    "() => { const began = performance.now(); for (let n = 0; n < 20; n++) tick(); "
                    "return (performance.now() - began) / 20 }"
                )
                print(f", a tick of all countdowns {cost:.1f} ms", end="")
                assert cost < 50
                first = await page.locator("tr[data-ticket]").first.get_attribute("data-ticket")
                began = time.monotonic()
                await page.get_by_role("link", name="Next 100").click()
                await expect(find_row(page, str(first))).to_have_count(0)
                print(f", the next page after {time.monotonic() - began:.2f} s")
                await expect(page.locator("tr[data-ticket]")).to_have_count(100)
                await page.get_by_role("link", name="First page").click()
                await expect(find_row(page, str(first))).to_be_visible()
            board.process.end()
        finally:
            board.process.kill()


def _fill(log: Log) -> None:
    tickets = [opened(f"N-{n}", ago(seconds=n / 10), "minor") for n in range(10_000)]
    for start in range(0, len(tickets), 500):
        log.take(now(), *tickets[start : start + 500])
    log.store.close()


async def _publish_hostile(nc: Client, running: Up) -> None:
    for text in HOSTILE:
        await publish(
            nc,
            opened(text, now(), "minor", customer=text),
            fact("escalated", text, now(), reason=text),
            fact("paused", text, now(), reason=text),
        )
    await publish(nc, *(fact("closed", text, now(), reason=text) for text in HOSTILE[::2]))
    await announced(nc, running.store)


async def test_hostile_strings_are_text_on_every_page(live: Up, browser: Browser) -> None:
    async with connected(live.nats_url) as nc:
        await _publish_hostile(nc, live)
        async with look_at(browser, live.http_url) as page:
            await expect(page.locator("tr[data-ticket]", has_text=HOSTILE[-1]).first).to_be_visible()
            shown = await page.locator("tr[data-ticket] bdi").all_text_contents()
            assert set(HOSTILE[1::2]) <= set(shown)
            for text in HOSTILE:
                await page.goto(f"{live.http_url}/ticket?id={quote(text, safe='')}")
                await expect(page.locator("h1 bdi")).to_have_text(text)
                await expect(page.locator("#link")).to_have_text("live")
        async with look_at(browser, live.http_url, status_may_be=404) as page:
            for text in HOSTILE:
                await page.goto(f"{live.http_url}/ticket?id=NOT-{quote(text, safe='')}")
                await expect(page.locator("h1")).to_have_text("Not Found")


async def test_everything_can_be_reached_with_the_keyboard(live: Up, browser: Browser) -> None:
    async with connected(live.nats_url) as nc, look_at(browser, live.http_url) as page:
        await publish(nc, opened("KEY-1", ago(hours=7), "minor"), opened("KEY-2", ago(hours=6), "minor"))
        await expect(find_row(page, "KEY-2")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for _ in range(11):  # the filters and the search
            await page.keyboard.press("Tab")
        focused = page.locator("tr a:focus")
        await expect(focused).to_have_count(1)
        outline = await focused.evaluate("e => getComputedStyle(e).outlineStyle")
        assert outline == "solid"
        before = await focused.text_content()
        await page.keyboard.press("ArrowDown")
        assert await focused.text_content() != before
        await page.keyboard.press("ArrowUp")
        await expect(focused).to_have_text(str(before))
        await publish(nc, opened("KEY-3", now(), "minor"))
        await expect(find_row(page, "KEY-3")).to_be_visible()
        await expect(focused).to_have_text(str(before))  # a new page in its place does not take the focus away
        await page.keyboard.press("Enter")
        await expect(page.locator("h1 bdi")).to_have_text(str(before))


async def test_it_can_be_read_from_five_metres_and_on_a_phone_and_moves_nothing_for_those_who_ask(
    live: Up, browser: Browser
) -> None:
    async with connected(live.nats_url) as nc:
        await publish(nc, opened("SIZE-" + "X" * 120, ago(hours=1), "minor"), opened("SIZE", ago(hours=1), "serious"))
        await announced(nc, live.store)
    pages = ("/", "/report", "/ticket?id=SIZE", f"/ticket?id=SIZE-{'X' * 120}", "/policy", "/nothing")
    async with look_at(browser, live.http_url) as page:
        size = "(e) => parseFloat(getComputedStyle(e).fontSize)"
        assert await page.locator(".tiles dd").first.evaluate(size) >= 72
        assert await page.locator("tr .clock").first.evaluate(size) >= 30
        assert await page.locator("tbody .ticket").first.evaluate(size) >= 22
    for width in (360, 600, 800, 1100, 1290, 1440, 1920, 3840):
        async with look_at(browser, live.http_url, status_may_be=404, viewport={"width": width, "height": 800}) as page:
            for path in pages:
                await page.goto(live.http_url + path)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert await page.evaluate(TOO_WIDE) == [], (path, width)
    async with look_at(browser, live.http_url, reduced_motion="reduce") as page:
        moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none').length"
        await page.evaluate("for (const r of document.querySelectorAll('tr[data-ticket]')) r.classList.add('new')")
        assert await page.evaluate(moving) == 0


async def test_pictures(tmp_path: Path, browser: Browser) -> None:
    """Of a support desk on an ordinary day, kept in build/board."""
    with up(tmp_path) as running:
        async with connected(running.nats_url) as nc, subscribed(nc):
            await _publish_desk(nc)
            await announced(nc, running.store)
        for name, path, options in (
            ("board-dark", "/", {}),
            ("board-light", "/", {"color_scheme": "light"}),
            ("board-phone", "/", {"viewport": PHONE, "is_mobile": True}),
            ("ticket-dark", STORY, {}),
            ("ticket-light", STORY, {"color_scheme": "light"}),
            ("ticket-phone", STORY, {"viewport": PHONE, "is_mobile": True}),
            ("policy", "/policy", {"color_scheme": "light", "viewport": {"width": 1440, "height": 1000}}),
        ):
            async with look_at(browser, running.http_url, path, **options) as page:
                await expect(page.locator("#link")).to_have_text("live")
                await take_picture(page, name)
        if PICTURE:
            async with look_at(browser, running.http_url, viewport={"width": 1440, "height": 810}) as page:
                await expect(page.locator("#link")).to_have_text("live")
                assert len(await page.screenshot(path=PICTURE)) < 200_000


async def _publish_desk(nc: Client) -> None:
    """Tickets of three levels, most of them answered in time."""
    levels, priorities = ("foundation", "professional", "enterprise"), ("critical", "serious", "minor")
    for n in range(90):
        level, priority = levels[n % 3], priorities[n // 3 % 3]
        at = ago(hours=30 - n / 4, minutes=7 * n % 60)
        await publish(nc, opened(f"ACME-{4000 + n}", at, priority, level))
        if n % 30:
            await publish(nc, responded(f"ACME-{4000 + n}", min(now(), at + (now() - at) / (20 if n % 9 else 1.5))))
    for n in range(90, 112):
        at = ago(minutes=(112 - n) * 16)
        await publish(nc, opened(f"ACME-{4000 + n}", at, priorities[n % 3], levels[n * 7 % 3 if n % 4 else 2]))
    await publish(
        nc,
        fact("escalated", "ACME-4105", ago(minutes=5), reason="the customer is blocked"),
        opened("ACME-4200", ago(hours=52), "minor", "professional", channel="email", customer="Nordic Bikes"),
        fact("priority_changed", "ACME-4200", ago(hours=51), priority="serious"),
        fact("escalated", "ACME-4200", ago(hours=29), reason="the shop cannot take orders"),
        responded("ACME-4200", ago(hours=4)),
        fact("priority_changed", "ACME-4200", ago(hours=30), priority="critical"),
    )
