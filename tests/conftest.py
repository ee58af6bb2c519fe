"""What the tests share: untrained tiny checkpoints, and a profile with four clips on disk.

The checkpoints are of the real classes, from data/diorama/architectures.py, and smaller still.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_browser import browser, visit  # noqa: F401 fixtures

from rmkit import profile
from rmkit.kit import store, video
from rmkit.method import dataset, sampling
from rmkit.paths import REPOSITORY
from rmkit.sources import sailvos

for folder in ("data/diorama", "benchmarks"):
    sys.path.insert(0, str(REPOSITORY / folder))

gc.disable()  # while the tests are collected, which imports everything: a quarter of that time

# A key of the user's must not be charged for tests: before any profile is loaded, and for subprocesses too.
for key in ("OPENAI_API_KEY", "RUNWAYML_API_SECRET"):
    os.environ.pop(key, None)

HEIGHT, WIDTH, FRAMES = 32, 48, 9
PROMPT = "make it look photorealistic"
CAPTIONS = ("a woman in a red coat walks down a street", "a man with a hat waits in a room", PROMPT)
# Words of the shipped clips' captions: prompts made of them fit into as many tokens as they do in the miniature.
WORDS = (
    "in the rain, in the snow, in fog, at dusk, a drive along a road with an orange car, brown and red buildings and trees, "
    "wide shot, a man with black hair and glasses in a blue shirt stands in a street by a white brick wall with a green door, "
    "medium close up"
)

# Minutes each: first, so that at the end no core waits for another (`make test` gives a file to a core).
LONGEST = ("test_one_file.py", "test_workers.py", "test_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the files, with the longest before all others."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.path.name) in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def short_collections() -> None:
    """What libraries and collected tests hold is there to stay: every stage collects cycles, and need not look at it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with wan/, vace/ (transformer and scheduler only) and editor/, random weights in bf16."""
    import architectures
    import torch

    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    small = {"num_layers": 2, "num_attention_heads": 2, "ffn_dim": 96}
    tokenizer = architectures.caption_tokenizer((*CAPTIONS, WORDS))
    architectures.save_wan(
        root / "wan",
        architectures.wan_vae(base_dim=8),
        architectures.text_encoder(tokenizer),
        tokenizer,
        architectures.wan_transformer(**small),
        architectures.wan_transformer(**small),
    )
    # Patches of the real model's size, which a clip has to be made of.
    vace = architectures.vace_transformer(**small, vace_layers=[0, 1], patch_size=(1, 2, 2))
    architectures.save_vace(root / "vace", vace)
    qwen_tokenizer = architectures.qwen_tokenizer(CAPTIONS)
    architectures.save_editor(
        root / "editor",
        architectures.qwen_vae(base_dim=8),
        architectures.qwen_encoder(qwen_tokenizer),
        qwen_tokenizer,
        architectures.qwen_transformer(num_layers=1),
    )
    gc.collect()
    gc.freeze()  # the models' own modules came with them
    return root


@pytest.fixture
def tiny_profile(tiny_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """A profile of seconds, whose results and source dataset lie in a folder of the test's own."""
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    write_dataset(tmp_path / "dataset")
    return profile.Profile.model_validate(tiny_settings(tiny_checkpoints, tmp_path / "dataset"))


def tiny_settings(checkpoints: Path, dataset: Path) -> dict[str, Any]:
    """That profile as its file would have it."""
    return {
        "name": "tiny",
        "data": {"root": str(dataset), "train_clips": 2, "validation_clips": 2},
        "clips": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH},
        "models": {
            **{name: str(checkpoints / name) for name in ("wan", "vace", "editor")},
            "dtype": "float32",
            "device": "cpu",
        },
        "anchors": {"steps": 2, "true_cfg_scale": 1.0, "edit_area": 64 * 96, "attempts": 2},
        "propagation": {
            "steps": 2,
            "guidance": 1.0,
            "shift": 3.0,
            "anchor_seconds": 0.25,
            "negative_prompt": "",
        },
        "train": {
            "low": {"steps": 2, "sigma": [0.0, 0.875]},
            "high": {"steps": 2, "sigma": [0.875, 1.0]},
        },
        "enhance": {
            **{"steps": 2, "guidance_low": 1.0, "guidance_high": 1.0, "shift": 3.0, "overlap": 4},
            "negative_prompt": "",
        },
    }


