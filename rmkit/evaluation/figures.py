"""Figures of a run, made from files under results/<profile>/ and never from live tensors (DESIGN, rule 2).

Reads metrics.csv (the shipped record's before there is one), the pairs, the anchors' sidecars and the learning curves;
writes figures/*.{png,pdf}. Each figure is a plain function of the profile, so that a notebook can show it and a widget can
call it again.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.evaluation import having, metrics_csv, plots, statistics
from rmkit.evaluation.plots import BLUE, LEGEND, ORANGE, SKY, VERMILION, nothing, style, subplots
from rmkit.kit import face_pack, store, video
from rmkit.method import identity, objective, record, sampling, training, wan
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 144
ANCHOR_FACTS = ("drift_pixels", "residual_pixels", "attempts", "measured", "accepted")  # of a sidecar


def draw(profile: Profile) -> dict[str, str]:
    """Draw and save every figure whose inputs are there; returns the others' names, each with what is missing."""
    measured = {"fidelity": fidelity, "temporal": temporal, "gain_by_clip": gain_by_clip}
    of_run = {"training": training, "anchors": anchor_residuals, "similarities": similarities}
    left_out: dict[str, str] = {}
    for name, figure in (measured | of_run).items():
        try:
            if name in of_run:
                metrics_csv.require_run(profile)
            save(profile, name, figure(profile))
        except InputError as error:
            left_out[name] = str(error)
    return left_out


