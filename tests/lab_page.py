"""The ablation lab in a page of a browser: its notebook, what it shows, and how its controls are moved."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from rmkit.paths import REPOSITORY

SOURCES = """heads => Object.fromEntries(heads.map(
  head => [head.querySelector('b').innerText, head.parentElement.querySelector('img').src]
))"""


def write_notebook(folder: Path, profile: str) -> str:
    """Write 03 into a folder with the cells that its lab needs, over the results of a profile; returns its name."""
    book = json.loads((REPOSITORY / "notebooks" / "03_propagation_ablations.ipynb").read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    code[0]["source"] = [f"profile = {profile!r}"]
    parts = ("extras.ablation", "open_lab")
    lab = [cell for cell in code if any(part in "".join(cell["source"]) for part in parts)]
    clips = ["from rmkit.kit import widgets\n", "from rmkit.method import sampling\n"]
    clips += ["validation = sampling.load(settings, 'validation')"]
    cells = [*code[:2], code[1] | {"source": clips, "id": "clips"}, *lab]
    (folder / "03.ipynb").write_text(json.dumps(book | {"cells": cells}))
    return "03.ipynb"


class LabPage:
    """The lab on the screen; what is moved is named by its title."""

    def __init__(self, page) -> None:
        self.page = page

    def pictures(self) -> dict[str, str]:
        """The address of each column's picture by its heading, another one for another picture."""
        return self.page.locator(".rmkit-head").evaluate_all(SOURCES)

    def table(self) -> str:
        """The metrics, as text."""
        return self.page.locator(".widget-html table").last.inner_text()

    def wait(self, text: str, seconds: float = 120) -> None:
        """Until a text is on the screen."""
        self.page.get_by_text(text).last.wait_for(timeout=seconds * 1000)

    def settle(self) -> None:
        """Until no picture has changed for a second, on a busy machine too."""
        before = None
        while before != (before := self.pictures()):
            self.page.wait_for_timeout(1000)

    def menu(self, title: str, label: str) -> None:
        self.page.get_by_label(title, exact=True).select_option(label=label)

    def type(self, title: str, text: str) -> None:
        field = self.page.get_by_label(title, exact=True)
        field.fill(text)
        field.press("Tab")

    def slide(self, title: str, key: str = "ArrowRight", times: int = 1, handle: int = 0) -> None:
        slider = self.page.locator(".widget-hslider", has=self.page.get_by_text(title, exact=True))
        for _ in range(times):
            slider.locator(".noUi-handle").nth(handle).press(key)

    def drag(self, title: str, part: float, handle: int = 0) -> None:
        """Pull a slider's handle to a part of its length."""
        slider = self.page.locator(".widget-hslider", has=self.page.get_by_text(title, exact=True))
        slider.locator(".noUi-handle").nth(handle).hover()
        box = slider.locator(".noUi-base").bounding_box()
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
        self.page.mouse.up()

    def press(self, title: str) -> None:
        exactly = re.compile(rf"^\s*{title}\s*$")  # an icon is a part of a button's name
        self.page.locator(".widget-button, .widget-toggle-button").filter(has_text=exactly).click()

    def changes(self, act: Callable[[], None], *what: str, still: tuple[str, ...] = ()) -> float:
        """`act` changes the pictures under these headings, and leaves those of `still` alone; returns the seconds."""
        before, begun = self.pictures(), time.monotonic()
        act()
        while any(self.pictures().get(name) == before.get(name) for name in what):
            assert time.monotonic() < begun + 120, what
            self.page.wait_for_timeout(10)
        now, seconds = self.pictures(), time.monotonic() - begun
        assert all(now[name] == before[name] for name in still)
        return seconds

    def generates(self) -> float:
        """A press on the button gives a result that was not there, and its numbers; returns the seconds."""
        before = self.table()
        self.wait("Not generated yet")
        seconds = self.changes(lambda: self.press("Generate this clip"), "Result", "Difference to render")
        self.wait("from the lab's store")
        assert self.table() != before
        return seconds
