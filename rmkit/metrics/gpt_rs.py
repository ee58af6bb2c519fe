"""The judge: a vision-language model rates frames for realism from 1 to 10, GPT-RS (paper, 4.1 and C.1).

Reads data/paper/gpt_rs.yaml, the frames that evaluate.py hands it and the real footage of `judge.real`, which shows what
reality gets; writes judge/<video's fingerprint>/*.json under results/<profile>/, a raw answer each, so that nothing is
paid for twice.
"""

import base64
import functools
import hashlib
import io
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import yaml
from PIL import Image

from rmkit.baselines import real
from rmkit.errors import InputError
from rmkit.kit import keys, store, video
from rmkit.kit.progress import track
from rmkit.metrics import Column, Metric
from rmkit.paths import REPOSITORY
from rmkit.profile import Judge, Profile

if TYPE_CHECKING:
    import httpx2
    import openai

VERSION = 1
KEY = "OPENAI_API_KEY"
PROMPTS = REPOSITORY / "data" / "paper" / "gpt_rs.yaml"
NO_REF, WITH_REF = "gpt_rs", "gpt_rs_ref"
REAL = "real"  # the method's name
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
ATTEMPTS = 6  # requests for one rating, those that the SDK repeats included
PAUSE = 1.0  # seconds before an unusable answer is asked for again; doubled each time


@dataclass(frozen=True)
class Subject:
    """A clip of one method, and the render that the rating with reference shows beside it; real footage has none."""

    video: str  # fingerprints of the files
    render: str | None
    source_frames: tuple[int, ...]  # the file of a truth is the whole sequence's
    frames: Callable[[], Iterator[np.ndarray]]
    render_frames: Callable[[], Iterator[np.ndarray]] | None
    length: int | None = None  # frames, where not as many as the profile's clips have


@dataclass(frozen=True)
class Rating:
    """What a clip got by one of the two prompts."""

    metric: str
    value: float  # 1..10: mean over repeats of the mean over frames
    spread: float  # standard deviation of the repeats; nan when there is one
    commit: str


@dataclass(frozen=True)
class Cost:
    """Answers, tokens and US dollars; None where the endpoint or the profile does not say."""

    answers: int
    read: int | None
    written: int | None
    usd: float | None

    def __str__(self) -> str:
        known = self.read is not None and self.written is not None
        tokens = f"{self.read:,} tokens read, {self.written:,} written" if known else "tokens not told"
        return (
            f"{self.answers:,} answers, {tokens}, {'cost n/a' if self.usd is None else f'{self.usd:.2f} USD'}"
        )


@dataclass(frozen=True)
class Question:
    """One request: a frame of a subject, by one of the two prompts, for one of the repeats."""

    metric: str
    frame: int
    repeat: int
    path: Path
    recipe: store.Recipe


def rate(profile: Profile, subjects: Sequence[Subject]) -> list[list[Rating]]:
    """Ratings of every subject, in order, asking only for what is not kept; empty when the judge does not run.

    Raises InputError when the endpoint refuses the key or the request, or has no usable answer after all attempts; what
    was answered by then is kept.
    """
    nothing: list[list[Rating]] = [[] for _ in subjects]
    if not profile.judge.enabled:
        return nothing
    asked = [_questions(profile, subject) for subject in subjects]
    missing = _missing(subjects, asked)
    if missing:
        expected = estimate(profile, Counter(q.metric for _, questions in missing for q in questions))
        if reason := why_not(profile, expected):
            print(f"judge: {reason}", flush=True)
            return nothing
        endpoint = Endpoint(profile.judge)
        print(f"judge: {profile.judge.model} at {endpoint.host}, about {expected} to come", flush=True)
        for _ in track(_ask(profile, endpoint, missing), "judge", expected.answers):
            pass
        print(f"judge: {spent(profile)} in all", flush=True)
    return [_ratings(questions) for questions in asked]


def why_not(profile: Profile, expected: Cost) -> str | None:
    """Why the judge asks nothing ('not run', a colon, and the reason), or None when it does."""
    budget = profile.judge.budget_usd
    if not profile.judge.enabled:
        return "not run: judge.enabled is false in this profile."
    if not keys.present(KEY):
        return f"not run: the environment has no {KEY}."
    if expected.usd is not None and expected.usd > budget:
        return f"not run: it would cost about {expected.usd:.0f} USD, and judge.budget_usd is {budget:g}."
    return None


