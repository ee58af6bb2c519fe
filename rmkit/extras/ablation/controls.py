"""The widgets by which a clip's propagation is chosen (ours)."""

from collections.abc import Callable, Sequence
from typing import Any

from rmkit import baselines
from rmkit.extras.ablation import choice as choices
from rmkit.extras.ablation import pictures
from rmkit.extras.ablation.choice import Choice
from rmkit.kit import video
from rmkit.method import anchoring, propagation
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

WRAP = {"flex_flow": "row wrap", "align_items": "flex-start"}
SPACINGS = (0.25, 0.5, 1.0)  # seconds, beside the profile's
THUMB = "72px"


class Controls:
    """Everything that can be chosen of how a clip is generated; `changed` is called after each change."""

    def __init__(self, profile: Profile, clips: Sequence[Clip], changed: Callable[..., None]):
        import ipywidgets as w

        self.profile, self.changed, self.quiet = profile, changed, False
        lines, sampler = profile.structure, profile.propagation
        methods = baselines.every(profile)
        variants = {methods[name].label: name for name in sampler.variants}
        spacings = sorted({sampler.anchor_seconds, *SPACINGS})
        seen = sorted({100, 200, *lines.canny})
        self.clip = control(w.Dropdown, "Clip", 400, options={clip.id: clip for clip in clips})
        self.variant = control(w.Dropdown, "Variant", options=variants)
        self.edges = control(w.Dropdown, "Edge detector", options=["gradient", "canny"], value=lines.edges)
        self.canny = control(w.IntRangeSlider, "Thresholds", min=0, max=max(500, *seen), value=lines.canny)
        # Not None, which a menu takes for nothing chosen.
        brushes = {"as detected": 0, "2 pixels": 2, "3 pixels": 3, "4 pixels": 4}
        brushes |= {f"{lines.thickness} pixels": lines.thickness} if lines.thickness else {}
        self.thickness = control(w.Dropdown, "Thickness", options=brushes, value=lines.thickness or 0)
        self.depth = control(
            w.Dropdown, "Depth source", options=["engine", "depth_anything"], value=lines.depth
        )
        spaced = {f"every {seconds:g} s": seconds for seconds in spacings}
        self.spacing = control(w.Dropdown, "Anchors", options={"ends": 0.0} | spaced)
        slider = {"min": 0.0, "max": 2.0, "step": 0.05, "continuous_update": False}
        self.conditioning = control(w.FloatSlider, "Conditioning", value=sampler.conditioning, **slider)
        self.steps = control(w.IntText, "Steps", 160, value=sampler.steps)
        self.shift = control(w.FloatText, "Shift", 160, value=sampler.shift)
        self.guidance = control(w.FloatText, "Guidance", 160, value=sampler.guidance)
        self.seed = control(w.IntText, "Seed", 160, value=profile.seed)
        self.prompt = w.Textarea(
            description="Prompt", rows=3, continuous_update=False, layout={"width": "min(100%, 620px)"}
        )
        self.prompt.style.description_width = "100px"
        self.generate = w.Button(description="Generate this clip", icon="play", button_style="primary")
        self.generate.layout.width = "max-content"
        self.cancel = w.Button(description="Cancel", icon="stop", disabled=True)
        self.progress = w.FloatProgress(max=1.0, layout={"width": "160px", "visibility": "hidden"})
        self.said = w.HTML()
        self.toggles: dict[int, Any] = {}
        self.times = w.Box(layout=WRAP)
        self.live = w.Image(layout={"width": "220px"})  # the structure, beside what it is made by
        self.live.add_class("rmkit-picture")
        groups = {
            "": [self.clip, self.variant],
            "Structure": [self.edges, self.canny, self.thickness, self.depth],
            "Anchors": [self.spacing],
            "Sampling": [self.conditioning, self.steps, self.shift, self.guidance, self.seed],
        }
        boxes = []
        for title, fields in groups.items():
            boxes += [w.HTML(f"<b>{title}</b>")] if title else []
            if title == "Structure":
                column = w.Box(fields, layout=WRAP | {"flex": "0 1 620px", "width": "auto"})
                boxes.append(w.HBox([column, self.live], layout={"align_items": "flex-start"}))
            else:
                boxes.append(w.Box(fields, layout=WRAP))
            boxes += [self.times] if title == "Anchors" else []
        buttons = w.Box([self.generate, self.cancel, self.progress], layout=WRAP)
        self.whole = w.VBox([*boxes, self.prompt, buttons, self.said])
        self._follow()
        followed = (self.clip, self.variant, self.spacing)
        for field in followed:
            field.observe(self._follow_and_tell, "value")
        for group in groups.values():
            for field in (field for field in group if field not in followed):
                field.observe(self._tell, "value")
        self.prompt.observe(self._tell, "value")

    def chosen(self) -> Choice:
        """What the controls say. Raises InputError for a setting that cannot be."""
        at = tuple(index for index, toggle in self.toggles.items() if toggle.value)
        lines = {
            "edges": self.edges.value,
            "canny": self.canny.value,
            "thickness": self.thickness.value or None,
        }
        sampler = {name: getattr(self, name).value for name in ("conditioning", "steps", "shift", "guidance")}
        if self.spacing.value:
            sampler["anchor_seconds"] = self.spacing.value
        return choices.choose(
            *(self.profile, self.clip.value, self.variant.value, at, self.prompt.value),
            structure=lines | {"depth": self.depth.value},
            propagation=sampler,
            seed=self.seed.value,
        )

    def show_anchors(self, choice: Choice) -> None:
        """A picture above each frame of the time line, where it has been edited."""
        for index, toggle in self.toggles.items():
            file = choices.anchor_path(choice, index)
            if file.is_file() and not toggle.picture.value:
                toggle.picture.value = pictures.png(video.image(file))

    def say(self, text: str, wrong: bool = False) -> None:
        """A sentence under the buttons."""
        colour = "color: #b00020; " if wrong else ""
        self.said.value = f"<div style='{colour}line-height: 1.4'>{text}</div>"

    def tell(self, said: str, part: float) -> None:
        """How far the generation is."""
        self.progress.value = part
        self.say(f"{said} ...")

    def busy(self, busy: bool) -> None:
        """Whether a clip is being generated."""
        self.generate.disabled, self.cancel.disabled = busy, not busy
        self.progress.layout.visibility = "visible" if busy else "hidden"

    def _tell(self, _: Any = None) -> None:
        if not self.quiet:
            self.changed()

    def _toggled(self, change: dict[str, Any]) -> None:
        change["owner"].icon = "check" if change["new"] else "times"
        change["owner"].picture.layout.opacity = "1" if change["new"] else "0.3"
        self._tell()

    def _follow_and_tell(self, change: dict[str, Any]) -> None:
        if not self.quiet:
            self._follow(change)
            self.changed()

    def _follow(self, change: dict[str, Any] | None = None) -> None:
        """Another clip has its own prompt and anchors, a variant its own anchors, a spacing its frames."""
        import ipywidgets as w

        self.quiet = True
        if change is None or change["owner"] is self.clip:
            self.prompt.value = propagation.prompt_of(self.profile, self.clip.value)
        if change is None or change["owner"] is self.variant:
            many = self.variant.value == "multi_anchor"
            self.spacing.value = self.profile.propagation.anchor_seconds if many else 0.0
        self.quiet = False
        given = {"anchor_seconds": self.spacing.value, "anchor_frames": None}
        if self.spacing.value == self.profile.propagation.anchor_seconds:
            given["anchor_frames"] = self.profile.propagation.anchor_frames
        spaced = self.profile.propagation.model_copy(update=given)
        settings = self.profile.model_copy(update={"propagation": spaced})
        frames = anchoring.indices(settings, "multi_anchor" if self.spacing.value else "edges")
        self.toggles, cells = {}, []
        for index in frames:
            toggle = w.ToggleButton(True, description=str(index), icon="check", layout={"width": THUMB})
            toggle.tooltip = f"frame {index}, {index / self.profile.clips.fps:.2f} s: an anchor or not"
            toggle.picture = w.Image(layout={"width": THUMB, "height": "48px"})
            toggle.observe(self._toggled, "value")
            self.toggles[index] = toggle
            cells.append(w.VBox([toggle.picture, toggle], layout={"margin": "0 6px 4px 0"}))
        self.times.children = cells


def control(kind: type, title: str, width: int = 300, **options: Any) -> Any:
    """A control under its title; width: in pixels, the title's included."""
    made = kind(description=title, layout={"width": f"{width}px", "max_width": "100%"}, **options)
    made.style.description_width = "100px" if width > 200 else "70px"
    return made
