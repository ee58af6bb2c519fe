"""Train the weather classifier of the miniature: which of five weathers a frame of the truth shows.

Reads rendered sequences of the pretrain split from WEATHERS_FROM on, which show each scene in every weather, and the mini
profile's VAE; writes `<out>/weather/` (state, log, clips through the VAE) and the model folder `<out>/checkpoints/weather`.
It must know weather from greyness: beside every frame in a weather stands one of the same scene that only looks like it (a
flat overlay, another scene's colours, a graded render) and is called clear. Some scenes are kept apart: for the accuracy
and for the rulers, which are stored with the model.

    python data/diorama/train_weather.py --rendered DIR --out DIR
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import architectures
import loop
import numpy as np
import torch
import train_judge
from torch import nn
from torch.nn import functional
from world import KEPT, SHOT_FRAMES, WEATHERS, WEATHERS_FROM, clear_number, world_of

from rmkit import profile
from rmkit.baselines import colour_transfer
from rmkit.baselines.weather_overlay import LOOKS, Look, overlay
from rmkit.kit import models, video

DECODED_EVERY = 3  # scenes, of which one also goes through the VAE; of those kept apart all do
DECODED_SHARE = 0.5  # of the pictures drawn: what is to be rated has all been through the VAE
LIKENESSES = ("clear", "render", "graded", "over truth", "over render")
CHANCES = (0.3, 0.2, 0.1, 0.2, 0.2)  # of what stands beside a frame in a weather
SOFTEST = 1.2  # pixels of blur
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Scene:
    """A scene's frames: the render, and the truth in every weather; uint8 [F, 96, 144, 3] each.

    maps: the affine map [3, 4] from the clear truth's colours to those of the truth in a weather, by weather; and from the
    render's, by ("render", weather).
    """

    name: str
    render: np.ndarray
    truth: dict[str, np.ndarray]
    maps: dict


@dataclass(frozen=True)
class Material:
    """Scenes as they are, and some of them through the video VAE."""

    plain: list[Scene]
    decoded: list[Scene]


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=16, help="pairs of frames a step")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--kept", type=int, nargs=2, default=(KEPT.start, KEPT.stop), help="numbers kept apart: from, to"
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": architectures.weather().to(memory_format=torch.channels_last)})
    folder, kept = arguments.out / "weather", range(*arguments.kept)
    vae, numbers = models.load_wan(profile.load("mini")).vae, finished(arguments.rendered)
    seen, unseen = ([n for n in numbers if (n in kept) == wanted] for wanted in (False, True))
    training = material(arguments.rendered, seen, vae, folder / "decoded", DECODED_EVERY)
    held = material(arguments.rendered, unseen, vae, folder / "decoded")
    print(f"{len(training.plain)} scenes, {len(held.plain)} kept apart", flush=True)
    loss = objective(model.to(arguments.device), training, arguments.batch, arguments.device)
    phase = loop.Phase("weather", arguments.steps, arguments.learning_rate, loss)
    loop.train(folder, {"weather": model}, [phase])
    classifier = model["blocks"].cpu().eval()
    classifier.config.rulers = rulers(classifier, held)
    print(classifier.config.rulers, figures(classifier, held), sep="\n", flush=True)
    architectures.save_single(arguments.out / "checkpoints" / "weather", classifier)


def material(
    rendered: Path, numbers: Sequence[int], vae: nn.Module, folder: Path, every: int = 1
) -> Material:
    """The scenes of these numbers, and one in `every` through the VAE, which `folder` keeps."""
    scenes = [read(rendered, number) for number in numbers]
    return Material(scenes, [decoded(vae, scene, folder) for scene in scenes[::every]])


def finished(rendered: Path) -> list[int]:
    """The numbers of the scenes that are rendered in every weather: each is that of its sequence in the clear."""
    numbers = sorted(
        int(path.parent.name.rpartition("_")[2]) for path in rendered.glob("pretrain/*_*/meta.json")
    )
    whole = set(numbers)
    return [
        number
        for number in numbers
        if number >= WEATHERS_FROM
        and clear_number(number)[1] == 0
        and whole.issuperset(range(number, number + len(WEATHERS)))
    ]


def read(rendered: Path, number: int) -> Scene:
    """The scene whose clear weather has this number."""
    name = f"{world_of('pretrain', number)}_{number:05d}"
    render = video.read(rendered / "pretrain" / name / "render.mp4")
    truth = {}
    for nth, weather in enumerate(WEATHERS):
        folder = rendered / "pretrain" / f"{world_of('pretrain', number)}_{number + nth:05d}"
        truth[weather] = video.read(folder / "truth.mp4")
    return with_maps(name, render, truth)


def with_maps(name: str, render: np.ndarray, truth: dict[str, np.ndarray]) -> Scene:
    """The scene with its colour maps, fitted on every eighth frame."""
    maps = {}
    for weather, frames in truth.items():
        maps[weather] = colour_transfer.least_squares([(truth["clear"][::8], frames[::8])])
        maps["render", weather] = colour_transfer.least_squares([(render[::8], frames[::8])])
    return Scene(name, render, truth, maps)


def decoded(vae: nn.Module, scene: Scene, folder: Path) -> Scene:
    """The scene's first shot through the VAE, which `folder` keeps."""
    folder.mkdir(parents=True, exist_ok=True)

    def back(frames: np.ndarray, look: str) -> np.ndarray:
        return train_judge.round_trip(vae, frames[:SHOT_FRAMES], folder / f"{scene.name}_{look}.mp4")

    truth = {weather: back(frames, weather) for weather, frames in scene.truth.items()}
    return Scene(scene.name, back(scene.render, "render"), truth, scene.maps)


