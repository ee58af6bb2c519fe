"""What a result was made with: versions, machine and commit, for notebooks and the report.

Reads the installed packages' metadata and a run's notebooks/times.json; writes nothing.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from rmkit.kit import models, revision, store
from rmkit.profile import Profile

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "insightface",
    "onnxruntime",
)


def describe(profile: Profile, device: str) -> dict[str, str]:
    """Facts by name, in the order they are shown."""
    facts = {"profile": profile.name, "commit": revision.commit(), "device": device}
    facts |= {"compute type": profile.models.dtype, "machine": machine(), "python": platform.python_version()}
    return facts | {package: _version(package) for package in PACKAGES}


def machine() -> str:
    """System, processor, cores and memory in one line."""
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory"
    container = ", in a container" if Path("/.dockerenv").exists() else ""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory}{container}"


def show(profile: Profile) -> None:
    """Print the facts, one a line: the second cell of every notebook."""
    for name, fact in describe(profile, device_name(profile)).items():
        print(f"{name:>24}  {fact}")


def notebook_times(profile: Profile) -> dict[str, dict[str, Any]]:
    """Seconds, peak memory (MiB) and device of each notebook's last run; empty before the first."""
    path = profile.layout.notebooks / "times.json"
    return store.read_json(path) if path.is_file() else {}


def recorded_device(profile: Profile) -> str:
    """What the notebooks ran on, by their times.json: the report is made without torch."""
    devices = dict.fromkeys(times["device"] for times in notebook_times(profile).values())
    return ", ".join(devices) or "not recorded"


def device_name(profile: Profile) -> str:
    """The GPU's name, or cpu; without torch, with which everything but tables and figures is made, that there is none."""
    try:
        import torch
    except ImportError:
        return "no torch: tables and figures only"

    device = models.device(profile)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
