"""What the kit stands: kills, bad inputs, two runs at once, read-only results, a clock set back, a full disk.

`python tests/campaign.py FOLDER [--parts NAME ...] [--csv FILE]` works in FOLDER/kit, a clone of this commit that it makes, so
that neither later commits nor your results are touched; ended, it goes on where it was. Every process's end is a line of
FOLDER/log.jsonl; the table printed is made of those alone. Linux, with `unshare` for what needs mounts. Hours.
"""

import argparse
import functools
import os
from collections import Counter
from pathlib import Path

import pandas as pd
from bad_inputs import plain
from campaign_kills import kills, unkilled
from campaign_mishaps import bad_inputs, clock, full_disk, read_only, together, with_mounts
from campaign_runs import BOOKS, DEMOS, STAGES, Campaign

SMOKE, MINI = 90, 10  # kills


# What must come out, by the name of the entries: the exit code.
ENDS = {"bad input": 2, "two at once": 0, "clock set back": 0, "read-only": 2, "full disk": 2}


def table(*campaigns: Campaign) -> pd.DataFrame:
    """A row for each kind: how often, and what came out that should not have."""
    rows = []
    for campaign in campaigns:
        kinds = {"kill": "killed run"} | {kind: f"{kind} run" for kind in ENDS}
        for kind, run in kinds.items():
            ends, runs = campaign.entries(kind), campaign.entries(run)
            if kind == "full disk":
                ends = [e for e in ends if e["code"]]
            codes = [e.get("codes", [e.get("code")]) for e in ends]
            said = [plain(e["said"]) for e in ends if e.get("said")]
            row = {
                "what": f"{kind}, {campaign.profile}",
                "times": len(ends),
                "other exit codes": sum(set(code) != {ENDS[kind]} for code in codes) if kind in ENDS else "",
                "sentences": len(set(said)),
                "of one sentence": max(Counter(said).values(), default=0),
                "runs compared": len(runs),
                "values compared": sum(e["values"] for e in runs),
            }
            # Of runs that are compared, and of single commands.
            for name in ("values_differ", "files_differ", "lost", "written", "left"):
                row[name.replace("_", " ")] = sum(len(e.get(name, ())) for e in [*ends, *runs])
            rows.append(row)
    return pd.DataFrame([row for row in rows if row["times"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--parts",
        nargs="*",
        default=tuple(PARTS),
        metavar="NAME",
        help=f"of {', '.join(PARTS)}; none: the table alone",
    )
    parser.add_argument("--csv", type=Path, help="write the table there too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    campaign, mini = (Campaign(given.folder, profile) for profile in ("smoke", "mini"))
    if given.inside:
        return {"read-only": read_only, "full disk": full_disk}[given.inside](campaign)
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order differ in their last bits
    for part in given.parts:
        of, whole = (mini, BOOKS[1:]) if part == "mini" else (campaign, (*STAGES, *DEMOS))
        unkilled(of, whole)
        PARTS[part](of)
    found = table(campaign, mini)
    print(found.to_string(index=False))
    if given.csv:
        found.to_csv(given.csv, index=False)


PARTS = {
    "kills": functools.partial(kills, parts=(*STAGES, *DEMOS), wanted=SMOKE),
    "bad-inputs": bad_inputs,
    "together": together,
    "clock": clock,
    "read-only": functools.partial(with_mounts, "read-only"),
    "full-disk": functools.partial(with_mounts, "full disk"),
    "mini": functools.partial(kills, parts=BOOKS[1:], wanted=MINI),
}

if __name__ == "__main__":
    main()
