"""A report as text and as a page: sections in Markdown, and index.html, which opens from the file system.

The page needs no network and no script from elsewhere: tables keep their first column and header in view, videos play side
by side in step (they are one file), and what was not run is folded away. Reads the executed notebooks; writes
notebooks/*.html. Nothing links to what is not there.
"""

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rmkit.evaluation import typeset
from rmkit.evaluation.claims import Verdict
from rmkit.kit import stage, store
from rmkit.profile import Profile

if TYPE_CHECKING:
    from markdown_it.token import Token

VERSION = 1
TEMPLATE = Path(__file__).with_name("page.html")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)]+)\)")
VIDEO = '<video controls loop muted playsinline preload="metadata" src="{}"></video>'
TEXT = 28  # letters from which a cell of text is kept to two lines


@dataclass(frozen=True)
class Section:
    """A part of a report, in Markdown; without a title it is the opening."""

    title: str
    text: str
    folded: bool = False  # the page shows its title, and the rest when asked
    stays: bool = False  # made of what a run keeps and the shipped record does not have


def markdown(sections: Sequence[Section], folder: Path) -> str:
    """The sections as one text that lies in `folder`."""
    parts = [f"## {part.title}\n\n{part.text}" if part.title else part.text for part in sections]
    return _whole("\n".join(parts), folder)


def html(sections: Sequence[Section], folder: Path) -> str:
    """The sections as one page that lies in `folder`."""
    import jinja2

    parts = [(part, _slug(part.title), _rendered(_whole(part.text, folder))) for part in sections]
    title = re.sub(r"[#*`]", "", sections[0].text.partition("\n")[0]).strip()
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text())
    return template.render(title=title, parts=parts)


def notebooks(profile: Profile) -> list[Path]:
    """Each executed notebook as a page beside it; returns those that there are."""
    items, template = [], {"template": store.fingerprint(TEMPLATE)}
    for path in sorted(profile.layout.notebooks.glob("[0-9][0-9]_*.ipynb")):
        if not path.name.endswith(".failed.ipynb"):
            recipe = store.Recipe("page", VERSION, template, {"notebook": store.fingerprint(path)})
            items.append(stage.Item(path.with_suffix(".html"), recipe, path))
    return stage.run("", items, lambda: _notebook)


def _notebook(item: stage.Item[Path], temporary: Path) -> None:
    """One notebook as it was run, in the page's own dress: nbconvert's would fetch scripts from a network."""
    import jinja2
    from markupsafe import Markup
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    quiet = logging.getLogger("nbconvert")
    quiet.setLevel(logging.ERROR)  # it warns of pictures without a text of their own
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, log=quiet
    )
    exporter.exclude_anchor_links = True
    body, _ = exporter.from_filename(str(item.subject))
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text())
    opening = Section("", "")
    text = template.render(
        title=item.subject.stem,
        parts=[(opening, "", Markup(body))],
        style=Markup(style),
        home="../index.html",
    )
    temporary.write_text(text)


def _whole(text: str, folder: Path) -> str:
    """The text without pictures, and with plain words in the place of links, where `folder` lacks what they lead to."""

    def kept(found: re.Match) -> str:
        is_picture, said, target = found.groups()
        if "://" in target or (folder / target).exists():
            return found[0]
        return "" if is_picture else said

    return LINK.sub(kept, text)


def _rendered(text: str) -> str:
    """Markdown as HTML, tables and videos as the page has them."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    parser.add_render_rule("html_inline", lambda _, tokens, i, *__: tokens[i].content)
    tokens = parser.parse(text)
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline" and before.type in ("td_open", "th_open"):
            _dress_cell(before, token)
        elif token.type == "inline":
            _show_videos(token)
    _mark_headings(tokens)
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _dress_cell(cell: "Token", inline: "Token") -> None:
    """An interval goes below its value, text is as wide as two lines of it need, a verdict has its colour."""
    if inline.content in get_args(Verdict):
        cell.attrSet("class", f"verdict {_slug(inline.content)}")
    for i, child in enumerate(inline.children):
        if child.type == "text" and re.match(r"[(−+\d].* \[", child.content):
            cell.attrSet("class", "number")
            inline.children[i] = _raw(child, typeset.html_cell(child.content))
            return
    if len(inline.content) > TEXT or cell.type == "th_open":
        wide = 1.15 if cell.type == "th_open" else 0.95  # bold letters, and others, beside a digit
        cell.attrSet("style", f"min-width: {wide * typeset.min_width(inline.content) + 1:.0f}ch")


def _mark_headings(tokens: Sequence["Token"]) -> None:
    """Rows that have nothing but their first cell are headings of the rows below."""
    for i, token in enumerate(tokens):
        if token.type == "tr_open":
            end = next(j for j in range(i, len(tokens)) if tokens[j].type == "tr_close")
            first, *others = [each.content for each in tokens[i:end] if each.type == "inline"]
            if first and others and not any(others):
                token.attrSet("class", "heading")


def _show_videos(inline: "Token") -> None:
    """A link to a video becomes the video."""
    for i, child in enumerate(inline.children):
        target = child.attrGet("href") if child.type == "link_open" else None
        if target and str(target).endswith(".mp4"):
            inline.children[i : i + 3] = [_raw(child, VIDEO.format(escape(str(target))))]
            return


def _raw(token: "Token", text: str) -> "Token":
    """A token of that text as it is."""
    from markdown_it.token import Token

    return Token("html_inline", "", 0, content=text, level=token.level)


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")
