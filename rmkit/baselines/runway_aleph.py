"""Runway Aleph: an external method, bought clip by clip from a service (paper, 4.1 and B.3).

Reads validation clips and RUNWAYML_API_SECRET; gives their edited frames and keeps what was paid for in
enhanced/runway_aleph/paid/: <clip>.task.json, the task's number as soon as there is one, and <clip>.mp4 as it came. So a
killed run asks for the same task again, and nothing is bought or downloaded twice. A task that fails leaves its clip out
for good; delete its .task.json to buy it again. The paper used gen4_aleph, which took the first 5 s of a file under
16 MB and is no longer offered; `aleph2` is. Ours: the clip is sent as H.264 and comes back at Runway's rate and size;
each frame is the one shown at its time, scaled to cover the clip's size; what is missing at the end, a tenth at most, is
held.
"""

import base64
import math
import tempfile
from pathlib import Path

import numpy as np

from rmkit.baselines import Edit, Made, framing, runway_api
from rmkit.errors import InputError
from rmkit.kit import endpoint, store, video
from rmkit.kit.endpoint import parsed
from rmkit.kit.stage import LeftOut
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, RunwayAleph

QUALITIES = (16, 20, 24, 28)  # x264's crf, from invisible loss on; the first that is small enough is sent


class Aleph(Made):
    """Runs where the profile has `baselines.runway_aleph`."""

    name, label, colour, marker = "runway_aleph", "Runway Aleph", "#6A3D9A", "<"
    group = RunwayAleph

    def usd(self, profile: Profile, count: int) -> float:
        """Counted in whole seconds a clip."""
        seconds = math.ceil(profile.clips.frames / profile.clips.fps)
        return count * seconds * self.settings(profile).usd_per_second

    def check(self, profile: Profile, count: int) -> None:
        settings, cost = self.settings(profile), self.usd(profile, count)
        if not endpoint.has_key(runway_api.KEY):
            raise InputError(
                f"baselines.runway_aleph needs a key in {runway_api.KEY}, and the environment has none: set it, or set "
                "baselines.runway_aleph to null."
            )
        endpoint.key(runway_api.KEY)
        if cost > settings.budget_usd:
            raise InputError(
                f"baselines.runway_aleph would cost about {cost:.2f} USD for {count} clips, and its budget_usd is "
                f"{settings.budget_usd:g}: raise it, or set baselines.runway_aleph to null."
            )

    def recipe(self, profile: Profile, clip: Clip) -> store.Recipe:
        settings = self.settings(profile)
        return store.Recipe(
            stage=self.name,
            version=self.version,
            settings={"prompt": settings.prompt, "clips": profile.clips},
            inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
            seed=store.seed_for(profile.seed, self.name, clip.id),
            model=settings.model,
        )

    def ready(self, profile: Profile) -> Edit:
        settings = self.settings(profile)

        def edit(clip: Clip, seed: int) -> np.ndarray:
            with runway_api.connect(settings.base_url, settings.timeout) as runway:
                path = bought(profile, runway, clip, seed)
            try:
                return fitted(profile, path)
            except InputError as error:
                raise LeftOut(f"Runway's video does not fit: {error}") from None

        return edit


METHOD = Aleph()


def bought(profile: Profile, runway: runway_api.Runway, clip: Clip, seed: int) -> Path:
    """The service's video of a clip as it came; asked for unless it is kept. Raises LeftOut when the task failed."""
    settings, target = METHOD.settings(profile), answer(profile, clip)
    order = METHOD.recipe(profile, clip)
    if store.is_done(target, order):
        return target
    ticket = target.with_suffix(".task.json")
    task = _kept(ticket, order)
    if task is None:
        request = {
            "model": settings.model,
            "prompt_text": settings.prompt,
            "video_uri": data_address(video.read(sampling.path(profile, clip)), profile.clips.fps),
            "seed": seed,
        }
        task = {"key": order.key, "id": runway.submit(request), "failure": None}
        ticket.parent.mkdir(parents=True, exist_ok=True)
        store.write_json(ticket, task)
    try:
        if task["failure"]:
            raise runway_api.Refused(task["failure"])
        with store.writing(target, order, task=task["id"]) as temporary:
            runway.download(task["id"], temporary, settings.patience)
    except runway_api.Refused as reason:
        store.write_json(ticket, task | {"failure": str(reason)})
        raise LeftOut(f"task {task['id']}: {reason}; delete {ticket} to buy it again.") from None
    return target


def answer(profile: Profile, clip: Clip) -> Path:
    """Where the service's video of a clip is kept."""
    return profile.layout.enhanced / "runway_aleph" / "paid" / f"{clip.id}.mp4"


def fitted(profile: Profile, path: Path) -> np.ndarray:
    """The service's video at the clip's length and size: uint8 [F, H, W, 3]; InputError when it cannot be."""
    size = profile.clips
    shown = framing.at_rate(video.stream(path), video.probe(path).fps, size.frames, size.fps)
    return np.stack([framing.filling(frame, size.height, size.width) for frame in shown])


def data_address(frames: np.ndarray, fps: int) -> str:
    """A clip, uint8 [F, H, W, 3], as H.264 in a data: address; InputError when it is too large even at low quality."""
    for quality in QUALITIES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            video.write_viewing_copy(path, frames, fps, quality=quality)
            text = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
        if len(text) <= runway_api.LARGEST:
            return text
    raise InputError(
        f"runway_aleph: {len(frames)} frames of {frames.shape[1]}x{frames.shape[2]} take more than the "
        f"{runway_api.LARGEST // 10**6} MB that the service accepts: choose shorter or smaller clips."
    )


def _kept(ticket: Path, order: store.Recipe) -> dict | None:
    """The task that was submitted for just this order, if one was."""
    task = parsed(ticket.read_text()) if ticket.is_file() else None
    return task if isinstance(task, dict) and task.get("key") == order.key else None


METHODS = (METHOD,)
