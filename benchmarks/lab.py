"""How fast the ablation lab of 03 answers, in a real browser, beside what is asked of it on two laptop cores.

Reads a finished run (--profile mini); needs playwright and chromium (`make browser`). What it generates it deletes again.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests"))
ASKED = {"edge threshold shown": 0.3, "clip generated": 8.0, "known clip shown": 0.5}  # seconds
# A mouse that only passes over is not meant.
CLOCK = """([heading, event]) => {
  window.began = window.ended = 0;
  const head = [...document.querySelectorAll('.rmkit-head')].find(h => h.querySelector('b').innerText === heading);
  const picture = head.parentElement.querySelector('img');
  document.addEventListener(event, e => {
    if (!window.began && (event !== 'mousemove' || e.buttons)) window.began = performance.now();
  }, true);
  new MutationObserver((_, observer) => { window.ended = performance.now(); observer.disconnect(); })
    .observe(picture, {attributes: true, attributeFilter: ['src']});
}"""
PARTS = (0.9, 0.6, 0.8, 0.5, 0.7)  # of the thresholds' range, where the upper one is put


def measure(name: str) -> dict[str, list[float]]:
    """Seconds from a control moved to the picture changed, by what is measured; the model is loaded before."""
    from jupyter_lab import run_all, serving
    from lab_page import LabPage, write_notebook
    from playwright.sync_api import sync_playwright
    from real_browser import CHROMIUM

    folder = Path(tempfile.mkdtemp())
    notebook = write_notebook(folder, name)
    try:
        with sync_playwright() as playwright, serving(folder) as address:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            run_all(page, address, notebook)
            return _timed(LabPage(page))
    finally:
        shutil.rmtree(folder)


def _timed(lab) -> dict[str, list[float]]:
    lab.wait("the run's own")
    lab.changes(lambda: lab.menu("Edge detector", "canny"), "Control video")
    moved = [
        _seconds(lab, "Control video", "mousemove", lambda part=part: lab.drag("Thresholds", part, 1))
        for part in PARTS
    ]
    seeds, generated = [str(int(time.time()) + i) for i in range(3)], []
    for seed in seeds:
        lab.type("Seed", seed)
        lab.wait("Not generated yet")
        generated.append(_seconds(lab, "Result", "click", lambda: lab.press("Generate this clip")))
        lab.wait("from the lab's store")
    shown = [_seconds(lab, "Result", "change", lambda seed=seed: lab.type("Seed", seed)) for seed in seeds]
    return dict(zip(ASKED, (moved, generated[1:], shown), strict=True)) | {
        "first clip, VACE loaded": generated[:1]
    }


def _seconds(lab, heading: str, event: str, act: Callable[[], None]) -> float:
    """From the first such event in the page to another picture under a heading, by the page's own clock."""
    lab.page.evaluate(CLOCK, [heading, event])
    lab.changes(act, heading)
    seconds = lab.page.evaluate("(window.ended - window.began) / 1000")
    lab.page.wait_for_timeout(1000)  # until the page is at rest
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="mini")
    name = parser.parse_args().profile
    made = profiles.load(name).layout.root / "lab" / "clips"
    before = set(made.rglob("*"))
    try:
        found = measure(name)
    except ImportError as error:
        raise InputError(f"{error}: `make browser` installs what this needs.") from None
    finally:
        for path in set(made.rglob("*")) - before:
            if path.is_file():
                path.unlink()
    for what, seconds in found.items():
        asked = f"asked: {ASKED[what]:g} s" if what in ASKED else ""
        print(f"{what:24} {statistics.median(seconds):6.2f} s, at most {max(seconds):6.2f} s   {asked}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
