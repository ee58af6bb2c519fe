"""The bad inputs: what is wrong, how it is made, the command. `campaign.py` runs all of them, `test_campaign.py` a dozen."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs import (
    OWN,
    Case,
    Place,
    broken_model,
    damage,
    edited,
    gone,
    half,
    header,
    not_a_number,
    rewrite,
)

from rmkit.kit import video


def setting(what: str, command: str = "plan", **settings: Any) -> Case:
    """A profile's setting that is wrong."""
    return Case(what, f"{command} --profile {{own}}", settings=settings)


def written(what: str, text: str | bytes) -> Case:
    """A profile's file that is wrong."""
    return Case(what, "plan --profile {own}", settings=text)


def damaged(what: str, command: str, make: Callable[[Place], Any]) -> Case:
    """A file of the run that is wrong."""
    return Case(what, f"{command} --profile smoke", make)


def model(what: str, command: str, role: str, change: Callable[[Path], Any]) -> Case:
    """A checkpoint of the pipelines that is wrong."""
    settings = {"models": {role: f"{{folder}}/{role}"}}
    make = both(gone("pairs/latents", "pairs/text"), broken_model(role, change))  # wan's, by `encode`
    return Case(what, f"{command} --profile {{own}}", make, settings)


def metric(
    what: str, name: str, folder: str, change: Callable[[Path], Any], command: str = "evaluate"
) -> Case:
    """A metric's model that is wrong."""
    settings = {"metrics": {name: f"{{folder}}/{folder}"}}
    return Case(what, f"{command} --profile {{own}}", broken_model(folder, change), settings)


def pack(what: str, change: Callable[[Path], Any]) -> Case:
    """An insightface pack that is wrong."""
    settings = {"identity": {"model_pack": "{folder}/faces"}}
    return Case(what, "filter --profile {own}", broken_model("faces", change), settings)


def tree(source: str, folder: str, train: int, validation: int) -> dict[str, Any]:
    """The settings `data` of a tree in the user's folder."""
    clips = {"train_clips": train, "validation_clips": validation}
    return {"source": source, "root": f"{{folder}}/{folder}", "bundle": None, **clips}


def sailvos(what: str, change: Callable[[Path], Any], command: str = "data", **settings: Any) -> Case:
    """A SAIL-VOS tree that is wrong: two videos a split, five pictures of 32x48 each."""

    def make(place: Place) -> None:
        from conftest import write_dataset

        write_dataset(place.folder / "tree")
        change(place.folder / "tree")

    data = tree("sailvos", "tree", train=2, validation=2)
    groups = {"data": data | settings.pop("data", {}), "clips": {"height": 32, "width": 48}, **settings}
    return Case(what, f"{command} --profile {{own}}", make, groups)


def carla(what: str, change: Callable[[Path], Any]) -> Case:
    """A CARLA-LOC tree that is wrong."""

    def make(place: Place) -> None:
        from rehearsal import carla_tree

        carla_tree.write(place.folder / "loc", 7.5)
        change(place.folder / "loc")

    data = tree("carla_loc", "loc", train=0, validation=1)
    return Case(what, "data --profile {own}", make, {"data": data})


def own(what: str, command: str, make: Callable[[Place], Any] = lambda place: None, **env: str) -> Case:
    """A file or an option of the user's that is wrong."""
    return Case(what, f"{command} --profile smoke", make, env=env)


def answers(what: str, row: str, times: int = 1) -> Case:
    """Answers of the study that are wrong: a row with {trial}, after the header."""

    def make(place: Place) -> None:
        trial = min(json.loads((place.run / "study/key.json").read_text()))
        place.text("a.csv", "participant,trial,question,choice\n" + times * f"{row.format(trial=trial)}\n")

    return own(what, "study --answers {folder}/a.csv", make)