def save(profile: Profile, name: str, figure: "Figure", folder: Path | None = None) -> list[Path]:
    """Write a figure as png and pdf to the run's `figures/` or to `folder`; without a date: the same data, the same bytes."""
    folder = folder or profile.layout.figures
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    undated = [{"dpi": DPI, "metadata": {"Software": None}}, {"metadata": {"CreationDate": None}}]
    for path, how in zip(paths, undated, strict=True):
        with store.replacing(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", **how)
    return paths


def fidelity(profile: Profile) -> "Figure":
    """Nearness to the truth, outlines kept and sharpness of every method, with 95 % intervals."""
    return _by_method(profile, ["psnr_truth", "ssim_truth", "edge_f1", "sharpness"])


def temporal(profile: Profile) -> "Figure":
    """Temporal metrics at 16 fps (the paper's) and on the source's distinct frames."""
    shown = [column.name for column in metrics.shown(())]
    return _by_method(profile, [name for name in shown if name.startswith(("temporal", "motion"))])


def gain_by_clip(profile: Profile) -> "Figure":
    """What each method gains over a colour transfer on each clip, in decibels of PSNR to the truth."""
    frame = metrics_csv.to_show(profile)
    table = frame[frame.metric == "psnr_truth"].pivot(index="clip", columns="method", values="value")
    figure, ax = subplots(1, width=7.5, height=3.2)
    if "realmaster" not in table or table.dropna(subset="realmaster").empty:
        return nothing(figure, ax, "no truth, so no PSNR to it")
    gains = table.sub(table["colour_transfer"], axis=0).sort_values("realmaster")
    known = baselines.every(profile)
    for method in ("edges", "realmaster"):
        if method in gains:
            ax.plot(range(len(gains)), gains[method], linestyle="none", **style(known[method]))
    ax.axhline(0, color=ORANGE, linewidth=1, label="Colour transfer")
    ax.axhline(1, color="#999999", linewidth=0.8, linestyle=":", label="1 dB")
    ax.set(xlabel="validation clips, by RealMaster's gain", ylabel="PSNR gain (dB)")
    ax.set_xticks([])
    ax.legend(**LEGEND, loc="upper left", bbox_to_anchor=(1, 1))  # clips lie everywhere
    return figure


def training(profile: Profile, name: str = training.NAME) -> "Figure":
    """Loss by step of each expert, its running mean, and the held-out pairs' by noise level."""
    return learning(record.read(profile, name), record.read(profile, name, "held_out"))


def learning(curve: pd.DataFrame, held_out: pd.DataFrame) -> "Figure":
    """The same of tables (`record.read`), for a training that is still going on."""
    experts = curve.expert.unique()
    figure, axes = subplots(2 * len(experts), columns=2, height=2.8)
    for expert, (left, right) in zip(experts, np.reshape(axes, (-1, 2)), strict=True):
        rows = curve[curve.expert == expert]
        window = max(1, len(rows) // 20)
        mean = rows.loss.rolling(window, min_periods=1).mean()
        left.plot(rows.step, rows.loss, ".", color=SKY, alpha=0.3, markersize=3)
        left.plot(rows.step, mean, color=VERMILION, label=f"mean of {window} pairs")
        left.set(title=f"{expert} noise: pairs trained on", ylabel="loss (squared error of velocity)")
        rows = held_out[held_out.expert == expert]
        if rows.empty:
            nothing(figure, right, "no pair held out (train.held_out)")
            continue
        shades = np.linspace(0.35, 1, rows["quantile"].nunique())
        for shade, (level, of_level) in zip(shades, rows.groupby("sigma"), strict=False):
            mean = of_level.groupby("step").loss.mean()
            right.plot(mean.index, mean, "o-", label=f"{level:.2f}", markersize=3, color=BLUE, alpha=shade)
        right.set(title=f"{expert} noise: held-out pairs, by sigma")
    for i, ax in enumerate(axes):
        ax.set(xlabel="optimiser step", yscale="log")
        beside = (
            {"loc": "upper left", "bbox_to_anchor": (1, 1)} if i % 2 else {}
        )  # lines cross all of the right side
        ax.legend(*ax.get_legend_handles_labels(), **LEGEND, **beside)
    return figure


def anchor_residuals(profile: Profile) -> "Figure":
    """Drift of the edited anchors before the gate and what was left after it, in pixels."""
    facts = anchor_facts(profile)
    figure, ax = subplots(1, width=6.5, height=3.2)
    if facts.empty:
        return nothing(figure, ax, "no anchors")
    limit = profile.anchors.max_shift * float(np.hypot(profile.clips.height, profile.clips.width))
    bins = np.linspace(0, max(limit * 1.2, facts.drift_pixels.max() * 1.05), 31).tolist()
    ax.hist(facts.drift_pixels, bins, color=ORANGE, alpha=0.7, label="as edited")
    line = {"histtype": "step", "color": BLUE, "linewidth": 1.5}
    ax.hist(facts.residual_pixels.dropna(), bins, label="after the gate", **line)
    ax.axvline(limit, color="black", linestyle="--", linewidth=1, label="refused beyond")
    ax.set(xlabel="shift against the render (pixels)", ylabel="anchors")
    refused, plain = (~facts.accepted).sum(), (~facts.measured).sum()
    ax.set_title(f"of {len(facts)} anchors {refused} refused, {plain} too plain to measure", fontsize=9)
    ax.legend(**LEGEND)
    return figure


def anchor_facts(profile: Profile) -> pd.DataFrame:
    """One row an anchor, from the sidecars: clip, frame, drift, residual, attempts, accepted."""
    rows = []
    for clip in sampling.load(profile):
        for picture in sorted((profile.layout.anchors / clip.id).glob("*.png")):
            facts = store.read_sidecar(picture)
            if "accepted" in facts:
                rows.append((clip.id, clip.split, int(picture.stem), *map(facts.get, ANCHOR_FACTS)))
    frame = pd.DataFrame(rows, columns=["clip", "split", "frame", *ANCHOR_FACTS])
    types = {"drift_pixels": float, "residual_pixels": float, "measured": bool, "accepted": bool}
    return frame.astype(types)


def similarities(profile: Profile) -> "Figure":
    """How alike faces are in the training pairs, kept and thrown away, and the filter's threshold."""
    settings = profile.identity
    figure, ax = subplots(1, width=6.5, height=3.2)
    if not settings.model_pack:
        return nothing(figure, ax, face_pack.NO_PACK)
    pairs = pd.DataFrame(identity.load(profile)).dropna(subset=["similarity"])
    if pairs.empty:
        return nothing(figure, ax, "no face was measured in any pair")
    bins = np.linspace(min(0.0, pairs.similarity.min()), 1, 31).tolist()
    kept = pairs.kept.astype(bool)
    for chosen, colour, label in ((kept, BLUE, "kept"), (~kept, VERMILION, "thrown away")):
        ax.hist(pairs.similarity[chosen], bins, color=colour, alpha=0.7, label=f"{label}: {chosen.sum()}")
    ax.axvline(settings.threshold, color="black", linestyle=":", label=f"threshold, {settings.threshold:g}")
    frames = "five frames" if settings.frames == "sampled" else "all frames"
    ax.set(xlabel=f"cosine of faces, {settings.over} over {frames} of a clip", ylabel="pairs")
    ax.legend(**LEGEND)
    return figure


def frame_changes(profile: Profile, clip: sampling.Clip) -> "Figure":
    """Change from each frame of a clip to the next: zero wherever a source frame is shown again."""
    frames = video.read(sampling.path(profile, clip)).astype(np.float32)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    figure, ax = subplots(1, width=6.5, height=2.4)
    ax.bar(np.arange(1, len(frames)), change, color=BLUE)
    ax.set(xlabel=f"frame ({profile.clips.fps} a second)", ylabel="mean change (grey levels)")
    return figure


def noise_levels(profile: Profile, sampler: str | None = None, draws: int = 20_000) -> "Figure":
    """Noise levels that the training draws for each expert, as densities; `sampler` shows another than the profile's."""
    import torch

    settings = profile.train if sampler is None else profile.train.model_copy(update={"sampler": sampler})
    figure, ax = subplots(1, width=6.5, height=2.8)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0))
    for expert, colour in zip(wan.experts(profile), (SKY, VERMILION), strict=False):
        levels = objective.sample_sigma(uniform, *expert.sigma, settings).numpy()
        label = f"{expert.name} noise, {expert.steps} steps"
        ax.hist(levels, np.linspace(0, 1, 81).tolist(), density=True, color=colour, alpha=0.7, label=label)
    ax.set(title=settings.sampler, xlabel="noise level sigma (0: clean, 1: noise)", ylabel="density")
    ax.set_xlim(0, 1)
    ax.legend(**LEGEND)
    return figure


