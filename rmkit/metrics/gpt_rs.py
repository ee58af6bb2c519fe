"""GPT-RS: a vision-language model rates frames for realism from 1 to 10, the judge (paper, 4.1 and C.1).

Each frame is rated alone and beside the render's. Reads data/paper/gpt_rs.yaml and OPENAI_API_KEY; writes
judge/<video's fingerprint>/*.json under results/<profile>/, a raw answer each, so that nothing is paid for twice.
"""

import base64
import functools
import hashlib
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import yaml
from PIL import Image

from rmkit import baselines
from rmkit.baselines import real
from rmkit.errors import InputError
from rmkit.kit import keys, store, video
from rmkit.kit.endpoint import KEY, Endpoint, Stopped, Unreadable
from rmkit.metrics import Column, Measure, Metric, Subject, options_of
from rmkit.paths import REPOSITORY
from rmkit.profile import Judge, Profile

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
PROMPTS = REPOSITORY / "data" / "paper" / "gpt_rs.yaml"
NO_REF, WITH_REF = "gpt_rs", "gpt_rs_ref"
SIDES = {NO_REF: ("output",), WITH_REF: ("render", "output")}  # the pictures of a request, in order
DETAIL = "high"  # the frame itself, not a thumbnail of it (ours)
# An enumeration and no bounds: endpoints that enforce a schema do not all know `minimum`.
SCHEMA = {
    "type": "object",
    "properties": {"rating": {"type": "integer", "enum": list(range(1, 11))}},
    "required": ["rating"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "gpt_rs", "strict": True, "schema": SCHEMA}}
# For the estimate only: letters a token, tokens of the schema, tokens of an answer.
LETTERS, SCHEMA_TOKENS, ANSWER_TOKENS = 4, 60, 10
_RATING = {"unit": "1-10", "better": 1, "digits": 2, "floor": 0.01, "shown": "always", "paper": True}
_SPREAD = {"unit": "", "better": 0, "floor": 0.01, "shown": "never"}
_BESIDE = {"against": "render", "with_itself": True}


class GptRs(Metric):
    """The judge's ratings by two prompts; how far repeats differ stands in metrics.csv only."""

    columns = (
        Column(NO_REF, "GPT-RS no-ref", **_RATING),
        Column(WITH_REF, "GPT-RS with-ref", **_RATING, **_BESIDE),
        Column(f"{NO_REF}_spread", "GPT-RS no-ref", **_SPREAD),
        Column(f"{WITH_REF}_spread", "GPT-RS with-ref", **_SPREAD, **_BESIDE),
    )
    version = VERSION
    own_clips, last, rates_real = False, True, True

    def why_not(self, profile: Profile, missing: Sequence[Subject] | None = None) -> str | None:
        if not profile.judge.enabled:
            return "not run: judge.enabled is false in this profile."
        expected = forecast(profile) if missing is None else _estimate(profile, _unanswered(profile, missing))
        if not expected.answers:
            return None
        if not keys.present(KEY):
            return f"not run: the environment has no {KEY}."
        if expected.usd is not None and expected.usd > profile.judge.budget_usd:
            budget = f"judge.budget_usd is {profile.judge.budget_usd:g}"
            return f"not run: it would cost about {expected.usd:.0f} USD, and {budget}."
        return None

    def check(self, profile: Profile, height: int, width: int) -> None:
        """Raise InputError unless the key can be one, and the folder of real footage holds videos."""
        keys.read(KEY)
        real.check(profile)

    def settings(self, profile: Profile) -> Mapping[str, object]:
        asked = {"host": urlsplit(profile.judge.base_url).netloc, "prompts": [*map(_fingerprint, SIDES)]}
        return {**self.options(profile), **asked, "clips": profile.clips}

    def options(self, profile: Profile) -> dict[str, str]:
        """Who was asked, and how."""
        names = ("model", "repeats", "frames", "sampling")
        return {name: str(getattr(profile.judge, name)) for name in names}

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        """Say what asking for the answers that are not kept will cost; `measure` then asks for a subject's.

        `measure` raises InputError when the endpoint refuses the key or the request, or has no usable answer after all
        attempts; what was answered by then is kept.
        """
        left, judge = _unanswered(profile, subjects), profile.judge
        if left:
            endpoint, expected = Endpoint(judge), _estimate(profile, left)
            print(f"judge: {judge.model} at {endpoint.host}, about {expected} to come", flush=True)

        def measure(subject: Subject, columns: Sequence[Column]) -> Mapping[str, float]:
            asked = _questions(profile, subject)
            new = [question for question in asked if left.pop(question.path, None)]
            if new:
                _ask(endpoint, judge.concurrency, subject, new)
                if not left:
                    print(f"judge: {spent(profile)} in all", flush=True)
            return _ratings(asked)

        return measure

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        if rows.empty:
            return f"GPT-RS: {self.why_no_row(profile)}"
        parts = [f"GPT-RS, 1 to 10 (C.1): {options_of(rows)}"]
        for column in self.columns[2:]:
            values = rows[rows.metric == column.name].value
            if len(values):
                differ = f"repeats of a clip differ by {values.mean():.2f} (standard deviation)"
                parts.append(f"{column.label}: {differ}")
        return "; ".join(parts) + "."


