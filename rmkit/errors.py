"""The one exception a user is meant to read: a sentence that says what is wrong, where, and what to do.

Raised by every stage before expensive work starts; the command line prints it and exits with 2.
"""


class InputError(Exception):
    """Something the user gave (file, setting, model, machine) cannot be worked with."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: where it was raised mends nothing."""
        return [f"InputError: {self}"]