def options(profile: Profile) -> dict[str, str]:
    """What is written beside every value: who was asked, and how."""
    judge = profile.judge
    asked = {"repeats": judge.repeats, "frames": judge.frames, "sampling": judge.sampling}
    return {"model": judge.model} | {name: str(value) for name, value in asked.items()}


def forecast(profile: Profile, videos: int) -> Cost:
    """What rating so many videos, and the real footage, costs when no answer is kept yet."""
    each = len(indices(profile)) * profile.judge.repeats
    return estimate(profile, {NO_REF: (videos + len(real.files(profile))) * each, WITH_REF: videos * each})


def real_subject(profile: Profile, path: Path) -> Subject:
    """A file of real footage, shown at the clips' size, so that size is not what is rated."""
    frames = functools.partial(real.stream, profile, path)
    return Subject(store.fingerprint(path), None, (), frames, None, video.probe(path).frames)


def estimate(profile: Profile, answers: Mapping[str, int]) -> Cost:
    """Cost of so many answers by metric, counted as OpenAI says it counts for GPT-4o; others count otherwise."""
    read = 0
    for metric, count in answers.items():
        prompt = _prompts()[metric]
        text = (len(prompt["system"]) + len(prompt["user"])) // LETTERS + SCHEMA_TOKENS
        images = 2 if metric == WITH_REF else 1
        read += count * (text + images * image_tokens(profile.clips.height, profile.clips.width))
    total = sum(answers.values())
    return Cost(total, read, total * ANSWER_TOKENS, _usd(profile.judge, read, total * ANSWER_TOKENS))


def image_tokens(height: int, width: int) -> int:
    """Tokens of a picture at high detail: fitted into 2048, short side 768 at most, 170 a tile of 512, and 85."""
    scale = min(1.0, 2048 / max(height, width), 768 / min(height, width))
    return 85 + 170 * math.ceil(height * scale / 512) * math.ceil(width * scale / 512)


def spent(profile: Profile) -> Cost:
    """What all kept answers of this model have cost, unusable ones before them included."""
    records = [
        store.read_sidecar(path.with_suffix("")) for path in profile.layout.judge.glob("*/*.json.json")
    ]
    records = [record for record in records if record.get("model") == profile.judge.model]
    count = sum(record["answers"] for record in records)
    if any(record["read"] is None for record in records):
        return Cost(count, None, None, None)
    read, written = (sum(record[name] for record in records) for name in ("read", "written"))
    return Cost(count, read, written, _usd(profile.judge, read, written))


def indices(profile: Profile, of: int | None = None) -> list[int]:
    """The frames that are shown, spread evenly over a clip, or a video of `of` frames."""
    of = of or profile.clips.frames
    count = min(profile.judge.frames, of)
    if profile.judge.sampling == "midpoints":
        return video.midpoints(count, of)
    return video.evenly(count, of)


def _questions(profile: Profile, subject: Subject) -> list[Question]:
    """Every question about a subject, named by all that the answer hangs on."""
    made = []
    for metric in (NO_REF, WITH_REF) if subject.render else (NO_REF,):
        inputs = {"video": subject.video} | ({"render": subject.render} if metric == WITH_REF else {})
        for frame in indices(profile, subject.length):
            for repeat in range(1, profile.judge.repeats + 1):
                settings = {
                    "prompt": _fingerprint(metric),
                    "host": urlsplit(profile.judge.base_url).netloc,
                    "frame": frame,
                    "repeat": repeat,
                    "source_frames": subject.source_frames,
                    "clips": profile.clips,
                }
                recipe = store.Recipe("judge", VERSION, settings, inputs, model=profile.judge.model)
                # The key is in the name, so that who goes back to an earlier model finds its answers.
                name = f"{metric}_f{frame:03d}_r{repeat}_{recipe.key[:12]}.json"
                path = profile.layout.judge / subject.video[:16] / name
                made.append(Question(metric, frame, repeat, path, recipe))
    return made


def _missing(
    subjects: Sequence[Subject], asked: Sequence[Sequence[Question]]
) -> list[tuple[Subject, list[Question]]]:
    """The questions without an answer, each once, though two methods may have the very same video."""
    seen: set[Path] = set()
    left = []
    for subject, questions in zip(subjects, asked, strict=True):
        new = [q for q in questions if q.path not in seen and not store.is_done(q.path, q.recipe)]
        seen |= {question.path for question in new}
        if new:
            left.append((subject, new))
    return left


class Stopped(Exception):
    """A request that was not sent, because another one was refused."""


