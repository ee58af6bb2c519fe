"""A mistake of the user's in a notebook: the sentence, and no traceback."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from rmkit.paths import REPOSITORY


def test_a_notebook_says_the_sentence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    code = 'from rmkit import profile\n\nsettings = profile.load("nowhere")'
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError):
        NotebookClient(
            book, kernel_name="python3", resources={"metadata": {"path": str(Path.cwd())}}
        ).execute()
    (said,) = [output for output in book.cells[0].outputs if output.output_type == "error"]
    assert said.ename == "InputError" and "nowhere" in said.evalue
    assert said.traceback == [f"InputError: {said.evalue}"]
