"""What the paper claims on its ablation (4.5), and what the miniature must show: each checked by a number.

Reads metrics.csv; writes nothing (tables.py writes the outcome). A claim that fails is stated as plainly as one
that holds.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from rmkit import metrics, statistics
from rmkit.statistics import Estimate


@dataclass(frozen=True)
class Claim:
    """One statement: `method` against `other` on a metric, by difference or ratio, within bounds."""

    id: str
    source: str
    statement: str
    metric: str
    method: str
    other: str
    kind: Literal["difference", "ratio"] = "difference"
    least: float = 0.0
    most: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A claim's number and what it says: undecided where the interval reaches over a bound."""

    claim: Claim
    found: Estimate
    verdict: Literal["holds", "does not hold", "undecided", "not run"]


_PAPER, _KIT = "paper, 4.5", "this kit"
_BETTER = [m for m in metrics.ALL if m.better]
CLAIMS = (
    Claim("gain_over_grading", _KIT, "RealMaster is at least 1 dB nearer to the truth than a colour transfer",
          "psnr_truth", "realmaster", "colour_transfer", least=1.0),
    Claim("edges_over_grading", _KIT, "Edges are nearer to the truth than a colour transfer",
          "psnr_truth", "edges", "colour_transfer"),
    Claim("sharp_realmaster", _KIT, "RealMaster is 0.7 to 1.2 times as sharp as the VAE ceiling",
          "sharpness", "realmaster", "vae_ceiling", "ratio", 0.7, 1.2),
    Claim("sharp_edges", _KIT, "Edges are 0.7 to 1.2 times as sharp as the VAE ceiling",
          "sharpness", "edges", "vae_ceiling", "ratio", 0.7, 1.2),
    Claim("sharp_ceiling", _KIT, "The VAE ceiling is at least 0.6 times as sharp as the truth",
          "sharpness", "vae_ceiling", "truth", "ratio", 0.6),
    Claim("edges_over_depth", _PAPER, "Edges are better than Depth", "psnr_truth", "edges", "depth"),
    Claim("edges_over_multi_anchor", _PAPER, "Edges are better than Multiple Anchors",
          "psnr_truth", "edges", "multi_anchor"),
    Claim("anchors_flicker", _PAPER, "Multiple Anchors flicker more than Edges",
          "temporal_flickering", "edges", "multi_anchor"),
    Claim("edges_over_depth_arcface", _PAPER, "Edges keep faces better than Depth", "arcface", "edges", "depth"),
    Claim("edges_over_multi_anchor_arcface", _PAPER, "Edges keep faces better than Multiple Anchors",
          "arcface", "edges", "multi_anchor"),
    *(
        Claim(f"realmaster_over_edges_{m.name}", _PAPER, f"RealMaster improves on Edges: {m.label}",
              m.name, "realmaster", "edges")
        for m in (*_BETTER, metrics.FACES[0], *metrics.JUDGED)
    ),
)  # fmt: skip
ORDER = ("realmaster", "edges", "depth", "multi_anchor")


def check(frame: pd.DataFrame) -> list[Outcome]:
    """Outcome of every claim, in the order of CLAIMS; those on faces and on ratings only where there are some."""
    names = {metric.name for metric in metrics.shown(frame.metric)}
    return [_check(frame, claim) for claim in CLAIMS if claim.metric in names]


def not_measured(frame: pd.DataFrame) -> str:
    """What the paper makes its claims on and this run did not measure."""
    columns = {"ArcFace": "arcface", "DINO": "dino", "GPT-RS": "gpt_rs"}
    missing = [name for name, metric in columns.items() if metric not in set(frame.metric)]
    if not missing:
        return (
            "Every measure that the paper makes its claims on was run. PSNR and SSIM to the truth are ours."
        )
    listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
    return (
        f"The paper makes its claims on ArcFace, DINO and GPT-RS; {listed} need models that this run does not have: "
        "not run. PSNR and SSIM to the truth stand in for them here; the paper has no truth."
    )


def observed_order(frame: pd.DataFrame, metric: str = "psnr_truth") -> list[tuple[str, float]]:
    """The ablation's methods from best to worst on a metric, with their means."""
    means = [(method, statistics.mean(frame, method, metric)) for method in ORDER]
    better = metrics.BY_NAME[metric].better
    known = [(method, found.value) for method, found in means if found.known]
    return sorted(known, key=lambda entry: -better * entry[1])


def _check(frame: pd.DataFrame, claim: Claim) -> Outcome:
    if claim.kind == "ratio":
        found = statistics.ratio(frame, claim.metric, claim.method, claim.other)
    else:
        found = statistics.difference(frame, claim.metric, claim.method, claim.other)
    if not found.known:
        return Outcome(claim, found, "not run")
    # "better than" asks for more than a tie; bounds of a ratio and "at least 1 dB" include themselves.
    above = found.low > 0 if claim.least == 0 else found.low >= claim.least
    if above and (claim.most is None or found.high <= claim.most):
        return Outcome(claim, found, "holds")
    below = found.high <= 0 if claim.least == 0 else found.high < claim.least
    if below or (claim.most is not None and found.low > claim.most):
        return Outcome(claim, found, "does not hold")
    return Outcome(claim, found, "undecided")
