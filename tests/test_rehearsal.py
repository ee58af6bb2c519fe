"""The rehearsal: stand-ins of the real classes, sizes that keep their multiples, made data in the real layouts, numbers that nobody reads."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_tables import put_metrics

from rehearsal import carla_tree, divide, faces, models, rehearse, sailvos_tree
from rmkit import baselines, cli, profile, sources
from rmkit.evaluation import report
from rmkit.kit import face_pack, weights
from rmkit.method import sampling
from rmkit.profile import Profile

# As the real models' files say on the hub (model_index.json; config.json of what is one model).
WAN = {"vae": "AutoencoderKLWan", "text_encoder": "UMT5EncoderModel", "tokenizer": "T5TokenizerFast"}
T2V = {"_class_name": "WanPipeline", "transformer": "WanTransformer3DModel", **WAN}
VACE = {"_class_name": "WanVACEPipeline", "transformer": "WanVACETransformer3DModel", **WAN}
EDITOR = {
    "_class_name": "QwenImageEditPipeline",
    "processor": "Qwen2VLProcessor",
    "text_encoder": "Qwen2_5_VLForConditionalGeneration",
    "tokenizer": "Qwen2Tokenizer",
    "transformer": "QwenImageTransformer2DModel",
    "vae": "AutoencoderKLQwenImage",
}
CLASSES = {
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": T2V | {"transformer_2": "WanTransformer3DModel"},
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": T2V,
    "Wan-AI/Wan2.1-VACE-14B-diffusers": VACE,
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": VACE,
    "Qwen/Qwen-Image-Edit": EDITOR,
    "Qwen/Qwen-Image-Edit-2509": EDITOR | {"_class_name": "QwenImageEditPlusPipeline"},
    "decart-ai/Lucy-Edit-Dev": T2V | {"_class_name": "LucyEditPipeline"},
    "depth-anything/Depth-Anything-V2-Large-hf": {"architectures": "DepthAnythingForDepthEstimation"},
    "depth-anything/Depth-Anything-V2-Small-hf": {"architectures": "DepthAnythingForDepthEstimation"},
    "facebook/dino-vitb16": {"architectures": "ViTModel"},
}
# Numbers of the real configs that decide what shapes go through, by folder.
SHAPES = {
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": {
        "transformer": {"in_channels": 16, "patch_size": [1, 2, 2], "cross_attn_norm": True},
        "vae": {"z_dim": 16, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]},
    },
    "Wan-AI/Wan2.1-VACE-14B-diffusers": {"transformer": {"in_channels": 16, "vace_in_channels": 96}},
    "decart-ai/Lucy-Edit-Dev": {
        "transformer": {"in_channels": 96, "out_channels": 48},
        "vae": {"z_dim": 48, "patch_size": 2, "scale_factor_spatial": 16, "is_residual": True},
    },
    "Qwen/Qwen-Image-Edit": {"transformer": {"in_channels": 64}, "vae": {"z_dim": 16}},
    "facebook/dino-vitb16": {"": {"patch_size": 16}},
}
SHIPPED = rehearse.shipped()
READING = ("open", "os.listdir", "os.scandir")  # what the interpreter tells of


def test_it_is_the_profiles_of_the_real_models() -> None:
    assert {"paper", "consumer"} <= set(SHIPPED) and not {"mini", "smoke"} & set(SHIPPED)
    assert rehearse.main("mini") == 2


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.mark.parametrize("name", SHIPPED)
def test_each_model_of_a_profile_has_a_stand_in_of_its_class(name: str, hub: Path) -> None:
    real = profile.load(name)
    for model in dict.fromkeys([*divide.names(real), *rehearse.EDITORS]):
        folder = models.install(model, hub)
        plain = model.partition("@")[0]
        for key, wanted in CLASSES.get(plain, {}).items():
            found = json.loads(
                (folder / ("config.json" if key == "architectures" else "model_index.json")).read_text()
            )[key]
            assert (found if isinstance(found, str) else found[-1]) == wanted, f"{model}: {key}"
        for part, wanted in SHAPES.get(plain, {}).items():
            config = json.loads((folder / part / "config.json").read_text())
            assert {key: config[key] for key in wanted} == wanted, f"{model}: {part}"
    assert {n for n in divide.names(real) if n.partition("@")[0] not in CLASSES} <= {
        "QingyanBai/Ditto_models"
    }


def test_dinos_main_revision_has_no_safetensors_as_on_the_hub(hub: Path) -> None:
    for name, has in (("facebook/dino-vitb16", False), ("facebook/dino-vitb16@refs/pr/7", True)):
        folder = models.install(name, hub)
        reference = folder.parents[1] / "refs" / (name.partition("@")[2] or "main")
        assert reference.read_text() == folder.name
        assert bool(list(folder.glob("*.safetensors"))) == has


def test_a_stand_in_is_found_in_the_cache_as_a_download_is(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder = models.install("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", hub)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert models.install("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", hub) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    for module in ("file_download", "_snapshot_download"):  # where the constant is read
        assert importlib.import_module(f"huggingface_hub.{module}").constants is constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = weights.hub_snapshot("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "model_index.json")
    assert found == (folder, folder.name)
    # A tokenizer alone too, without network: the hub's cache does not know that it has no config.json.
    assert weights.part_folder("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "tokenizer") == folder / "tokenizer"


@pytest.mark.parametrize("name", SHIPPED)
def test_divided_sizes_keep_their_multiples_and_options_stay(name: str, tmp_path: Path) -> None:
    real = profile.load(name)
    made = divide.divide(real, tmp_path)
    assert made.name == f"rehearsal-{name}" and made.layout.run != real.layout.run
    clips = made.clips
    assert clips.frames % 4 == 1 and clips.height % 16 == 0 and clips.width % 16 == 0
    assert clips.raw_bytes < real.clips.raw_bytes / 500
    for method, settings in baselines.asked(made).items():
        sizes = settings.settings(made)
        assert sizes.frames % 4 == 1 and sizes.height % 32 == 0 and sizes.width % 32 == 0, method
    assert (
        made.identity.det_size % 32 == 0
        and made.train.held_out < made.identity.fewest_pairs + made.train.held_out
    )
    assert made.data.train_clips >= made.identity.fewest_pairs + made.train.held_out
    same = {
        "clips": {"fps"},
        "models": {"wan", "vace", "editor", "dtype", "offload"},
        "structure": set(type(real.structure).model_fields),
        "propagation": {"variants", "anchor_seconds", "guidance", "shift", "negative_prompt"},
        "identity": {"threshold", "over", "frames", "faceless"},
        "train": {"mode", "rank", "alpha", "batch", "base", "optimizer", "gradient_checkpointing"},
        "enhance": {"mode", "cache", "guidance_low", "guidance_high", "shift"},
    }
    for group, fields in same.items():
        for field in fields:
            assert getattr(getattr(made, group), field) == getattr(getattr(real, group), field), (
                f"{group}.{field}"
            )
    assert list(baselines.asked(made)) == list(baselines.asked(real)) and made.metrics == real.metrics
    assert (
        divide.frames(81) == 17
        and divide.frames(73) == 13
        and divide.pixels(800, 1200) == (64, 96)
        and divide.pixels(480, 720) == (32, 48)
    )


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    sailvos_tree.write(root / "sailvos", divide.SIDE, divide.SHOTS)
    carla_tree.write(root / "carla_loc", divide.SIDE)
    return root


def test_the_made_sail_vos_has_the_releases_layout(made_data: Path) -> None:
    root = made_data / "sailvos"
    for listing, shots in sailvos_tree.SHOTS.items():
        content = json.loads((root / listing).read_text())
        assert {"videos", "images", "annotations", "categories"} <= set(content)
        assert {"file_name", "frame_id", "video", "vid_name"} <= set(content["images"][0])
        assert {"image_id", "category_id", "bbox"} <= set(content["annotations"][0])
        assert {entry["file_name"].split("/")[0] for entry in content["images"]} == set(shots)
        for entry in content["images"][:3]:
            video, images, file = entry["file_name"].split("/")
            assert images == "images" and file == f"{entry['frame_id']:06d}.bmp"
            with Image.open(root / entry["file_name"]) as picture:
                assert picture.size == (102, 64)  # 1280x800 divided, wider than the clips
            visible = np.load(root / video / "visible" / f"{file[:-4]}.npy")
            for number in set(np.unique(visible)) - {0}:
                (mask,) = (root / video).glob(f"{number}_*/{file[:-4]}.png")
                assert (
                    np.asarray(Image.open(mask))[visible == number] == 255
                ).all()  # amodal: at least what is seen
    lengths = [
        length for shots in sailvos_tree.SHOTS.values() for video in shots.values() for length in video
    ]
    assert np.median(lengths) < 41  # frames that a clip of the paper takes


@pytest.mark.parametrize("name", SHIPPED)
def test_there_are_clips_enough_and_no_split_shares_a_video(
    name: str, made_data: Path, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    clips = sampling.sample(divide.divide(profile.load(name), made_data))
    assert len(clips) == divide.MOST["train_clips"] + divide.MOST["validation_clips"]
    by_split = {split: {c.sequence for c in clips if c.split == split} for split in ("train", "validation")}
    assert not by_split["train"] & by_split["validation"]


@pytest.mark.parametrize("weather", carla_tree.WEATHERS)
def test_the_made_carla_loc_is_read_without_its_pickle(weather: str, made_data: Path) -> None:
    real = profile.load("paper")
    made = divide.divide(real, made_data)
    drives = sources.sequences(
        made.demo("carla", data=made.carla.model_dump() | {"weather": weather}), "validation"
    )
    assert {(drive.town, drive.kind) for drive in drives} == {
        (town, kind) for town in carla_tree.TOWNS for kind in ("dynamic", "static")
    }
    assert drives[0].fps == 20 and len(drives[0]) == carla_tree.FRAMES
    for town in carla_tree.TOWNS:  # loading one would end these tests
        assert (made_data / "carla_loc" / town / "common_data.pkl").read_bytes() == carla_tree.ABORT


def test_the_made_pack_finds_one_face_in_any_picture_and_they_are_alike(
    tiny_profile: Profile, tmp_path: Path
) -> None:
    content = tiny_profile.model_dump()
    content["identity"] |= {
        "model_pack": str(faces.write_pack(tmp_path / "pack", always=True)),
        "det_size": 64,
    }
    analysis = face_pack.load(Profile.model_validate(content))
    noise = np.random.default_rng(0)
    pictures = [np.zeros((64, 96, 3), np.uint8), *noise.integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)]
    found = face_pack.find(analysis, iter(pictures), [0, 1, 2])
    assert list(found.frame) == [0, 1, 2]
    assert np.ptp(found.box, axis=0).max() == 0
    assert (found.embedding @ found.embedding.T).min() > 0.8  # the paper's filter keeps 0.4


def test_no_claim_table_or_record_reads_a_rehearsal(tiny_profile: Profile, tmp_path: Path, capsys) -> None:
    run = tiny_profile.model_copy(update={"name": f"{divide.PREFIX}{tiny_profile.name}"}).layout
    put_metrics(tiny_profile, ["render", "blur", "colour_transfer", "edges", "realmaster", "truth"])
    for folder in (run.root, run.root.parent / "rehearsal"):
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("not to be read")
    content = tiny_profile.model_dump_json()
    (tmp_path / "tiny.json.yaml").write_text(content)
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event in READING else None)
    report.write(tiny_profile)
    tiny_profile.layout.reference.mkdir(parents=True)
    (tiny_profile.layout.reference / "metrics.csv").write_bytes(tiny_profile.layout.metrics.read_bytes())
    cli.main(["verify", "--profile", str(tmp_path / "tiny.json.yaml")])
    assert any(path.endswith("metrics.csv") for path in opened)
    assert not [path for path in opened if "rehearsal" in Path(path).parts[-2:] or divide.PREFIX in path]