class Endpoint:
    """The judge's endpoint by the `openai` SDK, shared by threads: what it refuses to one stops the requests of all."""

    def __init__(self, judge: Judge) -> None:
        import openai

        self.host, self.model, self.key = urlsplit(judge.base_url).netloc, judge.model, keys.read(KEY)
        self.stopped = threading.Event()
        self._client = openai.OpenAI(
            api_key=self.key.get_secret_value(),
            base_url=judge.base_url,
            timeout=judge.timeout,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,  # the key is for this host only
                event_hooks={"request": [self._unless_stopped], "response": [self._unless_refused]},
            ),
        )

    def ask(self, request: Mapping[str, Any]) -> tuple[int | None, list[dict]]:
        """The rating in the answer (None: declined), and every body received, with the key blotted out.

        Raises InputError when the endpoint refuses the request, asks for too long a wait, or has given no rating after
        all attempts; from then on every request still to be sent raises Stopped.
        """
        try:
            return self._ask(request)
        except InputError:
            self.stopped.set()
            raise

    def _ask(self, request: Mapping[str, Any]) -> tuple[int | None, list[dict]]:
        import openai

        bodies: list[dict] = []
        made, why = 0, ""
        while made < ATTEMPTS:
            # The SDK repeats what got no answer, 408, 409, 429 and 5xx, and waits as Retry-After says, up to 120 s.
            client = self._client.with_options(max_retries=ATTEMPTS - made - 1)
            try:
                answer = client.chat.completions.with_raw_response.create(**request)
            except openai.APIError as error:
                made += 1 + int(error.request.headers["x-stainless-retry-count"])
                why = _reason(error)
                break  # and raise below, since this error may quote the key
            made += 1 + answer.retries_taken
            body = keys.blotted(keys.parsed(answer.text), self.key)
            bodies += [body] if isinstance(body, dict) else []
            try:
                return _rating(body), bodies
            except ValueError as error:
                why = str(error)
            if made < ATTEMPTS and self.stopped.wait(PAUSE * 2 ** (made - 1)):
                raise Stopped
        if made < ATTEMPTS:
            raise InputError(
                f"{self.host} asks for a longer wait ({keys.blotted(why, self.key)}): run again then; what was answered is kept."
            )
        raise InputError(
            f"{self.host} gave no usable answer in {made} attempts (the last: {why}): check its address and model "
            f"('{self.model}') and run again; what was answered is kept."
        )

    def _unless_stopped(self, _: "httpx2.Request") -> None:
        if self.stopped.is_set():
            raise Stopped

    def _unless_refused(self, response: "httpx2.Response") -> None:
        """Raise InputError for an answer that no repeat will change; what it says may quote the key."""
        status = response.status_code
        if status == 429 and b"insufficient_quota" in response.read():
            raise InputError(f"the account behind {KEY} at {self.host} has no credit left (HTTP 429).")
        if status in (401, 403):
            raise InputError(f"{self.host} refuses the key in {KEY} (HTTP {status}): set another, or none.")
        if 300 <= status < 500 and status not in (408, 409, 429):
            raise InputError(
                f"{self.host} refuses the request (HTTP {status}): check its address and model; "
                f"'{self.model}' must take pictures and answer by a JSON schema."
            )


def _reason(error: "openai.APIError") -> str:
    """Why the SDK got no answer: the status and the wait asked for, or what broke the connection."""
    status = getattr(error, "status_code", None)
    if status is None:
        return type(error.__cause__).__name__
    after = error.response.headers.get("Retry-After")
    return f"HTTP {status}" + (f", Retry-After: {after}" if after else "")


def _ask(
    profile: Profile, endpoint: Endpoint, missing: Sequence[tuple[Subject, Sequence[Question]]]
) -> Iterator[Path]:
    """Ask, at most judge.concurrency at a time; yields the path of each answer once it is kept."""
    pool = ThreadPoolExecutor(profile.judge.concurrency, thread_name_prefix="judge")
    try:
        for subject, questions in missing:
            shown = _pictures(subject, questions)
            jobs = [pool.submit(_keep, endpoint, question, shown) for question in questions]
            for job in as_completed(jobs):
                if not isinstance(job.exception(), Stopped):  # the refusal itself is still to come
                    yield job.result()
    finally:
        endpoint.stopped.set()  # requests under way are paid for, so they are waited for and kept
        pool.shutdown(cancel_futures=True)


