"""What a finished run took: minutes, memory and disk, and an estimate of its energy (ours).

Reads RUN/notebooks/times.json and the size of RUN, on the machine that made it; writes results/reference/mini/cost.json, from
which `make docs` makes the tables. With codecarbon (the extra `artifact`) it also keeps all cores busy for some seconds and takes codecarbon's power; where
the machine has no meter that is the processor's rated power and a fixed one for memory: an estimate, and marked as one.

    python benchmarks/cost.py results/mini --cores 2
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rmkit.kit import machine, store
from rmkit.paths import REPOSITORY

OUT = REPOSITORY / "results" / "reference" / "mini" / "cost.json"
SECONDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "run", type=Path, help="folder of a run that was made in one go, results/mini or another"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many it had (all)")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    times = arguments.run / "notebooks" / "times.json"
    if not times.is_file():
        sys.exit(f"cost: {times} does not exist: run `make reproduce` first, in one go.")
    about = {"run": arguments.run.name, "machine": machine.machine(), "cores": arguments.cores}
    cost = {**about, **measured(arguments.run), "power": power()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(arguments.out, cost)
    print(json.dumps(cost, indent=1))


def measured(run: Path) -> dict:
    """Seconds and MiB of each notebook, and MiB of disk of the run's folder."""
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    notebooks = json.loads((run / "notebooks" / "times.json").read_text())
    return {"notebooks": notebooks, "disk_mib": round(size / 2**20)}


def power(seconds: float = SECONDS) -> dict | None:
    """Watts of processor, memory and GPU with all cores busy, by codecarbon; None without it."""
    if find_spec("codecarbon") is None:
        return None
    import codecarbon

    # Of the country, which carbon depends on, nothing is used: energy alone is taken.
    tracker = codecarbon.OfflineEmissionsTracker(
        country_iso_code="USA",
        save_to_file=False,
        log_level="error",
        measure_power_secs=1,
        allow_multiple_runs=True,
    )
    with multiprocessing.Pool(os.cpu_count()) as pool:
        tracker.start()
        pool.map(_busy, [seconds] * os.cpu_count())
        tracker.stop()
    found = tracker.final_emissions_data
    watts = {
        part: getattr(found, f"{part}_energy") * 3.6e6 / found.duration for part in ("cpu", "ram", "gpu")
    }
    meter = Path("/sys/class/powercap/intel-rapl").exists()
    how = "measured by the processor's meter" if meter else "estimated from the processor's rated power"
    return {key: round(value, 1) for key, value in watts.items()} | {
        "how": f"codecarbon {codecarbon.__version__}, {how}"
    }


def _busy(seconds: float) -> None:
    end, matrix = time.monotonic() + seconds, np.ones((200, 200))
    while time.monotonic() < end:
        matrix @ matrix


if __name__ == "__main__":
    main()
