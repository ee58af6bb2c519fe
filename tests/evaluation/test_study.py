"""The user study: a page that tells nothing, a key that tells all, sessions that are balanced, and answers read and counted."""

import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from rmkit import cli, profile
from rmkit.errors import InputError
from rmkit.evaluation import claims, report, study, study_figures
from rmkit.kit import store, video
from rmkit.method import sampling


@pytest.fixture
def compared(tiny_profile, tiny_clips):
    """The tiny profile with clips of RealMaster and of two other methods; of one of them a clip is missing."""
    held = sampling.load(tiny_profile, "validation")
    for number, name in enumerate(("realmaster", "lucy_edit", "colour_transfer")):
        for clip in held[: 1 if name == "lucy_edit" else 2]:
            frames = np.full((9, 32, 48, 3), 60 * (number + 1), np.uint8)
            video.write(tiny_profile.layout.enhanced / name / f"{clip.id}.mp4", frames, 16)
    return tiny_profile


def answer(settings, participant, choices, name="answers.csv"):
    """A file as the page saves it: for every pair of clip and method whether RealMaster is preferred, all questions alike."""
    trials = {
        (f["clip"], f["against"]): (trial, f["ours"]) for trial, f in study.answer_key(settings).items()
    }
    lines = [",".join(study.COLUMNS)]
    for pair, ours in choices.items():
        trial, side = trials[pair]
        side = side if ours else {"a": "b", "b": "a"}[side]
        lines += [f"{participant},{trial},{question},{side}" for question in study.QUESTIONS]
    path = settings.layout.root / f"{participant}_{name}"
    path.write_text("\n".join([*lines, ""]))
    return path


def pairs_of(settings):
    return dict.fromkeys((f["clip"], f["against"]) for f in study.answer_key(settings).values())


def test_the_page_shows_every_pair_and_tells_nothing(compared):
    page = study.make(compared, ["lucy_edit", "colour_transfer"])
    text = page.read_text()
    for word in ("realmaster", "lucy", "colour_transfer", *(c.id for c in sampling.load(compared))):
        assert word not in text.lower()
    content = json.loads(re.search(r"const study = (\{.*\});", text).group(1))
    key = study.answer_key(compared)
    assert len(content["trials"]) == len(key) == 2 * (1 + 2)
    drawn = study.sessions(list(pairs_of(compared)), study.TRIALS, compared.seed)
    seen = [[tuple(key[trial].values()) for trial in session] for session in content["sessions"]]
    assert seen == drawn and len(seen[0]) == 3
    level = {name: 60 * (i + 1) for i, name in enumerate(("realmaster", "lucy_edit", "colour_transfer"))}
    for trial, sides in content["trials"].items():
        facts = key[trial]
        for side, method in {
            "a": facts["against"],
            "b": facts["against"],
            facts["ours"]: "realmaster",
        }.items():
            frame = next(video.stream(page.parent / sides[side]))
            assert frame.shape == (2 * 32, 2 * 48, 3) and abs(frame.mean() - level[method]) < 6
        assert (page.parent / sides["render"]).is_file()
    assert not (page.parent / "key.json").exists()
    # Fewer pairs: the same trials keep their names and sides, and what is not shown is not there.
    study.make(compared, ["lucy_edit"])
    fewer = study.answer_key(compared)
    assert len(fewer) == 2 and fewer.items() <= key.items()
    assert len(list((page.parent / "videos").iterdir())) == 3
    # Other videos: other trials.
    (path,) = (compared.layout.enhanced / "lucy_edit").glob("*.mp4")
    video.write(path, np.full((9, 32, 48, 3), 10, np.uint8), 16)
    study.make(compared, ["lucy_edit"])
    assert not study.answer_key(compared).keys() & fewer.keys()


