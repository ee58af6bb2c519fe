"""A panel of people: how sure its preferences are, how far it agrees, how large it must be, and a simulated one (ours).

Answers are frames as `study.read` gives them: participant, against, question, clip, and `ours`, 1 where RealMaster was
preferred. Answers of one person are alike, and so are answers on one clip. Both are counted by the correlation of two
answers that share the person, or the clip; the number of answers is divided by Kish's design effect (1965, 5.4), and the
interval is Wilson's at that number. Reads and writes nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from rmkit.evaluation import statistics
from rmkit.evaluation.statistics import Estimate

SIMULATED = "simulated"  # what the names of participants begin with that do not exist
POWER = 0.8  # of a plan: how often a true preference is to be found
MOST = 5000  # people that a plan looks at


class Clustering(NamedTuple):
    """How alike two answers are (0: independent, 1: the same) that share the person, or the clip."""

    person: float
    clip: float


PLANNED = Clustering(0.1, 0.1)  # before anybody was asked (ours)


def preferences(answers: pd.DataFrame) -> pd.DataFrame:
    """A row a method and question: against, question, preferred, low, high (shares), trials, participants, clips."""
    found, rows = clustering(answers), []
    for (against, question), cell in answers.groupby(["against", "question"], sort=False):
        estimate = share(cell, found)
        counts = (len(cell), cell.participant.nunique(), cell["clip"].nunique())
        rows.append((against, question, estimate.value, estimate.low, estimate.high, *counts))
    methods = list(answers.against.unique())
    # A method's questions beside one another, in the order they were asked.
    rows.sort(key=lambda row: methods.index(row[0]))
    columns = ["against", "question", "preferred", "low", "high", "trials", "participants", "clips"]
    return pd.DataFrame(rows, columns=columns)


def share(cell: pd.DataFrame, alike: Clustering) -> Estimate:
    """Share of answers for RealMaster, of one method and question, with its 95 % interval; never one of length zero.

    The quantile is Student's, with one degree less than there are people or clips, whichever are fewer. One person, or one
    clip, gives no interval: nothing says how another would answer.
    """
    value, people, clips = float(cell.ours.mean()), cell.participant.nunique(), cell["clip"].nunique()
    if min(people, clips) < 2:
        return Estimate(value, math.nan, math.nan, len(cell), people, "one person or clip")
    effect = _effect(_size(cell.participant), _size(cell["clip"]), alike)
    low, high = statistics.wilson(value, len(cell) / effect, _quantile(min(people, clips)))
    low, high = max(0.0, low), min(1.0, high)  # of none or all, one of them can round to a hair outside
    return Estimate(value, low, high, len(cell), people, "Wilson, by person and clip")


def clustering(answers: pd.DataFrame) -> Clustering:
    """How alike answers are within people and within clips, from all methods and questions together; PLANNED without spread.

    Moments: the mean product of two answers' distances from their mean, over the variance, freed of what estimating that
    mean takes away. Below zero is chance and counts as zero.
    """
    sums, weight = np.zeros(2), 0.0
    for _, cell in answers.groupby(["against", "question"]):
        rest, count = cell.ours.to_numpy() - cell.ours.mean(), len(cell)
        variance = float(np.mean(rest**2))
        if variance == 0 or min(cell.participant.nunique(), cell["clip"].nunique()) < 2:
            continue
        raw = np.array([_products(rest, cell[by].to_numpy()) for by in ("participant", "clip")]) / variance
        sizes = np.array([_size(cell.participant), _size(cell["clip"])])
        # The mean's own variance, in units of the answers': it is missing from every product and from the variance.
        lost = max(0.0, 1 + (sizes - 1) @ raw) / max(1.0, count - (sizes - 1).sum())
        sums += count * variance * (raw + lost) / (1 + lost)
        weight += count * variance
    return Clustering(*(sums / weight).clip(0, 1).tolist()) if weight else PLANNED


def agreement(answers: pd.DataFrame) -> pd.Series:
    """Krippendorff's alpha of every question over pairs of clip and method: 1 agreement, 0 chance; NaN undefined."""
    units = answers["clip"] + "/" + answers["against"]
    found = {
        question: alpha(rows.ours.to_numpy(), units[rows.index].to_numpy())
        for question, rows in answers.groupby("question", sort=False)
    }
    return pd.Series(found, name="alpha", dtype=float)


