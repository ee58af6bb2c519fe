"""The judge against a local server that misbehaves in every way that endpoints do, and through to the tables."""

import base64
import io
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from rmkit import baselines, metrics, profile
from rmkit.baselines import real, truth
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, having, metrics_csv, tables
from rmkit.kit import endpoint, keys, store, video
from rmkit.method import propagation, sampling
from rmkit.metrics import gpt_rs
from rmkit.pipeline import doctor, notebooks

SECRET = "sk-test-4f1c9a7be2d05836"
HEIGHT, WIDTH, FRAMES = 32, 48, 9
SILENCE = 3.0  # seconds; half of it is ample for a true answer, even of a busy machine
Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's script, then well; notes what came and how much came at once."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, self.headers, body))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            behave = server.script.pop(0) if server.script else server.otherwise
        try:
            behave(self)
        finally:
            with server.lock:
                server.open -= 1

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if data is not content:
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """A judge on this machine; `script` is taken before `otherwise`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.open, self.most_open = threading.Lock(), 0, 0
        self.requests: list[tuple[str, Message, dict]] = []
        self.script: list[Behaviour] = []
        self.otherwise: Behaviour = rates(7)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is what some tests are about."""


def answer(content: Any, usage: dict | None = None, **message: Any) -> dict:
    text = content if isinstance(content, str) else json.dumps(content)
    return {
        "id": "x",
        "model": "test-model-2026",
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5} if usage is None else usage,
    }


def rates(rating: Any) -> Behaviour:
    return lambda handler: handler.send(200, answer({"rating": rating}))


def says(status: int, content: Any = None, **headers: str) -> Behaviour:
    return lambda handler: handler.send(status, content or {"error": {"message": "no"}}, **headers)


def is_silent(handler: Handler) -> None:
    time.sleep(SILENCE)
    handler.close_connection = True


def breaks_off(handler: Handler) -> None:
    """Promises an answer and hangs up in the middle of it."""
    data = json.dumps(answer({"rating": 9})).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def breaks_off_in_chunks(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'a\r\n{"choices"\r\n')
    handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


def asking(settings: profile.Profile, **changes: Any) -> profile.Profile:
    content = settings.model_dump()
    content["judge"] |= changes
    return profile.Profile.model_validate(content)


