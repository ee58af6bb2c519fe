"""A data set is one file: what it has to say is little, and every stage reads it through the same functions."""

from pathlib import Path

import numpy as np
import pytest

from rmkit import profile, sources
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling, structure

NOISE = """
import numpy as np

from rmkit.errors import InputError
from rmkit.sources import Sequence


class Noise(Sequence):
    def __len__(self):
        return 10

    def frames(self, indices):
        drawn = np.random.default_rng(len(self.id)).integers(0, 256, (10, 40, 60, 3), np.uint8)
        return drawn[list(indices)]

    def fingerprints(self, indices):
        return {str(index): f"{self.id}/{index}" for index in indices}


def prepare(profile):
    (profile.layout.data / "drawn").mkdir(parents=True)


def sequences(profile, split):
    if not (profile.layout.data / "drawn").is_dir():
        raise InputError("draw it first")
    caption = {"first_frame": 0, "caption": "noise", "subsets": ["grain"]}
    return [Noise(id=f"{split}_{i}", split=split, fps=8, captions=(caption,)) for i in range(2)]


def describe(profile):
    return f"{len(sequences(profile, 'validation'))} sequences of noise"
"""


@pytest.fixture
def noise(tiny_profile: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """The tiny profile on a source that a file of its own adds."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "noise.py").write_text(NOISE)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "sources")])
    data = tiny_profile.data.model_copy(update={"source": "noise", "root": None})
    return tiny_profile.model_copy(update={"data": data})


def test_a_new_file_is_a_new_data_set(noise: profile.Profile) -> None:
    with pytest.raises(InputError, match="draw it first"):
        sampling.sample(noise)
    sources.prepare(noise)
    assert sources.describe(noise) == "2 sequences of noise"
    chosen = sampling.sample(noise)
    assert [clip.split for clip in chosen] == ["train"] * 2 + ["validation"] * 2
    assert {(clip.caption, clip.subsets) for clip in chosen} == {("noise", ("grain",))}
    clip = chosen[-1]
    held = sampling.sequence_of(noise, clip)
    wanted = np.stack(list(held.stream()))[list(clip.source_frames), 4:36, 6:54]
    assert np.array_equal(video.read(sampling.path(noise, clip))[::2], wanted)
    assert len(structure.extract(noise, chosen, ["edges"])) == 4


def test_a_source_without_depth_says_so_before_anything_is_written(noise: profile.Profile) -> None:
    sources.prepare(noise)
    chosen = sampling.sample(noise)
    with pytest.raises(InputError, match=r"has no depth maps: set structure\.depth to an estimator"):
        structure.extract(noise, chosen)
    assert not noise.layout.structure.exists()
    with pytest.raises(InputError, match="validation_1 has no depth maps"):
        sampling.sequence_of(noise, chosen[-1]).depth([0])


def test_the_digest_of_a_source_without_one_follows_its_files(noise: profile.Profile, tmp_path: Path) -> None:
    assert sources.digest(noise.data) == ""
    rooted = noise.data.model_copy(update={"root": str(tmp_path / "drawn")})
    seen = [sources.digest(rooted)]
    for name in ("a/1.png", "a/2.png"):
        (tmp_path / "drawn" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "drawn" / name).write_bytes(b"1")
        seen.append(sources.digest(rooted))
    (tmp_path / "drawn" / "a" / "2.png").write_bytes(b"12")
    assert len({*seen, sources.digest(rooted)}) == 4
