"""What a reviewer asks of an artifact: tables and cards as their sources say, and files that other programs read."""

import fnmatch
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import rmkit
from rmkit import profile
from rmkit.evaluation import claims
from rmkit.paths import REPOSITORY

DIORAMA = REPOSITORY / "data" / "diorama"
MAKE_DOCS = "run `make docs`"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    yield importlib.import_module("generate")
    sys.modules.pop("generate")


@pytest.fixture
def hub_cards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DIORAMA))
    return importlib.import_module("hub_cards")


def tool(name: str) -> str:
    """A program beside this Python or on the PATH; skips the test without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or pytest.skip(f"{name} is not installed (docs/before_release.md)")


def test_the_tables_are_the_records(tables):
    assert tables.PAGE.read_text() == tables.page(), MAKE_DOCS
    assert tables.README.read_text() == tables.readme(tables.README.read_text()), MAKE_DOCS


def test_a_docstring_names_its_sections(tables):
    assert tables.named("Limits: small objects (paper, 3.2, Fig. 7 and 14, A).\n\nMore (4.5).") == [
        "3.2",
        "A",
    ]
    assert tables.named("Faces (3.3, 4.1, B.1), by a model (Wang et al. 2004; ours, 5).") == [
        "3.3",
        "4.1",
        "B.1",
    ]
    assert tables.named("Blur (ours; not in the paper).") == []


def test_the_moving_picture_is_small_and_moves():
    with Image.open(REPOSITORY / "docs" / "render_realmaster_truth.webp") as picture:
        assert picture.n_frames > 10 and Path(picture.filename).stat().st_size < 150_000
    assert "rendered with Blender" in (REPOSITORY / "README.md").read_text()


def test_every_claim_has_a_row_and_a_way(tables):
    rows = re.findall(r"\| `(\w+)` \|", tables.PAGE.read_text())
    assert rows == [claim.id for claim in claims.load()]
    ways = {claim.id: tables.road(claim) for claim in claims.load()}
    assert ways["newcomers"] == "limits"
    assert ways["keeps_identity"] == "run"
    assert ways["aleph_loses_identity"] == "baselines"
    assert ways["realmaster_more_real"] == "judge"
    assert ways["preferred_realism_editto"] == "study"
    assert ways["training_is_lightweight"] == "none"


def test_costs_add_up(tables):
    rows = {
        name: {"seconds": 90, "peak_mib": size}
        for name, size in (("00_a", 512), ("01_b", 2048), ("06_c", 256))
    }
    assert tables.taken({"notebooks": rows}, tables.RUN) == ("3", "2.0 GiB")
    assert tables.taken({"notebooks": rows}, ("06_",)) == ("+2", "0.2 GiB")
    assert tables.taken({"notebooks": rows}, ()) == (tables.NOT_HERE, tables.NOT_HERE)


def test_cost_reads_a_finished_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    cost = importlib.import_module("cost")
    (tmp_path / "notebooks").mkdir()
    times = {"00_start_here": {"seconds": 1.0, "peak_mib": 300, "device": "cpu"}}
    (tmp_path / "notebooks" / "times.json").write_text(json.dumps(times))
    (tmp_path / "clip.mp4").write_bytes(bytes(3 * 2**20))
    assert cost.measured(tmp_path) == {"notebooks": times, "disk_mib": 3}


def test_the_models_have_cards_of_the_hub(hub_cards):
    folders = {path.parent.name for path in (DIORAMA / "checkpoints").glob("*/card.json")}
    assert set(hub_cards.shipped()) == folders
    assert (DIORAMA / "checkpoints" / "README.md").read_text() == hub_cards.listing(), MAKE_DOCS
    for name in folders:
        file = DIORAMA / "checkpoints" / name / "README.md"
        assert file.read_text() == hub_cards.text(name), MAKE_DOCS
        card = ModelCard.load(file)
        assert card.data.license == "apache-2.0"
        for figure in json.loads(file.with_name("card.json").read_text())["figures"]:
            assert f"| {figure} |" in card.text


def test_croissant_names_the_files_that_are_there():
    described = json.loads((DIORAMA / "croissant.json").read_text())
    checksums, *sets = described["distribution"]
    sums = DIORAMA / checksums["contentUrl"]
    assert checksums["sha256"] == hashlib.sha256(sums.read_bytes()).hexdigest(), MAKE_DOCS
    listed = [f"clips/{line.split(maxsplit=1)[1]}" for line in sums.read_text().splitlines()]
    for entry in sets:
        assert fnmatch.filter(listed, entry["includes"]), entry["name"]
    assert not [
        name for name in listed if not any(fnmatch.fnmatch(name, entry["includes"]) for entry in sets)
    ]
    assert {key for key in described if key.startswith("rai:")} >= {"rai:dataCollection", "rai:dataBiases"}


def test_croissant_is_valid_and_gives_the_sequences(monkeypatch):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is in the extra `artifact`")
    monkeypatch.syspath_prepend(str(DIORAMA))
    written = DIORAMA / "croissant.json"
    assert written.read_text() == importlib.import_module("croissant").text(), MAKE_DOCS
    records = list(mlcroissant.Dataset(str(written)).records("sequences"))
    names = {record["sequences/sequence"].decode() for record in records}
    assert names == {path.parent.name for path in DIORAMA.glob("clips/*/*/meta.json")}


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/licences.md", "docs/before_release.md"]
)
def test_links_lead_somewhere(name):
    page = REPOSITORY / name
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_citations_agree():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    zenodo = json.loads((REPOSITORY / ".zenodo.json").read_text())
    assert citation["version"] == zenodo["version"] == rmkit.__version__
    assert citation["title"] == zenodo["title"]
    assert [author["name"] for author in citation["authors"]] == [
        maker["name"] for maker in zenodo["creators"]
    ]
    assert f"## {rmkit.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_citation_is_valid():
    command = [tool("cffconvert"), "--validate", "-i", str(REPOSITORY / "CITATION.cff")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_container_runs_the_two_commands():
    recipe = (REPOSITORY / "Dockerfile").read_text()
    image = re.search(r"^FROM python:(\d+)\.(\d+)\.\d+-\S+$", recipe, re.M)
    assert image, "the base image is pinned to a release of Python"
    assert (int(image[1]), int(image[2])) >= (3, 11)
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", recipe, re.M)[1]) == ["make"]
    assert json.loads(re.search(r"^CMD (.*)$", recipe, re.M)[1])[0] in targets
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
    assert (
        REPOSITORY / ".devcontainer" / container["build"]["dockerfile"]
    ).resolve() == REPOSITORY / "Dockerfile"
    assert container["postCreateCommand"].removeprefix("make ") in targets


def test_the_containers_recipe_is_clean():
    run = subprocess.run(
        [tool("hadolint"), "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and not run.stdout, run.stdout


@pytest.mark.parametrize("file", sorted(profile.PROFILES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_licence_of_each_model_is_looked_up(file):
    table = (REPOSITORY / "docs" / "licences.md").read_text()
    texts = [text.split("@")[0] for text in words(yaml.safe_load(file.read_text()))]
    hub = {text for text in texts if re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.safetensors)", text)}
    assert {name for name in hub if not name.startswith("data/") and f"`{name}`" not in table} == set()


def words(value: object) -> list[str]:
    """Every text inside a profile."""
    if isinstance(value, dict | list):
        return [
            text for part in (value.values() if isinstance(value, dict) else value) for text in words(part)
        ]
    return [value] if isinstance(value, str) else []