def remove(pattern: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in list(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(pattern: str) -> Callable[[Path], None]:
    return lambda root: rewrite(min(root.glob(pattern)), half)


def said(pattern: str, text: str) -> Callable[[Path], Any]:
    return lambda root: min(root.glob(pattern)).write_text(text)


def facts(pattern: str, **changed: Any) -> Callable[[Path], Any]:
    """A JSON file of a model with other facts."""

    def change(root: Path) -> None:
        path = min(root.glob(pattern))
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


def listing(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The listing of the training split with other content."""

    def make(root: Path) -> None:
        content = json.loads((root / "train.json").read_text())
        change(content)
        (root / "train.json").write_text(json.dumps(content))

    return make


def clip(shape: tuple[int, int, int], fps: int, pattern: str = "clips/*.mp4") -> Callable[[Place], None]:
    """A clip of the run of another size, length or rate."""
    return lambda place: video.write(place.file(pattern), np.zeros((*shape, 3), np.uint8), fps)


def adapter(change: Callable[[Path], Any]) -> Callable[[Place], None]:
    """A copy of the run's adapters, changed, to be given by --adapter; and a video to enhance."""

    def make(place: Place) -> None:
        place.video("in.mp4")
        change(Path(shutil.copytree(place.run / "adapters/realmaster", place.folder / "adapter")))

    return make


def fewer(file: Path) -> None:
    """An adapter without one of its tensors."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(file, "pt") as content:
        known = content.metadata()
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file, known)


def videos(*names: str, **facts: Any) -> Callable[[Place], None]:
    return lambda place: [place.video(name, **facts) for name in names]


def both(*changes: Callable[[Place], Any]) -> Callable[[Place], None]:
    return lambda place: [change(place) for change in changes][:0]


def sound_only(place: Place) -> None:
    import av

    with av.open(str(place.folder / "in.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def bright(place: Place) -> None:
    """A video tagged as high dynamic range."""
    import av

    with av.open(str(place.folder / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.colorspace, stream.color_primaries, stream.color_trc = 9, 9, 16
        for _ in range(9):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8)).reformat(format="yuv420p")
            frame.color_trc = 16
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def growing(place: Place) -> None:
    """A stream whose size changes in its middle."""
    import av

    parts = b""
    for side in (32, 64):
        path = place.folder / "part.h264"
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=16)
            stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
            for _ in range(9):
                frame = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8))
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
            container.mux(stream.encode())
        parts += path.read_bytes()
    place.text("in.h264", parts)


def nothing(root: Path) -> None:
    """It is the settings that are wrong."""


ENHANCE = "enhance {folder}/in.mp4 {folder}/out.mp4"
SCORE = "evaluate --renders {folder}/a --outputs {folder}/b --out {folder}/scores.csv"
ADAPTED = f"{ENHANCE} --adapter {{folder}}/adapter"
PAIR = videos("a/x.mp4", "b/x.mp4")

PROFILES = [
    Case("unknown profile", "plan --profile maxi"),
    Case("no such file", "plan --profile {folder}/nowhere.yaml"),
    written("broken YAML", "name: [bad"),
    written("not text", b"\xff\xfe\x00name"),
    written("a list", "- a\n- b\n"),
    written("an empty file", ""),
    written("a key twice", "extends: smoke\nname: bad\nseed: 1\nseed: 2\n"),
    written("a nested key twice", "extends: smoke\nname: bad\ntrain:\n  rank: 1\n  rank: 2\n"),
    written("extends something unknown", "extends: maxi\nname: bad\n"),
    written("extends itself", "extends: own.yaml\nname: bad\n"),
    written("extends a list", "extends: [smoke]\nname: bad\n"),
    written("no name", "extends: smoke\nseed: 1\n"),
    written("a shipped name", "extends: smoke\nname: mini\n"),
    written("a name with a blank", "extends: smoke\nname: My Run\n"),
    Case(
        "a run of another profile",
        "data --profile {own}",
        lambda place: [
            place.text("other.yaml", "extends: smoke\nname: bad\n"),
            (place.results / OWN).mkdir(),
            (place.results / OWN / "run.json").write_text(
                json.dumps({"profile": str(place.folder / "other.yaml")})
            ),
        ],
        {},
    ),
    setting("an unknown key", sede=1),
    setting("an unknown nested key", train={"learning_rat": 1e-4}),
    setting("text for a number", clips={"fps": "fast"}),
    setting("a fraction for a count", train={"rank": 1.5}),
    setting("below the least", clips={"fps": 0}),
    setting("above the most", train={"rank": 100_000}),
    setting("not a number", enhance={"shift": float("nan")}),
    setting("frames that the VAE has not", clips={"frames": 10}),
    setting("a width that is no multiple", clips={"width": 150}),
    setting("a size that the detector has not", identity={"det_size": 100}),
    setting("a range the wrong way", train={"low": {"sigma": [0.9, 0.1]}}),
    setting("experts that overlap", "train", train={"low": {"sigma": [0.0, 0.95]}}),
    setting("trained on more than a clip", train={"frames": 33}),
    setting("trained on another shape", train={"height": 96, "width": 96}),
    setting("anchors out of order", propagation={"anchor_frames": [8, 0]}),
    setting("inputs on the CPU alone", train={"block_inputs": "cpu"}),
    setting("an unknown data set", data={"source": "gta"}),
    setting("an unknown method", baselines={"sora": {}}),
    setting("an unknown metric", metrics={"fvd": "somewhere"}),
    setting("settings of a method that has none", baselines={"blur": {"sigma": 3}}),
    setting("an unknown setting of a method", baselines={"lucy_edit": {"model": "x", "modle": "y"}}),
    setting("a folder named as a method", baselines={"folders": {"edges": "Mine"}}),
    setting("a folder's name with a slash", baselines={"folders": {"a/b": "Mine"}}),
    setting("a key in an address", judge={"base_url": "https://me:secret@example.org/v1"}),
    setting("an address of another kind", judge={"base_url": "ftp://example.org"}),
    setting("weathers that are not all", weather={"prompts": None}),
    setting(
        "an accelerator's steps", models={"accelerators": {"wan": {"model": "a", "file": "b", "shift": 5.0}}}
    ),
]

MACHINES = [
    setting("a GPU where there is none", "anchors", models={"device": "cuda"}, seed=1),
    setting("weights of 4 bits without a GPU", "anchors", models={"editor_weights": "nf4"}),
    setting("an optimizer without a GPU", "train", train={"optimizer": "adamw8bit"}),
    setting("an unknown attention", "anchors", models={"attention": "psychic"}),
    setting("TensorBoard, which is not there", "train", train={"tensorboard": True}),
    Case("more than this machine has", "notebooks --profile paper"),
    own("an unknown card", "plan --gpu z80"),
    own("a cluster that is not there", "structure", gone("structure"), RAY_ADDRESS="127.0.0.1:1"),
    own("a shard beyond the last", "structure --shard 3/2"),
    own("no workers", "structure --workers 0"),
    own("an unknown option", "structure --fast"),
    own("a number that is none", "study --trials many"),
    own("processes that do not divide the batch", "train", gone("adapters"), WORLD_SIZE="3"),
]

MODELS = [
    setting("no such folder", "anchors", models={"editor": "no/such/folder"}),
    model("no index", "propagate", "vace", remove("model_index.json")),
    model("an index that is no JSON", "anchors", "editor", said("model_index.json", "{")),
    model("a part that is missing", "encode", "wan", remove("vae")),
    model("half of the weights", "anchors", "editor", cut("transformer/*.safetensors")),
    model("weights that are missing", "anchors", "editor", remove("transformer/*.safetensors")),
    model("no config", "anchors", "editor", remove("transformer/config.json")),
    model("a config that is no JSON", "anchors", "editor", said("transformer/config.json", "{")),
    model(
        "weights that are not finite",
        "propagate",
        "vace",
        lambda root: not_a_number(min(root.glob("transformer/*.safetensors"))),
    ),
    model(
        "weights of another model",
        "propagate",
        "vace",
        facts("transformer/config.json", num_attention_heads=1),
    ),
    Case(
        "a name on the hub, offline",
        "anchors --profile {own}",
        settings={"models": {"editor": "no/model"}},
        env={"HF_HUB_OFFLINE": "1"},
    ),
    pack("a pack without models", remove("*.onnx")),
    pack("half a model in the pack", cut("*.onnx")),
    pack("a pack without a recogniser", remove("recogniser.onnx")),
    pack(
        "two packs in one",
        lambda root: (
            [shutil.copytree(root, root / name, ignore=lambda *_: ["a", "b"]) for name in ("a", "b")]
            + [remove("*.onnx")(root)]
        ),
    ),
    setting("a pack that is not installed", "filter", identity={"model_pack": "buffalo_l"}),
    metric("a DINO that is none", "dino", "features", facts("config.json", model_type="bert")),
    metric("a DINO without its preprocessing", "dino", "features", remove("preprocessor_config.json")),
    metric("half a DINO", "dino", "features", cut("*.safetensors")),
    metric("a DINO whose config is no JSON", "dino", "features", said("config.json", "")),
    metric("a judge that is none", "offline_judge", "features", nothing),
    metric("a judge of other sizes", "offline_judge", "judge", facts("config.json", frame_size=[64, 64])),
    metric("a weather model that is none", "weather", "features", nothing, "notebooks"),
    setting(
        "an interpolator that is not there", "evaluate", metrics={"motion_smoothness_amt": "no/such.onnx"}
    ),
    Case(
        "half an interpolator",
        "evaluate --profile {own}",
        lambda place: place.text("amt.onnx", b"onnx"),
        {"metrics": {"motion_smoothness_amt": "{folder}/amt.onnx"}},
    ),
    setting("an estimator without a model", "structure", structure={"depth": "depth_anything"}),
    setting(
        "an accelerator that is not there",
        "anchors",
        models={
            "accelerators": {
                "editor": {"model": "no/such", "file": "lora.safetensors", "shift": 3.0, "sigmas": [1.0, 0.5]}
            }
        },
    ),
]

DATA = [
    setting("no SAIL-VOS", "data", data={"source": "sailvos", "root": "no/such", "bundle": None}),
    setting("no root", "data", data={"source": "sailvos", "bundle": None}),
    sailvos("half a listing", cut("train.json")),
    sailvos(
        "a listing of another kind",
        listing(lambda content: content["images"][0].update(file_name="picture.png")),
    ),
    sailvos("a listing without a key", listing(lambda content: content.pop("images"))),
    sailvos("a picture that is not there", remove("train_0/images/000002.png")),
    sailvos("half a picture", cut("train_0/images/000002.png")),
    sailvos("more clips than there are", nothing, data={"train_clips": 50}),
    sailvos("pictures smaller than a clip", nothing, clips={"height": 96, "width": 144}),
    sailvos("a rate that is no multiple", nothing, clips={"height": 32, "width": 48, "fps": 25}),
    sailvos("benchmark clips that overlap", nothing, data={"stride": {"validation": 1}}),
    sailvos(
        "cuts that are no JSON",
        lambda root: (root / "cuts.json").write_text("["),
        data={"cuts": "{folder}/tree/cuts.json"},
    ),
    sailvos(
        "cuts that lack a video",
        lambda root: (root / "cuts.json").write_text("{}"),
        data={"cuts": "{folder}/tree/cuts.json"},
    ),
    carla("no town", remove("Town*")),
    carla("a weather that a town lacks", remove("Town01/ClearNoon")),
    carla("a gap in the numbering", remove("Town01/ClearNoon/dynamic/stereo_l/100.png")),
    carla(
        "a picture without a number",
        lambda root: shutil.copy(min(root.rglob("90.png")), min(root.rglob("stereo_l")) / "first.png"),
    ),
    carla("no left camera", remove("Town01/ClearNoon/dynamic/stereo_l")),
    setting("the diorama, and a root", "data", data={"root": "somewhere"}),
    setting("a bundle that is none", "data", data={"bundle": "docs"}),
]

RUNS = [
    damaged("a clip that is not there", "structure", gone("clips/train_*.mp4", "structure")),
    damaged("half a clip", "propagate", both(damage("clips/*.mp4", half), gone("propagated"))),
    damaged("a clip of another size", "anchors", clip((9, 64, 64), 16)),
    damaged("a clip of another rate", "structure", clip((9, 96, 144), 25)),
    damaged("no listing of clips", "anchors", gone("clips/clips.json")),
    damaged("half a listing of clips", "anchors", damage("clips/clips.json", half)),
    damaged(
        "a listing of clips without a key",
        "structure",
        edited("clips/clips.json", lambda found: found[0].pop("caption", None) and None),
    ),
    damaged("no anchors", "propagate", gone("anchors", "propagated")),
    damaged("no pairs", "train", gone("pairs/pairs.json", "adapters")),
    damaged(
        "half a listing of pairs", "encode", both(gone("pairs/latents"), damage("pairs/pairs.json", half))
    ),
    damaged(
        "no pair kept",
        "encode",
        both(
            gone("pairs/latents"),
            edited("pairs/pairs.json", lambda found: [e.update(kept=False) for e in found][:0] or found),
        ),
    ),
    damaged("pairs that are not encoded", "train", gone("pairs/latents", "adapters")),
    damaged(
        "half of an encoded pair",
        "train",
        both(gone("adapters"), damage("pairs/latents/*.safetensors", half)),
    ),
    damaged("no adapter", "enhance", gone("adapters", "enhanced/realmaster")),
    damaged(
        "half an adapter",
        "enhance",
        both(gone("enhanced/realmaster"), damage("adapters/realmaster/low/*.safetensors", half)),
    ),
    damaged(
        "a clip that is not enhanced", "evaluate", gone("enhanced/realmaster/*.mp4", "metrics.csv", "metrics")
    ),
    damaged(
        "an enhanced clip of another length",
        "evaluate",
        both(gone("metrics.csv", "metrics"), clip((5, 96, 144), 16, "enhanced/realmaster/*.mp4")),
    ),
    damaged(
        "half a table of values",
        "report",
        damage("metrics.csv", lambda content: content[: len(content) // 2] + b",,,,,,,,,\n"),
    ),
    damaged(
        "a table of values without a column",
        "report",
        damage("metrics.csv", lambda content: content.replace(b"value", b"worth", 1)),
    ),
    damaged("nothing to verify with", "verify", gone("metrics.csv")),
    own("a spread of one run", "verify --spread {run}"),
    damaged("nothing to ship", "ship", gone("metrics.csv")),
]

STUDIES = [
    own("an unknown opponent", "study --against sora"),
    own("answers that are not there", "study --answers {folder}/nowhere.csv"),
    own(
        "answers without a column",
        "study --answers {folder}/a.csv",
        lambda place: place.text("a.csv", "who,what\nme,a\n"),
    ),
    own(
        "answers that are no text",
        "study --answers {folder}/a.csv",
        lambda place: place.text("a.csv", b"\xff\xfe\xff"),
    ),
    own(
        "no answers",
        "study --answers {folder}/a.csv",
        lambda place: place.text("a.csv", "participant,trial,question,choice\n"),
    ),
    answers("an unknown trial", "p1,zzz,realism,a"),
    answers("an unknown choice", "p1,{trial},realism,c"),
    answers("an unknown question", "p1,{trial},beauty,a"),
    answers("answers given twice", "p1,{trial},realism,a", times=2),
    answers("answers that were simulated", "simulated-1,{trial},realism,a"),
    damaged(
        "answers before there is a page",
        "study --answers {folder}/a.csv",
        both(gone("study"), lambda place: place.text("a.csv", "participant,trial,question,choice\n")),
    ),
    damaged(
        "half a key of the study",
        "study --answers {folder}/a.csv",
        both(
            damage("study/key.json", half),
            lambda place: place.text("a.csv", "participant,trial,question,choice\n"),
        ),
    ),
]

VIDEOS = [
    own("an input without an output", "enhance {folder}/in.mp4", videos("in.mp4")),
    own("no such video", ENHANCE),
    own("text named mp4", ENHANCE, lambda place: place.text("in.mp4", "not a video")),
    own("half a video", ENHANCE, lambda place: rewrite(place.video("in.mp4"), half)),
    own("sound alone", ENHANCE, sound_only),
    own("high dynamic range", ENHANCE, bright),
    own("a size that changes", "enhance {folder}/in.h264 {folder}/out.mp4", growing),
    own("an output of another kind", "enhance {folder}/in.mp4 {folder}/out.gif", videos("in.mp4")),
    own("the output is the input", "enhance {folder}/in.mp4 {folder}/in.mp4", videos("in.mp4")),
    own("an output of the user's", ENHANCE, videos("in.mp4", "out.mp4")),
    own(
        "an output below a file",
        "enhance {folder}/in.mp4 {folder}/a.txt/out.mp4",
        both(videos("in.mp4"), lambda place: place.text("a.txt", "a")),
    ),
    own("a folder into a file", "enhance {folder}/a {folder}/out.mp4", videos("a/in.mp4")),
    own(
        "a folder without a video",
        "enhance {folder}/a {folder}/b",
        lambda place: place.text("a/notes.txt", "none"),
    ),
    own(
        "two outputs of one name",
        "enhance {folder}/a {folder}/b",
        lambda place: [
            place.video("a/x.mp4"),
            shutil.copy(place.folder / "a/x.mp4", place.folder / "a/x.mkv"),
        ],
    ),
    own("too few lines", f"{ENHANCE} --height 4", videos("in.mp4")),
    own(
        "a prompt that is too long",
        f"{ENHANCE} --prompt {'~'.join(['a street in the rain'.replace(' ', '~')] * 200)}",
        videos("in.mp4"),
    ),
    Case(
        "windows that would not move",
        f"{ENHANCE} --profile {{own}}",
        videos("in.mp4"),
        {"enhance": {"overlap": 8}},
    ),
    own("a prompt without a place", "enhance --prompt snow"),
    own("a place named as a method", "enhance --prompt snow --into edges"),
    own("a place whose name is a path", "enhance --prompt snow --into ../snow"),
    own("no such adapter", f"{ENHANCE} --adapter {{folder}}/none", videos("in.mp4")),
    own("a foreign LoRA", ADAPTED, adapter(lambda root: header(min(root.glob("low/*.safetensors")), None))),
    own(
        "an adapter of another base",
        ADAPTED,
        adapter(
            lambda root: header(
                min(root.glob("low/*.safetensors")), lambda found: found.update(base="another")
            )
        ),
    ),
    own(
        "an adapter of another mode",
        ADAPTED,
        adapter(
            lambda root: header(
                min(root.glob("high/*.safetensors")), lambda found: found.update(mode="one-way")
            )
        ),
    ),
    own("half of an adapter given", ADAPTED, adapter(cut("high/*.safetensors"))),
    own("renders alone", "evaluate --renders {folder}/a", videos("a/x.mp4")),
    own("no folder of outputs", SCORE, videos("a/x.mp4")),
    own("names that differ", SCORE, videos("a/x.mp4", "b/y.mp4")),
    own("frames that differ", SCORE, both(videos("a/x.mp4"), videos("b/x.mp4", frames=13))),
    own("too few frames", SCORE, videos("a/x.mp4", "b/x.mp4", frames=1)),
    own("no repeats", f"{SCORE} --repeats 0", PAIR),
    own("an unknown metric asked for", f"{SCORE} --metrics fvd", PAIR),
    own(
        "a table that is a folder", "evaluate --renders {folder}/a --outputs {folder}/b --out {folder}", PAIR
    ),
    own(
        "a table of the user's",
        SCORE,
        both(PAIR, lambda place: place.text("scores.csv", "name,mark\nme,1\n")),
    ),
    own(
        "sizes that differ, strictly",
        f"{SCORE} --strict",
        both(videos("a/x.mp4"), videos("b/x.mp4", size=(64, 96))),
    ),
]

KEYS = [
    Case(
        "a key with a blank",
        "evaluate --profile {own}",
        gone("metrics.csv"),
        {"judge": {"enabled": True}},
        {"OPENAI_API_KEY": "sk a"},
    ),
    setting(
        "a service without a key",
        "baselines",
        baselines={"runway_aleph": {"model": "aleph2", "usd_per_second": 0.28}},
    ),
    Case(
        "a service beyond its budget",
        "baselines --profile {own}",
        settings={
            "baselines": {"runway_aleph": {"model": "aleph2", "usd_per_second": 0.28, "budget_usd": 0.1}}
        },
        env={"RUNWAYML_API_SECRET": "key"},
    ),
    Case(
        "footage that is not there",
        "evaluate --profile {own}",
        gone("metrics.csv"),
        {"judge": {"enabled": True, "real": "no/such"}},
        {"OPENAI_API_KEY": "sk-a"},
    ),
    setting("an outside LoRA that is not there", "baselines", baselines={"editto": {"model": "no/such"}}),
]


def of_kit(what: str, name: str, content: str, command: str = "report") -> Case:
    """A file of the kit's that people edit."""
    return own(what, command, lambda place: place.of_kit(name, content))


EDITED = [
    of_kit("claims that are no YAML", "data/paper/claims.yaml", "- [", "report"),
    of_kit("claims that are no list", "data/paper/claims.yaml", "a: 1"),
    of_kit("a claim without a bound", "data/paper/claims.yaml", "- {id: a, text: b}"),
    of_kit("a paper's table that is none", "data/paper/tables.yaml", "- 1"),
    of_kit(
        "a paper's value of an unknown metric", "data/paper/tables.yaml", "table1: {realmaster: {fvd: 1}}"
    ),
    of_kit("a paper's value that is text", "data/paper/tables.yaml", "table1: {realmaster: {arcface: high}}"),
    of_kit("half a notebook", "notebooks/99_mine.ipynb", '{"cells": [', "notebooks"),
    of_kit("something else than a notebook", "notebooks/99_mine.ipynb", "{}", "notebooks"),
    own("a name that is too long", f"enhance --prompt snow --into {'a' * 300}"),
    own(
        "an output's name that is too long",
        f"enhance {{folder}}/in.mp4 {{folder}}/{'a' * 300}.mp4",
        videos("in.mp4"),
    ),
    own("a folder for a file of answers", "study --answers {folder}"),
    damaged(
        "half of a metric's value", "evaluate", both(gone("metrics.csv"), damage("metrics/*/*/*.json", half))
    ),
    damaged(
        "half of the faces",
        "evaluate",
        both(gone("metrics.csv", "metrics/arcface"), damage("faces/*/*.npz", half)),
    ),
    damaged("half of the cuts", "data", both(gone("clips"), damage("cuts/*.json", half))),
]


def bundle(what: str, change: Callable[[Path], Any]) -> Case:
    """A diorama that is wrong."""

    def make(place: Place) -> None:
        change(Path(shutil.copytree(place.kit / "data/diorama/clips", place.folder / "clips")))

    return Case(what, "data --profile {own}", make, {"data": {"bundle": "{folder}/clips"}})


ODD = [
    setting("a number for a group", train=5),
    setting("nothing for a group", data=None),
    setting("a list for the metrics' models", metrics=["dino"]),
    setting("a number for a method", baselines={"blur": 3}),
    setting("a list of cuts that is not there", "data", data={"cuts": "no/such.json"}),
    setting("a file for a model", "anchors", models={"editor": "README.md"}),
    setting("a file for a pack", "filter", identity={"model_pack": "README.md"}),
    setting("a file for a DINO", "evaluate", metrics={"dino": "README.md"}),
    setting("a file for a data set", "data", data={"source": "sailvos", "root": "README.md", "bundle": None}),
    model("an index that is a list", "anchors", "editor", said("model_index.json", "[]")),
    model(
        "a pipeline of an unknown class", "anchors", "editor", facts("model_index.json", _class_name="Sora")
    ),
    model(
        "a part of an unknown class", "encode", "wan", facts("model_index.json", vae=["diffusers", "Sora"])
    ),
    model("a config that is a list", "encode", "wan", said("vae/config.json", "[]")),
    model("a tokenizer without its words", "encode", "wan", remove("tokenizer/tokenizer.json")),
    model("a scheduler that is missing", "encode", "wan", remove("scheduler/*.json")),
    model(
        "an index of weights without a map",
        "encode",
        "wan",
        lambda root: (root / "vae/x.safetensors.index.json").write_text("{}"),
    ),
    metric(
        "a DINO whose preprocessing is no JSON", "dino", "features", said("preprocessor_config.json", "{")
    ),
    pack("an empty model in the pack", said("detector.onnx", "")),
    bundle("a damaged bundle", cut("validation/*/*.mp4")),
    bundle("a bundle that lacks a file", remove("validation/validation_interior_00001/*.mp4")),
    sailvos("half of the captions", cut("train_0/captions.json")),
    sailvos(
        "pictures of several sizes",
        lambda root: shutil.copy(
            Path(__file__).parents[1]
            / "data/diorama/checkpoints/editor/sheet_render_affine_edited_truth.jpg",
            root / "train_0/images/000002.png",
        ),
    ),
    own("no trials", "study --trials 0"),
    own("a spread of folders that are not there", "verify --spread {folder}/a {folder}/b"),
    own("a file for renders", "evaluate --renders {folder}/x.mp4 --outputs {folder}", videos("x.mp4")),
    own("a file for an adapter", f"{ENHANCE} --adapter {{folder}}/in.mp4", videos("in.mp4")),
    own(
        "an adapter whose header is no JSON",
        ADAPTED,
        adapter(lambda root: header(min(root.glob("low/*.safetensors")), "")),
    ),
    own(
        "an adapter that is not finite",
        ADAPTED,
        adapter(lambda root: not_a_number(min(root.glob("low/*.safetensors")))),
    ),
    own(
        "an adapter that lacks a tensor",
        ADAPTED,
        adapter(lambda root: fewer(min(root.glob("low/*.safetensors")))),
    ),
    own("an empty file for a video", ENHANCE, lambda place: place.text("in.mp4", "")),
    damaged(
        "a pair whose target is not there",
        "encode",
        both(
            gone("pairs/latents"),
            edited("pairs/pairs.json", lambda found: found[0].update(target="no/such.mp4")),
        ),
    ),
    damaged(
        "a pair whose target is a number",
        "encode",
        both(gone("pairs/latents"), edited("pairs/pairs.json", lambda found: found[0].update(target=5))),
    ),
    damaged(
        "a pair whose target is its render",
        "encode",
        both(
            gone("pairs/latents"),
            edited("pairs/pairs.json", lambda found: found[0].update(target=found[0]["render"])),
        ),
    ),
    damaged(
        "a clip of an unknown sequence",
        "structure",
        both(
            gone("structure"),
            edited(
                "clips/clips.json",
                lambda found: [each.update(sequence="elsewhere") for each in found][:0] or found,
            ),
        ),
    ),
    damaged(
        "a table of values with text",
        "report",
        damage("metrics.csv", lambda content: content.replace(b"24.", b"x24.", 1)),
    ),
    damaged(
        "a table of values with a row twice",
        "report",
        damage("metrics.csv", lambda content: content + content.splitlines()[-1] + b"\n"),
    ),
    damaged(
        "a key of the study of another form",
        "study --answers {folder}/a.csv",
        both(
            edited("study/key.json", lambda found: {key: 1 for key in found}),
            lambda place: place.text("a.csv", "participant,trial,question,choice\np,x,realism,a\n"),
        ),
    ),
]

CASES = [*ODD, *EDITED, *PROFILES, *MACHINES, *MODELS, *DATA, *RUNS, *STUDIES, *VIDEOS, *KEYS]
