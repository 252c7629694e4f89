"""A real browser for tests: Debian's chromium, headless, driven by Playwright.

`tests/conftest.py` makes these fixtures known everywhere:

* ``browser``: a ``playwright.sync_api.Browser``; nothing of it is left running after the test;
* ``watched_page``: makes a page that keeps what its console and the network said, see `Watched`;
* ``screenshots``: the folder that pictures go into, ``CIQ_SCREENSHOTS`` or the test's own.

A browser lives for one test only: while Playwright's synchronous interface is in use, `asyncio` takes
this thread for one with a running event loop, which no other test must see.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

__all__ = ["Watched", "browser", "screenshots", "watched_page"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """A page and what it did.

    Attributes:
        page: The page.
        errors: Errors and warnings of its console, and uncaught exceptions of its scripts.
        requests: Addresses it asked for, the page itself included.
        failed: Those of them that nobody answered.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


@pytest.fixture
def browser() -> Iterator[Browser]:
    executable = _executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable, args=list(_ARGUMENTS))
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def watched_page(browser: Browser) -> Callable[..., Watched]:
    """Makes a page of a size in pixels; ``offline`` cuts it off from any network, files still open."""

    def make(width: int = 1280, height: int = 900, *, offline: bool = False, dark: bool = False) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=offline,
        )
        context.set_default_timeout(20_000)
        return Watched(context.new_page())

    return make


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("CIQ_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _executable() -> str:
    """Where chromium is; without one the test is skipped, and fails in CI, which must have it."""
    for name in (*_NAMES, "/usr/bin/chromium"):
        found = shutil.which(name)
        if found is not None:
            return found
    message = "chromium is missing; on Debian and Ubuntu: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
