"""Runway Aleph against a local fake of its HTTP interface, which misbehaves in every way that services do."""

import asyncio
import email
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import test_gpt_rs
from test_gpt_rs import PASSING, SILENCE, Behaviour, breaks_off, is_silent, says, written

from rmkit import baselines, cli, profile
from rmkit.baselines import runway_aleph
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, having
from rmkit.kit import store, video
from rmkit.method import sampling
from rmkit.pipeline import doctor, plan_table

SECRET = "key_test_9d1f7c3ab20e4465"
ROUTES = ("begin", "upload", "submit", "poll", "fetch")  # an upload has two steps


class Handler(test_gpt_rs.Handler):
    """Answers each route by its script, then well; notes what came."""

    server: "Runway"

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        route = {"/v1/uploads": "begin", "/bucket": "upload"}.get(self.path, "submit")
        if route != "upload":
            self.body = json.loads(self.body)
        self.answer(route)

    def do_GET(self) -> None:
        self.body = None
        self.answer("poll" if self.path.startswith("/v1/tasks/") else "fetch")

    def answer(self, route: str) -> None:
        server = self.server
        with server.lock:
            server.requests.append((route, self.path, self.headers, self.body))
            script = server.scripts[route]
            behave = script.pop(0) if script else server.otherwise[route]
        behave(self)


class Runway(ThreadingHTTPServer):
    """The service on this machine: a task is pending, runs, and is done; its video is the negative, enlarged, at 24 fps."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.lock = folder, threading.Lock()
        self.requests: list[tuple[str, str, Message, Any]] = []
        self.scripts: dict[str, list[Behaviour]] = {route: [] for route in ROUTES}
        self.otherwise: dict[str, Behaviour] = {
            "begin": begins,
            "upload": keeps,
            "submit": accepts(),
            "poll": is_done,
            "fetch": serves,
        }
        self.links = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, route: str) -> int:
        return len([request for request in self.requests if request[0] == route])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is what some tests are about."""


def begins(handler: Handler) -> None:
    address = f"http://localhost:{handler.server.server_port}/bucket"
    fields = {"policy": "for one file"}
    handler.send(200, {"uploadUrl": address, "fields": fields, "runwayUri": "runway://clip"})


def keeps(handler: Handler) -> None:
    """Takes a form with the fields that were asked for, and a video."""
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + handler.body).get_payload()
    policy, clip = (part.get_payload(decode=True) for part in parts)
    assert policy == b"for one file" and parts[1].get_filename() == "clip.mp4"
    (handler.server.folder / "source").write_bytes(clip)
    handler.send(204, b"")


def accepts(size: tuple[int, int] = (64, 96), seconds: float = 9 / 16) -> Behaviour:
    def behave(handler: Handler) -> None:
        server = handler.server
        assert handler.body["videoUri"] == "runway://clip"
        with server.lock:
            task = f"task-{len(list(server.folder.glob('*.mp4')))}"
            frames = [cv2.resize(255 - frame, size[::-1]) for frame in video.stream(server.folder / "source")]
            shown = [
                frames[min(int((i + 0.5) * 16 / 24), len(frames) - 1)] for i in range(round(seconds * 24))
            ]
            video.write_viewing_copy(server.folder / f"{task}.mp4", np.stack(shown), 24)
        handler.send(200, {"id": task})

    return behave


def is_at(status: str, **more: Any) -> Behaviour:
    return lambda handler: handler.send(
        200, {"id": handler.path.rpartition("/")[2], "status": status, **more}
    )


def is_done(handler: Handler) -> None:
    handler.server.links += 1
    name = f"{handler.path.rpartition('/')[2]}.mp4?signature={handler.server.links}"
    is_at("SUCCEEDED", output=[f"{handler.server.address}/files/{name}"])(handler)


def serves(handler: Handler) -> None:
    name = handler.path.removeprefix("/files/").partition("?")[0]
    handler.send(200, (handler.server.folder / name).read_bytes())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Runway]:
    folder = tmp_path / "service"
    folder.mkdir()
    with Runway(folder) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


def asking(made: profile.Profile, **changes: Any) -> profile.Profile:
    content = made.model_dump()
    content["baselines"]["runway_aleph"] = content["baselines"].get("runway_aleph", {}) | changes
    return profile.Profile.model_validate(content)


