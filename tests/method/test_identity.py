"""The face filter: what is kept and why, and that without a face model every pair passes and says so."""

import json

import numpy as np
import pytest
from conftest import set_identity
from test_propagation import put_anchor

from rehearsal.faces import KNOWN, OTHER
from rmkit.errors import InputError
from rmkit.evaluation import figures
from rmkit.kit import face_pack, video
from rmkit.method import identity, propagation, sampling
from rmkit.method.faces import Likeness
from rmkit.profile import Identity


@pytest.fixture
def propagated(tiny_profile, tiny_clips):
    train = [clip for clip in tiny_clips if clip.split == "train"]
    for clip in train:
        for index in (0, 8):
            put_anchor(tiny_profile, clip, index)
        frames = np.zeros((9, 32, 48, 3), np.uint8)
        video.write(propagation.path(tiny_profile, "edges", clip), frames, 16)
    return tiny_profile, train


def test_every_pair_is_kept_and_says_that_the_filter_was_not_applied(propagated, capsys):
    profile, train = propagated
    pairs = identity.filter_pairs(profile, train)
    assert [pair["clip"] for pair in pairs] == [clip.id for clip in train]
    for pair in pairs:
        assert pair["kept"] and pair["reason"] == "no face model: not applied"
        assert pair["similarity"] is None and pair["caption"]
        assert profile.layout.root / pair["render"] == sampling.path(
            profile, next(clip for clip in train if clip.id == pair["clip"])
        )
        assert (profile.layout.root / pair["target"]).is_file()
    written = profile.layout.pairs / "pairs.json"
    assert json.loads(written.read_text()) == identity.load(profile) == pairs
    assert "2 of 2 kept" in capsys.readouterr().out


def test_unchanged_pairs_are_not_written_again_and_changed_ones_are(propagated):
    profile, train = propagated
    written = profile.layout.pairs / "pairs.json"
    identity.filter_pairs(profile, train)
    before = written.stat().st_mtime_ns
    identity.filter_pairs(profile, train)
    assert written.stat().st_mtime_ns == before
    identity.filter_pairs(profile, train[:1])
    assert len(identity.load(profile)) == 1


def test_a_refused_anchor_keeps_its_clip_out(propagated):
    profile, train = propagated
    put_anchor(profile, train[0], 8, accepted=False)
    propagation.path(profile, "edges", train[0]).unlink()
    pairs = identity.filter_pairs(profile, train)
    assert [pair["kept"] for pair in pairs] == [False, True]
    assert pairs[0]["reason"] == "an anchor was refused"
    put_anchor(profile, train[1], 0, accepted=False)
    with pytest.raises(InputError, match="no pair is left"):
        identity.filter_pairs(profile, train)


def test_bad_inputs_are_refused(propagated):
    profile, train = propagated
    with pytest.raises(InputError, match="does not exist"):
        identity.load(profile)
    propagation.path(profile, "edges", train[0]).unlink()
    with pytest.raises(InputError, match="03_propagation_ablations"):
        identity.filter_pairs(profile, train)


def repaint(profile, clip, colour) -> None:
    """The clip's propagation becomes its render with the bright square in another colour."""
    frames = video.read(sampling.path(profile, clip)).copy()
    frames[(frames == KNOWN).all(-1)] = colour
    video.write(propagation.path(profile, "edges", clip), frames, 16)


def by_clip(pairs) -> dict:
    return {pair["clip"]: pair for pair in pairs}


def test_a_pair_with_another_face_is_left_out(propagated, with_faces, capsys):
    _, train = propagated
    same, other = train
    repaint(with_faces, same, (220, 195, 180))
    repaint(with_faces, other, OTHER)
    pairs = by_clip(identity.filter_pairs(with_faces, train))
    assert pairs[same.id]["kept"] and pairs[same.id]["reason"] == "faces are alike"
    assert pairs[same.id]["similarity"] > 0.95 and pairs[same.id]["coverage"] == 1
    assert not pairs[other.id]["kept"] and pairs[other.id]["reason"] == "faces differ"
    assert pairs[other.id]["similarity"] == pytest.approx(0.35, abs=0.02)
    assert identity.load(with_faces) == list(pairs.values())
    assert "faces are alike: 1, faces differ: 1" in capsys.readouterr().out
    loose = set_identity(with_faces, threshold=0.3)
    assert all(pair["kept"] for pair in identity.filter_pairs(loose, train))


def test_what_was_found_is_not_looked_for_again(propagated, with_faces, monkeypatch):
    _, train = propagated
    for clip in train:
        repaint(with_faces, clip, KNOWN)
    before = identity.filter_pairs(with_faces, train)
    stamp = (with_faces.layout.pairs / "pairs.json").stat().st_mtime_ns

    def never(*_):
        raise AssertionError("faces were looked for again")

    monkeypatch.setattr(face_pack, "find", never)
    assert identity.filter_pairs(with_faces, train) == before
    assert (with_faces.layout.pairs / "pairs.json").stat().st_mtime_ns == stamp
    # The filter's own settings ask nothing new of the faces.
    strict = set_identity(with_faces, over="minimum", threshold=0.9)
    assert identity.filter_pairs(strict, train) == before
    with pytest.raises(AssertionError, match="looked for again"):
        identity.filter_pairs(set_identity(with_faces, frames="all"), train)


