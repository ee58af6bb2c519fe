"""Links in a notebook: they open from where it lies, and from its executed copy."""

import re
from pathlib import Path

import pytest

from rmkit import profile
from rmkit.kit import widgets
from rmkit.paths import REPOSITORY


@pytest.mark.parametrize("is_here", [True, False])
def test_links_open(tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch, is_here: bool) -> None:
    monkeypatch.setattr(widgets, "person_is_here", lambda: is_here)
    monkeypatch.chdir(REPOSITORY / "notebooks")
    page = REPOSITORY / "docs" / "glossary.md"
    [(name, address)] = re.findall(r"\[(.*)\]\((.*)\)", widgets.links(tiny_profile, page).data)
    here = Path.cwd() if is_here else tiny_profile.layout.notebooks
    here.mkdir(parents=True, exist_ok=True)
    assert name == "glossary.md" and (here / address).resolve() == page