@pytest.fixture
def settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """A profile of two frames and two repeats, eight questions a clip, that asks the local server."""
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    monkeypatch.setenv(gpt_rs.KEY, SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(endpoint, "ATTEMPTS", 4)
    monkeypatch.setattr(endpoint, "PAUSE", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    expert = {"steps": 1, "sigma": (0.0, 1.0)}
    return profile.Profile.model_validate(
        {
            "name": "tiny",
            "data": {"train_clips": 0, "validation_clips": 2},
            "clips": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH},
            "models": {"wan": "w", "vace": "v", "editor": "e"},
            "train": {"low": expert, "high": expert},
            "enhance": {},
            "judge": {
                "base_url": server.address,
                "model": "test-model",
                "frames": 2,
                "repeats": 2,
                "usd_per_million_input": 10.0,
                "usd_per_million_output": 100.0,
            },
        }
    )


def subject(
    name: str = "clip", level: int = 120, frames: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> metrics.Subject:
    """Grey frames that differ: the i-th of the video has the level plus i, of the render i alone."""

    def stream(level: int) -> Iterator[np.ndarray]:
        return (np.full((HEIGHT, WIDTH, 3), level + i, np.uint8) for i in range(FRAMES))

    return metrics.Subject(
        method="realmaster",
        clip=name,
        frames={"output": lambda: stream(level), "render": lambda: stream(0)},
        inputs={"output": f"{name:0<32}", "render": f"{'render':0<32}"},
        source_frames=frames,
        count=FRAMES,
        times=1,
        sequence=name,
        subsets=(),
        folder=Path(),
    )


def rate(settings: profile.Profile, subjects: list[metrics.Subject]) -> list[dict[str, float]]:
    """Values of each subject by column, none where the judge does not run: as evaluate.py asks for them."""
    metric = gpt_rs.METRIC
    if metric.why_not(settings, subjects):
        return [{} for _ in subjects]
    measure = metric.ready(settings, subjects)
    return [dict(measure(each, metric.columns)) for each in subjects]


def levels(body: dict) -> list[int]:
    """Grey levels of the pictures in a request, in order."""
    found = []
    for part in body["messages"][1]["content"][1:]:
        kind, _, data = part["image_url"]["url"].partition(",")
        assert kind == "data:image/png;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert picture.shape == (HEIGHT, WIDTH, 3)
        found.append(int(picture[0, 0, 0]))
    return found


def written(folder: Path) -> str:
    """Everything that lies under a folder, names included."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(str(path) + path.read_bytes().decode("latin-1") for path in files)


def test_a_request_holds_the_papers_words_and_the_frames(server: Server, settings: profile.Profile) -> None:
    (found,) = rate(settings, [subject()])
    assert found == {"gpt_rs": 7.0, "gpt_rs_ref": 7.0, "gpt_rs_spread": 0.0, "gpt_rs_ref_spread": 0.0}
    prompts = yaml.safe_load(gpt_rs.PROMPTS.read_text())
    shown = {"gpt_rs": [], "gpt_rs_ref": []}
    for path, headers, body in server.requests:
        assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
        system, user = body["messages"]
        metric = "gpt_rs_ref" if len(user["content"]) == 3 else "gpt_rs"
        assert system == {"role": "system", "content": prompts[metric]["system"]}
        assert user["content"][0] == {"type": "text", "text": prompts[metric]["user"]}
        assert body["model"] == "test-model" and body["response_format"]["json_schema"]["strict"]
        shown[metric].append(levels(body))
    assert sorted(shown["gpt_rs"]) == [[120], [120], [128], [128]]
    # With reference image 1 is the render's frame, image 2 the clip's.
    assert sorted(shown["gpt_rs_ref"]) == [[0, 120], [0, 120], [8, 128], [8, 128]]


def test_the_prompts_name_their_source_and_ask_for_a_rating() -> None:
    content = yaml.safe_load(gpt_rs.PROMPTS.read_text())
    assert set(content) == {"source", "url", "gpt_rs", "gpt_rs_ref"}
    assert "arXiv 2603.23462" in content["source"] and content["source"].endswith("C.1")
    for metric in ("gpt_rs", "gpt_rs_ref"):
        lines = content[metric]["system"].splitlines()
        assert lines[-1] == "Return valid JSON only with a single key:rating(integer 1-10)."
    assert content["gpt_rs"]["system"].startswith("You are an expert in video synthesis results.")
    assert content["gpt_rs_ref"]["user"].endswith("Rate how successful the edit is.")


def test_five_frames_as_the_paper_samples_them() -> None:
    paper = profile.load("paper")
    assert gpt_rs.indices(paper) == [0, 20, 40, 60, 80]
    assert gpt_rs.indices(asking(paper, sampling="midpoints")) == [8, 24, 40, 56, 72]
    assert gpt_rs.indices(asking(paper, frames=200)) == list(range(81))


# What any endpoint may do once and not the next time.
PASSING = (
    says(429),
    says(429, Retry_After="0.01"),
    says(500),
    says(503, b"<html>busy</html>"),
    is_silent,
    breaks_off,
    breaks_off_in_chunks,
)


@pytest.mark.parametrize(
    "bad",
    [
        *PASSING,
        says(200, b'{"choices": ['),
        says(200, ["not", "an", "object"]),
        says(200, {"error": "overloaded"}),
        says(200, answer("seven")),
        says(200, answer("7")),
        says(200, answer("[" * 100_000)),
        says(200, answer({"score": 7})),
        rates(0),
        rates(11),
        rates(7.5),
        rates("seven"),
        rates(math.inf),
        rates(True),
        says(200, answer('{"rating": 7 or "rating": 8}')),
        says(200, answer('{"rating": 5} no, {"rating": 7}')),
        says(200, answer('{"rating": 5, "rating": 7}')),
        says(200, answer('{"rating": 7/10}')),
        says(200, answer('```json\n{"rating": 1')),  # cut short, perhaps of 10
        says(200, answer('{"rating": 70} // of 100')),
        rates(None),
    ],
)
def test_what_may_pass_is_asked_again(server: Server, settings: profile.Profile, bad: Behaviour) -> None:
    server.script = [bad, bad]
    timeout = SILENCE / 2 if bad is is_silent else 60
    one = asking(settings, frames=1, repeats=1, concurrency=1, timeout=timeout)
    (found,) = rate(one, [subject()])
    assert found == {"gpt_rs": 7.0, "gpt_rs_ref": 7.0}  # one repeat has no spread
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"rating": 7}\n```',
        'Here is my rating:\n\n{"rating": 7}\n\nThe image is a photograph in most respects, 9 of 10 would say.',
        '{"rating": 7} // convincing, though not a 9',
        '{\n  "rating": 7, // convincing\n}',
        "{'rating': 7}",
        '{"rating": "7"}',
        '{"rating": 7.0, "why": "soft"}',
        '{"rating": 7 /* of 10 */}',
        '<think>A "rating": 3, perhaps?\nNo.</think>\n{"rating": 7}',
        [{"type": "text", "text": '{"rating": 7}'}],
    ],
)
def test_a_rating_beyond_doubt_is_read(server: Server, settings: profile.Profile, text: Any) -> None:
    made = answer("")
    made["choices"][0]["message"]["content"] = text
    server.otherwise = says(200, made)
    (found,) = rate(asking(settings, frames=1, repeats=1, concurrency=1), [subject()])
    assert found == {"gpt_rs": 7.0, "gpt_rs_ref": 7.0} and len(server.requests) == 2


def test_what_cannot_be_read_is_shown_after_few_requests_and_kept(
    server: Server, settings: profile.Profile
) -> None:
    server.otherwise = says(200, answer("I am sorry, but as a language model " + "x" * 200))
    said = r"no rating can be read \(the last: an answer without a rating: 'I am sorry, but as a language model x+\.\.\.'\)"
    with pytest.raises(InputError, match=said):
        rate(asking(settings, concurrency=1), [subject()])
    assert len(server.requests) == endpoint.UNREADABLE
    (kept,) = settings.layout.judge.rglob("*.json")
    assert kept.name.endswith(".unread.json") and kept.read_text().count("I am sorry") == endpoint.UNREADABLE
    # Eight at once, four questions each: no more than the first of each is paid for, and nothing is lost.
    server.requests.clear()
    with pytest.raises(InputError, match="no rating can be read"):
        rate(asking(settings, concurrency=8), [subject("other")])
    assert len(server.requests) <= 8 + endpoint.UNREADABLE
    # What was paid for stands with the answers of the run that goes on.
    server.otherwise = rates(7)
    assert rate(settings, [subject()])[0]["gpt_rs"] == 7.0
    assert not list(kept.parent.glob("*.unread.json"))
    assert (
        sum(path.read_text().count("I am sorry") for path in kept.parent.glob("*.json"))
        >= endpoint.UNREADABLE
    )
    assert gpt_rs.spent(settings).answers >= 8 + endpoint.UNREADABLE


@pytest.mark.parametrize("bad", [says(429), says(500), breaks_off, says(200, b"<html>busy</html>")])
def test_what_does_not_pass_is_one_sentence(
    server: Server, settings: profile.Profile, bad: Behaviour
) -> None:
    server.otherwise = bad
    with pytest.raises(InputError, match=r"gave no usable answer in 4 attempts \(the last: .*run again"):
        rate(asking(settings, concurrency=1), [subject()])
    assert len(server.requests) == 4
    assert not list(settings.layout.judge.rglob("*.json"))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_one_sentence_and_no_retry(
    server: Server, settings: profile.Profile, status: int
) -> None:
    server.otherwise = says(status, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    with pytest.raises(InputError) as error:
        rate(asking(settings, concurrency=1), [subject()])
    host = f"127.0.0.1:{server.server_port}"
    assert (
        str(error.value) == f"{host} refuses the key in OPENAI_API_KEY (HTTP {status}): set another, or none."
    )
    assert len(server.requests) == 1
    with pytest.raises(InputError, match="refuses the key"):  # also when eight are refused at once
        rate(settings, [subject("a"), subject("b")])
    assert len(server.requests) <= 9


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (says(400), r"refuses the request \(HTTP 400\)"),
        (says(404), "'test-model' must take pictures"),
        (says(307, Location="http://127.0.0.1:1/elsewhere"), r"refuses the request \(HTTP 307\)"),
        (says(429, {"error": {"code": "insufficient_quota"}}), "no credit left"),
        (
            says(429, Retry_After="3600"),
            r"asks for a longer wait \(HTTP 429, Retry-After: 3600\): run again then",
        ),
    ],
)
def test_what_will_not_pass_is_not_asked_again(
    server: Server, settings: profile.Profile, bad: Behaviour, said: str
) -> None:
    server.otherwise = bad
    with pytest.raises(InputError, match=said):
        rate(asking(settings, concurrency=1), [subject()])
    assert len(server.requests) == 1


def test_a_request_that_waits_is_not_repeated_once_another_is_refused(
    server: Server, settings: profile.Profile
) -> None:
    server.script = [says(429, Retry_After="0.3"), says(401)]
    with pytest.raises(InputError, match="refuses the key"):
        rate(asking(settings, frames=1, repeats=1, concurrency=2), [subject()])
    assert len(server.requests) == 2


def test_nobody_there(settings: profile.Profile) -> None:
    with pytest.raises(InputError, match=r"the last: ConnectError"):
        rate(asking(settings, base_url="http://127.0.0.1:9/v1"), [subject()])


def test_a_declined_rating_is_an_answer(server: Server, settings: profile.Profile) -> None:
    refusal = says(200, answer("", refusal="I cannot rate this."))
    server.script = [refusal, rates(4)]
    one = asking(settings, frames=1, repeats=2, concurrency=1)
    (found,) = rate(one, [subject()])
    assert (found["gpt_rs"], found["gpt_rs_ref"]) == (4.0, 7.0) and "gpt_rs_spread" not in found
    server.otherwise = refusal
    assert rate(one, [subject("other")]) == [{}]
    assert len(server.requests) == 8


def test_repeats_have_a_spread(server: Server, settings: profile.Profile) -> None:
    # Asked one after the other: frame 0 twice, frame 8 twice; then the same with reference.
    server.script = [rates(r) for r in (4, 8, 5, 9, 1, 1, 1, 2)]
    (found,) = rate(asking(settings, concurrency=1), [subject()])
    assert found["gpt_rs"] == 6.5 and found["gpt_rs_spread"] == pytest.approx(np.std([4.5, 8.5], ddof=1))
    assert found["gpt_rs_ref"] == 1.25
    assert found["gpt_rs_ref_spread"] == pytest.approx(np.std([1.0, 1.5], ddof=1))


def test_nothing_is_paid_for_twice(server: Server, settings: profile.Profile, monkeypatch) -> None:
    both = [subject("one"), subject("two")]
    first = rate(settings, both)
    assert len(server.requests) == 16
    assert rate(settings, both) == first and len(server.requests) == 16
    # What is kept needs no key, whatever else has changed.
    monkeypatch.delenv(gpt_rs.KEY)
    assert rate(asking(settings, concurrency=3, budget_usd=0), both) == first
    monkeypatch.setenv(gpt_rs.KEY, SECRET)
    # Another model, prompt, clip, endpoint or repeat is another question; going back finds the old answers.
    rate(asking(settings, model="other"), both)
    assert len(server.requests) == 32
    assert rate(settings, both) == first and len(server.requests) == 32
    rate(asking(settings, repeats=3), both)
    assert len(server.requests) == 40
    rate(settings, [subject("one", frames=(5, 6, 7, 8, 9))])
    assert len(server.requests) == 48
    changed = json.loads(json.dumps(gpt_rs._prompts()))
    changed["gpt_rs"]["user"] += "!"
    monkeypatch.setattr(gpt_rs, "_prompts", lambda: changed)
    rate(settings, both)
    assert len(server.requests) == 56


def test_the_same_video_under_two_names_is_rated_once(server: Server, settings: profile.Profile) -> None:
    a, b = rate(settings, [subject(), subject()])
    assert a == b and len(server.requests) == 8


def test_a_killed_run_goes_on(server: Server, settings: profile.Profile, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, test_gpt_rs; from rmkit import profile\n"
        "profile.REPOSITORY = pathlib.Path(sys.argv[1])\n"
        "test_gpt_rs.rate(profile.Profile.model_validate_json(sys.argv[2]), [test_gpt_rs.subject()])\n"
    )
    one, killed = asking(settings, concurrency=1), threading.Event()
    server.script = [rates(3), rates(5), rates(7)]
    server.otherwise = lambda _: killed.wait(60)
    command = [sys.executable, "-c", code, str(tmp_path), one.model_dump_json()]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(gpt_rs.REPOSITORY), *sys.path[:8]])}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        while len(server.requests) < 4 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    killed.set()
    server.otherwise = rates(9)
    (found,) = rate(one, [subject()])
    assert (found["gpt_rs"], found["gpt_rs_ref"]) == (6.0, 9.0)  # three ratings of before, and what was left
    assert len(server.requests) == 4 + 5


def test_a_run_that_stopped_goes_on(server: Server, settings: profile.Profile) -> None:
    one = asking(settings, concurrency=1)
    server.script = [rates(7)] * 5 + [says(400)]
    with pytest.raises(InputError):
        rate(one, [subject()])
    kept = len([p for p in one.layout.judge.rglob("*.json") if store.sidecar_of(p).exists()])
    assert kept == 5
    # A kill between artefact and sidecar leaves an answer that counts as none.
    store.sidecar_of(
        next(p for p in one.layout.judge.rglob("*.json") if store.sidecar_of(p).exists())
    ).unlink()
    before = len(server.requests)
    assert rate(one, [subject()])[0]["gpt_rs"] == 7.0
    assert len(server.requests) - before == 8 - kept + 1
    assert not [p for p in one.layout.judge.rglob("*") if ".tmp" in p.name]


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_requests_at_once_than_allowed(server: Server, settings: profile.Profile, bound: int) -> None:
    def slowly(handler: Handler) -> None:
        """Holds requests back until as many are open as may be, and a little longer for one too many to come."""
        late = time.monotonic() + 30
        while server.most_open < bound and time.monotonic() < late:
            time.sleep(0.01)
        time.sleep(0.02)
        rates(5)(handler)

    server.otherwise = slowly
    rate(asking(settings, concurrency=bound), [subject("a"), subject("b")])
    assert server.most_open == bound and len(server.requests) == 16


def test_cost_before_and_after(server: Server, settings: profile.Profile, capsys) -> None:
    server.script = [rates(11), rates(3)]  # an unusable answer is paid for, too
    rate(asking(settings, concurrency=1), [subject()])
    out = capsys.readouterr().out
    expected = gpt_rs.forecast(settings, 1)
    assert expected.answers == 8
    assert f"test-model at 127.0.0.1:{server.server_port}, about {expected} to come" in out
    total = gpt_rs.spent(settings)
    assert total == gpt_rs.Cost(9, 900, 45, pytest.approx((900 * 10 + 45 * 100) / 1e6))
    assert f"judge: {total} in all" in out
    assert gpt_rs.spent(asking(settings, model="other")).answers == 0
    free = gpt_rs.spent(asking(settings, usd_per_million_input=None))
    assert free.usd is None and str(free) == "9 answers, 900 tokens read, 45 written, cost n/a"
    server.otherwise = says(200, answer({"rating": 5}, usage={}))
    rate(settings, [subject("other")])
    assert str(gpt_rs.spent(settings)) == "17 answers, tokens not told, cost n/a"


def judged(settings: profile.Profile) -> list[dict]:
    """Rows of a run without a clip."""
    return evaluate.measure(settings, evaluate.subjects(settings, []))


def test_real_footage_is_rated_as_a_method_of_its_own(
    server: Server, settings: profile.Profile, tmp_path: Path, capsys
) -> None:
    """Of any length and size, shown at the clips'; without reference, as there is no render of it."""
    folder = tmp_path / "footage"
    for name, count in (("walk", 5), ("drive", 21)):
        frames = np.stack([np.full((2 * HEIGHT, 4 * HEIGHT, 3), 40 + i, np.uint8) for i in range(count)])
        video.write(folder / f"{name}.mp4", frames, 25)
    filmed = asking(settings, real=str(folder), concurrency=1)
    assert gpt_rs.forecast(filmed, 3).answers == gpt_rs.forecast(settings, 3).answers + 2 * 2 * 2
    assert baselines.videos(filmed) == baselines.videos(settings)
    assert list(baselines.every(filmed)) == [*baselines.every(settings), "real"]
    assert baselines.every(filmed)["real"].label == "Real footage"
    server.script = [rates(9)] * 4 + [rates(r) for r in (8, 9, 8, 9)]
    rows = judged(filmed)
    seen = [levels(body)[0] for _, _, body in server.requests]
    assert seen == [40, 40, 60, 60, 40, 40, 44, 44]  # first and last, twice each
    assert "about 8 answers" in capsys.readouterr().out
    found = {(row["clip"], row["metric"]): row for row in rows}
    assert set(found) == {(clip, name) for clip in ("drive", "walk") for name in ("gpt_rs", "gpt_rs_spread")}
    assert {row["method"] for row in rows} == {"real"}
    assert (found["drive", "gpt_rs"]["value"], found["walk", "gpt_rs"]["value"]) == (9.0, 8.5)
    assert found["walk", "gpt_rs"]["artefact"] == store.fingerprint(folder / "walk.mp4")
    assert set(rows[0]) == set(metrics_csv.COLUMNS + metrics_csv.PROVENANCE)

    # Again: nothing is asked. Switched off: no row, and the folder does not matter.
    assert judged(filmed) == rows and len(server.requests) == 8
    assert judged(asking(filmed, enabled=False, real="no/such")) == []
    assert having.why_no_row(asking(filmed, enabled=False), "real").startswith(
        "not run: judge.enabled is false"
    )
    real.check(filmed)
    real.check(asking(filmed, enabled=False, real="no/such"))
    with pytest.raises(InputError, match=r"judge\.real is no/such, and .* holds no \.mp4 file"):
        real.check(asking(filmed, real="no/such"))
    (folder / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(InputError, match=r"broken\.mp4"):
        real.check(filmed)


def test_the_estimate_counts_as_openai_does() -> None:
    assert gpt_rs.image_tokens(1024, 1024) == 765 and gpt_rs.image_tokens(4096, 2048) == 1105
    assert gpt_rs.image_tokens(96, 144) == 255 and gpt_rs.image_tokens(800, 1200) == 1105
    paper = gpt_rs.forecast(profile.load("paper"), 100)  # a method on the benchmark, three repeats
    assert paper.answers == 3000 and 5 < paper.usd < 25


def test_beyond_the_budget_nothing_is_asked(server: Server, settings: profile.Profile) -> None:
    assert rate(asking(settings, budget_usd=1e-4), [subject()]) == [{}]
    poor = asking(settings, budget_usd=1e-4)
    assert gpt_rs.METRIC.why_not(poor, [subject()]).startswith("not run: it would cost about")
    assert not server.requests
    rate(asking(settings, budget_usd=1e-4, usd_per_million_input=None), [subject()])
    assert len(server.requests) == 8  # a price that is not known cannot be too high


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_a_key_nothing_is_asked(
    server: Server, settings: profile.Profile, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(gpt_rs.KEY) if value is None else monkeypatch.setenv(gpt_rs.KEY, value)
    assert rate(settings, [subject("a"), subject("b")]) == [{}, {}]
    assert gpt_rs.METRIC.why_no_row(settings) == "not run: the environment has no OPENAI_API_KEY."
    assert gpt_rs.judging(settings).startswith("not run")
    assert next(f for f in doctor.check(settings) if f.what == "judge").needed is False
    assert not server.requests and not settings.layout.judge.exists()


def test_a_profile_switches_it_off(server: Server, settings: profile.Profile) -> None:
    off = asking(settings, enabled=False)
    assert rate(off, [subject()]) == [{}] and not server.requests
    assert gpt_rs.METRIC.why_no_row(off) == "not run: judge.enabled is false in this profile."
    assert not profile.load("smoke").judge.enabled


@pytest.mark.parametrize("bad", [rates(7), says(400), says(401), breaks_off, rates(99)])
def test_the_key_goes_nowhere_but_into_the_header(
    server: Server, settings: profile.Profile, caplog, capsys, bad: Behaviour
) -> None:
    """Not even when the endpoint quotes it, in a good answer or in a bad one."""
    caplog.set_level(logging.DEBUG)
    echo = {"rating": 7, "seen": f"Bearer {SECRET}"}
    server.script = [says(200, answer(echo) | {"model": SECRET, SECRET: SECRET}), bad]
    server.otherwise = says(500, {"error": SECRET})
    said = []
    try:
        rate(asking(settings, concurrency=1), [subject()])
    except InputError as error:
        link: BaseException | None = error
        while link:
            said += [str(link), repr(link)]
            link = link.__cause__ or link.__context__
    said += [*capsys.readouterr(), caplog.text, written(settings.layout.root), repr(keys.read(gpt_rs.KEY))]
    assert not [text for text in said if SECRET in text]
    assert "[key]" in written(settings.layout.judge)
    assert not [body for _, _, body in server.requests if SECRET in json.dumps(body)]
    assert SECRET not in json.dumps(settings.model_dump()) + repr(settings)


@pytest.mark.parametrize("value", ["sk-a secret", "sk-secret\nX-Evil: 1", "sk-sécret", "sk-\x00secret"])
def test_what_cannot_be_a_key_is_not_quoted(settings: profile.Profile, monkeypatch, value: str) -> None:
    monkeypatch.setattr(keys.os, "environ", {gpt_rs.KEY: value})
    with pytest.raises(InputError, match="OPENAI_API_KEY holds something that is no key") as error:
        rate(settings, [subject()])
    assert "cret" not in str(error.value)
    judge = next(finding for finding in doctor.check(settings) if finding.what == "judge")
    assert judge.needed and not judge.ok


def test_a_short_key_of_a_local_server_leaves_answers_alone(
    server: Server, settings: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpt_rs.KEY, "1")
    server.otherwise = rates(10)
    assert rate(settings, [subject()])[0]["gpt_rs"] == 10.0


@pytest.mark.parametrize(
    "address", ["ftp://host/v1", "host/v1", "https://user:secret@host/v1", "https://host/v1?key=secret"]
)
def test_an_address_that_is_none_or_tells_too_much(settings: profile.Profile, address: str) -> None:
    with pytest.raises(ValueError, match=r"judge\.base_url") as error:
        profile.Judge(base_url=address)
    assert "secret" not in error.value.errors()[0]["msg"]


@pytest.fixture
def finished(
    settings: profile.Profile, tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip]
) -> profile.Profile:
    """A run with renders, RealMaster, a truth and no variants, that has only to be evaluated."""
    content = tiny_profile.model_dump()
    content["judge"] = settings.judge.model_dump()
    content["propagation"]["variants"] = ()
    made, pairs = profile.Profile.model_validate(content), []
    for clip in tiny_clips:
        frames = video.read(sampling.path(made, clip))
        video.write(made.layout.enhanced / "realmaster" / f"{clip.id}.mp4", frames // 2 + 64, 16)
        if clip.split == "train":
            video.write(propagation.path(made, "edges", clip), frames // 2 + 60, 16)
            sides = {"render": sampling.path(made, clip), "target": propagation.path(made, "edges", clip)}
            names = {side: path.relative_to(made.layout.root).as_posix() for side, path in sides.items()}
            pairs.append(names | {"clip": clip.id, "caption": clip.caption, "kept": True, "reason": ""})
        else:
            sequence = sampling.sequence_of(made, clip)
            whole = sequence.frames(range(len(sequence)))
            video.write(truth.path(made, clip), whole // 2 + 50, 8)
    made.layout.pairs.mkdir(parents=True)
    store.write_json(made.layout.pairs / "pairs.json", pairs)
    return made


def test_through_to_the_tables(
    server: Server, finished: profile.Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # First without a key: no row, no value, no claim, and a note that says why.
    monkeypatch.delenv(gpt_rs.KEY)
    computed = evaluate.evaluate(finished).read_text()
    assert "gpt_rs" not in computed and not server.requests
    before = {table.name: table for table in tables.build(finished)}
    assert "GPT-RS: not run: the environment has no OPENAI_API_KEY." in before["table2"].notes
    columns = [i for i, name in enumerate(before["table2"].header) if "GPT-RS" in name]
    assert {row[i] for row in before["table2"].cells for i in columns} == {"not run"} and len(columns) == 2
    last = next(book for book in notebooks.series() if book.name == "05_evaluation")
    without_key = notebooks._recipe(finished, last, ()).key

    # With one: every method is rated, render and truth among them, and what was there stays.
    monkeypatch.setenv(gpt_rs.KEY, SECRET)
    assert notebooks._recipe(finished, last, ()).key != without_key
    assert "run 05_evaluation again" in " ".join(tables.build(finished)[0].notes)
    server.otherwise = rates(6)
    text = evaluate.evaluate(finished).read_text()
    assert set(computed.splitlines()) < set(text.splitlines())
    frame = metrics_csv.load(finished)
    rated = frame[frame.metric.isin(["gpt_rs", "gpt_rs_ref"])]
    assert set(rated.method) == {*baselines.FIRST, *baselines.LAST[:-1]} - {
        *baselines.EXTERNAL,
        "multi_anchor",
        "depth",
        "edges",
    }
    assert set(rated.options) == {"model=test-model;repeats=2;frames=2;sampling=linspace"}
    assert set(frame.metric) == {
        column.name
        for metric in metrics.every()
        if metric.name in (*metrics.ORDER[:6], "gpt_rs")
        for column in metric.columns
        if not column.asked
    }
    asked = len(server.requests)
    assert asked == 2 * rated.method.nunique() * 8
    after = {table.name: table for table in tables.build(finished)}
    assert after["table2"].header[-2:] == ["GPT-RS no-ref ↑", "GPT-RS with-ref ↑"]
    assert [row[-2:] for row in after["table2"].cells if row[0] == "Truth"] == [["6.00 [6.00, 6.00]"] * 2]
    assert [row[:-2] for row in after["table2"].cells] == [row[:-2] for row in before["table2"].cells]
    assert "repeats=2" in " ".join(after["table2"].notes) and "differ by 0.00" in " ".join(
        after["table2"].notes
    )
    claimed = {row[1]: row[-1] for row in after["claims"].cells}
    assert claimed["RealMaster improves on Edges: GPT-RS no-ref"] == "not run"  # there are no Edges here
    assert "gpt_rs" in before["claims"].notes[0] and "gpt_rs" not in after["claims"].notes[0]

    # Again, without a key: the same file, nothing asked, and nowhere the key.
    monkeypatch.delenv(gpt_rs.KEY)
    assert evaluate.evaluate(finished).read_text() == text and len(server.requests) == asked
    assert SECRET not in written(tmp_path)

    # A judge that stops leaves the other metrics.
    monkeypatch.setenv(gpt_rs.KEY, SECRET)
    server.otherwise = says(401)
    with pytest.raises(InputError, match="refuses the key"):
        evaluate.evaluate(asking(finished, model="other"))
    assert finished.layout.metrics.read_text() == computed


def test_tables_know_neither_torch_nor_the_network() -> None:
    code = "import sys, rmkit.evaluation.tables; sys.exit(len({'torch', 'httpx', 'httpx2', 'openai'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=gpt_rs.REPOSITORY, check=True)
