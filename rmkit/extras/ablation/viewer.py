"""The widgets in which a choice is seen, and those by which it is kept (ours)."""

from collections.abc import Callable
from html import escape
from typing import Any

from rmkit.evaluation import sheets
from rmkit.extras.ablation import pictures
from rmkit.extras.ablation.choice import Choice, Condition
from rmkit.extras.ablation.controls import WRAP, control
from rmkit.extras.ablation.pictures import Columns
from rmkit.profile import Profile

# Small clips are enlarged without smoothing: they must not look better than they are.
STYLE = "<style>.rmkit-picture {image-rendering: pixelated; outline: 1px solid #999} .rmkit-head .widget-html-content {line-height: 1.3}</style>"


class Viewer:
    """All columns at one frame, the same for all; a wipe between two; the table of metrics."""

    def __init__(self, profile: Profile, live: Any):
        import ipywidgets as w

        self.live = live  # where the structure is shown by itself
        last = profile.clips.frames - 1
        wide = min(320, max(220, profile.clips.width))
        between = sheets.between(profile)  # not at an anchor, where there is least to see
        self.frame = control(w.IntSlider, "Frame", max=last, value=between[len(between) // 2])
        self.play = w.Play(max=last, value=self.frame.value, interval=125, repeat=True, show_repeat=False)
        w.jslink((self.play, "value"), (self.frame, "value"))
        self.zoom = control(w.IntSlider, "Zoom", min=120, max=960, step=20, value=wide, readout_format="d")
        self.line = w.Image(layout={"width": "100%", "height": "12px", "max_width": "960px"})
        self.line.add_class("rmkit-picture")
        self.panels: dict[str, tuple[Any, Any]] = {}
        self.flow = w.Box(layout=WRAP | {"align_items": "flex-end"})
        self.left, self.right = control(w.Dropdown, "Wipe from"), control(w.Dropdown, "to")
        self.at = control(w.FloatSlider, "Wipe", min=0.0, max=1.0, step=0.01, value=0.5, readout_format=".0%")
        self.wiped = w.Image()
        self.wiped.add_class("rmkit-picture")
        self.table = w.HTML()
        self.whole = w.VBox(
            [
                w.HTML(STYLE),
                w.Box([self.play, self.frame, self.zoom], layout=WRAP),
                *(self.line, self.flow, w.Box([self.left, self.right, self.at], layout=WRAP)),
                *(self.wiped, w.HTML("<b>Metrics</b> of this clip"), self.table),
            ]
        )
        self.shown: Columns = {}
        self.frame.observe(self._draw, "value")
        self.zoom.observe(self._resize, "value")
        for field in (self.left, self.right, self.at):
            field.observe(self._wipe, "value")

    def show(self, choice: Choice, given: Condition, shown: Columns, is_made: bool) -> None:
        """Other columns; is_made: whether there is a result among them."""
        import ipywidgets as w

        self.choice, self.given, self.shown, self.is_made = choice, given, {}, is_made
        if list(self.panels) != list(shown):
            self.panels = {heading: (w.HTML(), w.Image()) for heading in shown}
            for head, picture in self.panels.values():
                head.add_class("rmkit-head")
                picture.add_class("rmkit-picture")
            self.flow.children = [
                w.VBox(pair, layout={"margin": "0 8px 8px 1px"}) for pair in self.panels.values()
            ]
            for field, first in ((self.left, "Render"), (self.right, "Result")):
                kept = field.value if field.value in shown else first
                field.options = list(shown)
                field.value = kept
        self.shown = shown
        self._resize()
        self._draw()

    def _resize(self, _: Any = None) -> None:
        width = f"min(100%, {self.zoom.value}px)"
        for head, picture in self.panels.values():
            head.layout.width, picture.layout.width = f"{self.zoom.value}px", width
            head.layout.max_width = "100%"
        self.wiped.layout.width = f"min(100%, {2 * self.zoom.value}px)"

    def _draw(self, _: Any = None) -> None:
        frame = self.frame.value
        is_kept = not self.given.mask[frame].any()
        for heading, frames in self.shown.items():
            head, picture = self.panels[heading]
            lacks = heading == "Result" and not self.is_made
            anchored = is_kept and not lacks and heading in ("Control video", "Mask", "Result")
            near = min(self.choice.anchors, key=lambda at: abs(at - frame), default="none")
            more = " (an anchor)" if anchored else " (not generated)" if lacks else ""
            more = f": {near}" if heading == "Nearest anchor" else more
            head.value = f"<b>{escape(heading)}</b>{more}"
            shown = frames[frame]
            picture.value = pictures.png(pictures.marked(shown) if anchored else shown)
        self.live.value = pictures.png(self.given.guide[frame])
        self.line.value = pictures.png(pictures.time_line(self.choice, frame))
        self._wipe()

    def _wipe(self, _: Any = None) -> None:
        if self.left.value in self.shown and self.right.value in self.shown:
            one, other = (self.shown[field.value][self.frame.value] for field in (self.left, self.right))
            self.wiped.value = pictures.png(pictures.wipe(one, other, self.at.value))


class Keeping:
    """Pins, the profile, and files."""

    def __init__(self, profile: Profile, *acts: Callable[..., None]):
        import ipywidgets as w

        titles = {"Pin": "thumbtack", "Remove pins": "trash", "Save as profile": "save", "Export": "download"}
        buttons = [w.Button(description=title, icon=icon) for title, icon in titles.items()]
        for button, act in zip(buttons, acts, strict=True):
            button.on_click(act)
        self.label = control(w.Text, "Pin label", placeholder="what differs")
        self.name = control(w.Text, "Profile name", value=f"{profile.name}-mine")
        self.file = control(w.Text, "File name", value="ablation")
        self.said = w.HTML()
        rows = ([self.label, *buttons[:2]], [self.name, buttons[2]], [self.file, buttons[3]])
        self.whole = w.VBox([*(w.Box(row, layout=WRAP) for row in rows), self.said])

    def say(self, text: str) -> None:
        self.said.value = f"<div style='line-height: 1.4'>{text}</div>"