def objective(model: nn.ModuleDict, training: Material, batch: int, device: str):
    """Cross-entropy over `batch` frames in a weather and as many that only look like it."""

    def loss(rng: np.random.Generator, generator: torch.Generator):
        pictures, labels = [], []
        for _ in range(batch):
            pair, weather = draw(training, rng)
            pictures += train_judge.cropped(pair, rng)
            labels += [WEATHERS.index(weather), 0]
        target = torch.tensor(labels, device=device)
        logits = model["blocks"](train_judge.as_input(pictures).to(device)).logits
        right = (logits.argmax(1) == target).float().mean().item()
        return functional.cross_entropy(logits, target), {"accuracy": right}

    return loss


def draw(source: Material, rng: np.random.Generator) -> tuple[list[np.ndarray], str]:
    """A frame of the truth in some weather, one of the same moment that only looks like it, uint8 [H, W, 3]; the weather."""
    scenes = source.decoded if source.decoded and rng.random() < DECODED_SHARE else source.plain
    scene, weather = scenes[int(rng.integers(len(scenes)))], WEATHERS[int(rng.integers(1, len(WEATHERS)))]
    other = source.plain[int(rng.integers(len(source.plain)))]  # its colours, which do not fit exactly
    index = int(rng.integers(len(scene.render)))
    beside = likeness(scene, other, index, weather, rng)
    pair = [scene.truth[weather][index], beside]
    if rng.random() < 0.5:
        pair = [np.ascontiguousarray(frame[:, ::-1]) for frame in pair]
    return [train_judge.spoilt(frame, SOFTEST, rng) for frame in pair], weather


def likeness(scene: Scene, other: Scene, index: int, weather: str, rng: np.random.Generator) -> np.ndarray:
    """A frame in clear weather, or made to look like another weather: uint8 [H, W, 3]."""
    kind = rng.choice(LIKENESSES, p=CHANCES)
    clear, render = scene.truth["clear"][index], scene.render[index]
    if kind == "clear":
        return clear
    if kind == "render":
        target = weather if rng.random() < 0.5 else "clear"
        return train_judge.graded(render, other.maps["render", target], rng.uniform(0, 1.2))
    if kind == "graded":
        return train_judge.graded(clear, other.maps[weather], rng.uniform(0.2, 1.0))
    if kind == "over truth":
        return overlaid(clear, weather, rng)
    return overlaid(
        train_judge.graded(render, other.maps["render", "clear"], rng.uniform(0, 1)), weather, rng
    )


