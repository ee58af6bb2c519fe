"""Controls on a choice, for a person at 03_propagation_ablations: pictures and metrics follow them (ours).

A thin layer over the other modules of this room; under papermill it stays away. Writes what they write.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.extras.ablation import choice as choices
from rmkit.extras.ablation import pictures, results, saved, values
from rmkit.extras.ablation.choice import Choice
from rmkit.extras.ablation.controls import Controls
from rmkit.extras.ablation.viewer import Keeping, Viewer
from rmkit.kit import widgets
from rmkit.method import sampling
from rmkit.profile import Profile

if TYPE_CHECKING:
    from ipywidgets import VBox

NOT_YET = "Not generated yet: press <i>Generate this clip</i>."


class Pin(NamedTuple):
    """A result that is kept as a column."""

    heading: str
    choice: Choice
    frames: np.ndarray
    metrics: dict[str, float]


class Stopped(Exception):
    """The person has pressed Cancel."""


def open_lab(profile: Profile, name: str, computes: Callable[[Profile], object]) -> "VBox | None":
    """The lab, where a person is there to use it; else None.

    name: the profile's name or path, which saved profiles extend; computes: prints what a run of such a profile takes.
    """
    return Lab(profile, name, computes).whole if widgets.person_is_here() else None


class Lab:
    """What is chosen, what is shown of it, and what is kept; a result is made in a thread, so that it can be stopped."""

    def __init__(self, profile: Profile, name: str, computes: Callable[[Profile], object]):
        import ipywidgets

        self.profile, self.name, self.computes = profile, name, computes
        clips = sampling.load(profile, "validation")
        self.loaded, self.pins = results.Models(profile), []
        self.lock, self.stop = threading.RLock(), threading.Event()
        self.thread: threading.Thread | None = None
        self.controls = Controls(profile, clips, self._changed)
        self.viewer = Viewer(profile, self.controls.live)
        self.keeping = Keeping(profile, self._pin, self._unpin, self._save, self._export)
        self.controls.generate.on_click(self._generate)
        self.controls.cancel.on_click(lambda _: self.stop.set())
        self.whole = ipywidgets.VBox([self.controls.whole, self.viewer.whole, self.keeping.whole])
        self._changed()

    def _changed(self, _: Any = None) -> None:
        """Follow the controls: the condition at once, the result where it is known."""
        with self.lock:
            try:
                self.choice = self.controls.chosen()
                self.given = choices.condition(self.choice)
                self.controls.show_anchors(self.choice)
                path = results.find(self.profile, self.choice, self.given)
                self._show(path)
                self._tabulate()
            except InputError as error:
                self.controls.say(escape(str(error)), wrong=True)

    def _show(self, path: Path | None) -> None:
        """Show a choice with its result, or without one."""
        self.path = path
        result = None if path is None else choices.read(path)
        own = results.of_run(self.profile, self.choice)
        known = choices.read(own) if own else None
        self.shown = pictures.columns(self.profile, self.choice, self.given, result, known)
        for pin in self.pins:
            if len(pin.frames) == len(self.given.video) and pin.choice.clip == self.choice.clip:
                self.shown[pin.heading] = pin.frames
        self.viewer.show(self.choice, self.given, self.shown, path is not None)

    def _tabulate(self) -> None:
        """The metrics of what is shown, and what it is."""
        path, measured = self.path, values.beside(self.profile, self.choice, self.path)
        measured |= {pin.heading: pin.metrics for pin in self.pins if pin.heading in self.shown}
        self.table = values.table(measured)
        self.viewer.table.value = values.html(self.table)
        if path is None:
            self.controls.say(NOT_YET)
        else:
            where = (
                "the run's own" if path == results.own(self.profile, self.choice) else "from the lab's store"
            )
            self.controls.say(f"Shown: {escape(saved.described(self.profile, self.choice))} ({where}).")

    def _generate(self, _: Any) -> None:
        if self.thread is not None and self.thread.is_alive():
            return
        try:
            choice = self.controls.chosen()
        except InputError as error:
            return self.controls.say(escape(str(error)), wrong=True)
        self.stop.clear()
        self.controls.busy(True)
        self.thread = threading.Thread(target=self._work, args=(choice,), daemon=True)
        self.thread.start()

    def _work(self, choice: Choice) -> None:
        """In the thread: generate, show it and measure it, unless something else was chosen meanwhile."""

        def tell(said: str, part: float) -> None:
            if self.stop.is_set():
                raise Stopped
            self.controls.tell(said, part)

        try:
            path = results.generate(self.profile, choice, self.loaded, tell)
            with self.lock:
                if choice == self.choice:
                    self.given = choices.condition(choice)  # with the anchors that were edited
                    self.controls.show_anchors(choice)
                    self._show(path)
            self.controls.tell("measuring", 1)
            values.measure(self.profile, choice.clip, path.stem, path)
            with self.lock:
                self._tabulate()
        except Stopped:
            self.controls.say("Cancelled; nothing of it was kept.")
        except InputError as error:
            self.controls.say(escape(str(error)), wrong=True)
        except Exception as error:
            self.controls.say(f"It stopped: {escape(str(error) or type(error).__name__)}", wrong=True)
            raise
        finally:
            self.controls.busy(False)

    def _pin(self, _: Any) -> None:
        if self.path is None:
            return self.keeping.say("There is no result to pin: generate it first.")
        heading = self.keeping.label.value.strip() or saved.described(self.profile, self.choice)
        if heading in self.shown:
            return self.keeping.say(
                f"A column is headed '{escape(heading)}' already: give this one another label."
            )
        measured = values.measure(self.profile, self.choice.clip, self.path.stem, self.path)
        with self.lock:
            self.pins.append(Pin(heading, self.choice, self.shown["Result"], measured))
            self._show(self.path)
            self._tabulate()
        return self.keeping.say(f"Pinned: {escape(heading)}.")

    def _unpin(self, _: Any) -> None:
        with self.lock:
            self.pins.clear()
            self._show(self.path)
            self._tabulate()
        self.keeping.say("No pins.")

    def _save(self, _: Any) -> None:
        try:
            name = self.keeping.name.value.strip()
            path, left = saved.save(self.profile, self.controls.chosen(), self.name, name)
        except InputError as error:
            return self.keeping.say(escape(str(error)))
        shown = escape(os.path.relpath(path, profiles.REPOSITORY))
        said = f"Saved: <code>{shown}</code>. {escape(' '.join(left))}"
        command = f"<br>Run it with <code>make reproduce PROFILE={shown}</code>."
        self.keeping.say(f"{said}<br>Working out what a run would compute ...{command}")

        def plan() -> None:
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):
                    self.computes(profiles.load(path))
                found = f"<pre style='overflow-x: auto; line-height: 1.3'>{escape(printed.getvalue())}</pre>"
            except InputError as error:
                found = f"<br>{escape(str(error))}<br><code>make plan PROFILE={shown}</code> says what a run would compute."
            self.keeping.say(said + found + command)

        threading.Thread(target=plan, daemon=True).start()
        return None

    def _export(self, _: Any) -> None:
        name, frame, width = self.keeping.file.value.strip(), self.viewer.frame.value, self.viewer.zoom.value
        try:
            paths = pictures.export(self.profile, name, self.shown, frame, self.table, width)
        except InputError as error:
            return self.keeping.say(escape(str(error)))
        folder = escape(os.path.relpath(paths[0].parent, profiles.REPOSITORY))
        names = " ".join(f"<code>{path.name}</code>" for path in paths)
        return self.keeping.say(f"Written to <code>{folder}</code>: {names}")
