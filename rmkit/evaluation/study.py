"""The user study: RealMaster beside one other method, judged by people (paper, 4.4 and Figure 5).

Reads the enhanced validation clips, and answers that people have downloaded; writes study/page/ (index.html and videos
whose names tell nothing: what participants get), study/key.json (which side is which: what they must not get),
tables/study.* and study/preferences.*. The page needs no server and sends nothing anywhere: a browser shows it, and the
participant hands over the file it saves. `panel` says what can be said of the answers.
"""

import codecs
import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rmkit import baselines
from rmkit.errors import InputError
from rmkit.evaluation import figures, panel, statistics, study_figures, tables
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
SESSIONS = 60  # that a page holds; after the last, the first is shown again
STAND_INS = (
    "edges",
    "colour_transfer",
    "per_frame",
)  # where there are no clips of the paper's baselines (ours)
SEPARATORS = (",", ";", "\t")  # the second and third by spreadsheet programs
TEMPLATE = Path(__file__).with_name("study.html")


def make(
    profile: Profile, against: Sequence[str] = (), trials: int = TRIALS, clips: int | None = None
) -> Path:
    """Make the page of a study and its key; returns the page's path.

    `against` names the methods beside RealMaster (default: those of `compared`); clips: how many validation clips are shown
    at most, first those that most of the methods have. A trial is a clip, a method and its side; who sees which is drawn by
    `sessions`. Trials keep their names when a study is made again with other methods, and lose them when a video changes.
    Raises InputError where there is nothing to compare.
    """
    methods, page, key, shown = baselines.every(profile), profile.layout.study / "page", {}, {}
    against = list(dict.fromkeys(against or compared(profile)))
    if unknown := [name for name in against if name not in methods or name in (OURS, "render")]:
        raise InputError(f"--against: '{unknown[0]}' is no method to compare with.")
    held = [
        clip for clip in sampling.load(profile, "validation") if methods[OURS].path(profile, clip).is_file()
    ]
    having = {
        clip: [name for name in against if methods[name].path(profile, clip).is_file()] for clip in held
    }
    chosen = sorted(held, key=lambda clip: -len(having[clip]))[:clips]
    pairs = [(clip, name) for name in against for clip in chosen if name in having[clip]]
    if not pairs:
        raise InputError(f"no validation clip has both {OURS} and {', '.join(against)}: enhance them first.")
    scale = 2 if profile.clips.width <= 240 else 1  # so that small clips keep the colour of every pixel
    for clip, name in track(pairs, "study"):
        videos = {each: _video(profile, page, clip, methods[each], scale) for each in ("render", OURS, name)}
        for ours, other in ("ab", "ba"):
            trial = _hash(profile, clip.id, name, *videos.values(), ours)
            shown[trial] = {"render": videos["render"], ours: videos[OURS], other: videos[name]}
            key[trial] = {"clip": clip.id, "against": name, "ours": ours}
    needed = {path for sides in shown.values() for path in sides.values()}
    for path in (page / "videos").iterdir():
        if f"videos/{path.name}" not in needed:
            path.unlink()
    ids = {(facts["clip"], facts["against"], facts["ours"]): trial for trial, facts in key.items()}
    drawn = sessions([(clip.id, name) for clip, name in pairs], trials, profile.seed)
    content = {
        "id": _hash(profile, *sorted(key), str(trials)),
        "questions": QUESTIONS,
        "trials": dict(sorted(shown.items())),
        "sessions": [[ids[seen] for seen in session] for session in drawn],
    }
    text = json.dumps(content).replace("<", "\\u003c")  # what could end a script or open a tag
    store.write_json(profile.layout.study / "key.json", key)
    store.write_text(page / "index.html", TEMPLATE.read_text().replace("/*STUDY*/", text))
    return page / "index.html"


def compared(profile: Profile) -> list[str]:
    """The methods beside RealMaster: of the page that is there, else the paper's baselines, else STAND_INS, that have clips.

    Raises InputError where none has.
    """
    methods, path = baselines.every(profile), profile.layout.study / "key.json"
    known = [facts["against"] for facts in answer_key(profile).values()] if path.is_file() else []
    clips = sampling.load(profile, "validation")
    for names in (dict.fromkeys(known), baselines.EXTERNAL, STAND_INS):
        named = [methods[name] for name in names if name in methods]
        if having := [one.name for one in named if any(one.path(profile, clip).is_file() for clip in clips)]:
            return having
    raise InputError(
        "no clips of the paper's baselines to compare with, nor of Edges or a colour transfer: make them, or name other "
        f"methods with --against ({', '.join(sorted(methods))})."
    )


