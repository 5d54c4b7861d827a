"""A browser that reports whatever it should not do, and engines for it to look at."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page

from services.runtime.settings import SHIPPED_POLICIES
from tests.support.bus import now

CHROMIUM = Path("/usr/bin/chromium")
ARTEFACTS = Path(__file__).parents[2] / "build" / "board"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WALL = {"width": 1920, "height": 1080}
PHONE = {"width": 360, "height": 740}


@asynccontextmanager
async def look_at(
    browser: Browser,
    url: str,
    path: str = "/",
    *,
    script: str = "",
    status_may_be: int | None = None,
    away: bool = False,
    **options: Any,
) -> AsyncIterator[Page]:
    """
    A page. Afterwards it must have asked nobody else, shown no dialog, and complained about nothing, but that it was
    answered with this status, or not at all if the server may be `away`. `script` runs in it before ours.
    """
    context = await browser.new_context(**{"viewport": WALL, "color_scheme": "dark", **options})
    await context.add_init_script(script)
    page, wrong = await context.new_page(), list[str]()
    allowed = [f"status of {status_may_be} "] + (["net::ERR_", "status of 503"] if away else [])

    async def dialog(found: Any) -> None:
        wrong.append(f"dialog: {found.message}")
        await found.dismiss()

    page.on("dialog", dialog)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda message: wrong.append(f"console: {message.type} {message.text}"))
    page.on("request", lambda request: wrong.append(f"asked {request.url}") if not is_own(request.url, url) else None)
    page.on("popup", lambda popup: wrong.append(f"opened {popup.url}"))
    try:
        await page.goto(url + path)
        yield page
        assert [each for each in wrong if not any(part in each for part in allowed)] == []
    finally:
        await context.close()


def is_own(asked: str, url: str) -> bool:
    return urlsplit(asked).netloc == urlsplit(url).netloc


def write_policy(folder: Path) -> str:
    """A folder with a policy in which Enterprise is always open, critical is 8 s, and Foundation opens tomorrow."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (
        next(SHIPPED_POLICIES.glob("*.yaml")).read_text(encoding="utf-8").replace("holidays: closed", "holidays: open")
    )
    text = text.replace("critical: 2h", "critical: 8s")
    tomorrow = f"{now() + timedelta(days=1, hours=12):%a}".lower()  # not today, wherever the zone is
    text = text.replace('mon-fri: ["09:00-18:00"]', f'{tomorrow}: ["09:00-18:00"]')
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    return str(folder)


async def take_picture(page: Page, name: str) -> None:
    """Kept in build/board, which git ignores."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png")


def parse_clock(clock: str) -> int:
    """`3:05:12` as seconds, negative with a minus."""
    hours, minutes, rest = map(int, re.findall(r"\d+", clock))
    length = hours * 3600 + minutes * 60 + rest
    return -length if clock.startswith("−") else length


PICTURE = os.environ.get("BOARD_PICTURE")  # where the picture of the README is written to, if it is wanted
