"""The report as a page: every link leads somewhere, in a run and in the shipped record, and nothing is fetched."""

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from test_report import finished  # noqa: F401

from rmkit import profile
from rmkit.evaluation import page, ship, tables
from rmkit.evaluation.page import Section
from rmkit.paths import REPOSITORY

RECORD = REPOSITORY / "results" / "reference" / "mini"


class Links(HTMLParser):
    """What a page leads to (`links`, by tag), and where one can land in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.places.add(named.get("id"))
        self.links += [(tag, named[key]) for key in ("href", "src") if key in named]


def follow(path: Path) -> list[tuple[str, str]]:
    """Follow every link of a page or a Markdown file beside it; returns them."""
    if path.suffix == ".md":
        links, places = [("a", link) for link in re.findall(r"\]\(([^)]+)\)", path.read_text())], set()
    else:
        found = Links(path)
        links, places = found.links, found.places
    for _, link in links:
        if link.startswith("data:"):
            continue
        assert "://" not in link, f"{path} goes to a network: {link}"
        target, _, place = link.partition("#")
        assert (path.parent / target).exists(), f"{path}: {link}"
        assert target or place in places, f"{path}: {link}"
    return links


@pytest.mark.parametrize("name", ["report.md", "index.html"])
def test_the_shipped_record_is_whole(name: str) -> None:
    links = follow(RECORD / name)
    assert any(link.startswith("figures/") for _, link in links)


def test_a_run_is_whole_and_is_shipped_whole(finished: profile.Profile) -> None:  # noqa: F811
    layout = finished.layout
    layout.notebooks.mkdir()
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Seen\n\n[the page](../index.html)"),
            nbformat.v4.new_code_cell(
                "1 + 1", outputs=[nbformat.v4.new_output("stream", text="a < b\n")], execution_count=1
            ),
        ]
    )
    nbformat.write(book, layout.notebooks / "00_seen.ipynb")
    folder = ship.ship(finished)  # which writes the run's report, too
    links = follow(layout.root / "index.html")
    assert len([link for tag, link in links if tag == "video"]) == 2
    assert ("a", "notebooks/00_seen.html") in links and not any(tag == "script" for tag, _ in links)
    follow(layout.report)
    follow(layout.notebooks / "00_seen.html")
    assert "a &lt; b" in (layout.notebooks / "00_seen.html").read_text()

    for name in ("report.md", "index.html"):
        text = (folder / name).read_text()
        links = follow(folder / name)
        assert links and not any(link.startswith(("viewing/", "sheets/")) for _, link in links)
        assert "Table 2" in text and "00_seen" in text
    assert gzip.decompress((folder / "metrics.csv.gz").read_bytes()) == layout.metrics.read_bytes()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ship.ship(finished)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tables_videos_and_strangers_text(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    text = (
        "# Seen\n\n"
        "| Method | Value | Verdict |\n| --- | --- | --- |\n"
        "| <script>x</script> | **−0.5 [−0.6, −0.4]** | does not hold |\n"
        f"| {tables.APART} |  |  |\n\n"
        "[Video: here](a.mp4)\n\n[Video: gone](b.mp4) ![gone](c.png)\n"
    )
    made = page.html([Section("", text), Section("Later", "more", folded=True)], tmp_path)
    assert "<script>x" not in made and "&lt;script&gt;" in made
    assert '<td class="number"><strong>−0.5<br><small>[−0.6, −0.4]</small></strong>' in made
    assert '<td class="verdict does-not-hold">' in made and '<tr class="heading">' in made
    assert made.count("<video") == 1 and 'src="a.mp4"' in made
    assert "Video: gone" in made and "b.mp4" not in made and "c.png" not in made
    assert "<details><summary><h2>Later" in made and "<title>Seen</title>" in made


def test_no_cell_takes_three_lines() -> None:
    from rmkit.evaluation.typeset import min_width

    for said in ("DINO", "Motion Smoothness (flow interpolator), distinct frames ↑", "a" * 30 + " b"):
        width, lines = min_width(said), [""]
        for word in said.split():
            if len(f"{lines[-1]} {word}".strip()) <= width:
                lines[-1] = f"{lines[-1]} {word}".strip()
            else:
                lines.append(word)
        assert len(lines) <= 2
