"""The table lab of 05_evaluation in JupyterLab, in a real browser, over the shipped record's values."""

import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator

import pandas as pd
import pytest
from jupyter_lab import WIDTHS, run_all, serving
from PIL import Image

from rmkit import profile
from rmkit.paths import REPOSITORY

RECORD = REPOSITORY / "results" / "reference" / "mini" / "metrics.csv.gz"
TABLE, PLOT = ".widget-html table", ".widget-image"
SIDEWAYS = "(n => n.scrollWidth - n.clientWidth)(document.querySelector('.jp-WindowedPanel-outer'))"


@pytest.fixture(scope="module")
def run() -> Iterator[profile.Profile]:
    """A run of the repository's that has the record's values, and the record beside which it can be set."""
    settings = profile.load("mini").model_copy(update={"name": f"pytest-table-{os.getpid()}"})
    settings.layout.root.mkdir(parents=True)
    settings.layout.metrics.write_bytes(gzip.decompress(RECORD.read_bytes()))
    yield settings
    shutil.rmtree(settings.layout.root)


@pytest.fixture(scope="module")
def address(run: profile.Profile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The notebook's first two cells of code and its lab, served."""
    folder = tmp_path_factory.mktemp("lab")
    text = (REPOSITORY / "rmkit" / "profiles" / "mini.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("name: mini", f"name: {run.name}", 1))
    book = json.loads((REPOSITORY / "notebooks" / "05_evaluation.ipynb").read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    lab = next(cell for cell in code if "table_lab" in "".join(cell["source"]))
    code[0]["source"] = [f"profile = {str(folder / 'mine.yaml')!r}"]
    (folder / "05.ipynb").write_text(json.dumps(book | {"cells": [*code[:2], lab]}))
    with serving(folder) as address:
        yield address


def test_every_control_changes_table_and_plot(
    address: str,
    run: profile.Profile,
    browser,
) -> None:
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    page = context.new_page()
    run_all(page, address, "05.ipynb")
    page.locator(PLOT).wait_for()

    def seen() -> tuple[str, str, str]:
        table = page.locator(TABLE)
        return (
            table.locator("caption").inner_text(),
            table.inner_text(),
            page.locator(PLOT).get_attribute("src"),
        )

    def changes(act, *what: int) -> None:
        """`act` changes caption (0), cells (1) and plot (2), or those that are named."""
        before, end = seen(), time.monotonic() + 40
        act()
        while any(seen()[i] == before[i] for i in what or (0, 1, 2)):
            assert time.monotonic() < end, act
            page.wait_for_timeout(50)

    def menu(name: str, label: str):
        return lambda: page.get_by_label(name, exact=True).select_option(label=label)

    def box(name: str):
        return lambda: page.locator(".widget-checkbox").get_by_label(name, exact=True).click()

    changes(menu("Statistic", "median"))
    changes(menu("Statistic", "difference"))
    changes(menu("Against", "Edges"))
    changes(menu("Statistic", "win rate"))
    changes(menu("Statistic", "mean"))
    changes(menu("Interval", "99%"))
    changes(menu("Interval", "none"))
    changes(menu("Decimals", "1"), 1)
    changes(menu("Clips", "many_small (3)"))
    changes(box("PSNR to truth"), 1, 2)
    changes(menu("Sort by", "PSNR to truth"))
    changes(box("Truth"), 1, 2)
    changes(box("hide what was not run"), 1)
    assert "not run" in seen()[1]
    changes(box("hide what was not run"), 1)
    changes(menu("Interval", "95%"))
    changes(menu("Beside", "mini as shipped"))
    assert "difference" in seen()[1]
    caption = seen()[0]
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for shown in (page.locator(PLOT), page.get_by_label("Statistic", exact=True)):
            shown.scroll_into_view_if_needed()
            page.wait_for_timeout(500)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(SIDEWAYS) == 0
            if folder := os.environ.get("RMKIT_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/table_{width}_{shown.evaluate('e => e.tagName')}.png")

    name = page.get_by_label("File name")
    name.fill("no/such")
    name.press("Tab")
    page.get_by_role("button", name="Export").click()
    page.get_by_text("'no/such' cannot be a file's name").wait_for()
    name.fill("mine")
    name.press("Tab")
    page.get_by_role("button", name="Export").click()
    page.get_by_text("mine.csv").wait_for()
    context.close()

    files = {path.suffix: path for path in (run.layout.tables / "chosen").glob("mine.*")}
    assert set(files) == {".csv", ".md", ".tex", ".png", ".pdf"}
    frame = pd.read_csv(files[".csv"])
    assert set(frame.run) == {run.name, "mini as shipped", "difference"} and set(frame.subset) == {
        "many_small"
    }
    assert frame[frame.run == "difference"].psnr_truth.abs().max() == 0
    assert caption in files[".md"].read_text() and "many_small" in caption
    assert r"many\_small" in files[".tex"].read_text()
    assert Image.open(files[".png"]).width > 900 and files[".pdf"].read_bytes().startswith(b"%PDF")
