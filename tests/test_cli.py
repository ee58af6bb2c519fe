"""The command line: each kind of bad input is one sentence and exit code 2, and nothing finished is lost."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rmkit import cli, profile
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.method import sampling
from rmkit.paths import REPOSITORY
from rmkit.pipeline import doctor, plan, stages


def refused(capsys: pytest.CaptureFixture, command: str, path: Path | str) -> str:
    """Run a command that must exit with 2; returns the one line it prints on standard error."""
    capsys.readouterr()
    assert cli.main([command, "--profile", str(path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rmkit: ")]
    return line


def contents(folder: Path) -> dict[str, str]:
    """Every file under a folder by its hash, but the note whose run it is, which comes before a stage is refused."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "run.json"]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def saved(made: profile.Profile, folder: Path, **changes: dict) -> Path:
    """The profile as a YAML file, some settings changed."""
    content = made.model_dump(mode="json")
    for group, values in changes.items():
        content[group] |= values
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def sampled(tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], tmp_path: Path) -> Path:
    """Path of a profile whose clips are sampled."""
    return saved(tiny_profile, tmp_path)


def test_importing_the_command_line_is_cheap():
    code = "import sys, rmkit, rmkit.cli; heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_it_runs_as_a_module_and_exits_with_2():
    command = [sys.executable, "-m", "rmkit", "plan", "--profile", "maxi"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("rmkit: unknown profile 'maxi'") and run.stderr.count("\n") == 1


def test_an_unknown_command_is_refused():
    assert cli.main(["paint"]) == 2
    assert cli.main([]) == 2
    assert cli.main(["plan", "--profil", "mini"]) == 2
    assert cli.main(["study", "--trials", "0"]) == 2


def test_every_stage_has_a_command_in_the_order_of_the_stages(capsys):
    assert cli.main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.split("Commands:")[1].splitlines() if line]
    others = ("study", "verify", "ship", "doctor", "plan", "calibrate")
    assert listed == ["notebooks", *stages.STAGES, *others]


