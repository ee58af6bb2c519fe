"""Train the miniature's VACE: edges or depth and a few known frames in, the clip out.

Reads rendered sequences of the pretrain split, `<out>/wan_vae/` and the editor; writes `<out>/vace/` and at the end the
folder `<out>/checkpoints/vace`. Starts as the low-noise expert, at finer tokens. What it has to learn is where things
have gone, and no more: a few hundred clips are soon known by heart (known ones came out twice as near as new ones),
so it sees them in other colours, mirrored, backwards, slowed, behind one another, and through windows that move over
them; and since it would learn first that things stay where they are, its attention is told where they go (matches.py).

    python data/diorama/train_vace.py --rendered DIR --out DIR
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import architectures
import dataset
import loop
import matches
import numpy as np
import torch
import train_editor
import train_vae
from dataset import GREY, Shot
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate
from train_video import CAPTION_DROPOUT, Text, cached, channel_weights, encode, written_out_attention

from rmkit.kit import models
from rmkit.method import propagation
from rmkit.method.anchoring import edit_frame
from rmkit.method.objective import shifted

LEARNING_RATE = 1e-3
SHIFT = 5.0  # where there is more noise its control counts for more
# Structure and anchors of its clips, with their shares. The pipeline will ask for all but the last.
LAYOUTS = {
    ("edges", "ends"): 0.6,
    ("depth", "ends"): 0.16,
    ("edges", "multi"): 0.16,
    ("edges", "random"): 0.08,
}
CALM = 5  # one in so many clips is seen slowed down or still as well
WINDOWS = 1  # on each clip
LARGEST = 1.5  # times: a window on a larger picture can move faster than any camera does here
TELLING = 0.1  # weight of the loss of attention that is told where to look
CROP = (6, 9)  # latents: a quarter of a frame, whose attention costs a sixteenth


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=2, help="whole clips a step; twice as many windows")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="checkpoints folder whose VACE to go on from, or its expert where that VACE has other tokens",
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    written_out_attention(arguments.device)
    out, device, batch = arguments.out, arguments.device, arguments.batch
    shots = dataset.load(arguments.rendered, "pretrain", arguments.clips)
    vae = AutoencoderKLWan.from_pretrained(out / "wan_vae").to(device).eval()
    train_vae.channels_last(vae)
    whole = controlled(vae, whole_versions(shots), out / "latents" / "vace_whole.safetensors")
    clear = (shot for shot in shots if shot.weather == "clear")
    edit = Editor((arguments.start_from or out / "checkpoints") / "editor")
    whole = joined(whole, controlled(vae, clear, out / "latents" / "vace_edited.safetensors", edit))
    windows = controlled(vae, window_versions(shots), out / "latents" / "vace_windows.safetensors")
    text = Text(out, whole.captions + windows.captions, trained=False, start_from=arguments.start_from)
    text.encoder.to(device)
    weights = channel_weights(vae, np.stack([shot.truth[:5] for shot in shots[:4]]))
    model, anew = start(out, arguments.start_from)
    model.to(device)
    listening = [*model.vace_blocks[1:], model.blocks[-1]]
    told = [matches.Told(block.attn1) for block in listening]
    if arguments.compile:
        torch._dynamo.config.recompile_limit = 64  # the blocks are of two kinds, in sizes of three kinds
        for block in (*model.blocks, *model.vace_blocks):
            if block not in listening:  # what is told where to look has to be heard outside
                block.compile(dynamic=False)
    rate, steps = arguments.learning_rate, arguments.steps

    def loss(clips: Controlled, at_once: int, told=told, crop=None):
        return objective(model, told, text, clips, weights, at_once, device, crop)

    phases = []
    if anew:
        phases.append(loop.Phase("crops", 6 * steps, rate, loss(windows, 4 * batch, [], CROP), warmup=0.03))
    phases += [
        loop.Phase("windows", steps, rate, loss(windows, 2 * batch), warmup=0.03),
        loop.Phase("whole", steps, rate / 2, loss(whole, batch), warmup=0.03),
    ]
    loop.train(out / "vace", {"model": model}, phases)
    architectures.save_vace(out / "checkpoints" / "vace", model)


def whole_versions(shots: list[Shot]) -> Iterator[Shot]:
    """The clips as they are, some of them calm, and all in another version."""
    yield from shots
    # Where nothing moves all of an anchor can be kept, which clips that move do not teach.
    yield from (dataset.slowed(shot, np.random.default_rng((3, n))) for n, shot in enumerate(shots[::CALM]))
    yield from (version(shots, n, np.random.default_rng((4, n))) for n in range(len(shots)))


def window_versions(shots: list[Shot]) -> Iterator[Shot]:
    """Windows on other versions of the clips, half of them enlarged."""
    for n in range(WINDOWS * len(shots)):
        rng = np.random.default_rng((5, n))
        shot = version(shots, n % len(shots), rng)
        if rng.random() < 0.5:
            shot = dataset.enlarged(shot, rng.uniform(1.0, LARGEST))
        yield dataset.window(shot, rng)


def version(shots: list[Shot], number: int, rng: np.random.Generator) -> Shot:
    """A clip seen otherwise; half of the time with what is near in another one before it, coming or going as a rule."""
    back = dataset.varied(shots[number], rng)
    if rng.random() < 0.5:
        return back
    front = dataset.varied(shots[rng.integers(len(shots))], rng)
    return dataset.in_front_of(dataset.adrift(front, rng) if rng.random() < 0.7 else front, back)


@dataclass(frozen=True)
class Controlled:
    """Clips with their controls, as WanVACEPipeline makes them: what VACE is trained on."""

    truth: torch.Tensor  # normalised latents, float16 [N, C, F, H, W]
    control: torch.Tensor  # inactive and reactive latents, float16 [N, 2C, F, H, W]
    mask: torch.Tensor  # bool [N, F], true: generate
    places: (
        torch.Tensor
    )  # as of matches.where_from, float16 [N, 2, F, H, W, 2]; nowhere in ends that are not known
    own: torch.Tensor  # as of matches.contents, uint8 [N, F, H, W]
    ends: torch.Tensor  # likewise, int64 [N, 2, H, W]; everything in ends that are not known
    captions: list[str]

    def states(self, chosen: np.ndarray) -> torch.Tensor:
        """The control states of some clips: float32 [B, 2C + 64, F, H, W]."""
        control = self.control[chosen].float()
        shape = (len(chosen), 64, *control.shape[2:])
        return torch.cat([control, self.mask[chosen].float()[:, None, :, None, None].expand(shape)], dim=1)


class Editor:
    """Edits frames as the anchoring does it: uint8 [N, H, W, 3] of a render -> the same.

    The pipeline's anchors are not the truth. Each errs in its own way, and a VACE that has seen such ends need not
    keep to one of them. It learns what the editor gets wrong on new clips only from clips the editor was not trained on.
    """

    def __init__(self, folder: Path) -> None:
        self.profile = train_editor.using(folder)
        self.pipeline = models.load_editor(self.profile)
        self.fingerprint = models.fingerprint(self.profile, "editor")

    def __call__(self, frames: np.ndarray, seed: int) -> np.ndarray:
        """All of them drawn from one seed, as frame by frame from seeds that follow it."""
        return np.stack([edit_frame(self.profile, self.pipeline, f, seed + n) for n, f in enumerate(frames)])


@torch.no_grad()
def controlled(
    vae: AutoencoderKLWan, shots: Iterator[Shot], cache: Path, edit: Editor | None = None
) -> Controlled:
    """Latents of clips and of their controls, each in one layout drawn from LAYOUTS; with an editor, its anchors."""
    shots = list(shots)
    layouts, shares = list(LAYOUTS), list(LAYOUTS.values())

    def compute() -> dict[str, torch.Tensor]:
        rows = []
        for number, shot in enumerate(shots):
            rng = np.random.default_rng((1, number))
            structure, anchors = layouts[rng.choice(len(layouts), p=shares)]
            truth, lines = dataset.repeated(shot.truth), dataset.repeated(getattr(shot, structure))
            known = dataset.known_frames(anchors, len(truth), rng)
            where, grey = known[:, None, None, None], np.uint8(GREY)
            ends = truth
            if edit:
                ends = shot.truth.copy()
                chosen = np.flatnonzero(known) // 2  # of the distinct frames
                ends[chosen] = edit(shot.render[chosen], 100 * number)
                ends = dataset.repeated(ends)
            inactive, reactive = (np.where(where, *pair) for pair in ((ends, grey), (grey, lines)))
            z = encode(vae, np.stack([truth, inactive, reactive]))  # [3, C, F, H, W]
            unknown = ~known[[0, -1]]
            places = matches.where_from(shot.surface)
            places[unknown] = matches.NOWHERE
            own, seen = matches.contents(shot.objects)
            seen[unknown] = matches.EVERYTHING
            told = {"places": places, "own": own, "ends": seen}
            # Sampled in time by nearest-exact, as the pipeline does it.
            mask = torch.from_numpy(~known).float()[None, None]
            mask = interpolate(mask, size=(len(truth) + 3) // 4, mode="nearest-exact")[0, 0] > 0.5
            row = {"truth": z[0], "control": z[1:].flatten(0, 1), "mask": mask}
            rows.append(row | {name: torch.from_numpy(array) for name, array in told.items()})
            if (number + 1) % 50 == 0:
                print(f"latents of {number + 1} of {len(shots)} clips", flush=True)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    pictures = (getattr(shot, look) for shot in shots for look in ("truth", "depth", "edges"))
    settings = f"{LAYOUTS} {propagation.VERSION} {edit.fingerprint if edit else ''}"
    return Controlled(**cached(cache, vae, pictures, compute, settings), captions=[s.caption for s in shots])


def joined(first: Controlled, second: Controlled) -> Controlled:
    """Both one after the other."""
    names = [field.name for field in fields(Controlled) if field.name != "captions"]
    tensors = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names}
    return Controlled(**tensors, captions=first.captions + second.captions)


def start(out: Path, start_from: Path | None) -> tuple[WanVACETransformer3DModel, bool]:
    """These checkpoints' VACE, if its tokens are of today's size, or else one begun as the low-noise expert (true)."""
    if start_from:
        config = start_from / "vace" / "transformer" / "config.json"
        if config.exists() and json.loads(config.read_text())["patch_size"] == list(architectures.VACE_PATCH):
            found = WanVACETransformer3DModel.from_pretrained(config.parent, torch_dtype=torch.float32)
            return found.float(), False
        trained = start_from / "wan" / "transformer_2" / "diffusion_pytorch_model.safetensors"
    else:
        trained = out / "low" / "state" / "model.safetensors"
    model = architectures.vace_transformer()
    take_over(model, load_file(trained))
    for number, layer in enumerate(model.config.vace_layers):
        block, origin = model.vace_blocks[number], model.blocks[layer]
        # Each VACE block starts as the block it stands beside; its output projection starts at zero.
        block.load_state_dict(origin.state_dict(), strict=False)
        nn.init.zeros_(block.proj_out.weight)
        nn.init.zeros_(block.proj_out.bias)
    see_control_as_clip(model)
    return model, True


@torch.no_grad()
def take_over(model: WanVACETransformer3DModel, expert: dict[str, torch.Tensor]) -> None:
    """Start VACE as the expert whose weights these are, at one latent a token where the expert has a patch of them.

    Embeddings of a patch's places add up, what is said of them is averaged: where a patch's latents are alike, VACE
    says what the expert said. What its feed-forward parts have more than the expert's counts for nothing at first.
    Raises ValueError for an expert that VACE's blocks cannot be made of.
    """
    places = expert["proj_out.weight"].shape[0] // model.config.out_channels
    fitted = {
        "patch_embedding.weight": expert["patch_embedding.weight"].sum((2, 3, 4), keepdim=True),
        "proj_out.weight": expert["proj_out.weight"].unflatten(0, (places, -1)).mean(0),
        "proj_out.bias": expert["proj_out.bias"].unflatten(0, (places, -1)).mean(0),
    }
    own = model.state_dict()
    for name, tensor in expert.items():
        tensor = fitted.get(name, tensor)
        if name not in own or any(a > b for a, b in zip(tensor.shape, own[name].shape, strict=True)):
            raise ValueError(f"VACE cannot start from this expert: {name} has no room")
        if name.endswith("ffn.net.2.weight"):
            own[name].zero_()
        own[name][tuple(slice(size) for size in tensor.shape)] = tensor


@torch.no_grad()
def see_control_as_clip(model: WanVACETransformer3DModel) -> None:
    """Have VACE's control arrive in its first block as the clip's own latents arrive in the model.

    A random embedding of structure is noise at first, and is trained away before anything reads it: after 9,000
    steps its weights were a fifth of the anchors'. With this one grey clips are read within 200 steps.
    """
    embedding, own = model.vace_patch_embedding, model.patch_embedding
    channels = own.weight.shape[1]
    embedding.weight[:, :channels] = own.weight  # anchors
    embedding.weight[:, channels : 2 * channels] = own.weight  # structure
    embedding.weight[:, 2 * channels :] *= 0.1  # masks
    embedding.bias.copy_(own.bias)
    first = model.vace_blocks[0].proj_in
    nn.init.eye_(first.weight)
    nn.init.zeros_(first.bias)


def objective(
    model: nn.Module,
    told: list[matches.Told],
    text: Text,
    clips: Controlled,
    weights: torch.Tensor,
    batch: int,
    device: str,
    crop: tuple[int, int] | None = None,
):
    """Flow matching on latents: predict noise minus data at sigma drawn with a shift; and to look where it is told.

    A channel's error counts by its weight, float32 [C]. With a crop, so many rows and columns of latents are seen of
    each clip, anywhere in it.
    """

    weights = weights.to(device)

    def loss(rng: np.random.Generator, generator: torch.Generator):
        chosen = rng.integers(len(clips.truth), size=batch)
        window = cropping(rng, clips.truth.shape[-2:], batch, crop)
        x0 = window(clips.truth[chosen].float()).to(device)  # [B, C, F, H, W]
        captions = [clips.captions[i] if rng.random() >= CAPTION_DROPOUT else "" for i in chosen]
        sigma = shifted(torch.rand(batch, generator=generator), 0.0, 1.0, SHIFT).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        s = sigma.view(-1, 1, 1, 1, 1)
        with loop.autocast(device):
            predicted = model(
                hidden_states=(1 - s) * x0 + s * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=text(captions),
                control_hidden_states=window(clips.states(chosen)).to(device),
            ).sample
            where = [x[chosen].to(device) for x in (clips.places, clips.own, clips.ends)] if told else []
            looking = [attention.loss(*where) for attention in told]
        error = (predicted.float() - (noise - x0)).square().mean((2, 3, 4)) @ weights / len(weights)
        far = error.detach()[sigma > 0.9]  # where all there is to go by is the control
        figures = {"far": far.mean().item()} if len(far) else {}
        if told:
            figures["told"] = looking[-1].item()
        return error.mean() + TELLING * sum(looking), figures

    return loss


def cropping(
    rng: np.random.Generator, shape: torch.Size, batch: int, size: tuple[int, int] | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cuts the same windows, one a clip, out of all of `shape` it is given, [B, ..., H, W]; or leaves it whole."""
    if size is None:
        return lambda x: x
    corners = [
        [int(rng.integers(all_ - part + 1)) for all_, part in zip(shape, size, strict=True)]
        for _ in range(batch)
    ]
    return lambda x: torch.stack(
        [row[..., y0 : y0 + size[0], x0 : x0 + size[1]] for row, (y0, x0) in zip(x, corners, strict=True)]
    )


if __name__ == "__main__":
    main()