def test_all_frames_see_what_five_do_not(propagated, with_faces):
    _, train = propagated
    frames = video.read(sampling.path(with_faces, train[0])).copy()
    square = (frames == KNOWN).all(-1)
    square[[0, 2, 4, 6, 8]] = False
    frames[square] = OTHER  # every frame but the five sampled ones
    video.write(propagation.path(with_faces, "edges", train[0]), frames, 16)
    sampled = identity.likeness(with_faces, train[0])
    whole = identity.likeness(set_identity(with_faces, frames="all"), train[0])
    assert sampled.over("minimum") == pytest.approx(1, abs=1e-4)
    assert whole.over("minimum") < 0.4 < whole.over("mean") < 0.9


@pytest.mark.parametrize(
    ("found", "settings", "kept", "reason"),
    [
        (Likeness((0.9, 0.1), 2), {}, True, "faces are alike"),
        (Likeness((0.9, 0.1), 2), {"over": "minimum"}, False, "faces differ"),
        (Likeness((0.4,), 1), {}, True, "faces are alike"),
        (Likeness((0.399,), 1), {}, False, "faces differ"),
        (Likeness((), 0), {}, True, "the render has no face"),
        (Likeness((), 0), {"faceless": "drop"}, False, "the render has no face"),
        (Likeness((), 3), {}, False, "no face was found again"),
        (Likeness((), 3), {"faceless": "drop"}, False, "no face was found again"),
    ],
)
def test_the_rule(found, settings, kept, reason):
    verdict = identity.decide(found, Identity(**settings))
    assert (verdict["kept"], verdict["reason"]) == (kept, reason)
    assert (verdict["similarity"] is None) == (not found.cosines)
    assert (verdict["coverage"] is None) == (found.found == 0)


def test_a_clip_without_a_face_is_kept_or_not_as_asked(propagated, with_faces):
    _, train = propagated
    for clip in train:
        frames = video.read(sampling.path(with_faces, clip)).copy()
        frames[(frames == KNOWN).all(-1)] = 0
        video.write(propagation.path(with_faces, "edges", clip), frames, 16)
    repaint(with_faces, train[0], KNOWN)
    pairs = by_clip(identity.filter_pairs(with_faces, train))
    assert pairs[train[1].id]["reason"] == "no face was found again"
    assert (pairs[train[1].id]["similarity"], pairs[train[1].id]["coverage"]) == (None, 0)
    blank = np.zeros((9, 32, 48, 3), np.uint8)
    video.write(sampling.path(with_faces, train[1]), blank, 16)
    pair = by_clip(identity.filter_pairs(with_faces, train))[train[1].id]
    assert (pair["kept"], pair["reason"], pair["coverage"]) == (True, "the render has no face", None)
    strict = set_identity(with_faces, faceless="drop")
    assert not by_clip(identity.filter_pairs(strict, train))[train[1].id]["kept"]


def test_too_few_survivors_stop_the_run_in_one_sentence(propagated, with_faces):
    _, train = propagated
    repaint(with_faces, train[0], KNOWN)
    repaint(with_faces, train[1], OTHER)
    many = set_identity(with_faces, fewest_pairs=2)
    with pytest.raises(
        InputError, match=r"keeps 1 of 2 pairs and identity.fewest_pairs is 2 .*faces differ: 1"
    ):
        identity.filter_pairs(many, train)
    assert not (with_faces.layout.pairs / "pairs.json").exists()  # nothing that training could go on with


def test_a_refused_anchor_is_not_measured(propagated, with_faces):
    _, train = propagated
    repaint(with_faces, train[1], KNOWN)
    put_anchor(with_faces, train[0], 8, accepted=False)
    propagation.path(with_faces, "edges", train[0]).unlink()
    pairs = identity.filter_pairs(with_faces, train)
    assert [pair["reason"] for pair in pairs] == ["an anchor was refused", "faces are alike"]


def test_the_figure_shows_the_filter_or_says_why_not(propagated, with_faces):
    profile, train = propagated
    identity.filter_pairs(profile, train)
    assert "no face model" in figures.similarities(profile).axes[0].texts[0].get_text()
    repaint(with_faces, train[0], KNOWN)
    repaint(with_faces, train[1], OTHER)
    identity.filter_pairs(with_faces, train)
    labels = [text.get_text() for text in figures.similarities(with_faces).axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["kept: 1", "threshold, 0.4", "thrown away: 1"]
