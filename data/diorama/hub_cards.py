"""The tiny checkpoints' cards in the form of the Hugging Face hub: a YAML header, then use, figures, training and limits.

Reads `data/diorama/checkpoints/*/card.json` (cards.py) and the folders' sheets; writes `README.md` into each folder, and
`checkpoints/README.md`, which lists them. Needs none of what the cards were measured with. No store key reads a README.

    python data/diorama/hub_cards.py
"""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from rmkit.evaluation import typeset

FOLDER = Path(__file__).parent / "checkpoints"
LICENCE = "apache-2.0"  # the repository's, LICENSE


@dataclass(frozen=True)
class About:
    """What a checkpoint is and is for, in words."""

    what: str
    use: str
    limits: str
    library: str
    task: str | None = None  # by the hub's list of tasks


ABOUT = {
    "wan": About(
        "A text-to-video model of two experts, thousands of times smaller than Wan2.2.",
        "The base of the in-context LoRA in the profiles `mini` and `smoke` (`models.wan`).",
        "It knows the diorama's streets, rooms and roads at 96x144 and nothing else. Good at copying from a clip it is shown.",
        "diffusers",
        "text-to-video",
    ),
    "vace": About(
        "A VACE transformer that fills a clip between two anchors along edges or depth; the rest of its pipeline is `wan`'s.",
        "Propagation of anchors (`models.vace`).",
        "Where the camera moves fast, and for what neither anchor shows, it guesses.",
        "diffusers",
        "video-to-video",
    ),
    "editor": About(
        "An image editor that turns a render of the diorama into its path-traced look.",
        "Anchors (`models.editor`), with one prompt, `make it look photorealistic`.",
        "It was trained on one prompt and one world.",
        "diffusers",
        "image-to-image",
    ),
    "features": About(
        "A vision transformer whose features stand in for DINO's.",
        "The DINO metrics of `mini` (`metrics.dino`).",
        "Distances are not comparable with DINO's.",
        "transformers",
        "image-feature-extraction",
    ),
    "faces": About(
        "A face detector and recogniser for the diorama's figures, shaped as SCRFD and ArcFace.",
        "The identity filter and the ArcFace metric of `mini` (`identity.model_pack`).",
        "It knows the diorama's made-up faces, not human ones, and must not be used on people.",
        "onnx",
    ),
    "judge": About(
        "A classifier of the diorama's truth against its render, calibrated to 1-10.",
        "The offline judge of `mini` (`metrics.offline_judge`); asks nobody and is not GPT-RS.",
        "It knows the look of this truth. Blur costs a truth much of its rating.",
        "transformers",
        "image-classification",
    ),
    "weather": About(
        "A classifier of five weathers: clear, rain, snow, fog, dusk.",
        "The weather metric of notebook 06 (`metrics.weather`).",
        "It knows the diorama's weather: two-dimensional overlays score low.",
        "transformers",
        "image-classification",
    ),
}


def text(name: str) -> str:
    """The card of one checkpoint."""
    about, card = ABOUT[name], json.loads((FOLDER / name / "card.json").read_text())
    header = ModelCardData(
        license=LICENCE,
        library_name=about.library,
        pipeline_tag=about.task,
        tags=["realmaster", "rmkit", "diorama", "synthetic-data", "sim-to-real"],
    )
    trained = [
        [row[key] for key in ("stage", "phase", "step", "seconds", "loss")] for row in card["training"]
    ]
    parts = [
        f"---\n{header.to_yaml()}\n---\n\n# {name}, of the diorama",
        f"{about.what} Classes: {classes(name)}.",
        f"**Use:** {about.use} The code around it: `rmkit`, a reproduction of RealMaster (arXiv 2603.23462).",
        f"**Limits:** {about.limits}",
        f"**Data:** trained on {card['data']}; held out on {card['held out on']}. All of it is rendered: no "
        "person, no footage.",
        "PSNR in dB; means over what was held out.",
        typeset.grid(["Figure", "Value"], card["figures"].items()).strip(),
        "A row a stretch of training; the loss is the last.",
        typeset.grid(["Stage", "Phase", "Steps", "Seconds", "Loss"], trained).strip(),
        *(f"![{path.stem}]({path.name})" for path in sorted((FOLDER / name).glob("sheet_*.jpg"))),
    ]
    return "\n\n".join(parts) + "\n"


def classes(name: str) -> str:
    """The model classes of a folder, as its own files name them."""
    folder = FOLDER / name
    if (index := folder / "model_index.json").is_file():
        parts = [part for part in json.loads(index.read_text()).values() if isinstance(part, list)]
        found = [kind for _, kind in parts if "Tokenizer" not in kind and "Scheduler" not in kind]
    elif (config := folder / "config.json").is_file():
        found = json.loads(config.read_text())["architectures"]
    else:
        found = sorted(path.name for path in folder.glob("*.onnx"))
    return ", ".join(f"`{kind}`" for kind in found)


def listing() -> str:
    """checkpoints/README.md: a row a checkpoint."""
    rows = [(f"[`{name}`]({name}/README.md)", ABOUT[name].what, classes(name)) for name in shipped()]
    return (
        "# The tiny checkpoints\n\nSmall instances of the real classes, trained on the diorama's pretrain split by the "
        "scripts in `data/diorama/`, in the folder formats of the real ones. Each has a card with its held-out figures; "
        "how they came about, stretch by stretch, is in [`LOG.md`](../LOG.md). Written by `data/diorama/hub_cards.py`.\n\n"
        + typeset.grid(["Checkpoint", "What", "Classes"], rows)
    )


def shipped() -> list[str]:
    """Names of the checkpoints that have a card.json."""
    return [name for name in ABOUT if (FOLDER / name / "card.json").is_file()]


def write() -> None:
    """Write all cards, and the list of them."""
    for name in shipped():
        (FOLDER / name / "README.md").write_text(text(name))
    (FOLDER / "README.md").write_text(listing())


if __name__ == "__main__":
    write()