@dataclass(frozen=True)
class Cost:
    """Answers, tokens and US dollars; None where the endpoint or the profile does not say."""

    answers: int
    read: int | None
    written: int | None
    usd: float | None

    def __str__(self) -> str:
        told = None not in (self.read, self.written)
        tokens = f"{self.read:,} tokens read, {self.written:,} written" if told else "tokens not told"
        price = "cost n/a" if self.usd is None else f"{self.usd:.2f} USD"
        return f"{self.answers:,} answers, {tokens}, {price}"


@dataclass(frozen=True)
class Question:
    """One request: a frame of a subject, by one of the two prompts, for one of the repeats."""

    metric: str
    frame: int
    repeat: int
    path: Path  # of the answer
    recipe: store.Recipe


def judging(profile: Profile) -> str:
    """Who judges and at what cost while no answer is kept yet, or why nobody does."""
    return METRIC.why_not(profile) or f"{profile.judge.model}, at most about {forecast(profile)}"


def forecast(profile: Profile, videos: int | None = None) -> Cost:
    """What rating so many videos (None: all), and the real footage, costs when no answer is kept yet."""
    videos = baselines.videos(profile) if videos is None else videos
    each = len(indices(profile)) * profile.judge.repeats
    return _expected(profile, {NO_REF: (videos + len(real.files(profile))) * each, WITH_REF: videos * each})


def _estimate(profile: Profile, asked: Mapping[Path, Question]) -> Cost:
    return _expected(profile, Counter(question.metric for question in asked.values()))


def _expected(profile: Profile, answers: Mapping[str, int]) -> Cost:
    """Cost of so many answers by column, counted as OpenAI says it counts for GPT-4o; others count otherwise."""
    read, count = 0, sum(answers.values())
    image = image_tokens(profile.clips.height, profile.clips.width)
    for metric, asked in answers.items():
        prompt = _prompts()[metric]
        text = (len(prompt["system"]) + len(prompt["user"])) // LETTERS + SCHEMA_TOKENS
        read += asked * (text + len(SIDES[metric]) * image)
    return _cost(profile.judge, count, read, count * ANSWER_TOKENS)


def _cost(judge: Judge, answers: int, read: int | None, written: int | None) -> Cost:
    prices = judge.usd_per_million_input, judge.usd_per_million_output
    known = None not in (read, written, *prices)
    return Cost(answers, read, written, (read * prices[0] + written * prices[1]) / 1e6 if known else None)


def image_tokens(height: int, width: int) -> int:
    """Tokens of a picture at high detail: fitted into 2048, short side 768 at most, 170 a tile of 512, and 85."""
    scale = min(1.0, 2048 / max(height, width), 768 / min(height, width))
    return 85 + 170 * math.ceil(height * scale / 512) * math.ceil(width * scale / 512)


def spent(profile: Profile) -> Cost:
    """What all kept answers of this model have cost, unusable ones before them included."""
    paths = profile.layout.judge.glob("*/*.json.json")
    records = [store.read_sidecar(path.with_suffix("")) for path in paths]
    records = [record for record in records if record.get("model") == profile.judge.model]
    counts = (_total(record[name] for record in records) for name in ("answers", "read", "written"))
    return _cost(profile.judge, *counts)


def _total(counts: Iterable[Any]) -> int | None:
    """The sum; None when one is not told."""
    counts = list(counts)
    return sum(counts) if all(type(count) is int for count in counts) else None


def indices(profile: Profile, count: int | None = None) -> list[int]:
    """The frames that are shown, spread evenly over a clip, or over a video of `count` frames."""
    count = count or profile.clips.frames
    spread = video.midpoints if profile.judge.sampling == "midpoints" else video.evenly
    return spread(min(profile.judge.frames, count), count)