def test_a_video_that_was_not_written_to_its_end_is_none(compared, monkeypatch):
    def broken(path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(video, "write_viewing_copy", broken)
        with pytest.raises(KeyboardInterrupt):
            study.make(compared, ["lucy_edit"])
    assert not list((compared.layout.study / "page" / "videos").iterdir())
    study.make(compared, ["lucy_edit"])
    made = list((compared.layout.study / "page" / "videos").iterdir())
    assert made and all(video.probe(path).frames == compared.clips.frames for path in made)


def test_sessions_are_balanced_for_however_many_take_part():
    pairs = [(f"c{i}", method) for method in "xyz" for i in range(7 if method == "z" else 9)]
    for people, trials in ((1, 15), (7, 15), (45, 15), (45, 10)):
        drawn = study.sessions(pairs, trials, 0, people)
        for session in drawn:
            assert len({seen[:2] for seen in session}) == trials
            by_method = Counter(method for _, method, _ in session).values()
            assert max(by_method) - min(by_method) <= 1
        seen = [trial for session in drawn for trial in session]
        for method in "xyz":
            by_pair = [sum(trial[:2] == pair for trial in seen) for pair in pairs if pair[1] == method]
            assert max(by_pair) - min(by_pair) <= 1
        totals = Counter(method for _, method, _ in seen).values()
        assert max(totals) - min(totals) <= 1
        for pair in pairs:
            sides = Counter(ours for *of, ours in seen if tuple(of) == pair)
            assert abs(sides["a"] - sides["b"]) <= 1
    assert study.sessions(pairs, 15, 0, 45)[:7] == study.sessions(pairs, 15, 0, 7)
    assert study.sessions(pairs, 15, 1, 7) != study.sessions(pairs, 15, 0, 7)


def test_answers_are_counted_by_method_and_question(compared):
    study.make(compared, ["lucy_edit", "colour_transfer"])
    files = [
        answer(compared, f"p{i}", {pair: pair[1] == "lucy_edit" or i < 2 for pair in pairs_of(compared)})
        for i in range(8)
    ]
    table = study.count(compared, files)
    data = table.data.set_index(["against", "question"])
    assert data.loc["lucy_edit"].preferred.tolist() == [1, 1, 1]
    row = data.loc[("colour_transfer", "realism")]
    assert row.preferred == 0.25 and row.low < 0.25 < row.high
    assert (row.trials, row.participants) == (16, 8)
    assert (compared.layout.tables / "study.md").is_file()
    assert (compared.layout.study / "preferences.png").is_file()
    assert "Krippendorff's alpha" in " ".join(table.notes)


def test_answers_that_a_spreadsheet_program_had_are_the_same(compared, tmp_path):
    study.make(compared, ["lucy_edit", "colour_transfer"])
    plain = answer(compared, "p1", dict.fromkeys(pairs_of(compared), True))
    plain.write_text(plain.read_text().replace("p1", "Zoë"))
    expected, rows = study.read(compared, [plain]), [line.split(",") for line in plain.read_text().split()]
    turned = [[row[i] for i in (3, 1, 0, 2)] for row in rows]
    for separator, encoding, ending in (
        (";", "utf-8-sig", "\r\n"),
        ("\t", "utf-16", "\r\n"),
        (";", "cp1252", "\r\n"),
        (",", "utf-8", "\r"),  # Excel's, of a Macintosh
    ):
        text = ending.join(separator.join([*row, "", "x y"]) for row in turned) + ending
        text += separator * 5 + ending  # an empty line, as a sheet's end has them
        path = tmp_path / "sheet.csv"
        path.write_bytes(text.replace("choice", "Choice ").encode(encoding))
        pd.testing.assert_frame_equal(study.read(compared, [path]), expected)


def test_what_is_no_answer_is_refused_by_file_and_line(compared, tmp_path):
    with pytest.raises(InputError, match="make the study first"):
        study.count(compared, [])
    study.make(compared, ["lucy_edit"])
    trial = next(iter(study.answer_key(compared)))
    good = answer(compared, "p", dict.fromkeys(pairs_of(compared), True))
    with pytest.raises(InputError, match=r"line 2: participant p has answered this before \(.*, line 2\)"):
        study.count(compared, [good, good])
    header = ",".join(study.COLUMNS)
    for text, words in (
        ("participant,trial\np,1\n", "has no column 'question'"),
        ("", "has no column 'participant'"),
        (f"{header}\n\np,other,realism,a\n", "line 3: 'other' is no trial of this study"),
        (f"{header}\np,{trial},beauty,a\n", "line 2: the question is 'beauty' and not realism or"),
        (f"{header}\np,{trial},realism\n", "line 2: the choice is '' and not a or b"),
        (f"{header}\nsimulated_001,{trial},realism,a\n", "simulated_001 was simulated"),
        (f"{header}\n", "hold no answer"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(text)
        with pytest.raises(InputError, match=words):
            study.count(compared, [bad])
    for content in (b"\xff\xfea", b"PK\x03\x04\x80"):  # a broken encoding, and a spreadsheet itself
        bad.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            study.count(compared, [bad])
    with pytest.raises(InputError, match="cannot be read"):
        study.count(compared, [tmp_path / "none.csv"])


def test_a_simulated_panel_is_marked_and_counts_for_nothing(compared):
    with pytest.raises(InputError, match="make the study first"):
        study.simulate(compared, 5, 0.7)
    study.make(compared, ["colour_transfer"])
    before = set(compared.layout.root.rglob("*"))
    made = study.simulate(compared, 20, 0.7)
    written = {path for path in set(compared.layout.root.rglob("*")) - before if path.is_file()}
    assert written and all(path.name.startswith("simulated_") for path in written)
    assert {path.parent.name for path in written} == {"simulated"}
    for path in written:
        if path.suffix in (".csv", ".md", ".tex"):
            assert "simulated" in path.read_text().lower()
    assert "SIMULATED" in made.title and "nobody was asked" in made.notes[0]
    figure = study_figures.preferences(compared, made.data)
    assert [text.get_text() for text in figure.axes[0].texts] == ["SIMULATED"]
    assert "nobody was asked" in figure.axes[0].get_title()
    assert "study" not in claims.measured_beside(compared)
    assert report._study(compared).startswith("Not run: nobody has taken part")
    with pytest.raises(InputError, match="has no column 'trial'"):
        study.count(compared, sorted((compared.layout.study / "simulated").glob("*answers.csv")))


def test_without_clips_to_compare_it_is_a_sentence(compared, tmp_path, capsys, monkeypatch):
    assert study.compared(compared) == ["lucy_edit"]
    for file in (compared.layout.enhanced / "lucy_edit").glob("*"):
        file.unlink()
    assert study.compared(compared) == ["colour_transfer"]  # a stand-in
    with monkeypatch.context() as without:
        without.setattr(study, "STAND_INS", ())
        with pytest.raises(InputError, match="no clips of the paper's baselines"):
            study.make(compared)
    with pytest.raises(InputError, match="'nothing' is no method"):
        study.make(compared, ["nothing"])
    with pytest.raises(InputError, match="has both realmaster and lucy_edit"):
        study.make(compared, ["lucy_edit"])
    path = tmp_path / "tiny.yaml"
    store.write_json(path, compared.model_dump(mode="json"))
    assert cli.main(["study", "--profile", str(path), "--against", "colour_transfer"]) == 0
    assert "and not" in capsys.readouterr().out
    assert study.compared(compared) == ["colour_transfer"]  # of the page
    file = answer(profile.load(path), "p", dict.fromkeys(pairs_of(compared), True))
    assert cli.main(["study", "--profile", str(path), "--answers", str(file)]) == 0
    assert "| Colour transfer | realism | 100% |" in capsys.readouterr().out
