"""A real browser: playwright with the system's chromium; skipped, with the reason, where there is none."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from jupyter_lab import WIDTHS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Closed with its module: while it is open, nothing else in the process can run an event loop."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without("playwright is not installed (make browser)")
    if not CHROMIUM:
        _without("no chromium on the PATH (Debian and Ubuntu: apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=WIDTHS)
def visit(browser, request: pytest.FixtureRequest) -> Iterator[Callable]:
    """Opens an address in a page of one of WIDTHS; what the page says of errors, or fetches, fails the test."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    context.set_default_timeout(120_000)  # of a machine with other tests on every core
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("requestfailed", lambda asked: wrong.append(f"{asked.url} failed"))
    page.on(
        "request", lambda a: None if a.url.startswith(("file:", "data:", "blob:")) else wrong.append(a.url)
    )

    def visit(address: str):
        page.goto(address)
        return page

    yield visit
    context.close()
    assert not wrong


def _without(why: str) -> None:
    if os.environ.get("RMKIT_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)
