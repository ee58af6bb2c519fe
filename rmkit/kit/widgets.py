"""Widgets for a person at a notebook; under papermill and nbconvert they stay away.

Static first: a notebook shows a figure of a plain function, and offers the same function to `explore`. Reads and
writes nothing.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.profile import Profile

if TYPE_CHECKING:
    from IPython.display import HTML, Image, Markdown
    from ipywidgets import Box, Checkbox
    from PIL.Image import Image as PictureFile


def explore(show: Callable[..., Any], **choices: Sequence[Any] | Mapping[str, Any]) -> None:
    """Menus that call `show` with what is chosen, where a person is there; otherwise nothing."""
    if not person_is_here():
        return
    import ipywidgets

    wide = {"width": "max-content"}  # ids of clips are long
    menus = {name: ipywidgets.Dropdown(options=options, layout=wide) for name, options in choices.items()}
    ipywidgets.interact(show, **menus)


def checks(
    title: str, options: Mapping[str, str], chosen: Sequence[str]
) -> tuple["Box", dict[str, "Checkbox"]]:
    """Check boxes under a title, by name, as many in a line as fit; `options`: label by name."""
    import ipywidgets

    slim = {"width": "auto", "margin": "0 12px 0 0"}
    boxes = {
        name: ipywidgets.Checkbox(name in chosen, description=label, indent=False, layout=slim)
        for name, label in options.items()
    }
    row = ipywidgets.Box(tuple(boxes.values()), layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([ipywidgets.HTML(f"<b>{escape(title)}</b>"), row]), boxes


def live(draw: Callable[..., Any]) -> Callable[..., None] | None:
    """A function that shows `draw` of its arguments in one place of the notebook, again and again; else None."""
    if not person_is_here():
        return None
    from IPython.display import display

    shown = display(display_id=True)
    return lambda *arguments: shown.update(draw(*arguments))


def picture(sheet: "PictureFile") -> "Image":
    """A large sheet as one JPEG, where it would be kept as a PNG and a JPEG of five times the size."""
    from IPython.display import Image

    file = io.BytesIO()
    sheet.save(file, "jpeg", quality=85, subsampling=0)
    return Image(file.getvalue(), format="jpeg")


def player(profile: Profile, *paths: Path) -> "HTML":
    """Viewing copies that play in the notebook: linked from where they lie, as embedded ones make it heavy.

    JupyterLab serves what is below the folder that it was started in: the repository, by `make lab`.
    """
    from IPython.display import HTML

    return HTML(
        "\n".join(
            f'<video controls loop muted playsinline preload="metadata" style="max-width: 100%" src="{_from_here(profile, path)}"></video>'
            for path in paths
        )
    )


def links(profile: Profile, *paths: Path) -> "Markdown":
    """Links to files by their names, which open from a notebook where it lies and from its executed copy alike."""
    from IPython.display import Markdown

    return Markdown(", ".join(f"[{path.name}]({_from_here(profile, path)})" for path in paths))


def _from_here(profile: Profile, path: Path) -> str:
    """The address of a file, relative to where the notebook lies, or where its executed copy will."""
    here = Path.cwd() if person_is_here() else profile.layout.run / "notebooks"
    return escape(Path(os.path.relpath(path, here)).as_posix())


def person_is_here() -> bool:
    """Whether somebody could answer a question: a notebook's front end allows input, papermill does not."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
