"""Cards of the tiny checkpoints: held-out figures, how each was trained, and sheets to look at.

Reads `data/diorama/checkpoints/`, the training logs under `--out` and the rendered validation split; writes
`card.json` and `sheet_*.jpg` into each checkpoint's folder, and their READMEs from these (hub_cards.py).

    python data/diorama/cards.py --rendered DIR --out DIR [--only wan vace editor features faces judge weather]
"""

import argparse
import csv
import json
import textwrap
from pathlib import Path

import check_features
import dataset
import face_card
import hub_cards
import numpy as np
import torch
import train_video
import train_weather
from dataset import Shot
from diffusers import WanPipeline
from PIL import Image
from world import KEPT

from rmkit import profile
from rmkit.baselines import blur, colour_transfer, prefilter, vae_ceiling
from rmkit.kit import editor, models, video
from rmkit.method import propagation
from rmkit.metrics.dino import FeatureModel
from rmkit.metrics.offline_judge import OfflineJudge
from rmkit.metrics.psnr import psnr
from rmkit.metrics.sharpness import sharpness
from rmkit.metrics.weather import Classifier

FOLDER = Path(__file__).parent / "checkpoints"
KEPT_APART = f"pretrain sequences {KEPT.start} to {KEPT.stop - 1}, each scene in five weathers"
MIDDLE = 5.5  # of the ratings 1 to 10: probability one half
PROMPTS = (
    "a woman with red hair in a blue shirt stands in front of a brick wall, close up",
    "a man with a hat and glasses in a yellow shirt stands in a room, close up",
    "a car drives on a road between houses, wide shot",
    "a car drives on a road between houses, wide shot, in the rain",
)
CAPTION_SIGMA = 0.99  # where there is little else to go by
STAGES = {"wan": ("wan_vae", "wan_vae_later", "low", "high"), "vace": ("vace",), "editor": ("qwen_vae", "editor"),
          "features": ("features",), "faces": ("detector", "recogniser"), "judge": ("judge",),
          "weather": ("weather",)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rendered", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder the training scripts wrote")
    parser.add_argument("--only", nargs="+", choices=tuple(STAGES), default=_shipped())
    arguments = parser.parse_args()
    mini = profile.load("mini")
    shots = dataset.load(arguments.rendered, "validation")
    count = len([1 for _ in (arguments.rendered / "pretrain").glob("*/meta.json")])
    figures = {
        "wan": wan_figures,
        "vace": vace_figures,
        "editor": editor_figures,
        "features": features_figures,
        "faces": face_figures,
        "judge": judge_figures,
        "weather": lambda mini, shots, rendered: weather_figures(mini, rendered, arguments.out),
    }
    for name in arguments.only:
        with torch.no_grad():
            found = figures[name](mini, shots, arguments.rendered)
        card = {
            "knows": "the diorama",  # no other footage is measured by it unless asked for
            "data": f"{2 * count} clips of {count} sequences, pretrain split"
            + (", an eighth of them for the calibration only" if name == "judge" else ""),
            "held out on": KEPT_APART if name == "weather" else f"{len(shots)} clips, validation split",
            "figures": {key: round(float(value), 4) for key, value in found.items()},
            "training": [row for stage in STAGES[name] for row in summary(arguments.out / stage)],
        }
        (FOLDER / name / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        print(json.dumps(card["figures"], indent=1), flush=True)
    hub_cards.write()


def wan_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """Reconstruction by the VAE of all it is fed, what captions tell, and a sheet of text-to-video samples."""
    pipeline = models.load_wan(mini)
    found: dict[str, list[float]] = {}
    rows = []
    for number, shot in enumerate(shots):
        clip = dataset.repeated(shot.truth)
        back = vae_ceiling.reconstruct(pipeline.vae, clip)
        put = {
            "vae_psnr": psnr(back, clip),
            "vae_psnr_first_frame": psnr([back[0]], [clip[0]]),
            "vae_psnr_last_frame": psnr([back[-1]], [clip[-1]]),
            "vae_sharpness_ratio": sharpness(back) / sharpness(clip),
        }
        if number % 4 == 0:
            for kind in ("render", "edges", "depth"):
                other = dataset.repeated(getattr(shot, kind))
                put[f"vae_psnr_{kind}"] = psnr(vae_ceiling.reconstruct(pipeline.vae, other), other)
        faces = face_crops(shot, clip, back)
        if faces and len(rows) < 8:
            rows.append((shot.sequence, faces))
        for key, value in put.items():
            found.setdefault(key, []).append(value)
    video.contact_sheet(rows, width=144).save(FOLDER / "wan" / "sheet_vae_faces.jpg", quality=88)
    samples = []
    for number, prompt in enumerate((*PROMPTS, *(shot.caption for shot in shots[:8:2]))):
        output = pipeline(
            prompt,
            height=96,
            width=144,
            num_frames=33,
            num_inference_steps=20,
            guidance_scale=3.0,
            guidance_scale_2=1.0,  # more weaves a pattern into flat walls
            max_sequence_length=models.text_length(pipeline.tokenizer),
            generator=models.generator(number),
            output_type="np",
        )
        frames = video.to_uint8(output.frames[0])
        samples.append((textwrap.fill(prompt, 36), [frames[i] for i in (0, 11, 22, 32)]))
    video.contact_sheet(samples, width=144).save(FOLDER / "wan" / "sheet_samples.jpg", quality=88)
    return {key: np.mean(values) for key, values in found.items()} | caption_errors(pipeline, shots)


def caption_errors(pipeline: WanPipeline, shots: list[Shot]) -> dict[str, float]:
    """Squared error of the high-noise expert with a clip's own caption, none, and that of another sequence."""
    errors = []
    generator = models.generator(0)
    for number, shot in enumerate(shots):
        told = [shot.caption, "", shots[number - 2].caption]
        embeds, _ = pipeline.encode_prompt(
            told,
            do_classifier_free_guidance=False,
            max_sequence_length=models.text_length(pipeline.tokenizer),
        )
        x0 = train_video.encode(pipeline.vae, dataset.repeated(shot.truth)[None]).float()  # [1, C, F, H, W]
        noise = torch.randn(x0.shape, generator=generator)
        noisy = (1 - CAPTION_SIGMA) * x0 + CAPTION_SIGMA * noise
        predicted = pipeline.transformer(
            hidden_states=noisy.expand(len(told), -1, -1, -1, -1),
            timestep=torch.full((len(told),), 1000 * CAPTION_SIGMA),
            encoder_hidden_states=embeds,
        ).sample
        errors.append((predicted - (noise - x0)).square().mean((1, 2, 3, 4)))
    own, none, other = torch.stack(errors).mean(0).tolist()
    return {"error_own_caption": own, "error_no_caption": none, "error_other_caption": other}


def vace_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """Propagation of true anchors: what the model loses apart from the editor's errors."""
    pipeline = propagation.load(mini)
    encode = propagation.encoder(mini, pipeline)
    found: dict[str, list[float]] = {}
    rows = []
    for number, shot in enumerate(shots[::3]):
        truth = dataset.repeated(shot.truth)
        row = [truth[16]]
        for kind in ("edges", "depth"):
            anchors = {0: truth[0], 32: truth[32]}
            frames, mask = propagation.control(dataset.repeated(getattr(shot, kind)), anchors, [0, 32])
            embeds = encode(shot.caption)
            output = propagation.run(mini, pipeline, frames, mask, embeds, number)
            found.setdefault(f"psnr_true_anchors_{kind}", []).append(psnr(output, truth))
            found.setdefault(f"sharpness_ratio_{kind}", []).append(sharpness(output) / sharpness(truth))
            row.append(output[16])
        rows.append((shot.sequence, row))
    video.contact_sheet(rows, width=144).save(FOLDER / "vace" / "sheet_truth_edges_depth.jpg", quality=88)
    return {key: np.mean(values) for key, values in found.items()}


def editor_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """Edited first frames against the truth, beside an affine colour map fitted on pretrain pairs."""
    colour_map = graded_to_truth(rendered)
    pipeline = models.load_editor(mini)
    found: dict[str, list[float]] = {}
    rows = []
    for number, shot in enumerate(shots):
        render, truth = shot.render[0], shot.truth[0]
        with editor.at_area(pipeline, mini.anchors.edit_area):
            edited = pipeline(
                image=Image.fromarray(render),
                prompt=mini.anchors.prompt,
                num_inference_steps=mini.anchors.steps,
                true_cfg_scale=1.0,
                generator=models.generator(number),
            ).images[0]
        edited = np.asarray(edited.resize((render.shape[1], render.shape[0]), Image.LANCZOS))
        mapped = colour_transfer.apply(colour_map, render)
        for key, frame in (("render", render), ("affine", mapped), ("edited", edited)):
            found.setdefault(f"psnr_{key}", []).append(psnr([frame], [truth]))
        found.setdefault("sharpness_ratio", []).append(sharpness(edited[None]) / sharpness(truth[None]))
        if number % 3 == 0:
            rows.append((shot.sequence, [render, mapped, edited, truth]))
    video.contact_sheet(rows, width=144).save(
        FOLDER / "editor" / "sheet_render_affine_edited_truth.jpg", quality=88
    )
    means = {key: np.mean(values) for key, values in found.items()}
    return {**means, "psnr_gain_over_affine": means["psnr_edited"] - means["psnr_affine"]}


def features_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """Whether features say what is shown, and whether their distance grows with damage."""
    return check_features.figures(FeatureModel(str(FOLDER / "features"), None), shots)


def face_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """Detection and verification on people nobody was trained on, and what the VAE keeps of a face."""
    return face_card.figures(mini, rendered, FOLDER / "faces")


def judge_figures(mini: profile.Profile, shots: list[Shot], rendered: Path) -> dict[str, float]:
    """How well the judge tells the looks apart, and whether a blur, a grading or the VAE changes its mind; a sheet."""
    judge, vae = OfflineJudge(str(FOLDER / "judge"), None), models.load_wan(mini).vae
    colour_map = graded_to_truth(rendered)
    found: dict[str, list[np.ndarray]] = {}  # ratings of all frames, by kind and shot
    rows = []
    for number, shot in enumerate(shots):
        kinds = {
            "render": shot.render,
            "render_blurred": np.stack([blur.soften(frame) for frame in shot.render]),
            "render_prefiltered": np.stack([prefilter.filtered(frame) for frame in shot.render]),
            "render_mapped": colour_transfer.apply(colour_map, shot.render),
            "render_vae": vae_ceiling.reconstruct(vae, dataset.repeated(shot.render))[::2],
            "truth_blurred": np.stack([blur.soften(frame) for frame in shot.truth]),
            "truth_vae": vae_ceiling.reconstruct(vae, dataset.repeated(shot.truth))[::2],
            "truth": shot.truth,
        }
        for kind, frames in kinds.items():
            found.setdefault(kind, []).append(judge(frames))
        if number % 3 == 0:
            ratings = "  ".join(f"{found[kind][-1][8]:.1f}" for kind in kinds)
            rows.append((f"{shot.sequence}: {ratings}", [frames[8] for frames in kinds.values()]))
    name = "sheet_render_blurred_prefiltered_mapped_vae_truth_blurred_vae_plain.jpg"
    video.contact_sheet(rows, width=144).save(FOLDER / "judge" / name, quality=88)
    render, truth = np.concatenate(found["render"]), np.concatenate(found["truth"])
    return {
        "accuracy": np.mean([render < MIDDLE, truth > MIDDLE]),
        "auc": face_card.area_under_roc(truth, render),
        **{f"rating_{kind}": np.mean(ratings) for kind, ratings in found.items()},
        **{f"taken_for_truth_{kind}": np.mean(np.array(r) > MIDDLE) for kind, r in found.items()},
        "rating_render_highest_clip": max(ratings.mean() for ratings in found["render"]),
        "rating_truth_lowest_clip": min(ratings.mean() for ratings in found["truth"]),
    }


def weather_figures(mini: profile.Profile, rendered: Path, out: Path) -> dict[str, float]:
    """How well the five weathers are told apart on scenes kept apart, what overlays score, and the rulers."""
    classifier, vae = Classifier(str(FOLDER / "weather"), None).model, models.load_wan(mini).vae
    numbers = [n for n in train_weather.finished(rendered) if n in KEPT]
    held = train_weather.material(rendered, numbers, vae, out / "weather" / "decoded")
    rulers = train_weather.rulers(classifier, held)
    read = {
        f"ruler_{weather}_{end}": score for weather, ends in rulers.items() for end, score in ends.items()
    }
    return {"scenes": len(numbers), **train_weather.figures(classifier, held), **read}


def graded_to_truth(rendered: Path) -> np.ndarray:
    """The affine colour map [3, 4] from renders to truths, fitted on pretrain pairs in clear weather."""
    pretrain = [s for s in dataset.load(rendered, "pretrain", limit=80) if s.weather == "clear"]
    return colour_transfer.least_squares((s.render[::8], s.truth[::8]) for s in pretrain)


def face_crops(shot: Shot, clip: np.ndarray, back: np.ndarray) -> list[np.ndarray]:
    """Faces of a clip before and after the VAE, first and last frame: uint8 [48, 48, 3] each."""
    crops = []
    for frame in (0, len(shot.faces) - 1):
        if not shot.faces[frame]:
            return []
        x0, y0, x1, y1 = shot.faces[frame][0]
        top = int(np.clip((y0 + y1) / 2 - 24, 0, 48))
        left = int(np.clip((x0 + x1) / 2 - 24, 0, 96))
        crops += [v[2 * frame, top : top + 48, left : left + 48] for v in (clip, back)]
    return crops


def summary(folder: Path) -> list[dict]:
    """Last row of each phase of a training log: steps, seconds, loss."""
    if not (folder / "log.csv").exists():
        return []
    with (folder / "log.csv").open() as file:
        last = {row["phase"]: row for row in csv.DictReader(file)}
    return [{"stage": folder.name, **{k: v for k, v in row.items() if v}} for row in last.values()]


def _shipped() -> list[str]:
    return [name for name in STAGES if (FOLDER / name).is_dir()]


if __name__ == "__main__":
    main()