def attention(tokens: int = 6) -> "Figure":
    """Who attends to whom in joint and one-way attention, with so many tokens of the reference and of the noisy clip."""
    from matplotlib.colors import ListedColormap

    # Blocks of queries times keys: 0 not attended, 1 attended, 2 attended and the same in every step.
    panels = {"joint": [[1, 1], [1, 1]], "one-way": [[2, 0], [1, 1]]}
    said = ("not attended", "attended", "attended, and\nthe same in every step")
    colours = ("#FFFFFF", SKY, ORANGE)
    figure, axes = subplots(len(panels), columns=len(panels), width=8.4, height=4.1)
    for ax, (mode, blocks) in zip(axes, panels.items(), strict=True):
        grid = np.kron(blocks, np.ones((tokens, tokens)))
        ax.pcolormesh(grid, cmap=ListedColormap(colours), vmin=0, vmax=2, edgecolors="#DDDDDD", linewidth=0.5)
        ax.axhline(tokens, color="black", linewidth=1.2)
        ax.axvline(tokens, color="black", linewidth=1.2)
        middles = [tokens / 2, 1.5 * tokens]
        for (y, x), block in np.ndenumerate(np.array(blocks)):
            ax.text(middles[x], middles[y], said[block], ha="center", va="center", fontsize=8)
        ax.set_xticks(middles, ["reference", "noisy"])
        ax.set_yticks(middles, ["reference", "noisy"], rotation=90, va="center")
        ax.set(title=mode, xlabel="keys: tokens that are read", ylabel="queries: tokens that read")
        ax.set_aspect("equal")
        ax.tick_params(length=0)
        ax.invert_yaxis()  # the reference first, as in the sequence
    return figure


def _by_method(profile: Profile, names: list[str]) -> "Figure":
    """A panel a metric of `names`, with every method that has one of them; those on fewer clips last, with their number."""
    frame, known = metrics_csv.to_show(profile), baselines.every(profile)
    rows = having.measured(frame)
    rows = rows[rows.metric.isin(names)]
    counts = {name: count for name, count in having.measured_clips(rows, list(known)).items() if count}
    full = max(counts.values(), default=0)
    apart = [name for name, count in counts.items() if count < full]
    labels = {known[name]: known[name].label for name in counts if name not in apart}
    labels |= {known[name]: f"{known[name].label}\n({counts[name]} of {full} clips)" for name in apart}
    columns = [metrics.columns()[name] for name in names]
    shown = {method.name for method in labels} | {"truth"}
    found = {(n, c.name): [statistics.mean(frame, n, c.name)] for n in shown for c in columns}
    return plots.panels(found, columns, labels, len(apart))
