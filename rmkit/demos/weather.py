"""Weather by the prompt alone (paper, 5 and Fig. 8): the adapter of clear pairs, unchanged, asked for rain, snow, fog, dusk.

Reads the run's clips and adapter, the clips of other demonstrations and the bundle's truth in other weather; writes
results/<profile>/weather/: clips, regions, enhanced/<weather>, metrics.csv. Everything is stored: nothing is computed twice.
"""

import functools
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from rmkit.baselines import truth
from rmkit.baselines.weather_overlay import LOOKS, overlay
from rmkit.demos import carla, regions
from rmkit.evaluation import evaluate, metrics_csv
from rmkit.kit import encode, stage, store, video
from rmkit.method import enhance, sampling, training
from rmkit.method.sampling import Clip
from rmkit.metrics import Subject
from rmkit.paths import resolve
from rmkit.profile import WEATHERS, Profile

VERSION = 1
# The label, among a clip's subsets, of those of the run; of the other engine's it is `carla`.
PLACE = "outdoors"
WANTED = (
    *(f"weather_{weather}" for weather in WEATHERS),
    *("weather_share", "weather_motion", "persons_f1", "objects_f1", "ground_f1", "sky_f1"),
    *("arcface", "arcface_coverage", "temporal_flickering", "temporal_flickering_distinct"),
)
OF_DOSE = ("weather_share", "persons_f1", "objects_f1")


def of(profile: Profile, guidance: float | None = None) -> Profile:
    """The demonstration's profile: its own steps and guidance, or this guidance of both experts."""
    own = profile.weather
    chosen = {
        "steps": own.steps,
        "guidance_low": own.guidance_low if guidance is None else guidance,
        "guidance_high": own.guidance_high if guidance is None else guidance,
    }
    changes = {key: value for key, value in chosen.items() if value is not None}
    return profile.demo("weather", enhance=changes)


def prompt(profile: Profile, weather: str, clip: Clip) -> str:
    """What a clip is asked for: the weather's words, then its caption, or the profile's prompt where it has none.

    The words stand first: what comes last in a prompt is heard least, and is what a tokenizer cuts.
    """
    return profile.weather.prompts[weather] + enhance.prompt_of(profile, clip)


def choose(profile: Profile) -> list[tuple[Profile, Clip]]:
    """The clips asked for weather, each with the profile whose stages made it: one shot a sequence, first the run's own."""
    own = sampling.load(profile, "validation")
    found = [(profile, clip, PLACE) for clip in own if profile.weather.outdoor in clip.sequence]
    if not carla.why_not(profile):
        drives = carla.prepare(profile)
        found += [(drives, clip, carla.NAME) for clip in sampling.sample(drives)]
    chosen: dict[tuple[str, str], tuple[Profile, Clip]] = {}
    for source, clip, place in found:
        labelled = replace(clip, subsets=tuple(dict.fromkeys((*clip.subsets, place))))
        chosen.setdefault((place, clip.sequence), (source, labelled))
    kept, counts = [], Counter()
    for (place, _), pair in chosen.items():
        counts[place] += 1
        if counts[place] <= profile.weather.clips:
            kept.append(pair)
    return kept


def prepare(profile: Profile) -> list[Clip]:
    """Copy the chosen clips, tell their regions apart where the data can, and write the manifest; returns the clips."""
    demo, chosen = of(profile), choose(profile)
    copies = []
    for source, clip in chosen:
        original = sampling.path(source, clip)
        recipe = store.Recipe("weather clips", VERSION, {}, {"clip": store.fingerprint(original)})
        copies.append(stage.Item(sampling.path(demo, clip), recipe, original))
    stage.run("clips", copies, lambda: _copy)
    regions.write(demo, chosen)
    clips = [clip for _, clip in chosen]
    demo.layout.clips.mkdir(parents=True, exist_ok=True)
    store.write_json(demo.layout.clips / "clips.json", [asdict(clip) for clip in clips])
    return clips


def make(profile: Profile, clips: Sequence[Clip]) -> None:
    """Every clip in every weather, the overlay over the clear output, and the truth in that weather where it is shipped."""
    demo = of(profile)
    asked = [(weather, functools.partial(prompt, profile, weather)) for weather in WEATHERS]
    wanted = [item for name, say in asked for item in _items(demo, clips, say, name)]
    enhance.make(demo, wanted)
    items = [_overlay_item(demo, weather, clip) for weather in LOOKS for clip in clips]
    items += [item for clip in clips for weather in WEATHERS if (item := _truth_item(profile, weather, clip))]
    stage.run("overlay and truth", items, lambda: lambda item, temporary: item.subject(temporary))


def make_doses(profile: Profile, clips: Sequence[Clip]) -> None:
    """The clips in the dose-response's weathers at its other guidances; the notebook's own is there already."""
    wanted = []
    for name, (weather, guidance) in _doses(profile).items():
        asked = functools.partial(prompt, profile, weather)
        wanted += _items(of(profile, guidance), clips, asked, name)
    enhance.make(of(profile), wanted)


def dose(profile: Profile, weather: str, guidance: float) -> str:
    """The method's name of a weather at some guidance: the plain weather at the notebook's own."""
    own, asked = of(profile).enhance, of(profile, guidance).enhance
    return weather if own == asked else f"{weather}_guidance_{guidance:g}"


def _doses(profile: Profile) -> dict[str, tuple[str, float]]:
    """Weather and guidance of the dose-response by the method's name, but for the notebook's own guidance."""
    pairs = [(w, g) for g in profile.weather.dose for w in profile.weather.dose_weathers]
    return {name: (w, g) for w, g in pairs if (name := dose(profile, w, g)) != w}


