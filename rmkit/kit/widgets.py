"""Widgets for a person at a notebook; under papermill and nbconvert they stay away.

Static first: a notebook shows a figure of a plain function, and offers the same function to `explore`. Reads and
writes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def explore(show: Callable[..., Any], **choices: Sequence[Any] | Mapping[str, Any]) -> None:
    """Menus that call `show` with what is chosen, where a person is there; otherwise nothing."""
    if not person_is_here():
        return
    import ipywidgets

    wide = {"width": "max-content"}  # ids of clips are long
    menus = {name: ipywidgets.Dropdown(options=options, layout=wide) for name, options in choices.items()}
    ipywidgets.interact(show, **menus)


def live(draw: Callable[..., Any]) -> Callable[..., None] | None:
    """A function that shows `draw` of its arguments in one place of the notebook, again and again; else None."""
    if not person_is_here():
        return None
    from IPython.display import display

    shown = display(display_id=True)
    return lambda *arguments: shown.update(draw(*arguments))


def person_is_here() -> bool:
    """Whether somebody could answer a question: a notebook's front end allows input, papermill does not."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
