"""A clip of your own: what `rmkit enhance IN OUT` makes of it, looked at and measured where there is no truth (ours).

Reads a video, by default a shot of the diorama's road split, which no stage of a run has seen. Writes
results/<profile>/your_clip/<name>/: `input/` with that video, and what `own_video` and `score` make of it.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rmkit import metrics
from rmkit.extras import outputs, own_video, rewrite, score
from rmkit.kit import store, video
from rmkit.paths import resolve
from rmkit.profile import Profile
from rmkit.sources import diorama

VERSION = 1
BUNDLE = "data/diorama/clips"  # of the default, whatever the profile's own data


class Pair(NamedTuple):
    """A video and what was made of it."""

    input: Path
    output: Path

    @property
    def preview(self) -> Path:
        """Both side by side."""
        return outputs.preview_of(self.output)

    @property
    def is_shipped(self) -> bool:
        """Whether it is the default, out of the diorama, which the models of `mini` know."""
        return bool(store.read_sidecar(self.input).get("settings"))


def enhanced(profile: Profile, asked: str = "", prompt: str = "") -> Pair:
    """The video asked for (a path; a relative one starts at the repository) through the run's adapter.

    '' stands for the first shipped road shot and its caption, or for the prompt that the profile trains with. Raises
    InputError for a file that is no video, and as `own_video.enhance_video`.
    """
    asked, prompt = str(asked), str(prompt)  # papermill makes a number of what looks like one
    root = profile.demo("your_clip").layout.root
    if asked:
        given = resolve(asked)
        video.probe(given)
        source = root / given.stem / "input" / f"{given.stem}.mp4"
        recipe = store.Recipe("your clip", VERSION, {}, {"video": store.fingerprint(given)})
        if not store.is_done(source, recipe):
            with store.writing(source, recipe) as temporary:
                shutil.copyfile(given, temporary)
    else:
        source, caption = _shipped(profile, root / "road" / "input" / "road.mp4")
        prompt = prompt or caption
    target = source.parents[1] / "enhanced" / source.name
    return Pair(source, own_video.enhance_video(profile, source, target, prompt=prompt or None)[0])


def measured(profile: Profile, pair: Pair, repeats: int = 1) -> Path:
    """Values of both by every metric that needs no truth, in a csv of metrics.csv's form; repeats: as of `score.score`."""
    out = pair.output.parents[1] / "scores.csv"
    asked = [metric.name for metric in metrics.every() if metric.own_clips] if pair.is_shipped else ()
    return score.score(profile, pair.input.parent, pair.output.parent, out, repeats, asked)


def sheet(pair: Pair, columns: int = 5, start: float = 0.0, width: int = 144) -> Image.Image:
    """Input above output at `columns` moments, from that share of the video on (0 to 1) to its end."""
    count = video.probe(pair.input).frames
    first = min(int(start * count), count - 1)
    moments = [first + moment for moment in video.evenly(columns, count - first)]
    shown = {"Input": pair.input, "RealMaster": pair.output}
    rows = [(label, video.at(video.stream(path), moments)) for label, path in shown.items()]
    return video.contact_sheet(rows, width)


def _shipped(profile: Profile, path: Path) -> tuple[Path, str]:
    """A road shot at the profile's rate, no longer than its clips, written as any video is; with its caption."""
    folder = diorama.sequence_folders(resolve(BUNDLE), "road")[0]
    meta, render = diorama.read_meta(folder), folder / "render.mp4"
    shot, times = meta["shots"][0], max(1, profile.clips.fps // meta["fps"])
    settings = {"times": times, "fps": profile.clips.fps, "frames": profile.clips.frames}
    recipe = store.Recipe("your clip", VERSION, settings, {"video": store.fingerprint(render)})
    if not store.is_done(path, recipe):
        frames = video.read(render)[shot["first_frame"] :][: shot["frames"]].repeat(times, axis=0)
        with store.writing(path, recipe) as temporary:
            rate, quality = profile.clips.fps, rewrite.QUALITY
            video.write_viewing_copy(temporary, frames[: profile.clips.frames], rate, quality=quality)
    return path, shot["caption"]
