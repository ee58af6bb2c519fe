"""`make rehearse PROFILE=paper|consumer|...|all`: shipped profiles of the real models, run to their reports on stand-ins.

Writes results/rehearsal/ (stand-ins and made data, once) and results/rehearsal-<profile>/, anew each time. Nothing reads
them: numbers of random models mean nothing, and no claim, table, record or `verify` knows them.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

MADE = REPOSITORY / "results" / "rehearsal"
WITH_NOTEBOOKS = ("paper",)  # each notebook takes seconds to start: the other profiles go through the stages
HERE = {  # read by the libraries when they are first imported, and by the notebooks' kernels
    "HF_HUB_CACHE": str(MADE / "hub"),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
KEYS = ("OPENAI_API_KEY", "RUNWAYML_API_SECRET")  # no judge and no service is asked, or paid
NOTICE = "A rehearsal: models are random and data is made, so that no number here means anything."
EDITORS = ("Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509")  # the two forms of the pipeline


def shipped() -> list[str]:
    """The profiles that need models or data which the repository does not hold."""
    found = {path.stem: profiles.load(path) for path in sorted(profiles.PROFILES.glob("*.yaml"))}
    return [name for name, profile in found.items() if profile.data.source != "diorama"]


def prepare(name: str) -> Profile:
    """The shipped profile divided, with all that it needs made and in place."""
    from rehearsal import carla_tree, divide, faces, models, sailvos_tree

    real = profiles.load(name)
    made = divide.divide(real, MADE)
    _forget_others()
    for model in dict.fromkeys([*divide.names(real), *EDITORS]):
        if "/" in model:
            models.install(model, MADE / "hub")
    for role, settings in divide.accelerators(real).items():
        models.install_accelerator(role, settings, MADE / "hub")
    _once(Path(made.data.root), lambda root: sailvos_tree.write(root, divide.SIDE, divide.SHOTS))
    if made.carla:
        _once(Path(made.carla.root), lambda root: carla_tree.write(root, divide.SIDE))
    if made.identity.model_pack:
        _once(Path(made.identity.model_pack), lambda folder: faces.write_pack(folder, always=True))
    return made


def rehearse(name: str) -> Path:
    """Run a shipped profile on stand-ins; returns its report."""
    from rmkit.pipeline import doctor, notebooks, stages

    made = prepare(name)
    # What an earlier rehearsal left would be taken for done.
    shutil.rmtree(made.layout.run, ignore_errors=True)
    doctor.require(made)
    if name in WITH_NOTEBOOKS:
        notebooks.run(made, anyway=True)  # `plan` counts the models that the names stand for
    else:
        for stage in stages.STAGES.values():
            stage(made)
    for editor in EDITORS:
        _edit(made, editor)
    report = made.layout.report
    store.write_text(report, f"> {NOTICE}\n\n{report.read_text()}")
    return report


def main(name: str) -> int:
    """Rehearse one profile, or 'all'; returns the exit code."""
    started, known = time.time(), shipped()
    if name not in ("all", *known):
        print(
            f"rehearse: no profile of real models is named '{name}': known are all, {', '.join(known)}.",
            file=sys.stderr,
        )
        return 2
    os.environ.update(HERE)
    for key in KEYS:
        os.environ.pop(key, None)
    try:
        for one in known if name == "all" else [name]:
            began = time.time()
            print(f"rehearsal of {one}", flush=True)
            report = rehearse(one)
            print(f"rehearsal of {one}: {report} after {time.time() - began:.0f} s", flush=True)
    except InputError as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 2
    print(f"rehearsed in {time.time() - started:.0f} s")
    return 0


def _forget_others() -> None:
    """Remove what another version of this folder's code made."""
    code = " ".join(store.fingerprint(file) for file in sorted(Path(__file__).parent.glob("*.py")))
    stamp = MADE / "code"
    if not (stamp.is_file() and stamp.read_text() == code):
        shutil.rmtree(MADE, ignore_errors=True)
        MADE.mkdir(parents=True)
        stamp.write_text(code)


def _once(folder: Path, write: Callable[[Path], object]) -> None:
    """Have a folder written under another name and renamed, unless it is there."""
    if folder.exists():
        return
    making = folder.with_name(folder.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    write(making)
    making.rename(folder)


def _edit(made: Profile, editor: str) -> None:
    """One edit by this editor, whichever form the profile's own has."""
    from rmkit.kit import models, video
    from rmkit.method import anchoring, sampling

    named = made.model_copy(update={"models": made.models.model_copy(update={"editor": editor})})
    clip = sampling.load(made, "validation")[0]
    pipeline = models.load_editor(named)
    edited = anchoring.edit_frame(named, pipeline, video.read(sampling.path(made, clip))[0], made.seed)
    print(f"{type(pipeline).__name__}: an edit of {edited.shape[0]}x{edited.shape[1]}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else "paper"))