def overlaid(frame: np.ndarray, weather: str, rng: np.random.Generator) -> np.ndarray:
    """A frame under an overlay of its own: uint8 [H, W, 3] to the same."""
    dim = rng.uniform(0.6, 1.1) if weather == "rain" else rng.uniform(0.85, 1.1)
    tint = dim * rng.uniform(0.9, 1.08, 3)
    if weather == "dusk":
        tint = rng.uniform(0.5, 1.1) * np.array(
            [rng.uniform(1.0, 1.4), rng.uniform(0.7, 0.95), rng.uniform(0.5, 1.0)]
        )
    fog, rain = weather == "fog", weather == "rain"
    drops = {"rain": int(rng.integers(20, 160)), "snow": int(rng.integers(20, 200))}.get(weather, 0)
    look = Look(
        tint=tuple(tint.tolist()),
        colour=rng.uniform(0.4, 1.2),
        veil=rng.uniform(0.2, 0.75) if fog else rng.uniform(0, 0.35),
        top=rng.uniform(-0.1, 0.25) if fog else rng.uniform(0, 0.2),
        grey=rng.uniform(70, 210),
        drops=drops,
        length=rng.uniform(0.05, 0.3) if rain else 0.0,
        width=rng.uniform(0.005, 0.016) if rain else rng.uniform(0.01, 0.045),
        slant=rng.uniform(-0.25, 0.25),
        opacity=rng.uniform(0.2, 1.0),
    )
    return overlay(frame[None], look, int(rng.integers(2**31)))[0]


@torch.no_grad()
def probabilities(model: nn.Module, frames: Sequence[np.ndarray]) -> np.ndarray:
    """Of each weather, float64 [N, 5], of whole frames uint8 [H, W, 3]."""
    return model(train_judge.as_input(frames)).logits.double().softmax(1).numpy()


def rulers(model: nn.Module, held: Material) -> dict[str, dict[str, float]]:
    """Of each weather but clear its mean score on truth in that weather and on clear truth, as it is and through the VAE."""
    found: dict[str, dict[str, float]] = {}
    for nth, weather in enumerate(WEATHERS[1:], start=1):
        for end, scenes in (("", held.plain), ("_vae", held.decoded)):
            for name, shown in (("weather", weather), ("clear", "clear")):
                score = np.concatenate(
                    [probabilities(model, s.truth[shown][::4])[:, nth] for s in scenes]
                ).mean()
                found.setdefault(weather, {})[name + end] = round(float(score), 6)
    return found


def figures(model: nn.Module, held: Material) -> dict[str, float]:
    """What the card says: share of frames told right, and the mean score of flat overlays, by weather."""
    found = {}
    for end, scenes in (("", held.plain), ("_vae", held.decoded)):
        for nth, weather in enumerate(WEATHERS):
            told = [probabilities(model, s.truth[weather][::4]).argmax(1) for s in scenes]
            found[f"told_right_{weather}{end}"] = np.mean(np.concatenate(told) == nth)
    for nth, weather in enumerate(WEATHERS[1:], start=1):
        rng = np.random.default_rng(0)
        for over, of in (("truth", lambda s: s.truth["clear"]), ("render", lambda s: s.render)):
            frames = [overlaid(frame, weather, rng) for scene in held.decoded for frame in of(scene)[::2]]
            found[f"score_of_overlay_over_{over}_{weather}"] = probabilities(model, frames)[:, nth].mean()
            # The look that 06_weather puts beside the outputs, which training has not drawn.
            frames = [
                f for s in held.decoded for f in overlay(of(s)[::2], LOOKS[weather], int(rng.integers(2**31)))
            ]
            found[f"score_of_fixed_overlay_over_{over}_{weather}"] = probabilities(model, frames)[
                :, nth
            ].mean()
    return {name: round(float(value), 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