def measure(profile: Profile, clips: Sequence[Clip], doses: Sequence[Clip] = ()) -> Path:
    """Measure what is there and write metrics.csv; returns its path. doses: the clips of the dose-response."""
    demo = of(profile)
    overlays, truths = ([f"{kind}_{weather}" for weather in WEATHERS] for kind in ("overlay", "truth"))
    methods = ["render", *WEATHERS, *overlays, *truths]
    rows = evaluate.measure(demo, _subjects(demo, clips, methods), WANTED)
    names = list(_doses(profile))
    rows += evaluate.measure(demo, _subjects(demo, doses, names), OF_DOSE)
    order = [*methods, *names]
    metrics_csv.write(
        demo.layout.metrics, sorted(rows, key=lambda row: (order.index(row["method"]), row["clip"]))
    )
    return demo.layout.metrics


def enhancer(profile: Profile) -> Callable[[Clip, str, float], np.ndarray]:
    """A function of clip, weather and guidance to frames, uint8 [F, H, W, 3]: stored ones, else made, the model loaded once."""

    @functools.cache
    def pipeline():
        return enhance.load(of(profile), profile.layout.adapters / training.NAME)

    @functools.lru_cache(maxsize=32)
    def made(clip: Clip, weather: str, guidance: float) -> np.ndarray:
        stored = path(of(profile), dose(profile, weather, guidance), clip)
        if stored.is_file():
            return video.read(stored)
        asked = of(profile, guidance)
        text = encode.text(pipeline(), prompt(profile, weather, clip))
        seed = store.seed_for(asked.seed, "enhance", clip.id)  # as `enhance` draws it: the same noise for all
        render = video.read(sampling.path(asked, clip))
        return enhance.run(asked, pipeline(), render, text, enhance.negative(asked, pipeline()), seed)

    return made


def path(demo: Profile, method: str, clip: Clip) -> Path:
    """The video of a clip by a method of the table, in the demonstration's profile."""
    return (
        sampling.path(demo, clip) if method == "render" else demo.layout.enhanced / method / f"{clip.id}.mp4"
    )


def _copy(item: stage.Item[Path], temporary: Path) -> None:
    shutil.copyfile(item.subject, temporary)


def _items(demo: Profile, clips: Sequence[Clip], asked: Callable[[Clip], str], into: str) -> list[stage.Item]:
    """The clips to be enhanced, those of each size by a profile of it: another engine's may be lower than the run's."""
    sizes: dict[tuple[int, int], list[Clip]] = {}
    for clip in clips:
        info = video.probe(sampling.path(demo, clip))
        sizes.setdefault((info.height, info.width), []).append(clip)
    return [
        item
        for (height, width), alike in sizes.items()
        for item in enhance.items(
            demo.demo("weather", clips={"height": height, "width": width}), alike, prompt=asked, into=into
        )
    ]


def _overlay_item(demo: Profile, weather: str, clip: Clip) -> stage.Item:
    source = path(demo, WEATHERS[0], clip)
    seed, times = store.seed_for(demo.seed, "overlay", clip.id), sampling.repeats(clip, demo.clips.frames)

    def write(temporary: Path) -> None:
        drawn = overlay(video.read(source)[::times], LOOKS[weather], seed)
        video.write(temporary, sampling.repeat(drawn, times, demo.clips.frames), demo.clips.fps)

    inputs = {"clear": store.fingerprint(source)}
    recipe = store.Recipe("overlay", VERSION, {"look": asdict(LOOKS[weather]), "times": times}, inputs, seed)
    return stage.Item(path(demo, f"overlay_{weather}", clip), recipe, write)


def _truth_item(profile: Profile, weather: str, clip: Clip) -> stage.Item | None:
    """The truth in a weather, as the clip was cut; None where there is none.

    In clear weather of all clips that have a truth; in others of the sequences' first shots that the bundle has.
    """
    demo = of(profile)
    source = resolve(profile.data.bundle or ".") / "weather" / f"{clip.sequence}_{weather}.mp4"
    if weather == WEATHERS[0]:
        source = truth.path(profile, clip)
    if not source.is_file() or clip.source_frames[-1] >= video.probe(source).frames:
        return None

    def write(temporary: Path) -> None:
        frames = video.read(source)[list(clip.source_frames)]
        video.write(temporary, sampling.shown(demo, clip, frames), demo.clips.fps)

    settings = {**demo.clips.model_dump(), "source_frames": clip.source_frames}
    recipe = store.Recipe("weather truth", VERSION, settings, {"truth": store.fingerprint(source)})
    return stage.Item(path(demo, f"truth_{weather}", clip), recipe, write)


def _subjects(demo: Profile, clips: Sequence[Clip], methods: Sequence[str]) -> list[Subject]:
    """Every clip by every method that has a video of it, beside the clear output (the clear truth for truth) and the regions."""
    found = []
    for clip in clips:
        for method in methods:
            clear = "truth_clear" if method.startswith("truth") else WEATHERS[0]
            sides = {"output": method, "render": "render"}
            # Nothing is compared with itself, nor the input with what came of it.
            if method not in ("render", clear):
                sides["clear"] = clear
            files = {side: path(demo, of_side, clip) for side, of_side in sides.items()}
            if not all(file.is_file() for file in files.values()):
                continue
            frames = {side: functools.partial(video.stream, file) for side, file in files.items()}
            if (maps := regions.path(demo, clip)).is_file():
                files["regions"], frames["regions"] = maps, functools.partial(regions.stream, maps)
            inputs = {side: store.fingerprint(file) for side, file in files.items()}
            found.append(Subject.of(demo, clip, method, frames, inputs))
    return found