def _questions(profile: Profile, subject: Subject) -> list[Question]:
    """One request for each prompt, frame and repeat; a file's name and recipe hash all that its answer depends on."""
    made, judge, output = [], profile.judge, subject.inputs["output"]
    for metric in SIDES if "render" in subject.inputs else (NO_REF,):
        inputs = {"video": output} | ({"render": subject.inputs["render"]} if metric == WITH_REF else {})
        for frame, repeat in product(indices(profile, subject.count), range(1, judge.repeats + 1)):
            settings = {
                "prompt": _fingerprint(metric),
                "host": urlsplit(judge.base_url).netloc,
                "frame": frame,
                "repeat": repeat,
                "source_frames": subject.source_frames,
                "clips": profile.clips,
            }
            recipe = store.Recipe("judge", VERSION, settings, inputs, model=judge.model)
            # The key is in the name, so that who goes back to an earlier model finds its answers.
            name = f"{metric}_f{frame:03d}_r{repeat}_{recipe.key[:12]}.json"
            made.append(Question(metric, frame, repeat, profile.layout.judge / output[:16] / name, recipe))
    return made


def _unanswered(profile: Profile, subjects: Sequence[Subject]) -> dict[Path, Question]:
    """The questions without an answer, each once, though two methods may have the very same video."""
    every = (question for subject in subjects for question in _questions(profile, subject))
    return {asked.path: asked for asked in every if not store.is_done(asked.path, asked.recipe)}


def _ask(endpoint: Endpoint, concurrency: int, subject: Subject, questions: Sequence[Question]) -> None:
    """Ask about a subject, so many requests at a time, and keep each answer as it comes."""
    wanted = {(side, question.frame) for question in questions for side in SIDES[question.metric]}
    shown = {
        (side, i): _data_address(frame)
        for side in {side for side, _ in wanted}
        for i, frame in enumerate(subject.frames[side]())
        if (side, i) in wanted
    }
    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        jobs = [pool.submit(_keep, endpoint, question, shown) for question in questions]
        try:
            for job in as_completed(jobs):
                if not isinstance(job.exception(), Stopped):  # the refusal itself is still to come
                    job.result()
        except BaseException:
            endpoint.stopped.set()  # requests under way are paid for, so they are waited for and kept
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _keep(endpoint: Endpoint, question: Question, shown: Mapping[tuple[str, int], str]) -> None:
    """One question asked, and the answer stored with the unusable ones before it; a refusal stops all others.

    shown: the frames of each side as data addresses, by (side, index).
    """
    facts: dict[str, Any] = {}
    unread = question.path.with_suffix(".unread.json")
    before = store.read_json(unread) if unread.is_file() else []
    try:
        with store.writing(question.path, question.recipe, facts=facts) as temporary:
            rating, answers = endpoint.ask(_request(endpoint.model, question, shown))
            answers = [*before, *answers]
            told = [answer.get("usage") for answer in answers]
            usages = [usage if isinstance(usage, dict) else {} for usage in told]
            facts |= {"answered_by": answers[-1].get("model"), "answers": len(answers)}
            facts["read"] = _total(usage.get("prompt_tokens") for usage in usages)
            facts["written"] = _total(usage.get("completion_tokens") for usage in usages)
            store.write_json(temporary, {"rating": rating, "answers": answers})
            unread.unlink(missing_ok=True)  # they are among the answers now
    except InputError as error:
        endpoint.stopped.set()
        if isinstance(error, Unreadable):
            store.write_json(unread, [*before, *error.bodies])
        raise


def _request(model: str, question: Question, shown: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The body of a request; with reference, image 1 is the render and image 2 the clip's frame."""
    prompt = _prompts()[question.metric]
    urls = [shown[side, question.frame] for side in SIDES[question.metric]]
    pictures = [{"type": "image_url", "image_url": {"url": url, "detail": DETAIL}} for url in urls]
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": prompt["system"]},
            {"role": "user", "content": [{"type": "text", "text": prompt["user"]}, *pictures]},
        ],
        "response_format": FORMAT,
    }


def _ratings(questions: Sequence[Question]) -> dict[str, float]:
    """Values by column from the kept answers; a prompt whose answers were all declined has none.

    A rating is the mean over repeats of the mean over frames; the spread is the repeats' standard deviation.
    """
    found = {}
    for metric in SIDES:
        by_repeat = defaultdict(list)
        for question in questions:
            if question.metric == metric:
                by_repeat[question.repeat].append(store.read_json(question.path)["rating"])
        given = [[rating for rating in ratings if rating is not None] for ratings in by_repeat.values()]
        means = [float(np.mean(ratings)) for ratings in given if ratings]
        if means:
            found[metric] = float(np.mean(means))
        if len(means) > 1:
            found[f"{metric}_spread"] = float(np.std(means, ddof=1))
    return found


def _data_address(frame: np.ndarray) -> str:
    """A frame, uint8 [H, W, 3], as PNG in a data: address, so that no codec stands between clip and judge."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _prompts() -> dict[str, Any]:
    return yaml.safe_load(PROMPTS.read_text())


def _fingerprint(metric: str) -> str:
    """Hash of all that is said to the judge beside the pictures."""
    text = json.dumps([_prompts()[metric], FORMAT, DETAIL], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


METRIC = GptRs()
