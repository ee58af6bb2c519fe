"""Training for a person at a notebook: curves while it goes on, and a button that stops it and lets it go on (ours).

Under papermill it trains and shows nothing. Reads and writes what `training` does.
"""

import asyncio
import io
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rmkit.errors import InputError
from rmkit.evaluation import figures
from rmkit.kit import widgets
from rmkit.method import record, training
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STOP, GO_ON = "Stop after this step", "Go on"


async def train(profile: Profile, name: str = training.NAME) -> Path:
    """Train as `training.train`; where a person is, under a button, with the curves so far below it.

    The button stops after the step in hand, with the checkpoint saved, so that the notebook may be closed; a second click
    goes on from there. The cell that awaits this ends when the training does; interrupted, it stops it likewise.
    """
    if not widgets.person_is_here():
        return training.train(profile, name)
    import ipywidgets
    from IPython.display import display

    button, said = ipywidgets.Button(description=STOP, icon="pause"), ipywidgets.HTML()
    stopping, going_on = threading.Event(), asyncio.Event()

    def clicked(_: ipywidgets.Button) -> None:
        button.disabled = True  # until the step is done
        (stopping if button.description == STOP else going_on).set()

    def show(description: str, icon: str, sentence: str) -> None:
        button.description, button.icon, button.disabled, said.value = description, icon, False, sentence

    button.on_click(clicked)
    display(ipywidgets.HBox([button, said]))
    draw, loop = widgets.live(figures.learning), asyncio.get_running_loop()

    def watch(*tables: pd.DataFrame) -> None:
        loop.call_soon_threadsafe(draw, *tables)

    try:
        while True:
            try:
                # In a thread, as a kernel hands on clicks to a cell that waits, and not to one that computes.
                return await asyncio.to_thread(training.train, profile, name, watch, stopping.is_set)
            except training.Stopped as stopped:
                stopping.clear()
                show(GO_ON, "play", str(stopped).capitalize())
            await going_on.wait()
            going_on.clear()
            show(STOP, "pause", "")
    finally:
        stopping.set()  # an interrupted cell must not leave a training behind
        button.disabled = True


def so_far(profile: Profile, name: str = training.NAME) -> "Figure":
    """The curves of a training, finished or going on in another process; raises InputError before its first steps."""
    return figures.learning(*record.so_far(profile, name))


def follow(profile: Profile, name: str = training.NAME, seconds: float = training.LOG_SECONDS) -> None:
    """A switch under which the curves of a training in another process are drawn anew, where a person is."""
    if not widgets.person_is_here():
        return
    import ipywidgets
    from IPython.display import display

    switch = ipywidgets.ToggleButton(description="Follow the log", icon="line-chart")
    hidden = {"max_width": "100%", "display": "none"}  # a picture of nothing yet is shown as a broken one
    picture, said = ipywidgets.Image(format="png", layout=hidden), ipywidgets.HTML()

    async def look() -> None:
        while switch.value:
            try:
                drawn = io.BytesIO()
                so_far(profile, name).savefig(drawn, dpi=80)
                picture.value, said.value = drawn.getvalue(), time.strftime("at %H:%M:%S")
                picture.layout.display = ""
            except InputError as error:
                said.value = str(error)
            await asyncio.sleep(seconds)

    going: set[asyncio.Task] = set()  # a task that nobody holds may be collected

    def switched(_: dict) -> None:
        going.clear()
        if switch.value:
            going.add(asyncio.get_running_loop().create_task(look()))

    switch.observe(switched, "value")
    display(ipywidgets.VBox([ipywidgets.HBox([switch, said]), picture]))
