"""Training for a person at a notebook: curves while it goes on, and a button that stops it and lets it go on (ours).

Under papermill it trains and shows nothing. Reads and writes what `training` does.
"""

import io
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.errors import InputError
from rmkit.evaluation import figures
from rmkit.kit import widgets
from rmkit.method import record, training
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STOP, GO_ON = "Stop after this step", "Go on"


def train(profile: Profile, name: str = training.NAME) -> Path:
    """Train as `training.train`; where a person is, under a button, with the curves so far below it.

    The button stops after the step in hand, with the checkpoint saved, so that the notebook may be closed; a second click
    goes on from it. The cell ends when the training does. (Its clicks arrive while the cell runs, by a thread of the kernel
    for messages of widgets: JupyterLab 4.4 and ipykernel 7 have them.)
    """
    if not widgets.person_is_here():
        return training.train(profile, name)
    import ipywidgets
    from IPython.display import display

    button, said = ipywidgets.Button(description=STOP, icon="pause"), ipywidgets.HTML()
    stopping, going_on = threading.Event(), threading.Event()

    def clicked(_: ipywidgets.Button) -> None:
        if button.description == STOP:
            button.disabled = True  # until the step is done
            stopping.set()
        else:
            going_on.set()

    button.on_click(clicked)
    display(ipywidgets.HBox([button, said]))
    watch = widgets.live(figures.learning)
    while True:
        try:
            folder = training.train(profile, name, watch, stopping.is_set)
        except training.Stopped as stopped:
            said.value = str(stopped).capitalize()
            button.description, button.icon, button.disabled = GO_ON, "play", False
            stopping.clear()
            going_on.wait()
            going_on.clear()
            said.value, button.description, button.icon = "", STOP, "pause"
        else:
            button.disabled = True
            return folder


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
    picture, said = ipywidgets.Image(format="png", layout={"max_width": "100%"}), ipywidgets.HTML()

    def look() -> None:
        while switch.value:
            try:
                drawn = io.BytesIO()
                so_far(profile, name).savefig(drawn, dpi=80)
                picture.value, said.value = drawn.getvalue(), time.strftime("at %H:%M:%S")
            except InputError as error:
                said.value = str(error)
            time.sleep(seconds)

    switch.observe(lambda _: threading.Thread(target=look, daemon=True).start(), "value")
    display(ipywidgets.VBox([ipywidgets.HBox([switch, said]), picture]))
