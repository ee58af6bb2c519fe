"""index.html opened from the disk in a real browser: videos play, tables stay in view, nothing scrolls sideways."""

from pathlib import Path

import pytest
from test_page import RECORD
from test_report import finished  # noqa: F401

from rmkit import profile
from rmkit.evaluation import report

# Cells that are taller than two of their lines.
TALL = """() => [...document.querySelectorAll("td, th")].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const boxes = [...range.getClientRects()], line = parseFloat(getComputedStyle(cell).lineHeight);
  const height = Math.max(...boxes.map(b => b.bottom)) - Math.min(...boxes.map(b => b.top));
  return boxes.length && height > 2.4 * line;
}).map(cell => cell.innerText)"""


@pytest.mark.parametrize("which", ["run", "record"])
def test_the_page(which: str, visit, request: pytest.FixtureRequest) -> None:
    folder = RECORD
    if which == "run":
        made: profile.Profile = request.getfixturevalue("finished")
        report.write(made)
        folder = made.layout.root
    page = visit((folder / "index.html").as_uri())
    width = page.viewport_size["width"]
    for folded in page.locator("summary").all():
        folded.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TALL) == []
    # Table 1 with the paper's columns is on one screen.
    first = page.locator("section#table-1 .scroll").first
    if width == 1440:
        assert first.evaluate("box => box.scrollWidth <= box.clientWidth")
    # A table's header and first column stay where they are.
    wide = page.locator("section#what-is-claimed-and-what-came-out .scroll").first
    place = "box => [box.getBoundingClientRect().top - box.querySelector('th').getBoundingClientRect().top]"
    before = wide.evaluate(place)
    wide.evaluate("box => { box.scrollTop = 200; box.scrollLeft = 200; }")
    assert wide.evaluate(place) == before
    if which == "run":
        _plays(page)


def test_every_link_opens(visit, finished: profile.Profile) -> None:  # noqa: F811
    report.write(finished)
    index = finished.layout.root / "index.html"
    page = visit(index.as_uri())
    pictures = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert page.evaluate("document.images.length") and page.evaluate(pictures) == []
    for link in page.eval_on_selector_all("a", "links => links.map(link => link.href)"):
        path = Path(link.removeprefix("file://").partition("#")[0])
        if path.suffix == ".html":
            assert page.goto(link) is not None or link.startswith(index.as_uri())
        assert path.exists()


def _plays(page) -> None:
    """A video plays; all play together; the slider goes to a moment."""
    videos = page.locator("video")
    assert videos.count() == 2
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(v => v.videoWidth > 0 && v.duration > 0)"
    )
    page.get_by_role("button", name="Play all").click()
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(v => !v.paused && v.currentTime > 0)"
    )
    page.get_by_role("button", name="Pause all").click()
    slider = page.get_by_label("moment").first
    slider.evaluate("s => { s.value = 0.5; s.dispatchEvent(new Event('input')); }")
    page.wait_for_function(
        "Math.abs(document.querySelector('video').currentTime / document.querySelector('video').duration - 0.5) < 0.1"
    )
