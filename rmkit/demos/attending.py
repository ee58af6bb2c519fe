"""Who attends to whom in a trained adapter: measured on one clip, by frame, and from single points (ours; paper, 3.2).

Reads a render, what RealMaster made of it, and the adapter; writes adapters/<name>/attention/<clip>.safetensors. Of each
expert, one forward of the model at the middle of its noise levels: queries and keys of every block's self-attention are
computed once more beside the model's own, which keeps no weights. At any size it takes about what a step of enhancing
does, and a few MB: of a frame at most QUERIES tokens are asked, and single points show their own frame alone.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.attention.one_way import rotate
from rmkit.errors import InputError
from rmkit.evaluation.plots import subplots
from rmkit.kit import encode, models, store, video
from rmkit.method import enhance, sampling, training, wan
from rmkit.method.incontext import in_context, training_mode
from rmkit.method.objective import prepare_inputs
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 2
QUERIES = (
    256  # tokens of a frame that are asked, evenly spaced; `mini` has 54 and asks all, the paper's size 3,750
)
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")


@models.given_back()
def measure(profile: Profile, clip: Clip, name: str = training.NAME) -> Path:
    """Measure the attention on a clip, once; returns the file.

    It holds of each expert `<expert>.frames` [blocks, heads, F, 2F], how much of the attention of a frame's noisy tokens
    goes to each frame of the render and then of the noisy clip, each row a sum of 1; and `<expert>.points`
    [blocks, 9, 2, H, W], how much of that of single tokens of the middle frame, at PLACES, goes to each token of the same
    frame of the render and of the noisy clip, mean of the heads. Raises InputError without the adapter or the enhanced clip.
    """
    import torch
    from safetensors.torch import save_file

    models.check(profile, "wan")
    folder, made = profile.layout.adapters / name, profile.layout.enhanced / name / f"{clip.id}.mp4"
    files = enhance.check_adapter(profile, folder)
    if not made.is_file():
        raise InputError(f"{made} does not exist: enhance the clip first (04_iclora_training).")
    path = folder / "attention" / f"{clip.id}.safetensors"
    mode, render = training_mode(enhance.mode(profile)), sampling.path(profile, clip)
    recipe = store.Recipe(
        stage="attention",
        version=VERSION,
        settings={
            "mode": mode,
            "prompt": enhance.prompt_of(profile, clip),
            **models.settings(profile, "wan"),
        },
        inputs={"render": store.fingerprint(render), "enhanced": store.fingerprint(made)} | files,
        seed=store.seed_for(profile.seed, "attention", clip.id),
        model=models.fingerprint(profile, "wan"),
    )
    if store.is_done(path, recipe):
        return path
    pipeline = enhance.load(profile, folder)
    with torch.no_grad():
        text = encode.text(pipeline, enhance.prompt_of(profile, clip))
        shown, target = (encode.latents(pipeline, video.read(each)).float() for each in (render, made))
        noise = torch.randn(target.shape, generator=models.generator(recipe.seed)).to(target)
        found: dict[str, torch.Tensor] = {}
        for expert in wan.experts(profile):
            transformer = getattr(pipeline, expert.part)
            sigma = torch.tensor([sum(expert.sigma) / 2], device=target.device)
            inputs = prepare_inputs({"render": shown, "target": target, "text": text}, noise, sigma)
            frames: list[torch.Tensor] = []
            points: list[torch.Tensor] = []
            with in_context(transformer, shown, mode):
                _, height, width = transformer.config.patch_size
                size = (target.shape[2], target.shape[3] // height, target.shape[4] // width)
                look = functools.partial(_look, size, frames, points)
                hooks = [block.attn1.register_forward_pre_hook(look) for block in transformer.blocks]
                try:
                    dtype = transformer.dtype
                    transformer(inputs.noisy.to(dtype), inputs.timestep, text.to(dtype), return_dict=False)
                finally:
                    for hook in hooks:
                        hook.remove()
            found |= {
                f"{expert.name}.frames": torch.stack(frames),
                f"{expert.name}.points": torch.stack(points),
            }
    with store.writing(path, recipe) as temporary:
        save_file(found, temporary)
    return path


def _look(
    size: tuple[int, int, int], frames: list, points: list, attention: Any, inputs: tuple[Any, ...]
) -> None:
    """Before a block's self-attention of rows [render; noisy]: what the noisy row's queries attend to.

    Joint and one-way attention are the same in that row; a head and a frame at a time, as (2L)^2 weights are too many.
    """
    import torch

    hidden, *_, rotary = inputs
    query, key = attention.norm_q(attention.to_q(hidden[1:])), attention.norm_k(attention.to_k(hidden))
    query, key = (
        rotate(states.unflatten(2, (attention.heads, -1)), *rotary).float() for states in (query, key)
    )
    count, height, width = size
    rows, columns = ([(2 * i + 1) * side // 6 for i in range(3)] for side in (height, width))
    chosen = [row * width + column for row in rows for column in columns]
    asked = torch.arange(number := min(height * width, QUERIES)) * (height * width) // number
    shares = torch.zeros(attention.heads, count, 2 * count)
    seen = torch.zeros(len(chosen), 2, height * width)

    def weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:  # [N, 2F, H W]
        return (queries @ keys.T / keys.shape[1] ** 0.5).softmax(dim=1).unflatten(1, (2 * count, -1)).cpu()

    for head in range(attention.heads):
        keys = key[:, :, head].flatten(0, 1)  # [2L, D/heads], the render's first
        frame_queries = query[0, :, head].unflatten(0, (count, -1))  # [F, H W, D/heads]
        for frame, queries in enumerate(frame_queries):
            shares[head, frame] = weights(queries[asked], keys).sum(dim=2).mean(dim=0)
        middle = [count // 2, count // 2 + count]  # of the render and of the noisy clip
        seen += weights(frame_queries[count // 2, chosen], keys)[:, middle] / attention.heads
    frames.append(shares)
    points.append(seen.unflatten(2, (height, width)))


def picture(
    profile: Profile,
    clip: Clip,
    name: str = training.NAME,
    expert: str | None = None,
    block: int | None = None,
    head: int | None = None,
    place: str = "middle",
) -> "Figure":
    """What `measure` found, as a figure: by frame; and from one point of the middle frame over that frame, both sides.

    expert: the first; block: the middle one; head: the mean of all; place: one of PLACES. Raises InputError as `measure`.
    """
    from safetensors.numpy import load_file

    found = load_file(measure(profile, clip, name))
    expert = expert or wan.experts(profile)[0].name
    of_blocks, points = found[f"{expert}.frames"], found[f"{expert}.points"]
    block = len(of_blocks) // 2 if block is None else block
    shares = of_blocks[block].mean(axis=0) if head is None else of_blocks[block, head]
    count = len(shares)
    figure, (left, *maps) = subplots(3, columns=3, width=10.5, height=2.9)
    grid = left.pcolormesh(100 * shares, cmap="viridis", vmin=0)
    left.axvline(count, color="white", linewidth=1.5)
    left.set(xticks=[count / 2, 1.5 * count], xticklabels=["render's frames", "noisy clip's frames"])
    left.set(
        ylabel="noisy frame that reads",
        title=f"{100 * shares[:, :count].sum() / count:.0f} % of it goes to the render",
    )
    left.invert_yaxis()
    figure.colorbar(grid, ax=left, label="% of its attention", fraction=0.05)
    chosen = points[block, PLACES.index(place)]  # [2, H, W]
    height, width = chosen.shape[1:]
    row, column = (
        (2 * i + 1) * side // 6
        for i, side in zip(divmod(PLACES.index(place), 3), (height, width), strict=True)
    )
    sources = (sampling.path(profile, clip), profile.layout.enhanced / name / f"{clip.id}.mp4")
    titles = ("from the cross, to the render", "and to the noisy clip (shown clean)")
    for ax, source, seen, title in zip(maps, sources, chosen, titles, strict=True):
        frames = video.read(source)
        frame = frames[round(count // 2 * (len(frames) - 1) / max(1, count - 1))]
        ends = (0, width, height, 0)
        ax.imshow(frame, extent=ends)
        high = chosen.max()
        # The less attention, the more of the picture is seen.
        heat = ax.imshow(100 * seen, cmap="inferno", alpha=seen / high, vmin=0, vmax=100 * high, extent=ends)
        ax.plot(column + 0.5, row + 0.5, "+", color="#56B4E9", markersize=12, markeredgewidth=2)
        ax.set(title=title, xticks=[], yticks=[], aspect=frame.shape[0] / frame.shape[1] * width / height)
    figure.colorbar(heat, ax=maps[-1], label="% a token", fraction=0.05)
    for ax in (left, *maps):
        ax.title.set_fontsize(9)
    which = "mean of all heads" if head is None else f"head {head + 1}"
    figure.suptitle(f"{expert} noise, block {block + 1} of {len(of_blocks)}, {which}", fontsize=10)
    return figure


def shape(profile: Profile, clip: Clip, name: str = training.NAME) -> tuple[list[str], int, int]:
    """Names of the experts, number of blocks and of heads that were measured."""
    from safetensors.numpy import load_file

    found = load_file(measure(profile, clip, name))
    experts = [key.removesuffix(".frames") for key in found if key.endswith(".frames")]
    return sorted(experts), *found[f"{experts[0]}.frames"].shape[:2]
