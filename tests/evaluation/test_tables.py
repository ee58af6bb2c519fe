"""Tables from metrics.csv: three forms, nothing hidden, the same bytes twice."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmkit import baselines, metrics, profile
from rmkit.errors import InputError
from rmkit.evaluation import figures, metrics_csv, statistics, tables, typeset

PLAIN = [column for column in metrics.shown(()) if metrics.metric_of(column.name).name in metrics.ORDER[:6]]
PAIRS = ("table1", "table2", "differences", "wins")  # each with the paper's columns, then one with the others
LEVELS = {m.name: (0.9, 0.02) for m in PLAIN} | {"psnr_truth": (22.0, 2.0), "sharpness": (300.0, 40.0)}


def put_metrics(settings: profile.Profile, names: list[str], truth: bool = True) -> None:
    """A metrics.csv of 8 sequences of two clips with made-up values."""
    draw, rows = np.random.default_rng(0), []
    for method in names:
        for metric in PLAIN:
            if metric.against == method or (metric.against == "truth" and not truth):
                continue
            level, spread = LEVELS[metric.name]
            for i in range(16):
                rows.append(
                    {
                        "profile": settings.name,
                        "method": method,
                        "clip": f"s{i // 2}_{i % 2}",
                        "metric": metric.name,
                        "value": round(level + draw.normal(0, spread), 6),
                        "sequence": f"s{i // 2}",
                        "subsets": "",
                        "options": "",
                        "artefact": "",
                        "commit": "",
                    }
                )
    settings.layout.root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(settings.layout.metrics, index=False)


def test_three_forms_that_agree(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    paths = {path.name: path for path in tables.write(tiny_profile, tables.build(tiny_profile))}
    assert set(paths) == {
        f"{t}.{s}"
        for t in (*PAIRS, *(f"{name}_further" for name in PAIRS), "claims")
        for s in ("csv", "md", "tex")
    }
    with paths["table2_further.csv"].open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    ablation = ["multi_anchor", "depth", "edges"]
    assert list(rows) == ["render", "colour_transfer", *ablation, "realmaster", "vae_ceiling", "truth"]
    assert {name for name, m in baselines.every(tiny_profile).items() if m.table1 or m.ablation} == {
        *baselines.FIRST,
        *baselines.LAST[:-1],
    }
    row = rows["realmaster"]
    low, value, high = (float(row[f"psnr_truth{end}"]) for end in ("_low", "", "_high"))
    assert low < value < high and row["psnr_truth_interval"] == "BCa"
    cell = f"{value:.2f} [{low:.2f}, {high:.2f}]"
    for form in ("md", "tex"):
        text = paths[f"table2_further.{form}"].read_text()
        line = next(line for line in text.splitlines() if "RealMaster" in line)
        assert cell in line and "optical-flow interpolator" in text
        assert "ArcFace" in paths[f"table2.{form}"].read_text()
    for name, columns in zip(("table2", "table2_further"), metrics.papers_first([]), strict=True):
        tex = paths[f"{name}.tex"].read_text()
        assert tex.count("&") == (len(rows) + 1) * (len(columns) + 1)  # the clips, beside the method
        assert not re.search(r"(?<!\\)[_%]", tex)


def test_the_papers_values_stand_beside_ours_where_they_are_known(
    tiny_profile: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    assert "paper" not in {
        table.name for table in tables.build(tiny_profile)
    }  # as shipped: no value is known
    file = tmp_path / "tables.yaml"
    file.write_text("table2: {realmaster: {temporal_flickering: 0.5, dino: 3.0}, depth: {dino: null}}")
    monkeypatch.setattr(tables, "PAPER", file)
    made = {table.name: table for table in tables.build(tiny_profile)}["paper"]
    ours = statistics.mean(metrics_csv.load(tiny_profile), "realmaster", "temporal_flickering").value
    assert made.cells[0][3] == "0.5" and made.cells[0][5] == f"{ours - 0.5:+.4g}"
    assert made.cells[1][3:] == ["3", "not run", "n/a"] and len(made.cells) == 2
    content = tiny_profile.model_dump()
    content["data"]["source"] = "diorama"
    diorama = profile.Profile.model_validate(content)
    assert "paper" not in {table.name for table in tables.build(diorama)}
    file.write_text("table2: {realmaster: {dyno: 3.0}}")
    with pytest.raises(InputError, match="dyno"):
        tables.build(tiny_profile)


def test_bold_is_what_beats_every_other_by_more_than_chance(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    frame = pd.read_csv(tiny_profile.layout.metrics)
    psnr = frame.metric == "psnr_truth"
    frame.loc[psnr & (frame.method == "realmaster"), "value"] += 8
    frame.loc[psnr & (frame.method == "truth"), "value"] += 20  # does not compete
    frame.to_csv(tiny_profile.layout.metrics, index=False)
    table = next(table for table in tables.build(tiny_profile) if table.name == "table2_further")
    column = table.header.index("PSNR to truth ↑")
    assert (list(table.data.method).index("realmaster"), column) in table.bold
    assert len([place for place in table.bold if place[1] == column]) == 1
    assert f"| **{table.cells[list(table.data.method).index('realmaster')][column]}** |" in typeset.markdown(
        table
    )
    assert r"& \bfseries " in typeset.latex(table)
    assert "**" not in table.data.to_csv()


def test_fewer_clips_are_set_apart_and_never_bold(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    frame = pd.read_csv(tiny_profile.layout.metrics)
    frame = frame[(frame.method != "per_frame") | frame["clip"].str.startswith(("s0", "s1", "s2"))]
    frame.loc[(frame.metric == "psnr_truth") & (frame.method == "per_frame"), "value"] += 20
    frame.loc[(frame.metric == "psnr_truth") & (frame.method == "realmaster"), "value"] += 8
    frame.to_csv(tiny_profile.layout.metrics, index=False)
    table = next(table for table in tables.build(tiny_profile) if table.name == "table1_further")
    first = [row[0] for row in table.cells]
    assert first[-2:] == [tables.APART, "Per-frame editing"] and table.cells[-1][1] == "6"
    assert list(table.data.method)[-1] == "per_frame"
    column = table.header.index("PSNR to truth ↑")
    assert [place for place in table.bold if place[1] == column] == [(first.index("RealMaster"), column)]
    labels = [text.get_text() for text in figures.fidelity(tiny_profile).axes[0].get_yticklabels()]
    assert labels[-1] == "Per-frame editing\n(6 of 16 clips)"


def test_figures_have_the_same_rows_at_the_same_height(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    figure = figures.fidelity(tiny_profile)
    assert len({(ax.get_ylim(), tuple(ax.get_yticks())) for ax in figure.axes}) == 1
    assert [ax.get_title(loc="left")[:3] for ax in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]
    sharpness = figure.axes[3]
    assert sharpness.get_xscale() == "log" and figure.axes[0].get_xscale() == "linear"
    truth = statistics.mean(metrics_csv.load(tiny_profile), "truth", "sharpness").value
    assert any(list(line.get_xdata()) == [truth, truth] for line in sharpness.lines)


def test_win_rates_and_p_values(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, ["edges", "depth", "realmaster"])
    frame = pd.read_csv(tiny_profile.layout.metrics)
    frame.loc[(frame.metric == "psnr_truth") & (frame.method == "edges"), "value"] += 30
    rate = statistics.win_rate(frame, "psnr_truth", "edges", 1)
    # 8 of 8: Wilson's lower bound is 8 / (8 + 1.96^2).
    assert (
        rate.value == 1 and rate.low == pytest.approx(8 / (8 + 1.959964**2)) and rate.high == pytest.approx(1)
    )
    assert statistics.win_rate(frame, "psnr_truth", "edges", -1).value == 0
    ps = statistics.p_values(frame, "psnr_truth", ["edges", "depth", "truth"])
    assert set(ps) == {"edges", "depth"}
    assert ps["edges"] == pytest.approx(2 * 2 / 2**8)  # the smallest there is for 8 pairs, times two methods
    assert ps["depth"] > 0.05


def test_the_same_bytes_twice(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    before = [path.read_bytes() for path in tables.write(tiny_profile, tables.build(tiny_profile))]
    assert before == [path.read_bytes() for path in tables.write(tiny_profile, tables.build(tiny_profile))]


def test_what_did_not_run_says_so(tiny_profile: profile.Profile) -> None:
    content = tiny_profile.model_dump()
    content["propagation"]["variants"] = ("edges",)
    settings = profile.Profile.model_validate(content)
    put_metrics(settings, ["render", "colour_transfer", "edges", "realmaster"], truth=False)
    made = {table.name: table for table in tables.build(settings)}
    cells = {row[0]: row[1:] for row in made["table2_further"].cells}
    assert set(cells["Depth"]) == {"not run"} and set(cells["VAE ceiling"]) == {"n/a"}
    assert cells["Edges"][1] == "n/a" and cells["Edges"][0] == "16"
    notes = " ".join(made["table2"].notes)
    assert "leaves depth out" in notes and "this data has no truth" in notes
    verdicts = {row[1]: row[-1] for row in made["claims"].cells}
    assert verdicts["Edges are nearer to the truth than Depth"] == "not run"
    assert "not run" not in made["differences_further"].cells[0]


def test_the_papers_columns_are_there_and_say_why_they_are_empty(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, ["render", "edges", "realmaster"])
    made = {table.name: table for table in tables.build(tiny_profile)}
    for name in ("table1", "table2"):
        table = made[name]
        titles = ["ArcFace ↑", "DINO to render ↓", "GPT-RS no-ref ↑", "GPT-RS with-ref ↑"]
        assert [title for title in table.header if title in titles] == titles
        row = dict(zip(table.header, next(row for row in table.cells if row[0] == "RealMaster"), strict=True))
        assert {row[title] for title in titles} == {"not run"}
        for reason in (
            "ArcFace: not run: no face model",
            "DINO: not run: metrics.dino",
            "GPT-RS: not run: ",
        ):
            assert any(note.startswith(reason) for note in table.notes)
    assert "arcface_mid5" not in made["table1"].data and made["table1"].data["gpt_rs"].isna().all()


def test_a_styled_frame_shows_the_same(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    frame = pd.read_csv(tiny_profile.layout.metrics)
    frame.loc[(frame.metric == "psnr_truth") & (frame.method == "realmaster"), "value"] += 8
    frame.to_csv(tiny_profile.layout.metrics, index=False)
    made = {table.name: table for table in tables.build(tiny_profile)}
    shown = made["table2_further"]
    style = typeset.styled(shown)
    assert style.columns.tolist() == list(shown.header) and style.caption == shown.title
    html = style.to_html()
    bold = {
        tuple(map(int, place)) for place in re.findall(r"#T_table2_further_row(\d+)_col(\d+)[^{]*{", html)
    }
    assert bold == shown.bold != set()
    assert html.count("<tr>") == 1 + len(shown.cells) and "row_heading" not in html
    assert re.search(r"\d<br><small>\[", html)  # the interval below its value
    assert html == typeset.styled(shown).to_html()
    said = typeset.styled(made["claims"]).to_html()
    assert "&gt; 0" in said
    assert _left(html) == {"0"}  # numbers are at the right, where some or all were not run, too
    assert _left(said) == {
        str(made["claims"].header.index(name)) for name in ("Section", "Claim", "Measured as", "Verdict")
    }
    assert typeset.notes(made["wins"]) in typeset.markdown(made["wins"])


def _left(html: str) -> set[str]:
    """The columns whose text is at the left."""
    return set(re.findall(r"td\.col(\d+) {\s*(?:position[^}]*)?text-align: left", html))


def test_before_a_run_the_shipped_record_is_shown(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, ["render", "edges", "realmaster"])
    assert not metrics_csv.of_record(tiny_profile)
    here = [typeset.markdown(table) for table in tables.build(tiny_profile)]
    tiny_profile.layout.reference.mkdir(parents=True)
    tiny_profile.layout.metrics.rename(tiny_profile.layout.reference / "metrics.csv")
    assert metrics_csv.of_record(tiny_profile)
    assert [typeset.markdown(table) for table in tables.build(tiny_profile)] == here
    with pytest.raises(InputError, match="run 05_evaluation"):
        metrics_csv.load(tiny_profile)  # nothing else takes the record for a run


def test_tables_before_evaluation(tiny_profile: profile.Profile) -> None:
    with pytest.raises(InputError, match="run 05_evaluation"):
        tables.write(tiny_profile, tables.build(tiny_profile))
    assert not tiny_profile.layout.tables.exists()
    assert statistics.NOTHING.known is False


def test_methods_that_a_profile_adds_have_rows(tiny_profile: profile.Profile) -> None:
    """A folder of clips among the external ones, and real footage last, which is of other clips."""
    content = tiny_profile.model_dump()
    content["baselines"]["folders"] = {"mine": "My model"}
    content["judge"]["real"] = "footage"
    settings = profile.Profile.model_validate(content)
    put_metrics(settings, ["render", "mine", "edges", "realmaster"])
    frame = pd.read_csv(settings.layout.metrics)
    footage = {"method": "real", "clip": "street", "sequence": "street", "metric": "gpt_rs", "value": 9.0}
    pd.concat([frame, pd.DataFrame([footage])]).to_csv(settings.layout.metrics, index=False)
    made = {table.name: table for table in tables.build(settings)}
    rows = {row[0]: row for row in made["table1"].cells}
    assert rows["My model"][1] == "16" and list(rows)[-2:] == [tables.APART, "Real footage"]
    assert rows["Real footage"][made["table1"].header.index("GPT-RS no-ref ↑")] == "9.00"
    assert "; 8 sequences." in " ".join(made["table1"].notes)
    for name in ("differences", "wins"):
        assert [row[0] for row in made[name].cells].count("My model") == 1
        assert "Real footage" not in [row[0] for row in made[name].cells]
    labels = [text.get_text() for text in figures.fidelity(settings).axes[0].get_yticklabels()]
    assert "My model" in labels and "Real footage" not in labels


def test_no_label_breaks_a_table(tiny_profile: profile.Profile) -> None:
    content = tiny_profile.model_dump()
    label = r"[A#1] a_b & c | 50% {x} \y ~^ $5 < 6"
    content["baselines"]["folders"] = {"mine": label}
    settings = profile.Profile.model_validate(content)
    put_metrics(settings, ["render", "mine", "edges", "realmaster"])
    table = tables.build(settings)[0]
    (row,) = [line for line in typeset.latex(table).splitlines() if "A\\#1" in line]
    first, *others = re.split(r"(?<!\\) & ", row)
    escaped = (
        r"{}[A\#1] a\_b \& c | 50\% \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{} \$5 $<$ 6"
    )
    assert first == escaped and len(others) == len(table.header) - 1
    (row,) = [line for line in typeset.markdown(table).splitlines() if "A#1" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == len(table.header) + 1
    html = typeset.styled(table).to_html()
    assert "a_b &amp; c" in html and "&lt; 6" in html
