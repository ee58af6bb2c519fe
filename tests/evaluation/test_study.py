"""The user study: a page that tells nothing, a key that tells all, and answers counted by participant."""

import json
import re

import numpy as np
import pytest

from rmkit import cli, profile
from rmkit.errors import InputError
from rmkit.evaluation import study
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
    """A file as the page saves it: for every trial whether RealMaster is preferred, all questions alike."""
    key = json.loads((settings.layout.study / "key.json").read_text())
    other = {"a": "b", "b": "a"}
    lines = [",".join(study.COLUMNS)]
    for trial, ours in choices.items():
        side = key[trial]["ours"] if ours else other[key[trial]["ours"]]
        lines += [f"{participant},{trial},{question},{side}" for question in study.QUESTIONS]
    path = settings.layout.root / f"{participant}_{name}"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_the_page_shows_every_pair_and_tells_nothing(compared):
    page = study.make(compared, ["lucy_edit", "colour_transfer"])
    text = page.read_text()
    for word in ("realmaster", "lucy", "colour_transfer", *(c.id for c in sampling.load(compared))):
        assert word not in text.lower()
    content = json.loads(re.search(r"const study = (\{.*\});", text).group(1))
    key = json.loads((compared.layout.study / "key.json").read_text())
    assert len(content["trials"]) == len(key) == 1 + 2 and content["count"] == 3
    level = {name: 60 * (i + 1) for i, name in enumerate(("realmaster", "lucy_edit", "colour_transfer"))}
    for trial in content["trials"]:
        facts = key[trial["id"]]
        sides = {"a": facts["against"], "b": facts["against"], facts["ours"]: "realmaster"}
        for side, method in sides.items():
            frame = next(video.stream(page.parent / trial[side]))
            assert frame.shape == (4 * 32, 4 * 48, 3) and abs(frame.mean() - level[method]) < 6
        assert (page.parent / trial["render"]).is_file()
    assert not (page.parent / "key.json").exists()
    # Fewer pairs: the same trials keep their sides.
    study.make(compared, ["lucy_edit"])
    (kept,) = json.loads((compared.layout.study / "key.json").read_text()).items()
    assert key[kept[0]] == kept[1]


def test_answers_are_counted_by_method_and_question(compared):
    study.make(compared, ["lucy_edit", "colour_transfer"])
    key = json.loads((compared.layout.study / "key.json").read_text())
    files = []
    for person in range(8):
        files.append(
            answer(
                compared, f"p{person}", {t: f["against"] == "lucy_edit" or person < 2 for t, f in key.items()}
            )
        )
    table = study.count(compared, files)
    data = table.data.set_index(["against", "question"])
    assert data.loc["lucy_edit"].preferred.tolist() == [1, 1, 1]
    row = data.loc[("colour_transfer", "realism")]
    assert row.preferred == 0.25 and row.low < 0.25 < row.high
    assert (row.trials, row.participants) == (16, 8)
    assert (compared.layout.tables / "study.md").is_file() and (
        compared.layout.figures / "study.png"
    ).is_file()


def test_what_is_no_answer_is_refused_by_file_and_line(compared, tmp_path):
    with pytest.raises(InputError, match="make the study first"):
        study.count(compared, [])
    study.make(compared, ["lucy_edit"])
    (trial,) = json.loads((compared.layout.study / "key.json").read_text())
    good = answer(compared, "p", {trial: True})
    with pytest.raises(InputError, match=r"line 2: participant p has answered this before"):
        study.count(compared, [good, good])
    for text, words in (
        ("participant,trial\np,1\n", "must have the columns"),
        (",".join(study.COLUMNS) + "\np,other,realism,a\n", "line 2 is no answer to this study: p, other"),
        (",".join(study.COLUMNS) + f"\np,{trial},realism,c\n", "line 2 is no answer"),
        (",".join(study.COLUMNS) + "\n", "hold no answer"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(text)
        with pytest.raises(InputError, match=words):
            study.count(compared, [bad])
    with pytest.raises(InputError, match="cannot be read"):
        study.count(compared, [tmp_path / "none.csv"])


def test_without_clips_to_compare_it_is_a_sentence(compared, tmp_path, capsys, monkeypatch):
    for file in (compared.layout.enhanced / "lucy_edit").glob("*"):
        file.unlink()
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
    file = answer(
        profile.load(path),
        "p",
        dict.fromkeys(json.loads((compared.layout.study / "key.json").read_text()), True),
    )
    assert cli.main(["study", "--profile", str(path), "--answers", str(file)]) == 0
    assert "| Colour transfer | realism | 100% |" in capsys.readouterr().out