def _pictures(subject: Subject, questions: Sequence[Question]) -> dict[tuple[str, int], str]:
    """The frames asked about, as data addresses, by (video or render, index)."""
    sides = {
        "video": (subject.frames, {q.frame for q in questions}),
        "render": (subject.render_frames, {q.frame for q in questions if q.metric == WITH_REF}),
    }
    return {
        (side, i): _data_address(frame)
        for side, (frames, wanted) in sides.items()
        if wanted
        for i, frame in enumerate(frames())
        if i in wanted
    }


def _keep(endpoint: Endpoint, question: Question, shown: Mapping[tuple[str, int], str]) -> Path:
    """One question asked, and the answer stored with the unusable ones before it."""
    facts: dict[str, Any] = {}
    with store.writing(question.path, question.recipe, facts=facts) as temporary:
        rating, answers = endpoint.ask(_request(endpoint.model, question, shown))
        read, written = (_tokens(answers, name) for name in ("prompt_tokens", "completion_tokens"))
        facts |= {"answered_by": answers[-1].get("model"), "answers": len(answers)}
        facts |= {"read": None if written is None else read, "written": written}
        store.write_json(temporary, {"rating": rating, "answers": answers})
    return question.path


def _request(model: str, question: Question, shown: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The body of a request; with reference, image 1 is the render and image 2 the clip's frame."""
    prompt = _prompts()[question.metric]
    sides = ("render", "video") if question.metric == WITH_REF else ("video",)
    pictures = [
        {"type": "image_url", "image_url": {"url": shown[side, question.frame], "detail": DETAIL}}
        for side in sides
    ]
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": prompt["system"]},
            {"role": "user", "content": [{"type": "text", "text": prompt["user"]}, *pictures]},
        ],
        "response_format": FORMAT,
    }


def _rating(body: Any) -> int | None:
    """The integer 1..10 in an answer, None when the model declines to rate; raises ValueError for anything else."""
    try:
        choice = body["choices"][0]
        if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
            return None
        rating = keys.parsed(choice["message"]["content"])["rating"]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("an answer without a rating") from None
    if type(rating) is not int or not 1 <= rating <= 10:  # JSON's true would pass as an int
        raise ValueError("a rating that is no integer from 1 to 10")
    return rating


def _tokens(answers: Sequence[dict], name: str) -> int | None:
    """Sum over the answers of a count in their usage; None when one does not tell."""
    usages = [answer.get("usage") for answer in answers]
    counts = [usage.get(name) if isinstance(usage, dict) else None for usage in usages]
    return sum(counts) if all(type(count) is int for count in counts) else None


def _ratings(questions: Sequence[Question]) -> list[Rating]:
    """Ratings of one subject from its kept answers; a metric whose answers were all declined has none."""
    found = []
    for metric in (NO_REF, WITH_REF):
        asked = [question for question in questions if question.metric == metric]
        by_repeat: dict[int, list[int]] = {}
        for question in asked:
            rating = json.loads(question.path.read_text())["rating"]
            if rating is not None:
                by_repeat.setdefault(question.repeat, []).append(rating)
        means = [float(np.mean(ratings)) for ratings in by_repeat.values()]
        if means:
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
            commit = store.read_sidecar(asked[0].path).get("commit", "unknown")
            found.append(Rating(metric, float(np.mean(means)), spread, commit))
    return found


def _usd(judge: Judge, read: int, written: int) -> float | None:
    """Price of tokens; None when the profile has no prices."""
    if judge.usd_per_million_input is None or judge.usd_per_million_output is None:
        return None
    return (read * judge.usd_per_million_input + written * judge.usd_per_million_output) / 1e6


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


class GptRs(Metric):
    """The judge's ratings; their spread over repeats stands in metrics.csv only."""

    columns = (
        Column(NO_REF, "GPT-RS no-ref", "1-10", 1, digits=2, floor=0.01, shown="always"),
        Column(
            *(WITH_REF, "GPT-RS with-ref", "1-10", 1),
            digits=2,
            floor=0.01,
            against="render",
            with_itself=True,
            shown="always",
        ),
        Column(f"{NO_REF}_spread", "GPT-RS no-ref", "", 0, floor=0.01, shown="never"),
        Column(
            *(f"{WITH_REF}_spread", "GPT-RS with-ref", "", 0),
            floor=0.01,
            against="render",
            with_itself=True,
            shown="never",
        ),
    )
    version = VERSION
    own_clips, last, rates_real = False, True, True


METRIC = GptRs()