@pytest.fixture
def settings(
    server: Runway, tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> profile.Profile:
    """A profile that asks for Aleph at the local server, for half a dollar a clip."""
    monkeypatch.setenv(runway_aleph.KEY, SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(runway_aleph, "ATTEMPTS", 4)
    monkeypatch.setattr(runway_aleph, "PAUSE", 0.001)
    monkeypatch.setattr("runwayml._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("runwayml.lib.polling.POLL_TIME", 0.01)
    monkeypatch.setattr("runwayml.lib.polling.POLL_JITTER", 0)
    return asking(tiny_profile, base_url=server.address, usd_per_second=0.5)


@pytest.fixture
def held(settings: profile.Profile, tiny_clips: list[sampling.Clip]) -> list[sampling.Clip]:
    return tiny_clips[2:]


def make(settings: profile.Profile, clips: list[sampling.Clip]) -> None:
    baselines.make(settings, clips, baselines.asked(settings))


def made(settings: profile.Profile, clip: sampling.Clip) -> Path:
    return settings.layout.enhanced / "runway_aleph" / f"{clip.id}.mp4"


def is_negative(settings: profile.Profile, clip: sampling.Clip) -> bool:
    """Whether a clip came back as the service makes it, frame by frame, but for its codec."""
    frames, render = video.read(made(settings, clip)), video.read(sampling.path(settings, clip))
    assert frames.shape == render.shape
    errors = np.abs(frames.astype(int) - (255 - render.astype(int))).mean(axis=(1, 2, 3))
    return bool((errors < 12).all())


def test_each_clip_is_bought_and_downloaded_once(server, settings, held, monkeypatch) -> None:
    server.scripts["poll"] = [is_at("PENDING"), is_at("THROTTLED"), is_at("RUNNING", progress=0.5)]
    make(settings, held)
    assert all(is_negative(settings, clip) for clip in held)
    assert [server.count(route) for route in ROUTES] == [2, 2, 2, 3 + 2, 2]
    for route, path, headers, body in server.requests:
        if route in ("upload", "fetch"):  # clips and results lie with somebody else: the key is not for them
            assert "Authorization" not in headers and "X-Runway-Version" not in headers
            continue
        assert headers["Authorization"] == f"Bearer {SECRET}" and headers["X-Runway-Version"] == "2024-11-06"
        assert headers["User-Agent"].startswith("AsyncRunwayML/Python ")
        if route == "submit":
            assert path == "/v1/video_to_video" and set(body) == {"model", "promptText", "videoUri", "seed"}
            assert (body["model"], body["promptText"]) == ("aleph2", "make the video look photorealistic")
    # Done is done, with no key and no money; and what is lost of ours is made from what was bought.
    monkeypatch.delenv(runway_aleph.KEY)
    make(asking(settings, budget_usd=0), held)
    assert len(server.requests) == 13
    monkeypatch.setenv(runway_aleph.KEY, SECRET)
    before = made(settings, held[0]).read_bytes()
    made(settings, held[0]).unlink()
    make(settings, held)
    assert made(settings, held[0]).read_bytes() == before and len(server.requests) == 13
    # Another prompt is another order; and so is another model, one that the SDK does not know.
    make(asking(settings, prompt="a cartoon"), held[:1])
    assert server.count("submit") == 3
    make(asking(settings, model="aleph3"), held[:1])
    assert [body["model"] for route, _, _, body in server.requests if route == "submit"][3:] == ["aleph3"]


BEFORE = {"upload": "begin", "fetch": "poll"}  # who comes again with a route, for a fresh address


@pytest.mark.parametrize(
    ("route", "bad"),
    [(route, bad) for route in ROUTES for bad in PASSING]
    + [(route, says(200, b"[" * 1000)) for route in ROUTES if route != "upload"],
)
def test_what_may_pass_is_asked_again(server, settings, held, route: str, bad: Behaviour) -> None:
    server.scripts[route] = [bad, bad]
    make(asking(settings, timeout=SILENCE / 2) if bad is is_silent else settings, held[:1])
    assert is_negative(settings, held[0])
    often = (route, BEFORE.get(route))
    assert [server.count(each) for each in ROUTES] == [3 if each in often else 1 for each in ROUTES]


@pytest.mark.parametrize(
    ("route", "bad"),
    [
        ("begin", says(200, {"uploadUrl": "http://localhost"})),
        ("submit", says(200, {"task": 1})),
        ("submit", says(200, {"id": 7})),
        ("submit", says(200, {"id": ""})),
        ("poll", says(200, ["not", "an", "object"])),
        ("poll", says(200, {"id": "x"})),
        ("poll", is_at("SUCCEEDED", output=[])),
        ("poll", is_at("SUCCEEDED")),
        ("fetch", says(200, b"")),
        ("fetch", says(200, b"<html>sign in</html>")),
    ],
)
def test_an_answer_that_says_nothing_is_asked_again(server, settings, held, route: str, bad) -> None:
    server.scripts[route] = [bad]
    make(settings, held[:1])
    assert is_negative(settings, held[0]) and server.count(route) == 2


@pytest.mark.parametrize("route", ROUTES)
def test_what_does_not_pass_is_one_sentence_and_nothing_is_bought_twice(
    server, settings, held, route
) -> None:
    well, server.otherwise[route] = server.otherwise[route], says(500)
    said = {
        "upload": r"an upload fails \(HTTP 500\): run again later",
        "fetch": r"link leads to no video \(HTTPStatusError\): run again later, nothing is paid for twice",
    }
    tried = r"gave no usable answer in 4 attempts \(the last: HTTP 500\)"
    with pytest.raises(InputError, match=said.get(route, tried)):
        make(settings, held)
    assert server.count(route) == 4 and not made(settings, held[0]).exists()
    server.otherwise[route] = well
    make(settings, held)
    assert all(is_negative(settings, clip) for clip in held)
    assert server.count("submit") == (4 + 2 if route == "submit" else 2)


def test_a_notebook_has_an_event_loop_of_its_own(server, settings, held) -> None:
    async def cell() -> None:
        make(settings, held[:1])

    asyncio.run(cell())
    assert is_negative(settings, held[0])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (says(401), f"refuses the key in {runway_aleph.KEY} (HTTP 401)"),
        (says(400), "refuses the request (HTTP 400): check baselines.runway_aleph.model"),
        (says(404), "refuses the request (HTTP 404)"),
        (says(307, Location="http://127.0.0.1:1/elsewhere"), "refuses the request (HTTP 307)"),
    ],
)
def test_what_will_not_pass_is_not_asked_again(server, settings, held, bad: Behaviour, said: str) -> None:
    server.otherwise["submit"] = bad
    with pytest.raises(InputError) as error:
        make(settings, held)
    assert said in str(error.value) and [server.count(route) for route in ROUTES] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("before", [[], [is_at("RUNNING", progress=0.5)]])
@pytest.mark.parametrize(
    "fails",
    [
        is_at("FAILED", failure="no", failureCode="SAFETY.INPUT.TEXT"),
        is_at("FAILED", failure="no"),
        is_at("CANCELLED"),
        says(404),
    ],
)
def test_a_failed_task_leaves_its_clip_out_and_is_not_bought_again(
    server, settings, held, capsys, fails: Behaviour, before: list[Behaviour]
) -> None:
    server.scripts["poll"] = [*before, fails]
    make(settings, held)
    assert not made(settings, held[0]).exists() and is_negative(settings, held[1])
    out = capsys.readouterr().out
    assert f"runway_aleph: {held[0].id} is left out: task task-0: " in out and "to buy it again" in out
    make(settings, held)
    assert server.count("submit") == 2 and server.count("poll") == 2 + len(before)
    assert baselines.every(settings)["runway_aleph"].having(settings, held) == [held[1]]
    (made(settings, held[0]).parent / "paid" / f"{held[0].id}.task.json").unlink()
    make(settings, held)
    assert server.count("submit") == 3 and is_negative(settings, held[0])


def test_a_run_killed_between_submitting_and_downloading_goes_on(
    server, settings, held, tmp_path: Path
) -> None:
    code = (
        "import sys, pathlib; from rmkit import baselines, profile; from rmkit.method import sampling\n"
        "profile.REPOSITORY = pathlib.Path(sys.argv[1])\n"
        "made = profile.Profile.model_validate_json(sys.argv[2])\n"
        "baselines.make(made, sampling.load(made, 'validation'), baselines.asked(made))\n"
    )
    killed = threading.Event()
    server.otherwise["poll"] = lambda _: killed.wait(60)
    command = [sys.executable, "-c", code, str(tmp_path), settings.model_dump_json()]
    variables = os.environ | {"PYTHONPATH": str(profile.PROFILES.parents[1])}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        while not server.count("poll") and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    killed.set()
    assert [server.count(route) for route in ROUTES] == [1, 1, 1, 1, 0]
    server.otherwise["poll"] = is_done
    make(settings, held)
    assert all(is_negative(settings, clip) for clip in held)
    assert [server.count(route) for route in ROUTES] == [2, 2, 2, 1 + 2, 2]


def test_an_expired_link_is_asked_for_afresh(server, settings, held) -> None:
    server.scripts["fetch"] = [says(403), says(404)]
    make(settings, held[:1])
    assert is_negative(settings, held[0])
    assert [server.count(route) for route in ROUTES] == [1, 1, 1, 3, 3]
    links = [path for route, path, *_ in server.requests if route == "fetch"]
    assert len(set(links)) == 3
    server.otherwise["fetch"] = says(403)
    with pytest.raises(InputError, match=r"a finished task's link leads to no video .*: run again later"):
        make(settings, held)
    server.otherwise["fetch"] = serves
    make(settings, held)
    assert is_negative(settings, held[1]) and server.count("submit") == 2


def test_a_task_that_takes_too_long_is_waited_for_another_time(server, settings, held) -> None:
    server.otherwise["poll"] = is_at("RUNNING", progress=0.1)
    with pytest.raises(InputError, match="has not finished task task-0 after 0 s: run again later"):
        make(asking(settings, patience=0.05), held)
    server.otherwise["poll"] = is_done
    make(settings, held)
    assert server.count("submit") == 2


def test_the_cost_is_said_before_and_refused_beyond_the_budget(server, settings, held, capsys) -> None:
    with pytest.raises(
        InputError, match=r"would cost about 1\.00 USD for 2 clips, and its budget_usd is 0\.9"
    ):
        make(asking(settings, budget_usd=0.9), held)
    assert not server.requests
    server.otherwise["submit"] = says(400)
    with pytest.raises(InputError, match="refuses the request"):
        make(asking(settings, budget_usd=1), held)
    assert "runway_aleph: 2 clips, at most about 1.00 USD to come" in capsys.readouterr().out
    server.otherwise["submit"] = accepts()
    make(settings, held[:1])
    make(asking(settings, budget_usd=0.5), held)  # one is left to pay for
    assert having.why_no_row(settings, "runway_aleph").startswith("not run: metrics.csv has no row of it")
    assert baselines.usd(settings, 2) == {"runway_aleph": 1.0}
    plan_table.show(settings)
    assert "runway_aleph: at most about 1.00 USD" in capsys.readouterr().out
    paper = asking(profile.load("paper"), usd_per_second=0.28)
    assert baselines.usd(paper, 100)["runway_aleph"] == pytest.approx(168)  # six seconds begun


@pytest.mark.parametrize("value", [None, " ", "key\nwith a line break"])
def test_without_a_key_it_is_one_sentence_and_exit_code_2(
    server, settings, held, tmp_path: Path, monkeypatch, capsys, value: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ})
    os.environ.pop(runway_aleph.KEY)
    if value:
        os.environ[runway_aleph.KEY] = value
    path = tmp_path / "own.yaml"
    path.write_text(settings.model_dump_json())
    assert cli.main(["baselines", "--profile", str(path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("rmkit: ") and runway_aleph.KEY in line and "key\n" not in line
    assert [f.ok for f in doctor.check(settings) if f.what == "runway_aleph"] == [False]
    assert not server.requests


@pytest.mark.parametrize(
    "bad",
    [
        says(400, {"error": SECRET}),
        says(401, {"error": SECRET}),
        says(500),
        breaks_off,
        is_at("FAILED", failureCode=SECRET),
    ],
)
def test_the_key_goes_nowhere_but_into_the_header(
    server, settings, held, caplog, capsys, bad: Behaviour
) -> None:
    caplog.set_level(logging.DEBUG)
    server.scripts["submit"] = [says(500, {"error": SECRET})]
    server.scripts["begin"] = [says(200, {"error": SECRET})]
    server.otherwise["poll"] = bad
    said = []
    try:
        make(settings, held)
    except InputError as error:
        link: BaseException | None = error
        while link:
            said += [str(link), repr(link)]
            link = link.__cause__ or link.__context__
    said += [*capsys.readouterr(), caplog.text, written(settings.layout.root)]
    assert server.requests and not [text for text in said if SECRET in text]
    with pytest.raises(InputError, match="the key goes to RUNWAYML_API_SECRET") as error:
        baselines.validate(asking(settings, base_url="https://user:secret@host"))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("accept", "said"),
    [
        (accepts(size=(64, 64)), "frames of 64x64 do not show a clip of 32x48"),
        (accepts(seconds=6 / 16), "the video ends after 9 frames at 24 a second"),
    ],
)
def test_a_video_that_does_not_fit_is_left_out_and_kept(server, settings, held, capsys, accept, said) -> None:
    server.scripts["submit"] = [accept]
    make(settings, held)
    assert said in capsys.readouterr().out
    assert not made(settings, held[0]).exists() and is_negative(settings, held[1])
    assert runway_aleph.METHODS[0].paid(settings, held[0]).is_file()
    make(settings, held)
    assert server.count("submit") == 2


def test_it_is_measured_where_it_was_bought(server, settings, held, monkeypatch) -> None:
    make(settings, held[:1])
    methods = baselines.every(settings)
    there = {name: methods[name] for name in ("render", "runway_aleph")}
    monkeypatch.setattr(baselines, "every", lambda _: there)
    subjects = [each for each in evaluate.subjects(settings, held) if each.method == "runway_aleph"]
    assert [each.clip for each in subjects] == [held[0].id]
    rows = evaluate.measure(settings, subjects, ["sharpness"])
    assert {(row["method"], row["metric"]) for row in rows} == {("runway_aleph", "sharpness")}
    assert store.read_sidecar(made(settings, held[0]))["model"] == "aleph2"
