"""The diorama: bundle and unpacking on a tiny world, and what the shipped bundle must hold."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import bundle
import film
import numpy as np
import pytest
import world

from rmkit import profile, sources
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.paths import REPOSITORY
from rmkit.sources import diorama

SHIPPED = REPOSITORY / "data" / "diorama" / "clips"
HEIGHT, WIDTH, SHOT = 32, 48, 5
COUNTS = {"train": 2, "validation": 1, "road": 1}


def test_the_lens_halves_contrast_at_a_third_of_a_cycle_a_pixel() -> None:
    wave = np.cos(2 * np.pi * 0.31 * np.arange(200))
    frames = np.broadcast_to(0.5 + 0.4 * wave[None, None, :, None], (2, 64, 200, 3)).astype(np.float32)
    seen = film.soften(frames)
    assert seen.shape == frames.shape and abs(seen.mean() - frames.mean()) < 1e-3
    assert 0.45 < np.ptp(seen[0, 32, 20:-20, 0]) / np.ptp(frames[0, 32, 20:-20, 0]) < 0.58


def render(folder: Path, split: str, seed: int, people: list[int]) -> dict[str, np.ndarray]:
    """A folder as data/diorama/render.py leaves it: two shots with a cut between them."""
    random = np.random.default_rng(seed)
    walls = np.kron(random.integers(0, 256, (2, 4, 6, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    frames = walls.repeat(SHOT, axis=0)
    for i, frame in enumerate(frames):
        frame[8:16, 2 * i : 2 * i + 8] = 128
    # Grain, so that quality has its price.
    frames = np.clip(frames + random.integers(-9, 10, frames.shape), 0, 255).astype(np.uint8)
    depth = random.uniform(1, 40, (2 * SHOT, HEIGHT, WIDTH)).astype(np.float16)
    depth[:, :4] = 1000  # sky
    visible = random.integers(0, 9, (2 * SHOT, HEIGHT, WIDTH)).astype(np.uint8)
    folder.mkdir(parents=True)
    video.write(folder / "render.mp4", frames, 8)
    video.write(folder / "truth.mp4", 255 - frames, 8)
    np.save(folder / "depth.npy", depth)
    np.save(folder / "visible.npy", visible)
    shots = [
        {"first_frame": SHOT * i, "frames": SHOT, "caption": f"shot {i}", "subsets": ["fast"] * i}
        for i in range(2)
    ]
    meta = {"sequence": folder.name, "split": split, "seed": seed, "shots": shots, "identities": people}
    meta |= {"objects": {"1": {"class": "person", "name": "a"}}, "faces": [[]] * 2 * SHOT}
    (folder / "meta.json").write_text(json.dumps(meta))
    return {"frames": frames, "depth": depth, "visible": visible}


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    for number, (split, count) in enumerate(COUNTS.items()):
        for i in range(count + 1):  # one more than is bundled; the same names in every split
            seed = 100 * number + i
            render(tmp_path / "rendered" / split / f"street_{i:05d}", split, seed, [seed])
    return tmp_path / "rendered"


@pytest.fixture
def made(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """A profile whose bundle is the tiny one."""
    bundle.build(rendered, tmp_path / "bundle", COUNTS)
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    content = profile.load("smoke").model_dump()
    content["data"] |= {"bundle": str(tmp_path / "bundle"), "train_clips": 4, "validation_clips": 2}
    content["clips"] |= {"height": HEIGHT, "width": WIDTH}
    return profile.Profile.model_validate(content)


def test_unpacked_is_a_sailvos_folder_with_all_the_engine_knows(made: profile.Profile, rendered: Path):
    sources.prepare(made)
    train, held = (sources.sequences(made, split) for split in ("train", "validation"))
    assert [s.id for s in train] == ["train_street_00000", "train_street_00001"]
    assert [s.id for s in held] == ["validation_street_00000"]
    source = rendered / "validation" / "street_00000"
    frames = video.read(source / "render.mp4").astype(float)
    got = held[0].frames(range(2 * SHOT)).astype(float)
    assert 10 * np.log10(255**2 / np.mean((got - frames) ** 2)) > 40
    assert np.array_equal(held[0].visible(range(2 * SHOT)), np.load(source / "visible.npy"))
    depth, wanted = held[0].depth(range(2 * SHOT)), np.load(source / "depth.npy").astype(np.float32)
    near = wanted < 4
    assert np.abs(depth[near] / wanted[near] - 1).max() < 0.02
    assert (depth[wanted == 1000] > 200).all()
    assert held[0].captions[1] == {"first_frame": SHOT, "caption": "shot 1", "subsets": ["fast"]}


def test_clips_are_cut_at_the_cut(made: profile.Profile):
    sources.prepare(made)
    chosen = sampling.sample(made)
    assert {clip.source_frames[0] for clip in chosen} == {0, SHOT} and len({c.id for c in chosen}) == 6


def test_truth_is_unpacked_for_validation_only_and_shipped_for_no_training_scene(made: profile.Profile):
    sources.prepare(made)
    assert [p.name for p in made.layout.truth.glob("*.mp4")] == ["validation_street_00000.mp4"]
    (held,) = sources.sequences(made, "validation")
    assert held.truth == made.layout.truth / "validation_street_00000.mp4"
    assert len(video.read(held.truth)) == len(held) == 2 * SHOT
    assert [sequence.truth for sequence in sources.sequences(made, "train")] == [None, None]
    assert not list(Path(made.data.bundle).glob("train/*/truth.mp4"))


def test_unpacking_again_does_nothing_and_a_removed_sequence_comes_back(made: profile.Profile):
    sources.prepare(made)
    root = made.layout.data / "sailvos"
    images = sorted(root.glob("*/images/*.png"))
    times = [image.stat().st_mtime_ns for image in images]
    sources.prepare(made)
    assert [image.stat().st_mtime_ns for image in images] == times
    shutil.rmtree(root / "train_street_00001")
    sources.prepare(made)
    assert sorted(root.glob("*/images/*.png")) == images


def test_a_damaged_or_missing_file_of_the_bundle_is_named_before_anything_is_written(made: profile.Profile):
    file = Path(made.data.bundle) / "train/train_street_00001/render.mp4"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    with pytest.raises(InputError, match=r"train_street_00001/render\.mp4 differs from its checksum"):
        sources.prepare(made)
    file.unlink()
    with pytest.raises(InputError, match=r"train_street_00001/render\.mp4 is missing"):
        sources.prepare(made)
    (Path(made.data.bundle) / diorama.CHECKSUMS).unlink()
    with pytest.raises(InputError, match="is not a diorama bundle"):
        sources.prepare(made)
    assert not made.layout.data.exists()


def test_doctor_describes_the_bundle_before_it_is_unpacked(made: profile.Profile):
    assert sources.describe(made) == f"{made.data.bundle}, checksums right"
    (Path(made.data.bundle) / "train/train_street_00001/render.mp4").write_bytes(b"?")
    with pytest.raises(InputError, match="differs from its checksum"):
        sources.describe(made)


def with_data(made: profile.Profile, **changes: str | None) -> profile.Profile:
    return made.model_copy(update={"data": made.data.model_copy(update=changes)})


def test_a_dataset_of_the_users_needs_no_unpacking(made: profile.Profile, tmp_path: Path):
    sources.prepare(made)
    unpacked = shutil.copytree(made.layout.data / "sailvos", tmp_path / "own")
    shutil.rmtree(made.layout.root)
    own = with_data(made, source="sailvos", root=str(unpacked))
    sources.prepare(own)
    assert not own.layout.data.exists()
    (held,) = sources.sequences(own, "validation")
    assert held.folder == unpacked / "validation_street_00000" and held.truth is None


def test_neither_dataset_nor_bundle(made: profile.Profile):
    with pytest.raises(InputError, match=r"set data\.bundle"):
        sources.prepare(with_data(made, bundle=None))
    with pytest.raises(InputError, match=r"set data\.root to your copy of SAIL-VOS"):
        sources.prepare(with_data(made, source="sailvos"))


def test_a_folder_that_the_diorama_would_not_read_is_refused(made: profile.Profile, tmp_path: Path):
    with pytest.raises(InputError, match=r"data\.root .* set data\.source to 'sailvos'"):
        sources.prepare(with_data(made, root=str(tmp_path)))


def test_the_same_sequences_give_the_same_bundle(rendered: Path, tmp_path: Path):
    sums = []
    for name in ("a", "b"):
        bundle.build(rendered, tmp_path / name, COUNTS)
        sums.append((tmp_path / name / diorama.CHECKSUMS).read_text())
    assert sums[0] == sums[1]


def test_quality_gives_way_to_the_limit(rendered: Path, tmp_path: Path):
    best = bundle.build(rendered, tmp_path / "best", COUNTS)
    size = bundle.size(tmp_path / "best")
    less = bundle.build(rendered, tmp_path / "less", COUNTS, 0.99 * size / 2**20)
    assert best == bundle.CRFS[0] < less and bundle.size(tmp_path / "less") <= 0.99 * size
    with pytest.raises(InputError, match="do not fit"):
        bundle.build(rendered, tmp_path / "none", COUNTS, 0.001)


def test_too_few_rendered_sequences_are_refused(rendered: Path, tmp_path: Path):
    with pytest.raises(InputError, match="holds 2 rendered sequences and 3 are asked for"):
        bundle.build(rendered, tmp_path / "a", {"validation": 3})


@pytest.mark.parametrize(("seed", "person", "said"), [(0, 900, "scene seed 0"), (900, 1, "identity 1")])
def test_shared_scenes_and_people_are_refused(
    rendered: Path, tmp_path: Path, seed: int, person: int, said: str
):
    shutil.rmtree(rendered / "validation" / "street_00000")
    render(rendered / "validation" / "street_00000", "validation", seed, [person])
    with pytest.raises(InputError, match=f"train and validation share the {said}"):
        bundle.build(rendered, tmp_path / "a", {"train": 2, "validation": 2})


def test_grey_video_is_lossless(tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 33, 47), dtype=np.uint8)
    frames[0, 0, :2] = 0, 255  # the full range survives
    bundle.write_grey(tmp_path / "a.mp4", frames, 8)
    assert np.array_equal(diorama.read_grey(tmp_path / "a.mp4"), frames)


def test_a_plane_at_one_depth_survives_the_coding():
    coded, scale = bundle.encode_disparity(np.full((1, 2, 2), 3.0, np.float16))
    assert np.allclose(diorama.decode_disparity(coded, scale), 3.0, rtol=1e-3)


def test_planned_splits_share_no_seed_and_no_person():
    plans = {split: [world.plan_sequence(split, i) for i in range(60)] for split in world.SEED_OFFSET}
    for first, second in combinations(plans, 2):
        for of in (lambda p: {p.seed}, lambda p: {person.id for person in p.identities}):
            assert not set().union(*map(of, plans[first])) & set().union(*map(of, plans[second]))


@pytest.mark.skipif(not (SHIPPED / diorama.CHECKSUMS).is_file(), reason="the bundle is not in this checkout")
class TestShippedBundle:
    def metas(self) -> dict[str, list[dict]]:
        return {
            split: [diorama.read_meta(folder) for folder in diorama.sequence_folders(SHIPPED, split)]
            for split in COUNTS
        }

    def test_checksums_and_size(self):
        diorama.verify(SHIPPED)
        assert bundle.size(SHIPPED) <= bundle.LIMIT_MIB * 2**20
        listed = {line.partition("  ")[2] for line in (SHIPPED / diorama.CHECKSUMS).read_text().splitlines()}
        there = {p.relative_to(SHIPPED).as_posix() for p in SHIPPED.rglob("*") if p.is_file()}
        assert listed == there - {diorama.CHECKSUMS}

    def test_enough_clips_of_enough_sequences(self):
        shots = {split: sum(len(meta["shots"]) for meta in metas) for split, metas in self.metas().items()}
        assert shots["train"] >= 40 and shots["validation"] >= 24
        assert len(self.metas()["validation"]) >= 12

    def test_splits_are_disjoint_by_scene_and_person_also_from_pretraining(self):
        metas = self.metas()
        bundle.check_disjoint(metas)
        first, count = world.IDENTITY_POOL["pretrain"]
        pretraining = set(range(first, first + count))
        for entries in metas.values():
            assert not {person for meta in entries for person in meta["identities"]} & pretraining
            assert all(
                meta["seed"] >= min(v for k, v in world.SEED_OFFSET.items() if k != "pretrain")
                for meta in entries
            )

    def test_validation_has_the_labelled_subsets(self):
        shots = [shot for meta in self.metas()["validation"] for shot in meta["shots"]]
        subsets = {subset for shot in shots for subset in shot["subsets"]}
        assert len(subsets) >= 3, subsets

    def test_later_pretraining_has_people_who_walk_in_or_move_fast_as_well(self):
        first = world.LABELLED_FROM
        plans = [world.plan_sequence("pretrain", i) for i in range(first - 40, first + 40)]
        labels = [{subset for shot in plan.shots for subset in shot.subsets} for plan in plans]
        assert not any(labels[:40])
        assert set().union(*labels[40:]) == {"mid_clip_entry", "fast_motion"}
        for plan in plans[40:]:
            for shot in plan.shots:
                assert not (shot.subsets and plan.world == "road")
                assert ("enter" in shot.actions) == ("mid_clip_entry" in shot.subsets)

    def test_no_truth_of_a_training_scene(self):
        assert not list(SHIPPED.glob("train/*/truth.mp4"))
        assert len(list(SHIPPED.glob("validation/*/truth.mp4"))) == len(self.metas()["validation"])