def sessions(
    pairs: Sequence[tuple[str, str]], trials: int, seed: int, count: int = SESSIONS
) -> list[list[tuple[str, str, str]]]:
    """What each participant sees, in order: clip, method, and RealMaster's side, "a" or "b"; drawn by the seed.

    pairs: of clip and method. Among the first n participants, for every n: methods are seen equally often, by each person
    and by all; so are a method's clips; and a pair has RealMaster on either side equally often. Equally: but for one.
    (Methods with fewer clips than a person's share of them are seen as often as that allows.)
    """
    rng = np.random.default_rng(seed)
    by_all, sides, drawn = Counter(), Counter(), []
    for _ in range(count):
        session: list[tuple[str, str, str]] = []
        own, left = Counter(), list(dict.fromkeys(pairs))
        while left and len(session) < trials:
            chances = rng.random(len(left))
            # The method that this person, then all have seen least; of it the pair; and a clip that is new to the person.
            rank = [
                (own[method], by_all[method], by_all[clip, method], own[clip, None], chance)
                for (clip, method), chance in zip(left, chances, strict=True)
            ]
            clip, method = left.pop(rank.index(min(rank)))
            lead = sides[clip, method] or sides["all"]
            ours = "ba"[lead < 0] if lead else "ab"[int(rng.integers(2))]
            for name in ((clip, method), "all"):
                sides[name] += 1 if ours == "a" else -1
            by_all.update([method, (clip, method)])
            own.update([method, (clip, None)])
            session.append((clip, method, ours))
        drawn.append([session[i] for i in rng.permutation(len(session))])
    return drawn


def count(profile: Profile, answers: Sequence[Path]) -> Table:
    """Write and return the table of preferences from participants' files, and draw Figure 5.

    Raises InputError, by file and line, for what is not an answer to this study or was given twice.
    """
    made = table(profile, read(profile, answers))
    tables.write(profile, [made])
    drawn = study_figures.preferences(profile, made.data)
    figures.save(profile, "preferences", drawn, profile.layout.study)
    return made


def simulate(profile: Profile, people: int, preference: float, trials: int = TRIALS) -> Table:
    """The table of a panel that does not exist, on this page's pairs: writes study/simulated/, and nothing that a report reads.

    See `panel.simulated`. Raises InputError before the page is made.
    """
    pairs = [(facts["clip"], facts["against"]) for facts in answer_key(profile).values()]
    drawn = [[seen[:2] for seen in one] for one in sessions(pairs, trials, profile.seed, people)]
    answers = panel.simulated(drawn, list(QUESTIONS), preference, seed=profile.seed)
    made = table(profile, answers)
    note = f"SIMULATED: nobody was asked. Everybody prefers RealMaster with probability {preference:.0%}."
    facts = {"name": f"{panel.SIMULATED}_preferences", "title": "SIMULATED panel: nobody was asked"}
    made = replace(made, **facts, data=made.data.assign(simulated=True), notes=[note, *made.notes])
    folder = profile.layout.study / panel.SIMULATED
    tables.write(profile, [made], folder)
    store.write_text(folder / f"{panel.SIMULATED}_answers.csv", answers.to_csv(index=False))
    figures.save(profile, made.name, study_figures.preferences(profile, made.data), folder)
    return made


