"""The command line: `python -m rmkit COMMAND --profile NAME`, one command a stage, each resumable.

Reads and writes what the stage does. What a user can mend is said in one line on standard error, exit code 2;
everything finished before that is kept.
"""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.profile import Profile

if TYPE_CHECKING:
    from rmkit.method.sampling import Clip

Command = Callable[..., object]  # of the profile, and of its own options by name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 something to mend, 130 interrupted)."""
    # Progress lines must come out when they happen, also through a pipe.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    options = vars(_parser().parse_args(arguments))
    command, _ = COMMANDS[options.pop("command")]
    try:
        result = command(profiles.load(options.pop("profile")), **options)
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("rmkit: interrupted; run it again to go on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `rmkit plan | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _refuse(f"the disk is full ({error}); free some space and run again, what is done is kept.")
    return result if isinstance(result, int) else 0


def _data(profile: Profile) -> None:
    from rmkit.method import sampling
    from rmkit.sources import diorama

    diorama.unpack(profile)
    sampling.sample(profile)


def _anchors(profile: Profile) -> None:
    from rmkit.method import anchoring

    train, validation = _clips(profile)
    anchoring.edit(profile, train, "ends")
    multi = "multi_anchor" in profile.propagation.variants
    anchoring.edit(profile, validation, "every" if multi else "ends")


def _structure(profile: Profile) -> None:
    from rmkit.method import structure

    train, validation = _clips(profile)
    structure.extract(profile, train, ["edges"])  # pairs come from edges only
    structure.extract(profile, validation)


def _propagate(profile: Profile) -> None:
    from rmkit.method import propagation

    train, validation = _clips(profile)
    for variant in profile.propagation.variants:
        propagation.propagate(profile, validation, variant)
    propagation.propagate(profile, train, "edges")


def _filter(profile: Profile) -> None:
    from rmkit.method import identity, sampling

    identity.filter_pairs(profile, sampling.load(profile, "train"))


def _train(profile: Profile) -> None:
    from rmkit.method import training

    training.train(profile)


def _enhance(
    profile: Profile, input: Path | None, output: Path | None, adapter: Path | None, prompt: str | None
) -> None:
    from rmkit.extras import own_video
    from rmkit.method import enhance, sampling

    if input and output:
        own_video.film(profile, input, output, adapter, prompt)
    elif input or adapter or prompt:
        raise InputError("a video of your own is enhanced by `rmkit enhance IN OUT`: give both.")
    else:
        enhance.enhance(profile, sampling.load(profile, "validation"))


def _baselines(profile: Profile) -> None:
    from rmkit.baselines import outside
    from rmkit.method import sampling

    for name in outside.labels():
        print(f"{name}: {outside.why_not(profile, name) or 'asked for'}")
    outside.make(profile, sampling.load(profile, "validation"))


def _evaluate(
    profile: Profile, renders: Path | None, outputs: Path | None, out: Path | None, repeats: int
) -> None:
    from rmkit.evaluation import evaluate
    from rmkit.extras import score

    if renders and outputs:
        score.score(profile, renders, outputs, out, repeats)
    elif renders or outputs or out:
        raise InputError("your own clips are measured with --renders and --outputs: give both folders.")
    else:
        evaluate.evaluate(profile)


def _study(profile: Profile, against: list[str], trials: int, answers: list[Path]) -> None:
    from rmkit.evaluation import study, typeset

    if answers:
        print(typeset.markdown(study.count(profile, answers)))
    else:
        page = study.make(profile, against, trials)
        print(f"{page}: give participants this folder, and not {profile.layout.study / 'key.json'}.")


def _verify(profile: Profile, spread: list[Path] | None) -> int:
    from rmkit.evaluation import verify

    return verify.verify(profile) if spread is None else verify.spread(profile, spread)


def _report(profile: Profile) -> None:
    from rmkit.evaluation import report

    report.write(profile)


def _notebooks(profile: Profile) -> int:
    from rmkit.pipeline import doctor, notebooks

    doctor.require(profile)
    try:
        notebooks.run(profile)
    except notebooks.NotebookError as error:
        print(f"rmkit: {error}", file=sys.stderr)
        return 1
    return 0


def _doctor(profile: Profile) -> int:
    from rmkit.pipeline import doctor

    return doctor.show(profile)


def _plan(profile: Profile) -> None:
    from rmkit.pipeline import plan

    plan.show(profile)


COMMANDS: dict[str, tuple[Command, str]] = {
    "notebooks": (_notebooks, "all of the below in order, as notebooks, with a report at the end"),
    "data": (_data, "unpack the diorama (or read your dataset) and sample the clips"),
    "anchors": (_anchors, "edit the anchor frames"),
    "structure": (_structure, "edge and depth videos"),
    "propagate": (_propagate, "VACE: anchors and structure to clips, every variant"),
    "filter": (_filter, "decide which pairs are kept for training"),
    "train": (_train, "the in-context LoRA, one adapter an expert"),
    "enhance": (_enhance, "RealMaster on the validation clips; or on a video or a folder of your own"),
    "baselines": (_baselines, "the outside methods that the profile asks for, before they are measured"),
    "evaluate": (_evaluate, "every metric of every method, to metrics.csv; or of two folders of your own"),
    "report": (
        _report,
        "tables, figures and report from metrics.csv, or from the shipped record before a run",
    ),
    "study": (
        _study,
        "a page on which people compare RealMaster with other methods; or counts their answers",
    ),
    "verify": (_verify, "metrics.csv beside the shipped one: 0 agrees, 1 differs, 2 cannot be compared"),
    "doctor": (_doctor, "what this machine has and what the profile needs"),
    "plan": (_plan, "what would run, what is done, how long the rest takes"),
}

# What a command takes beside --profile.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "evaluate": {
        "--renders": {"type": Path, "metavar": "FOLDER", "help": "your renders, mp4 files"},
        "--outputs": {"type": Path, "metavar": "FOLDER", "help": "what was made of them, by the same names"},
        "--out": {
            "type": Path,
            "metavar": "FILE",
            "help": "csv to write (results/<profile>/scored/<outputs>.csv)",
        },
        "--repeats": {
            "type": int,
            "default": 1,
            "help": "how often a source frame is shown (8 fps at 16: 2)",
        },
    },
    "enhance": {
        "input": {"type": Path, "nargs": "?", "metavar": "IN", "help": "your video, or a folder of them"},
        "output": {"type": Path, "nargs": "?", "metavar": "OUT", "help": "mp4 to write, or a folder"},
        "--adapter": {
            "type": Path,
            "metavar": "FOLDER",
            "help": "one subfolder an expert (the profile's run)",
        },
        "--prompt": {"metavar": "TEXT", "help": "what to make of it (the prompt it was trained with)"},
    },
    "study": {
        "--against": {
            "nargs": "+",
            "default": [],
            "metavar": "METHOD",
            "help": "methods beside RealMaster (the paper's baselines that have clips)",
        },
        "--trials": {"type": int, "default": 15, "help": "comparisons a participant (paper: 15)"},
        "--answers": {
            "type": Path,
            "nargs": "+",
            "default": [],
            "metavar": "FILE",
            "help": "participants' files: count them, to tables/study.* and figures/study.*",
        },
    },
    "verify": {
        "--spread": {
            "type": Path,
            "nargs": "+",
            "metavar": "RUN_FOLDER",
            "help": "write the tolerances from these runs of the same profile with other seeds",
        },
    },
}


def _clips(profile: Profile) -> tuple[list["Clip"], list["Clip"]]:
    """Training and validation clips, all checked before the first is worked on."""
    from rmkit.method import sampling

    every = sampling.load(profile)
    sampling.check(profile, every)
    return tuple([clip for clip in every if clip.split == split] for split in ("train", "validation"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rmkit", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--profile", default="mini", help="name or path of a .yaml file (default: mini)")
        for flag, settings in OPTIONS.get(name, {}).items():
            command.add_argument(flag, **settings)
    return parser


def _refuse(sentence: str) -> int:
    print("rmkit: " + " ".join(sentence.split()), file=sys.stderr)
    return 2
