"""The stages in order: what each works on and which verb does it, for the command line and the notebooks alike.

Each takes a profile, reads what earlier stages wrote under results/<profile>/, and leaves alone what is done already.
The first sentence of each is its help on the command line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.errors import InputError
from rmkit.profile import Profile

if TYPE_CHECKING:
    from rmkit.method.sampling import Clip


def data(profile: Profile) -> list["Clip"]:
    """Unpack the diorama (or read your dataset) and sample the clips."""
    from rmkit import sources
    from rmkit.method import sampling
    from rmkit.pipeline import changes

    changes.begin(profile)
    sources.prepare(profile)
    clips = sampling.sample(profile)
    changes.begin(profile)  # there is a folder now
    return clips


def anchors(profile: Profile) -> None:
    """Edit the anchor frames."""
    from rmkit.method import anchoring

    train, validation = _clips(profile)
    if "multi_anchor" in profile.propagation.variants:
        anchoring.edit(profile, train, "ends", more={"every": validation})
    else:
        anchoring.edit(profile, [*train, *validation])


def structure(profile: Profile) -> None:
    """Make the edge and depth videos."""
    from rmkit.method import structure

    train, validation = _clips(profile)
    structure.extract(profile, train, ["edges"])  # training pairs come from edges only
    structure.extract(profile, validation)


def propagate(profile: Profile) -> None:
    """VACE: anchors and structure to clips, every variant."""
    from rmkit.method import propagation

    train, validation = _clips(profile)
    propagation.propagate(profile, validation, *profile.propagation.variants, train=train)


def pairs(profile: Profile) -> list[dict[str, Any]]:
    """Decide which pairs are kept for training."""
    from rmkit.method import identity, sampling

    return identity.filter_pairs(profile, sampling.load(profile, "train"))


def encode(profile: Profile) -> None:
    """Encode the pairs that are kept, once, for training to read."""
    from rmkit.method import dataset

    dataset.encode(profile)


def train(profile: Profile) -> Path:
    """Train the in-context LoRA, one adapter an expert."""
    from rmkit.method import training

    return training.train(profile)


def enhance(profile: Profile, prompt: str | None = None, into: str | None = None) -> list[Path]:
    """RealMaster on the validation clips; or on a video or a folder of your own.

    prompt: instead of the clips' captions; into: the folder of `enhanced/` (realmaster). Raises InputError when that folder
    is a method's of the kit.
    """
    from rmkit import baselines
    from rmkit.method import enhance, sampling

    if into in {name for name, method in baselines.every(profile).items() if not method.is_users(profile)}:
        raise InputError(f"enhanced/{into}/ holds the clips of the method {into}: name another folder.")
    asked = (lambda clip: prompt) if prompt else None
    return enhance.enhance(profile, sampling.load(profile, "validation"), prompt=asked, into=into)


def baselines(profile: Profile) -> None:
    """Make the clips of the external methods that the profile asks for, before they are measured."""
    from rmkit import baselines
    from rmkit.method import sampling

    for name, method in baselines.every(profile).items():
        if isinstance(method, baselines.Made) and method.group:
            print(f"{name}: {method.why_not(profile) or 'asked for'}")
    baselines.make(profile, sampling.load(profile, "validation"), baselines.asked(profile))


def evaluate(profile: Profile) -> Path:
    """Every metric of every method, to metrics.csv; or of two folders of your own."""
    from rmkit.evaluation import evaluate

    return evaluate.evaluate(profile)


def report(profile: Profile) -> Path:
    """Tables, figures and report from metrics.csv, or from the shipped record before a run."""
    from rmkit.evaluation import report

    return report.write(profile)


# By the name of the command.
STAGES: dict[str, Callable[[Profile], object]] = {
    "data": data,
    "anchors": anchors,
    "structure": structure,
    "propagate": propagate,
    "filter": pairs,
    "encode": encode,
    "train": train,
    "enhance": enhance,
    "baselines": baselines,
    "evaluate": evaluate,
    "report": report,
}
# Those of whose name the plan has no row: nothing is counted before them, and the report needs no torch.
UNPLANNED = ("filter", "baselines", "report")
# Those that make clip by clip, which workers and shards may divide.
SPREAD = ("anchors", "structure", "propagate", "encode", "enhance", "baselines", "evaluate")


def _clips(profile: Profile) -> tuple[list["Clip"], list["Clip"]]:
    """Training and validation clips, all checked before the first is worked on."""
    from rmkit.method import sampling

    every = sampling.load(profile)
    sampling.check(profile, every)
    return tuple([clip for clip in every if clip.split == split] for split in ("train", "validation"))