@pytest.fixture(scope="session")
def face_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack in insightface's format to which the bright squares of `write_dataset` are faces."""
    from rehearsal import faces

    return faces.write_pack(tmp_path_factory.mktemp("packs") / "squares")


@pytest.fixture
def with_faces(tiny_profile: profile.Profile, face_pack: Path) -> profile.Profile:
    """The tiny profile with that pack."""
    return set_identity(tiny_profile, model_pack=str(face_pack), det_size=96, fewest_pairs=1)


def set_identity(settings: profile.Profile, **changes: object) -> profile.Profile:
    """A profile with other settings of the identity filter, validated."""
    content = settings.model_dump()
    content["identity"] |= changes
    return profile.Profile.model_validate(content)


def set_model(settings: profile.Profile, metric: str, folder: Path | str | None) -> profile.Profile:
    """A profile whose model of this metric is another, or none."""
    named = {name: model for name, model in settings.metrics.items() if name != metric}
    return settings.model_copy(update={"metrics": named | ({metric: str(folder)} if folder else {})})


@pytest.fixture
def tiny_clips(tiny_profile: profile.Profile) -> list[sampling.Clip]:
    """The profile's two training and two validation clips, sampled and stored."""
    return sampling.sample(tiny_profile)


def write_dataset(root: Path, sequences: int = 2, frames: int = 5) -> None:
    """A SAIL-VOS folder with engine depth: in each sequence a bright square crosses a textured wall."""
    ids = {"train.json": 0, "valid.json": 100}
    for listing, first in ids.items():
        content: dict = {"info": {"depth": sailvos.METRES}, "videos": [], "images": []}
        for number in range(sequences):
            name = f"{listing[:5]}_{number}"
            content["videos"].append({"id": first + number, "name": name})
            noise = np.random.default_rng(first + number)
            wall = np.kron(noise.integers(60, 160, (8, 12, 3)), np.ones((4, 4, 1)))
            for i in range(frames):
                picture, visible = wall.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
                depth = np.full((HEIGHT, WIDTH), 10.0, np.float32)
                square = (slice(8, 24), slice(6 + 4 * i, 20 + 4 * i))
                picture[square], visible[square], depth[square] = (230, 200, 180), 1, 2.0
                for kind, array in (("visible", visible), ("depth", depth)):
                    (root / name / kind).mkdir(parents=True, exist_ok=True)
                    np.save(root / name / kind / f"{i:06d}.npy", array)
                file = root / name / "images" / f"{i:06d}.png"
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(file)
                entry = {
                    "video": first + number,
                    "frame_id": i,
                    "file_name": file.relative_to(root).as_posix(),
                }
                content["images"].append(entry)
            caption = {"first_frame": 0, "caption": CAPTIONS[number % 2], "subsets": []}
            (root / name / "captions.json").write_text(json.dumps([caption]))
        (root / listing).write_text(json.dumps(content))


@pytest.fixture
def pairs_profile(tiny_profile, tiny_clips):
    """The tiny profile with two pairs: the training clips and a darker version of each."""
    listing = []
    for clip in sampling.load(tiny_profile, "train"):
        render = sampling.path(tiny_profile, clip)
        target = tiny_profile.layout.propagated / "edges" / render.name
        video.write(target, video.read(render) // 2, tiny_profile.clips.fps)
        entry = {"clip": clip.id, "caption": clip.caption, "kept": True, "reason": "", "similarity": None}
        for side, path in (("render", render), ("target", target)):
            entry[side] = path.relative_to(tiny_profile.layout.root).as_posix()
        listing.append(entry)
    listing[1]["caption"] = ""
    tiny_profile.layout.pairs.mkdir(parents=True)
    store.write_json(tiny_profile.layout.pairs / "pairs.json", listing)
    return tiny_profile


@pytest.fixture
def encoded_profile(pairs_profile):
    """The same with its pairs encoded, as training reads them."""
    dataset.encode(pairs_profile)
    return pairs_profile
