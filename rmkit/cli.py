"""The command line: `python -m rmkit COMMAND --profile NAME`, one command a stage, each resumable.

Reads and writes what the stage does. What a user can mend is said in one line on standard error, exit code 2;
everything finished before that is kept.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from typer.core import TyperGroup

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.kit import workers
from rmkit.pipeline import stages
from rmkit.profile import Profile

# Options that take several values: `--answers A B`, as a shell's answers_*.csv expands.
SEVERAL = ("--against", "--answers", "--metrics", "--spread")

# What a user can mend: of permissions, and of names.
UNWRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


class Commands(TyperGroup):
    """Runs one command and turns what happened into an exit code and, where there is one, a sentence."""

    def invoke(self, context: typer.Context) -> None:
        """Exit codes: 0 done, 1 failed, 2 something to mend, 130 interrupted."""
        try:
            result = super().invoke(context)
        except InputError as error:
            result = _refuse(str(error))
        except KeyboardInterrupt:
            print("rmkit: interrupted; run it again to go on from here.", file=sys.stderr)
            result = 130
        except BrokenPipeError:  # `rmkit plan | head`
            sys.stderr.close()
            result = 0
        except OSError as error:
            if error.errno in UNWRITABLE:
                raise typer.Exit(
                    _refuse(f"{error.filename} cannot be read or written: {error.strerror}.")
                ) from None
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            result = _refuse(
                f"the disk is full ({error}); free some space and run again, what is done is kept."
            )
        raise typer.Exit(result if isinstance(result, int) else 0)


app = typer.Typer(
    name="rmkit",
    help="The command line: `python -m rmkit COMMAND --profile NAME`, one command a stage, each resumable.",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its tracebacks would take time to load
    context_settings={"help_option_names": ["-h", "--help"], "terminal_width": 110},
)

Name = Annotated[str, typer.Option("--profile", help="name or path of a .yaml file")]
Anyway = Annotated[bool, typer.Option("--anyway", help="run what does not fit this machine by `plan`, too")]
Count = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="share the clips among so many, by Ray")
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="make the I-th of N shares of the clips, from 1/N to N/N")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # Progress lines must come out when they happen, also through a pipe.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        app(_one_value_each(sys.argv[1:] if arguments is None else arguments), prog_name="rmkit")
    except SystemExit as end:
        return end.code or 0


@app.command(help="All of the below in order, as notebooks, with a report at the end.")
def notebooks(profile: Name = "mini", count: Count = None, anyway: Anyway = False) -> int:
    from rmkit.kit import store
    from rmkit.pipeline import doctor, notebooks

    asked = _load(profile)
    store.require_writable(asked.layout.root)
    doctor.require(asked)
    try:
        with workers.asked(count):
            notebooks.run(asked, anyway)
    except notebooks.NotebookError as error:
        print(f"rmkit: {error}", file=sys.stderr)
        return 1
    return 0


def enhance(
    input: Annotated[
        Path | None, typer.Argument(metavar="IN", help="your video, or a folder of them")
    ] = None,
    output: Annotated[Path | None, typer.Argument(metavar="OUT", help="mp4 to write, or a folder")] = None,
    profile: Name = "mini",
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="one subfolder an expert (the profile's run)")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="what to make of it (the prompt it was trained with)")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="without IN and OUT: folder of enhanced/ for what --prompt makes"),
    ] = None,
    height: Annotated[
        int | None, typer.Option(metavar="LINES", help="work smaller; the output has the input's size")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that the kit has not made")] = False,
    anyway: Anyway = False,
    count: Count = None,
    shard: Shard = None,
) -> None:
    if input and output and not into:
        from rmkit.extras import own_video

        own_video.enhance_video(_load(profile), input, output, adapter, prompt, height, force)
    elif input or adapter or height or force:
        raise InputError(
            "a video of your own is enhanced by `rmkit enhance IN OUT`: give both, and no --into."
        )
    elif bool(prompt) != bool(into):
        raise InputError(
            "another prompt for the profile's clips has clips of its own: give --prompt and --into NAME."
        )
    else:
        with workers.asked(count, shard):
            stages.enhance(_fitting(profile, "enhance", anyway), prompt, _folder_name(into))


def evaluate(
    profile: Name = "mini",
    renders: Annotated[Path | None, typer.Option(metavar="FOLDER", help="your renders, mp4 files")] = None,
    outputs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="what was made of them, by the same names")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="csv to write (results/<profile>/scored/<outputs>.csv)"),
    ] = None,
    repeats: Annotated[int, typer.Option(help="how often a source frame is shown (8 fps at 16: 2)")] = 1,
    asked: Annotated[
        list[str],
        typer.Option("--metrics", metavar="NAME ...", help="these (all whose models know your footage)"),
    ] = (),
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse pairs that differ in size or frame rate")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace --out, whatever it is")] = False,
    count: Count = None,
    shard: Shard = None,
) -> None:
    if renders and outputs:
        from rmkit.extras import score

        score.score(_load(profile), renders, outputs, out, repeats, asked, strict, force)
    elif renders or outputs or out or asked or strict or force:
        raise InputError("your own clips are measured with --renders and --outputs: give both folders.")
    else:
        with workers.asked(count, shard):
            stages.evaluate(_begun(_load(profile)))


def _plain(name: str, stage: Callable[[Profile], object]) -> Callable[[str], None]:
    """The command of a stage that takes nothing but a profile."""

    def command(profile: Name = "mini", anyway: Anyway = False) -> None:
        stage(_fitting(profile, name, anyway))

    return command


def _spread(name: str, stage: Callable[[Profile], object]) -> Callable[..., None]:
    """The command of a stage whose clips may be shared out."""

    def command(
        profile: Name = "mini", count: Count = None, shard: Shard = None, anyway: Anyway = False
    ) -> None:
        with workers.asked(count, shard):
            stage(_fitting(profile, name, anyway))

    return command


OPTIONS = {"enhance": enhance, "evaluate": evaluate}  # stages that also take files of the user's own
for _name, _stage in stages.STAGES.items():
    _usual = _spread if _name in stages.SPREAD else _plain
    app.command(_name, help=_stage.__doc__)(OPTIONS.get(_name) or _usual(_name, _stage))


@app.command(help="A page on which people compare RealMaster with other methods; or counts their answers.")
def study(
    profile: Name = "mini",
    against: Annotated[
        list[str],
        typer.Option(
            metavar="METHOD ...",
            help="methods beside RealMaster (the paper's baselines that have clips, else some of the run)",
        ),
    ] = (),
    trials: Annotated[int, typer.Option(min=1, help="comparisons a participant (paper: 15)")] = 15,
    answers: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE ...",
            help="participants' files: count them, to tables/study.* and study/preferences.*",
        ),
    ] = (),
) -> None:
    from rmkit.evaluation import study, typeset

    asked = _load(profile)
    if answers:
        print(typeset.markdown(study.count(asked, answers)))
    else:
        page = study.make(asked, against, trials)
        beside = dict.fromkeys(trial["against"] for trial in study.answer_key(asked).values())
        print(f"RealMaster beside {', '.join(beside)}.")
        print(f"{page}: give participants this folder, and not {asked.layout.study / 'key.json'}.")


@app.command(help="metrics.csv beside the shipped one: 0 agrees, 1 differs, 2 cannot be compared.")
def verify(
    profile: Name = "mini",
    spread: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN_FOLDER ...", help="write the tolerances from runs of this profile with other seeds"
        ),
    ] = (),
) -> int:
    from rmkit.evaluation import verify

    asked = _load(profile)
    return verify.spread(asked, spread) if spread else verify.verify(asked)


@app.command(help="Write results/reference/<profile>/ from a finished run: what a clone comes with.")
def ship(profile: Name = "mini") -> None:
    from rmkit.evaluation import ship

    print(f"record: {ship.ship(_load(profile))}")


@app.command(help="What this machine has and what the profile needs.")
def doctor(profile: Name = "mini") -> int:
    from rmkit.pipeline import doctor

    return doctor.show(_load(profile))


@app.command(help="What would run, what is done, how long the rest takes.")
def plan(
    profile: Name = "mini",
    gpu: Annotated[
        str | None, typer.Option(metavar="CARD", help="not here but there: h100, 4090, ...")
    ] = None,
) -> None:
    from rmkit.pipeline import plan_table

    plan_table.show(_load(profile), gpu)


@app.command(help="Times a step of each stage on this machine, for `plan`.")
def calibrate(profile: Name = "mini") -> None:
    from rmkit.pipeline import calibrate

    print(calibrate.calibrate(_load(profile)))


def _load(name: str) -> Profile:
    from rmkit import baselines

    found = profiles.load(name)
    baselines.validate(found)
    return found


def _fitting(name: str, stage: str, anyway: bool) -> Profile:
    """The profile, once what the stage has left to do fits this machine."""
    from rmkit.pipeline import fit, plan

    asked = _load(name)
    if not anyway and stage not in stages.UNPLANNED:
        fit.require(asked, plan.steps(asked), stage)
    return _begun(asked)


def _begun(asked: Profile) -> Profile:
    """The profile, once its run's folder says whose it is."""
    from rmkit.pipeline import changes

    changes.begin(asked)
    return asked


def _folder_name(name: str | None) -> str | None:
    try:
        return TypeAdapter(profiles.FolderName | None).validate_python(name)
    except ValidationError:
        raise InputError(f"--into {name} must be a name of letters, digits, - and _.") from None


def _one_value_each(arguments: Sequence[str]) -> list[str]:
    """`--answers A B` as typer reads it: `--answers A --answers B`."""
    written, flag = [], None
    for argument in arguments:
        if argument.startswith("-"):
            flag = argument if argument in SEVERAL else None
        elif flag and written[-1] != flag:
            written.append(flag)
        written.append(argument)
    return written


def _refuse(sentence: str) -> int:
    print("rmkit: " + " ".join(sentence.split()), file=sys.stderr)
    return 2
