"""The filter that is not there yet: every pair passes and says so, refused clips and missing ones do not."""

import json

import numpy as np
import pytest
from test_propagate import put_anchor

from rmkit import clips, identity, propagate, video
from rmkit.errors import InputError


@pytest.fixture
def propagated(tiny_profile, tiny_clips):
    train = [clip for clip in tiny_clips if clip.split == "train"]
    for clip in train:
        for index in (0, 8):
            put_anchor(tiny_profile, clip, index)
        frames = np.zeros((9, 32, 48, 3), np.uint8)
        video.write(propagate.path(tiny_profile, "edges", clip), frames, 16)
    return tiny_profile, train


def test_every_pair_is_kept_and_says_that_the_filter_was_not_applied(propagated, capsys):
    profile, train = propagated
    pairs = identity.filter_pairs(profile, train)
    assert [pair["clip"] for pair in pairs] == [clip.id for clip in train]
    for pair in pairs:
        assert pair["kept"] and pair["reason"] == "no face model: not applied"
        assert pair["similarity"] is None and pair["caption"]
        assert profile.layout.root / pair["render"] == clips.path(
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
    propagate.path(profile, "edges", train[0]).unlink()
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
    propagate.path(profile, "edges", train[0]).unlink()
    with pytest.raises(InputError, match="03_propagation_ablations"):
        identity.filter_pairs(profile, train)
    asked = profile.identity.model_copy(update={"model_pack": "somewhere"})
    with pytest.raises(InputError, match="model_pack"):
        identity.filter_pairs(profile.model_copy(update={"identity": asked}), train)