def read(profile: Profile, answers: Sequence[Path]) -> pd.DataFrame:
    """One row an answer: participant, against, question, clip, and whether RealMaster was preferred (0 or 1).

    Raises InputError, by file and line, as `count`.
    """
    key, seen, rows = answer_key(profile), {}, []
    for file in answers:
        for line, row in _answers(file):
            where, trial = f"{file}, line {line}", key.get(row["trial"])
            if row["participant"].startswith(panel.SIMULATED):
                raise InputError(f"{where}: {row['participant']} was simulated; only people's answers count.")
            if trial is None:
                raise InputError(
                    f"{where}: '{row['trial']}' is no trial of this study; was the page made again, of other videos?"
                )
            for column, known in (("question", tuple(QUESTIONS)), ("choice", ("a", "b"))):
                if row[column] not in known:
                    raise InputError(
                        f"{where}: the {column} is '{row[column]}' and not {' or '.join(known)}."
                    )
            facts = {"against": trial["against"], "question": row["question"], "clip": trial["clip"]}
            before = seen.setdefault((row["participant"], *facts.values()), where)
            if before is not where:
                raise InputError(
                    f"{where}: participant {row['participant']} has answered this before ({before}); is a file given twice?"
                )
            ours = int(row["choice"] == trial["ours"])
            rows.append({"participant": row["participant"], **facts, "ours": ours})
    if not rows:
        raise InputError("the files hold no answer.")
    return pd.DataFrame(rows)


def table(profile: Profile, answers: pd.DataFrame) -> Table:
    """Share of trials in which RealMaster was preferred, by method and question, and how far people agree."""
    data, methods = panel.preferences(answers), baselines.every(profile)
    header = ["Against", "Question", "RealMaster preferred", "Trials", "Participants"]
    cells = []
    for row in data.itertuples():
        interval = "" if np.isnan(row.low) else f" [{row.low:.0%}, {row.high:.0%}]"
        label = methods[row.against].label if row.against in methods else row.against
        share = f"{row.preferred:.0%}{interval}"
        cells.append([label, row.question, share, str(row.trials), str(row.participants)])
    alike, agreed = panel.clustering(answers), panel.agreement(answers).dropna()
    notes = [
        "Share of trials [95 % interval]; 50 % is chance. Wilson's interval at the number of independent answers: those of "
        f"one person (correlation {alike.person:.2f}) and on one clip ({alike.clip:.2f}) are alike. No interval for a single "
        "person or clip.",
    ]
    if len(agreed):
        said = ", ".join(f"{question} {value:.2f}" for question, value in agreed.items())
        notes.append(f"Krippendorff's alpha (0: people agree by chance, 1: in everything): {said}.")
    return Table("study", "User study", header, cells, data, notes)


def answer_key(profile: Profile) -> dict[str, dict[str, str]]:
    """What each trial is: its clip, the method beside RealMaster (`against`), and the side of RealMaster (`ours`)."""
    path = profile.layout.study / "key.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: make the study first (`rmkit study`).")
    return store.read_json(path)


def _answers(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and entries of a file as the page, or a spreadsheet program, saves it; other columns are left out.

    Such programs change the separator and the encoding, put columns in another order, and leave empty lines.
    """
    try:
        lines = io.StringIO(_text(file.read_bytes()), newline=None)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    first = lines.readline()
    lines.seek(0)
    rows = csv.reader(lines, delimiter=max(SEPARATORS, key=first.count))
    header = [name.strip().lower() for name in next(rows, [])]
    if lacking := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{file} has no column '{lacking[0]}'; it must have {', '.join(COLUMNS)}.")
    places = {name: header.index(name) for name in COLUMNS}
    for row in rows:
        if any(entry.strip() for entry in row):
            padded = [*row, *[""] * len(header)]
            yield rows.line_num, {name: padded[i].strip() for name, i in places.items()}


def _text(raw: bytes) -> str:
    """A file's text by its marks, else as UTF-8 or as Excel writes CSV in the west; ValueError where it is none."""
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return raw.decode("utf-16")
    if raw[:2] == b"PK":
        raise ValueError("it is a spreadsheet; save it as CSV.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def _video(profile: Profile, page: Path, clip: sampling.Clip, method: baselines.Method, scale: int) -> str:
    """The viewing copy of a clip in the page's folder, named by what it shows; made unless it is there."""
    path = f"videos/{_hash(profile, store.fingerprint(method.path(profile, clip)), str(scale))}.mp4"
    if not (page / path).exists():
        with store.replacing(page / path) as temporary:
            video.write_viewing_copy(temporary, method.stream(profile, clip), profile.clips.fps, scale)
    return path


def _hash(profile: Profile, *parts: str) -> str:
    """A name that tells nothing, the same in every run; a letter first, as spreadsheet programs would count with digits."""
    return "t" + hashlib.sha256("|".join((profile.name, str(profile.seed), *parts)).encode()).hexdigest()[:12]