def test_an_option_takes_several_values_as_a_shell_expands_them():
    given = ["study", "--answers", "a.csv", "b.csv", "--trials", "3", "--against", "edges"]
    written = ["study", "--answers", "a.csv", "--answers", "b.csv", "--trials", "3", "--against", "edges"]
    assert cli._one_value_each(given) == written


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from rmkit import cli; sys.exit(cli.main(['plan', '--profile', 'mini']))"
    shell = f'"{sys.executable}" -c "{code}" | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}'
    run = subprocess.run(["bash", "-c", shell], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stderr == ""


def test_unknown_key(capsys, tiny_profile: profile.Profile, tmp_path: Path):
    line = refused(capsys, "data", saved(tiny_profile, tmp_path, train={"learning_rat": 1}))
    assert "own.yaml: 'train.learning_rat': there is no such setting" in line


def test_missing_dataset(capsys, tiny_profile: profile.Profile, tmp_path: Path):
    path = saved(tiny_profile, tmp_path, data={"root": str(tmp_path / "nowhere")})
    assert "nowhere/train.json does not exist" in refused(capsys, "data", path)


def test_stages_before_their_inputs(capsys, tiny_profile: profile.Profile, tmp_path: Path):
    path = saved(tiny_profile, tmp_path)
    for command in ("anchors", "structure", "propagate", "filter", "enhance", "evaluate"):
        assert "01_data_prep" in refused(capsys, command, path)
    assert ".json does not exist" in refused(capsys, "train", path)


@pytest.mark.parametrize(
    ("command", "which"), [("anchors", "editor"), ("notebooks", "vace"), ("train", "wan")]
)
def test_missing_checkpoint(capsys, sampled: Path, tiny_profile, tmp_path: Path, command: str, which: str):
    before = contents(tiny_profile.layout.root)
    path = saved(tiny_profile, tmp_path, models={which: "no/such/folder"})
    line = refused(capsys, command, path)
    assert f"models.{which} is no/such/folder" in line and "does not exist" in line
    assert contents(tiny_profile.layout.root) == before


@pytest.mark.parametrize("kind", ["missing", "truncated", "oddly sized", "wrong rate"])
def test_bad_clip(capsys, sampled: Path, tiny_profile: profile.Profile, tiny_clips, kind: str):
    bad = sampling.path(tiny_profile, tiny_clips[1])
    frames = video.read(bad)
    if kind == "missing":
        bad.unlink()
    elif kind == "truncated":
        bad.write_bytes(bad.read_bytes()[:-500])
    elif kind == "oddly sized":
        video.write(bad, frames[:, :31, :47], 16)
    else:
        video.write(bad, frames, 25)
    before = contents(tiny_profile.layout.root)
    for command in ("anchors", "structure", "propagate"):
        assert bad.name in refused(capsys, command, sampled)
    assert contents(tiny_profile.layout.root) == before


def test_a_truncated_clip_is_made_again_by_the_first_stage(capsys, sampled: Path, tiny_profile, tiny_clips):
    bad = sampling.path(tiny_profile, tiny_clips[0])
    before = contents(tiny_profile.layout.clips)
    bad.unlink()
    tiny = profile.load(sampled)
    sampling.sample(tiny)
    after = contents(tiny_profile.layout.clips)
    assert after[bad.name] == before[bad.name]


def test_full_disk(capsys, sampled: Path, tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(tiny_profile.layout.root)
    with monkeypatch.context() as patch:
        patch.setattr(video, "write", full)
        line = refused(capsys, "structure", sampled)
    assert "the disk is full while writing" in line and "kept" in line
    assert contents(tiny_profile.layout.root) == before
    assert cli.main(["structure", "--profile", str(sampled)]) == 0


def test_full_disk_outside_the_store(capsys, sampled: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "clips.json")

    monkeypatch.setattr(sampling, "load", full)
    assert "the disk is full" in refused(capsys, "structure", sampled)


def test_other_errors_are_not_hidden(sampled: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(sampling, "load", fails)
    with pytest.raises(OSError, match="input/output"):
        cli.main(["structure", "--profile", str(sampled)])


def test_interrupted(capsys, sampled: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "load", interrupted)
    assert cli.main(["structure", "--profile", str(sampled)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_plan_counts_what_is_done(capsys, sampled: Path, tiny_profile: profile.Profile):
    steps = {step.stage: step for step in plan.steps(tiny_profile)}
    assert (steps["data"].count, steps["data"].done) == (4, 4)
    assert (steps["anchors"].count, steps["anchors"].done) == (
        2 * 2 + 2 * 3,
        0,
    )  # frames 0, 4, 8 in validation
    assert cli.main(["structure", "--profile", str(sampled)]) == 0
    structure = next(step for step in plan.steps(tiny_profile) if step.stage == "structure")
    assert structure.done == structure.count == 6 and structure.seconds is not None and structure.left == 0
    assert cli.main(["plan", "--profile", str(sampled)]) == 0
    assert "09_your_clip" in capsys.readouterr().out


def test_doctor_says_what_is_missing(capsys, sampled: Path, tiny_profile, tmp_path: Path):
    path = saved(tiny_profile, tmp_path, models={"editor": "no/such/folder"})
    assert cli.main(["doctor", "--profile", str(path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("MISSING")] == [
        line for line in lines if "no/such/folder" in line
    ]
    with pytest.raises(InputError, match="model editor"):
        doctor.require(profile.load(path))


def test_doctor_compares_with_the_lock(tmp_path: Path):
    lock = tmp_path / "lock"
    lock.write_text(
        f"# comment\nnumpy=={__import__('numpy').__version__}\ntorch==2.13.0\npyyaml==0.1\n"
        "no-such-thing==1\ncolorama==0.4.6 ; sys_platform == 'win32'\n"
    )
    pyyaml, absent = doctor.versions(lock)
    assert pyyaml.startswith("pyyaml ") and absent == "no-such-thing absent (lock: 1)"


def test_lock_is_a_closure_of_pins_without_addresses():
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = [line.partition("==")[0] for line in pins]
    assert all("==" in line and "/" not in line and not line.startswith("-") for line in pins)
    assert "torch==2.13.0" in pins and "opencv-python-headless" in names and "opencv-python" not in names
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]


def test_sidecars_survive_a_refusal(capsys, sampled: Path, tiny_profile: profile.Profile, tiny_clips):
    clip = tiny_clips[0]
    key = store.read_sidecar(sampling.path(tiny_profile, clip))["key"]
    refused(capsys, "enhance", sampled)  # no adapter yet
    assert store.read_sidecar(sampling.path(tiny_profile, clip))["key"] == key


def test_shards_on_the_command_line(capsys, sampled: Path, tiny_profile: profile.Profile):
    folder, before = tiny_profile.layout.structure / "edges", dict(os.environ)
    for shard, count in (("1/2", 2), ("1/2", 2), ("2/2", 4)):
        assert cli.main(["structure", "--profile", str(sampled), "--shard", shard]) == 0
        assert len(list(folder.glob("*.mp4"))) == count
    assert cli.main(["structure", "--profile", str(sampled), "--shard", "3/2"]) == 2
    assert "rmkit: --shard 3/2: it must be i/n, from 1/n to n/n." in capsys.readouterr().err
    assert dict(os.environ) == before
    assert (
        cli.main(["train", "--profile", str(sampled), "--shard", "1/2"]) == 2
    )  # it is not made clip by clip


@pytest.mark.parametrize(
    ("command", "file", "content"),
    [
        ("structure", "clips/clips.json", "["),
        ("structure", "clips/clips.json", '[{"id": "a", "split": "train"}]'),
        ("encode", "pairs/pairs.json", '[{"clip": '),
        ("encode", "pairs/pairs.json", '[{"clip": "a"}]'),
        (
            "encode",
            "pairs/pairs.json",
            '[{"clip": "a", "render": 5, "target": "b", "caption": "", "kept": true, "reason": ""}]',
        ),
        ("plan", "pairs/pairs.json", "{"),
    ],
)
def test_a_damaged_listing_of_the_runs_own(
    capsys, sampled: Path, tiny_profile: profile.Profile, command: str, file: str, content: str
):
    path = tiny_profile.layout.root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    before = contents(tiny_profile.layout.root)
    line = refused(capsys, command, sampled)
    assert str(path) in line and "delete it and" in line
    assert contents(tiny_profile.layout.root) == before
