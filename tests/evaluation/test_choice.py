"""A table and a plot of what is chosen: pandas alone, of a run or of the shipped record; and the menus on them."""

import gzip
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_tables import put_metrics

from rmkit import profile
from rmkit.errors import InputError
from rmkit.evaluation import choice, chosen, metrics_csv, table_lab, tables
from rmkit.evaluation.choice import Choice
from rmkit.evaluation.typeset import Table
from rmkit.kit import widgets
from rmkit.paths import REPOSITORY

RECORD = REPOSITORY / "results" / "reference" / "mini" / "metrics.csv.gz"
METRICS = ("psnr_truth", "edge_f1", "sharpness")


@pytest.fixture
def made(tiny_profile: profile.Profile) -> profile.Profile:
    """A run of five methods on 16 clips, the first six of them labelled, and another run that is 1 higher."""
    put_metrics(tiny_profile, ["render", "edges", "depth", "realmaster", "truth"])
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    first = frame["clip"].isin([f"s{i // 2}_{i % 2}" for i in range(6)])
    frame["subsets"] = np.where(first, "small;fast", "")
    frame.to_csv(tiny_profile.layout.metrics, index=False)
    other = tiny_profile.layout.run.parent / "other"
    other.mkdir()
    frame.assign(value=frame.value + 1).replace("depth", "theirs").to_csv(other / "metrics.csv", index=False)
    return tiny_profile


def table(made: profile.Profile, asked: Choice) -> Table:
    return chosen.table(choice.Found(made, asked))


def cells(made: profile.Profile, **asked: object) -> dict[str, list[str]]:
    shown = table(made, Choice(**{"metrics": METRICS, **asked}))
    return {row[0]: list(row[1:]) for row in shown.cells}


def test_it_agrees_with_the_tables_of_the_report(made: profile.Profile) -> None:
    report = {table.name: table for table in tables.build(made)}
    for statistic, name in (
        ("mean", "table2_further"),
        ("difference", "differences_further"),
        ("win rate", "wins_further"),
    ):
        theirs = report[name].data.set_index("method")
        ours = table(made, Choice(METRICS, statistic=statistic)).data.set_index("method")
        for metric in METRICS[:2]:
            for column in (metric, f"{metric}_low", f"{metric}_high"):
                pd.testing.assert_series_equal(
                    ours.loc[["render", "edges"], column], theirs.loc[["render", "edges"], column]
                )


def test_each_part_of_a_choice(made: profile.Profile) -> None:
    frame = metrics_csv.load(made)
    values = frame[(frame.method == "edges") & (frame.metric == "psnr_truth")].set_index("clip").value
    plain = cells(made, confidence=None)
    assert plain["Edges"][:2] == ["16", f"{values.mean():.2f}"]
    assert (
        cells(made, statistic="median", confidence=None, decimals=4)["Edges"][1] == f"{values.median():.4f}"
    )
    of_subset = cells(made, subset="fast", confidence=None)["Edges"]
    assert of_subset[:2] == ["6", f"{values[[f's{i // 2}_{i % 2}' for i in range(6)]].mean():.2f}"]
    assert list(cells(made, methods=("truth", "edges"))) == ["Truth", "Edges"]
    assert list(cells(made, sort="method"))[:2] == ["Depth", "Edges"]
    by_psnr = [
        float(row[1]) for row in cells(made, sort="psnr_truth", confidence=None).values() if row[1] != "n/a"
    ]
    assert by_psnr == sorted(by_psnr, reverse=True)
    assert "Blur" not in plain and cells(made, hide_not_run=False)["Blur"][1:] == ["not run"] * 3
    wider, narrower = (
        table(made, Choice(METRICS, confidence=level)).data.eval("psnr_truth_high - psnr_truth_low")
        for level in (0.99, 0.9)
    )
    assert (wider.dropna() > narrower.dropna()).all()
    # Neither more nor less sharpness is better, so nobody wins by it, and nothing is said of a method against itself.
    assert "Sharpness" not in table(made, Choice(METRICS, statistic="win rate")).header
    assert "Edges" not in cells(made, statistic="difference", other="edges")


def test_what_has_fewer_clips_stands_apart(made: profile.Profile) -> None:
    frame = pd.read_csv(made.layout.metrics, keep_default_na=False)
    frame[(frame.method != "depth") | frame.subsets.ne("")].to_csv(made.layout.metrics, index=False)
    assert list(cells(made, sort="method"))[-2:] == [tables.APART, "Depth"]


