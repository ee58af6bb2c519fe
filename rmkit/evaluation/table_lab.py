"""Menus on a choice: table and plot follow what is chosen, and a button exports them (ours).

A thin layer for a person at 05_evaluation; papermill shows the same functions with their defaults. Writes what `chosen.export`
writes, when asked.
"""

import io
import os
from html import escape
from typing import TYPE_CHECKING, Any

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.evaluation import choice, chosen, having, metrics_csv, statistics, typeset
from rmkit.evaluation.choice import Choice
from rmkit.kit import widgets
from rmkit.profile import Profile

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget

DPI = 96


def open_lab(profile: Profile) -> "VBox | None":
    """The lab, where a person is there to use it; else None."""
    return _Lab(profile).whole if widgets.person_is_here() else None


class _Lab:
    """Controls, and the table and the plot that follow them."""

    def __init__(self, profile: Profile):
        import ipywidgets

        self.profile, frame = profile, metrics_csv.to_show(profile)
        known, methods = metrics.columns(), baselines.every(profile)
        labels = {name: methods[name].label for name in methods}
        columns = {name: column.label for name, column in known.items() if name in set(frame.metric)}
        every = having.measured(frame)["clip"].nunique()
        clips = {f"all ({every})": ""}
        clips |= {f"{name} ({count})": name for name, count in choice.subsets(frame).items()}
        measured = having.measured_clips(frame, list(methods))
        orders = {"as in the tables": "", "method": "method"} | {label: n for n, label in columns.items()}
        paper = [column.name for column in metrics.papers_first(frame.metric)[0]]
        menu = self._menu
        self.menus: dict[str, Any] = {
            "statistic": menu("Statistic", choice.STATISTICS),
            "other": menu("Against", {labels[n]: n for n in labels if measured[n]}, statistics.REFERENCE),
            "subset": menu("Clips", clips),
            "confidence": menu("Interval", {f"{c:.0%}" if c else "none": c for c in choice.LEVELS}),
            "decimals": menu("Decimals", {"as in the tables": None} | {str(n): n for n in range(7)}),
            "sort": menu("Sort by", orders),
            "beside": menu("Beside", {"no other run": ""} | {name: name for name in choice.runs(profile)}),
        }
        self.hide = ipywidgets.Checkbox(True, description="hide what was not run", indent=False)
        shown, self.metrics = widgets.checks("Metrics", columns, paper)
        rows, self.methods = widgets.checks("Methods", labels, [name for name in labels if measured[name]])
        self.name = ipywidgets.Text("chosen", description="File name")
        button = ipywidgets.Button(description="Export", icon="download", tooltip="csv, md, tex, png, pdf")
        self.said = ipywidgets.HTML()
        self.table = ipywidgets.HTML()
        self.plot = ipywidgets.Image(layout={"max_width": "100%", "min_width": "720px"})  # to be read
        wrapped = {"flex_flow": "row wrap"}
        self.whole = ipywidgets.VBox(
            [
                ipywidgets.Box([*self.menus.values(), self.hide], layout=wrapped),
                *(shown, rows, self.table, ipywidgets.Box([self.plot], layout={"overflow": "auto"})),
                ipywidgets.Box([self.name, button], layout=wrapped),
                self.said,
            ]
        )
        for control in (*self.menus.values(), self.hide, *self.metrics.values(), *self.methods.values()):
            control.observe(self._draw, "value")
        button.on_click(self._export)
        self._draw()

    def _menu(self, title: str, options: Any, value: Any = None) -> "Widget":
        import ipywidgets

        more = {} if value is None else {"value": value}
        style, layout = {"description_width": "70px"}, {"width": "270px"}
        return ipywidgets.Dropdown(options=options, description=title, style=style, layout=layout, **more)

    def _chosen(self) -> Choice:
        """What the controls say. Raises InputError without a metric or a method."""
        picked = {
            name: tuple(n for n, box in getattr(self, name).items() if box.value)
            for name in ("metrics", "methods")
        }
        for name, names in picked.items():
            if not names:
                raise InputError(f"choose some {name}.")
        menus = {name: menu.value for name, menu in self.menus.items()}
        return Choice(**picked, **menus, hide_not_run=self.hide.value)

    def _draw(self, _: Any = None) -> None:
        self.menus["other"].disabled = self.menus["statistic"].value not in choice.EVEN
        try:
            found = choice.Found(self.profile, self._chosen())
        except InputError as error:
            self.table.value, self.plot.layout.display = escape(str(error)), "none"
            return
        made, drawn = chosen.table(found), chosen.figure(found)
        picture = io.BytesIO()
        drawn.savefig(picture, dpi=DPI)
        self.plot.value, self.plot.layout.display = picture.getvalue(), ""
        self.table.value = typeset.for_widget(made)

    def _export(self, _: Any) -> None:
        try:
            paths = chosen.export(self.profile, self._chosen(), self.name.value)
        except InputError as error:
            self.said.value = escape(str(error))
            return
        links = " ".join(f"<code>{path.name}</code>" for path in paths)
        self.said.value = f"Written to <code>{escape(os.path.relpath(paths[0].parent))}</code>: {links}"