def alpha(values: np.ndarray, units: np.ndarray) -> float:
    """Krippendorff's alpha for nominal values ("Computing Krippendorff's Alpha-Reliability", 2011, section C).

    values and units: [N], one entry a rating; units rated once are left out, and who rates which may differ.
    """
    counts = pd.crosstab(units, values).to_numpy(float)
    counts = counts[counts.sum(axis=1) > 1]
    rated, total, by_value = counts.sum(axis=1), counts.sum(), counts.sum(axis=0)
    expected = total**2 - (by_value**2).sum()
    if expected == 0:  # nothing was rated twice, or all alike
        return math.nan
    observed = ((rated**2 - (counts**2).sum(axis=1)) / (rated - 1)).sum()
    return float(1 - (total - 1) * observed / expected)


def half_width(people: int, trials: int, clips: int, alike: Clustering = PLANNED) -> float:
    """Half the 95 % interval's width at 50 %, where each of so many people judges so many of a method's clips."""
    return _quantile(min(people, clips)) * 0.5 / math.sqrt(_independent(people, trials, clips, alike))


def power(preference: float, people: int, trials: int, clips: int, alike: Clustering = PLANNED) -> float:
    """How often the interval lies above 50 % where so large a share prefers RealMaster; normal approximation."""
    from scipy.stats import norm

    needed = 0.5 + half_width(people, trials, clips, alike)
    spread = math.sqrt(preference * (1 - preference) / _independent(people, trials, clips, alike))
    return float(norm.sf((needed - preference) / spread))


def people_for(
    trials: int,
    clips: int,
    width: float | None = None,
    preference: float | None = None,
    alike: Clustering = PLANNED,
) -> int | None:
    """The fewest people that reach a half-width, or find a preference with POWER; None where it takes more clips first."""
    for people in range(2, MOST):
        if width is not None and half_width(people, trials, clips, alike) <= width:
            return people
        if preference is not None and power(preference, people, trials, clips, alike) >= POWER:
            return people
    return None


def simulated(
    sessions: Sequence[Sequence[tuple[str, str]]],
    questions: Sequence[str],
    preference: float,
    alike: Clustering = PLANNED,
    seed: int = 0,
) -> pd.DataFrame:
    """Answers of people who do not exist, of the form of `study.read`, to check a plan with: no result of anything.

    sessions: the pairs (clip, method) that each of them sees; preference: the share that prefers RealMaster, in every
    question and against every method. An answer is the sign of a normal number with a part of the person and a part of the
    clip, as large as `alike` asks for (exactly so at a preference of 50 %).
    """
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    seen = [(f"{SIMULATED}_{i:03d}", *pair) for i, pairs in enumerate(sessions, start=1) for pair in pairs]
    frame = pd.DataFrame(seen, columns=["participant", "clip", "against"])
    answers = pd.concat([frame.assign(question=question) for question in questions], ignore_index=True)
    # The correlation of the numbers, from that of their signs.
    sizes = [math.sin(math.pi / 2 * part) for part in alike]
    latent = norm.ppf(preference) + math.sqrt(max(0.0, 1 - sum(sizes))) * rng.standard_normal(len(answers))
    for column, size in zip(("participant", "clip"), sizes, strict=True):
        which = answers.groupby([column, "against", "question"]).ngroup().to_numpy()
        latent += math.sqrt(size) * rng.standard_normal(which.max() + 1)[which]
    return answers.assign(ours=(latent > 0).astype(int))


def _independent(people: int, trials: int, clips: int, alike: Clustering) -> float:
    """Independent answers that a panel's are worth; trials: of one method, a person."""
    answers = people * trials
    return answers / _effect(trials, max(1.0, answers / clips), alike)


def _effect(of_person: float, of_clip: float, alike: Clustering) -> float:
    """Kish's design effect of two groupings, with the sizes of their groups."""
    return 1 + (of_person - 1) * alike.person + (of_clip - 1) * alike.clip


def _size(groups: pd.Series) -> float:
    """The mean size of the group that an answer is in."""
    return float((groups.value_counts() ** 2).sum() / len(groups))


def _products(rest: np.ndarray, groups: np.ndarray) -> float:
    """Mean product of two different entries of one group; 0 where no group has two."""
    _, which = np.unique(groups, return_inverse=True)
    sums, squares, counts = np.bincount(which, rest), np.bincount(which, rest**2), np.bincount(which)
    pairs = (counts * (counts - 1)).sum()
    return float((sums**2 - squares).sum() / pairs) if pairs else 0.0


def _quantile(groups: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + statistics.CONFIDENCE) / 2, groups - 1))
