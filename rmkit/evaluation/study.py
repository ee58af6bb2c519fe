"""The user study: RealMaster beside one other method, judged by people (paper, 4.4 and Figure 5).

Reads the enhanced validation clips, and answers that people have downloaded; writes study/page/ (index.html and videos
whose names tell nothing: what participants get), study/key.json (which side is which: what they must not get), and
tables/study.* with figures/study.*. The page needs no server and sends nothing anywhere: a browser shows it, and the
participant hands over the file it saves. A participant can stop and go on.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rmkit import baselines
from rmkit.errors import InputError
from rmkit.evaluation import figures, statistics, tables
from rmkit.evaluation.typeset import Table
from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.profile import Profile

OURS = statistics.REFERENCE
QUESTIONS = {  # the paper's three; the wording is ours
    "realism": "Which of the two looks more like real footage?",
    "faithfulness": "Which of the two keeps more of the original video: people, things, and what they do?",
    "quality": "Which of the two is the better video overall?",
}
COLUMNS = ("participant", "trial", "question", "choice")
TRIALS = 15  # a participant: 675 comparisons by 45 people
TEMPLATE = Path(__file__).with_name("study.html")


def make(profile: Profile, against: Sequence[str] = (), trials: int = TRIALS) -> Path:
    """Make the page of a study and its key; returns the page's path.

    `against` names the methods beside RealMaster (default: the paper's baselines that have clips). A trial is a clip and a
    method; its sides are drawn by the profile's seed. Raises InputError where there is nothing to compare.
    """
    methods, enhanced = baselines.every(profile), profile.layout.enhanced
    against = against or [name for name in baselines.EXTERNAL if any((enhanced / name).glob("*.mp4"))]
    if not against:
        raise InputError(
            "no clips of the paper's baselines to compare with: make them, or name other methods with --against "
            f"({', '.join(sorted(methods))})."
        )
    if unknown := [name for name in against if name not in methods or name in (OURS, "render")]:
        raise InputError(f"--against: '{unknown[0]}' is no method to compare with.")
    pairs = [
        (clip, name)
        for name in against
        for clip in sampling.load(profile, "validation")
        if all(methods[each].path(profile, clip).is_file() for each in (OURS, name))
    ]
    if not pairs:
        raise InputError(f"no validation clip has both {OURS} and {', '.join(against)}: enhance them first.")
    page, key, shown = profile.layout.study / "page", {}, []
    scale = 4 if profile.clips.width <= 240 else 1
    shutil.rmtree(page, ignore_errors=True)
    (page / "videos").mkdir(parents=True)
    for clip, name in track(pairs, "study"):
        trial = _hash(profile, clip.id, name)
        # By the pair alone, so that a study made again with other pairs still understands earlier answers.
        side = int(_hash(profile, clip.id, name, "side"), 16) % 2
        sides = [OURS, name] if side else [name, OURS]
        shown.append({"id": trial})
        for place, method in zip(("render", "a", "b"), ("render", *sides), strict=True):
            copy = f"videos/{_hash(profile, clip.id, method, 'video')}.mp4"
            shown[-1][place] = copy
            if not (page / copy).exists():
                frames = methods[method].stream(profile, clip)
                video.write_viewing_copy(page / copy, frames, profile.clips.fps, scale)
        key[trial] = {"clip": clip.id, "against": name, "ours": "a" if side else "b"}
    shown.sort(key=lambda trial: trial["id"])
    content = json.dumps({"questions": QUESTIONS, "trials": shown, "count": min(trials, len(shown))})
    content = content.replace("<", "\\u003c")  # what could end a script or open a tag
    store.write_json(profile.layout.study / "key.json", key)
    store.write_text(page / "index.html", TEMPLATE.read_text().replace("/*STUDY*/", content))
    return page / "index.html"


def count(profile: Profile, answers: Sequence[Path]) -> Table:
    """Write and return the table of preferences from participants' files, and draw Figure 5.

    Raises InputError, by file and line, for what is not an answer to this study or was given twice.
    """
    table = preferences(profile, read(profile, answers))
    tables.write(profile, [table])
    figures.save(profile, "study", figures.study(profile, table.data))
    return table


def read(profile: Profile, answers: Sequence[Path]) -> pd.DataFrame:
    """One row an answer: participant, against, question, clip, and whether RealMaster was preferred (0 or 1)."""
    path = profile.layout.study / "key.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: make the study first (`rmkit study`).")
    key, seen, rows = json.loads(path.read_text()), set(), []
    for file in answers:
        for line, row in enumerate(_answers(file), start=2):
            trial, where = key.get(row["trial"]), f"{file}, line {line}"
            if trial is None or row["question"] not in QUESTIONS or row["choice"] not in ("a", "b"):
                raise InputError(f"{where} is no answer to this study: {', '.join(row.values())}.")
            given = {name: row[name] for name in ("participant", "question")}
            if (who := (*given.values(), row["trial"])) in seen:
                raise InputError(
                    f"{where}: participant {who[0]} has answered this before; is a file given twice?"
                )
            seen.add(who)
            facts = {"against": trial["against"], "clip": trial["clip"]}
            rows.append(given | facts | {"ours": int(row["choice"] == trial["ours"])})
    if not rows:
        raise InputError("the files hold no answer.")
    return pd.DataFrame(rows)


def preferences(profile: Profile, answers: pd.DataFrame) -> Table:
    """Share of trials in which RealMaster was preferred, by method and question, with intervals by participant."""
    cells, data, methods = [], [], baselines.every(profile)
    for (against, question), rows in answers.groupby(["against", "question"], sort=False):
        found = statistics.ratio_of_sums(
            rows.ours.to_numpy(float), np.ones(len(rows)), rows.participant.to_numpy()
        )
        people = rows.participant.nunique()
        interval = "" if math.isnan(found.low) else f" [{found.low:.0%}, {found.high:.0%}]"
        label = methods[against].label if against in methods else against
        cells.append([label, question, f"{found.value:.0%}{interval}", str(len(rows)), str(people)])
        data.append((against, question, found.value, found.low, found.high, len(rows), people))
    columns = ["against", "question", "preferred", "low", "high", "trials", "participants"]
    header = ["Against", "Question", "RealMaster preferred", "Trials", "Participants"]
    notes = ["Share of trials [95 % interval, resampled by participant]; 50 % is chance."]
    return Table("study", "User study", header, cells, pd.DataFrame(data, columns=columns), notes)


def _answers(file: Path) -> list[dict[str, str]]:
    try:
        frame = pd.read_csv(file, dtype=str, index_col=False).fillna("")
    except (OSError, ValueError) as error:  # pandas' own are of this kind
        raise InputError(f"{file} cannot be read: {error}") from None
    if tuple(frame.columns) != COLUMNS:
        raise InputError(f"{file} must have the columns {', '.join(COLUMNS)}: it is not of this study.")
    return frame.to_dict("records")


def _hash(profile: Profile, *parts: str) -> str:
    """A name that tells nothing, the same in every run of the profile."""
    return hashlib.sha256("|".join((profile.name, str(profile.seed), *parts)).encode()).hexdigest()[:12]