@pytest.mark.parametrize("statistic", choice.STATISTICS)
def test_two_runs_side_by_side(made: profile.Profile, statistic: str) -> None:
    assert choice.runs(made).keys() == {"other"}
    shown = table(made, Choice(METRICS, statistic=statistic, beside="other"))
    rows = shown.data.set_index(["method", "run"])
    expected = -1 if statistic in ("mean", "median") else 0
    assert rows.loc[("edges", "difference"), "psnr_truth"] == pytest.approx(expected)
    assert ("theirs" in rows.index) and np.isnan(rows.loc[("theirs", "tiny"), "psnr_truth"])
    assert shown.header[2:5] == [
        f"{shown.header[2].rpartition(', ')[0]}, {run}" for run in ("tiny", "other", "difference")
    ]
    assert "tiny and other" in shown.title


def test_the_plot_follows(made: profile.Profile) -> None:
    pictures = set()
    for asked in (
        Choice(METRICS),
        Choice(METRICS[:1]),
        Choice(METRICS, statistic="difference"),
        Choice(METRICS, beside="other"),
        Choice(METRICS, subset="fast"),
    ):
        figure = chosen.figure(choice.Found(made, asked))
        figure.savefig(picture := io.BytesIO())
        pictures.add(picture.getvalue())
        assert table(made, asked).title.split(";")[0] in figure.get_suptitle().replace("\n", " ")
    assert len(pictures) == 5


def test_export_writes_the_choice_and_says_what_it_is(made: profile.Profile) -> None:
    paths = chosen.export(made, Choice(METRICS, subset="small", statistic="difference"), "mine")
    folder = made.layout.tables / "chosen"
    assert sorted(paths) == sorted(folder / f"mine.{end}" for end in ("csv", "md", "tex", "png", "pdf"))
    said = "Mean difference to RealMaster, clip by clip, clips labelled small; profile tiny; 95 % intervals"
    assert said in (folder / "mine.md").read_text()
    assert said.replace("%", r"\%") in (folder / "mine.tex").read_text()
    frame = pd.read_csv(folder / "mine.csv")
    assert set(frame["subset"]) == {"small"} and set(frame.against) == {"realmaster"}
    assert Image.open(folder / "mine.png").height > 100
    before = [path.read_bytes() for path in paths]
    chosen.export(made, Choice(METRICS, subset="small", statistic="difference"), "mine")
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": ("psnr",)},
        {"methods": ("mine",)},
        {"subset": "none such"},
        {"statistic": "mode"},
        {"beside": "nowhere"},
        {"methods": ("blur",)},
        {"sort": "psnr"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_cannot_be_met_is_a_sentence(made: profile.Profile, wrong: dict) -> None:
    with pytest.raises(InputError, match=r"there are|labelled|measured"):
        table(made, Choice(**wrong))


@pytest.mark.parametrize("name", ["", "../table1", "a b", "a/b", "x" * 80])
def test_an_export_stays_in_its_folder(made: profile.Profile, name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        chosen.export(made, Choice(), name)


def test_the_record_is_shown_before_any_run_and_without_torch(tiny_profile: profile.Profile) -> None:
    reference = tiny_profile.layout.reference
    reference.mkdir(parents=True)
    (reference / "metrics.csv.gz").write_bytes(RECORD.read_bytes())
    assert choice.runs(tiny_profile) == {}
    assert "tiny as shipped" in table(tiny_profile, Choice()).title
    tiny_profile.layout.root.mkdir(exist_ok=True)
    tiny_profile.layout.metrics.write_bytes(gzip.decompress(RECORD.read_bytes()))
    assert choice.runs(tiny_profile).keys() == {"tiny as shipped"}
    program = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without)\n"
        "from rmkit import profile; from rmkit.evaluation import choice, chosen; from rmkit.kit import machine\n"
        "mini = profile.load('mini'); machine.show(mini)\n"
        "found = choice.Found(mini, choice.Choice())\n"
        "chosen.figure(found); print(len(chosen.table(found).cells))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no torch" in done.stdout and int(done.stdout.split()[-1]) > 8


def test_menus_draw_what_they_say(made: profile.Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_lab.open_lab(made) is None  # nobody is here
    monkeypatch.setattr(widgets, "person_is_here", lambda: True)
    lab = table_lab._Lab(made)
    first = lab.table.value, lab.plot.value
    for box in lab.metrics.values():
        box.value = False
    assert "choose some metrics" in lab.table.value and lab.plot.layout.display == "none"
    lab.metrics["psnr_truth"].value = True
    lab.menus["statistic"].value = "difference"
    lab.menus["beside"].value = "other"
    assert (
        "tiny and other" in lab.table.value and lab.plot.value != first[1] and lab.plot.layout.display == ""
    )
    lab._export(None)
    assert "chosen.csv" in lab.said.value and (made.layout.tables / "chosen" / "chosen.pdf").is_file()
