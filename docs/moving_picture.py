"""The moving picture of README.md: one validation clip as render, RealMaster and truth, in step (ours).

The clip is the one in the middle by RealMaster's PSNR, so neither the best nor the worst. Reads a finished run (results/mini);
writes docs/render_realmaster_truth.webp. `make docs` calls it where there is such a run.
"""

from itertools import islice

from PIL import Image

from rmkit import profile
from rmkit.evaluation import metrics_csv, sheets
from rmkit.method import sampling
from rmkit.paths import REPOSITORY

PICTURE = REPOSITORY / "docs" / "render_realmaster_truth.webp"
ROWS = ("render", "realmaster", "truth")
QUALITY = 60  # about 100 kB


def middle(settings: profile.Profile) -> sampling.Clip:
    """The validation clip in the middle by RealMaster's PSNR to the truth."""
    frame = metrics_csv.load(settings)
    values = frame[(frame.method == "realmaster") & (frame.metric == "psnr_truth")].sort_values("value")
    name = values["clip"].iloc[len(values) // 2]
    return next(clip for clip in sampling.load(settings, "validation") if clip.id == name)


def draw(settings: profile.Profile, clip: sampling.Clip) -> None:
    """Write the clip's distinct frames side by side, at the rate of the recording, forever."""
    times, size = sampling.repeats(clip, settings.clips.frames), settings.clips
    frames = islice(sheets.beside(settings, clip, ROWS), 0, None, times)
    first, *others = (Image.fromarray(frame) for frame in frames)
    still = round(1000 * times / size.fps)
    first.save(
        PICTURE, save_all=True, append_images=others, duration=still, loop=0, quality=QUALITY, method=6
    )


if __name__ == "__main__":
    mini = profile.load("mini")
    if mini.layout.metrics.is_file():
        clip = middle(mini)
        draw(mini, clip)
        print(f"docs: {PICTURE.name} of {clip.id}, {PICTURE.stat().st_size // 1000} kB")
    else:
        print(f"docs: {PICTURE.name} left as it is: no results/mini here (make reproduce)")
