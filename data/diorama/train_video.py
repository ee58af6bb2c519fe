"""Train the video models of the miniature: both text-to-video experts with UMT5, then VACE.

Reads rendered sequences of the pretrain split and `<out>/wan_vae/`; writes `<out>/{low,high,vace}/` and at the
end the pipeline folders `<out>/checkpoints/{wan,vace}`. Low noise first, on all noise levels and jointly with
the text encoder; the other two start from it. A large video model can copy from a clip it is shown, which is what
an IC-LoRA builds on; a tiny one has to learn it: in half of the steps the experts see the clip recoloured. VACE
sees clips backwards too, and some slowed down or still; first in crops, as what it learns is where things have gone.

    python data/diorama/train_video.py --rendered DIR --out DIR --stage low
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import architectures
import cv2
import dataset
import loop
import numpy as np
import torch
from architectures import BOUNDARY, SHIFT, TEXT_TOKENS
from dataset import GREY, Shot
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import interpolate
from transformers import UMT5EncoderModel

from rmkit.encode import normalised
from rmkit.incontext import in_context
from rmkit.sigma import shifted

CAPTION_DROPOUT = 0.1
PARTS = {"low": "wan/transformer_2", "high": "wan/transformer", "vace": "vace/transformer"}  # of checkpoints
LEARNING_RATE = {"low": 1.5e-3, "high": 5e-4, "vace": 1e-3}
# Control layouts a VACE clip is trained with: structure and anchors. Each clip has the first, and one of the others,
# which take turns. The pipeline will ask for all but the last.
LAYOUT = ("edges", "ends")
OTHERS = (("depth", "ends"), ("edges", "multi"), ("depth", "ends"), ("edges", "multi"), ("edges", "random"))
FIRST_SHARE = 0.6  # of the steps
VACE_SHIFT = 5.0  # where there is more noise its control counts for more
CALM = 5  # one in so many clips is seen by VACE slowed down or still as well
CROP = (6, 9)  # latents: a quarter of a frame, whose attention costs a sixteenth

FUSED = torch.nn.functional.scaled_dot_product_attention
SHOWN = 0.5  # share of the experts' steps in which a reference is shown


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--stage", choices=("low", "high", "vace", "save"), required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=4, help="clips a step")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, help="instead of the stage's own")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="checkpoints folder to go on from; VACE from its expert where its own has other tokens",
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.device == "cpu":
        torch.nn.functional.scaled_dot_product_attention = attention
    out, stage = arguments.out, arguments.stage
    if stage == "save":
        return save(out)
    shots = dataset.load(arguments.rendered, "pretrain", arguments.clips)
    # Mirrored before they are encoded: what a latent's channels say of its cell does not turn with the grid.
    mirrors = [dataset.mirrored(shot) for shot in shots]
    if stage == "vace":
        # Where nothing moves all of an anchor can be kept, which clips that move do not teach.
        calm = [dataset.slowed(shot, np.random.default_rng((3, n))) for n, shot in enumerate(shots[::CALM])]
        shots += [dataset.backwards(shot) for shot in mirrors] + calm
    else:
        shots += mirrors
    vae = AutoencoderKLWan.from_pretrained(out / "wan_vae").to(arguments.device).eval()
    latents = out / "latents"
    truth = truth_latents(
        vae, shots, latents / ("truth_vace.safetensors" if stage == "vace" else "truth.safetensors")
    )
    control = reference = None
    if stage == "vace":
        control = control_latents(vae, shots, latents / "control.safetensors")
    else:
        reference = reference_latents(vae, shots, latents / f"reference_{stage}.safetensors", stage)
    text = Text(out, [shot.caption for shot in shots], stage == "low", arguments.start_from)
    model = start(stage, out, arguments.start_from).to(arguments.device)
    text.encoder.to(arguments.device)
    if arguments.compile:
        torch._dynamo.config.recompile_limit = 64  # the blocks are of two kinds, in sizes of two kinds
        for block in (*model.blocks, *getattr(model, "vace_blocks", ())):
            block.compile(dynamic=False)
    modules = {"model": model, "text_encoder": text.encoder} if stage == "low" else {"model": model}
    rate = arguments.learning_rate or LEARNING_RATE[stage]
    phases = []
    if stage == "low" and not arguments.start_from:
        # Most of what there is to learn is in single pictures, and three latent frames cost a fifth of nine.
        loss = objective(
            model, text, truth[:, :, :3], None, None, stage, 2 * arguments.batch, arguments.device
        )
        phases.append(loop.Phase("short", arguments.steps // 2, rate, loss, warmup=0.03))
    if stage == "vace" and not goes_on(stage, arguments.start_from):
        loss = objective(
            model, text, truth, control, None, stage, 4 * arguments.batch, arguments.device, CROP
        )
        phases.append(loop.Phase("crops", 6 * arguments.steps, rate, loss, warmup=0.03))
        rate /= 2
    loss = objective(model, text, truth, control, reference, stage, arguments.batch, arguments.device)
    # Frozen after the short clips, so that VACE can start there and be trained beside the rest; also when going
    # on from shipped weights, whose other models read these embeddings.
    frozen = ("text_encoder",) if stage == "low" else ()
    phases.append(loop.Phase(stage, arguments.steps, rate, loss, warmup=0.03, frozen=frozen))
    loop.train(out / stage, modules, phases)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """Softmax attention, [B, heads, L, D], written out; torch's own where there is more to it (UMT5 has a mask).

    On a CPU and in bfloat16 this takes half of the time of torch's fused kernel, forward and backward.
    """
    plain = attn_mask is None and not dropout_p and not is_causal
    if not plain or any(option is not None and option is not False for option in options.values()):
        return FUSED(query, key, value, attn_mask, dropout_p, is_causal, **options)
    weights = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # [B, heads, L, L']
    return weights.softmax(-1) @ value


class Text:
    """Captions to embeddings the way WanPipeline makes them: [B] -> [B, 48, 96], zeros after the end."""

    def __init__(self, out: Path, captions: list[str], trained: bool, start_from: Path | None = None) -> None:
        self.captions = captions
        folder, state = out / "tokenizer", out / "low" / "state" / "text_encoder.safetensors"
        if start_from:
            folder = start_from / "wan" / "tokenizer"
        elif not folder.exists():
            architectures.caption_tokenizer(sorted(set(captions))).save_pretrained(folder)
        self.tokenizer = architectures.PreTrainedTokenizerFast.from_pretrained(folder)
        self.encoder = architectures.text_encoder(self.tokenizer).requires_grad_(trained)
        if not trained and state.exists():
            self.encoder.load_state_dict(load_file(state))
        elif start_from:
            self.encoder = UMT5EncoderModel.from_pretrained(
                start_from / "wan" / "text_encoder", dtype=torch.float32
            ).requires_grad_(trained)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(self.encoder.device)
        embedded = self.encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return embedded * tokens.attention_mask[..., None]


def goes_on(stage: str, start_from: Path | None) -> bool:
    """Whether a stage goes on from a model of these checkpoints; not from a VACE of other tokens than today's."""
    if start_from is None or stage != "vace":
        return start_from is not None
    config = start_from / PARTS[stage] / "config.json"
    return config.exists() and json.loads(config.read_text())["patch_size"] == list(architectures.VACE_PATCH)


def start(stage: str, out: Path, start_from: Path | None) -> nn.Module:
    """A fresh low-noise expert, a model that starts from it, or the shipped one of the stage."""
    if goes_on(stage, start_from):
        kind = WanVACETransformer3DModel if stage == "vace" else WanTransformer3DModel
        return kind.from_pretrained(start_from / PARTS[stage], torch_dtype=torch.float32).float()
    if stage == "low":
        model = architectures.wan_transformer()
        pass_through(model)
        return model
    if start_from:
        trained = load_file(start_from / PARTS["low"] / "diffusion_pytorch_model.safetensors")
    else:
        trained = load_file(out / "low" / "state" / "model.safetensors")
    if stage == "high":
        model = architectures.wan_transformer()
        model.load_state_dict(trained)
        return model
    model = architectures.vace_transformer()
    take_over(model, trained)
    for number, layer in enumerate(model.config.vace_layers):
        block, origin = model.vace_blocks[number], model.blocks[layer]
        # Each VACE block starts as the block it stands beside; its output projection starts at zero.
        block.load_state_dict(origin.state_dict(), strict=False)
        nn.init.zeros_(block.proj_out.weight)
        nn.init.zeros_(block.proj_out.bias)
    see_control_as_clip(model)
    return model


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


@torch.no_grad()
def pass_through(model: WanTransformer3DModel) -> None:
    """Have a fresh transformer hand on what it is given, as most of what it must predict is the noise in it.

    With this the first 60 steps reach what takes 90 to 120 from diffusers' own start.
    """
    embedding, tokens = model.patch_embedding.weight, model.proj_out.weight.shape[0]
    weight = nn.init.orthogonal_(torch.empty(len(embedding), tokens))  # [width, C * 4]
    embedding.copy_(weight.view_as(embedding))
    # A token's numbers go in by channel, then place in the patch, and come out the other way round.
    places = weight.T.unflatten(0, (model.config.in_channels, *model.config.patch_size))
    model.proj_out.weight.copy_(places.permute(1, 2, 3, 0, 4).flatten(0, 3))


def objective(
    model: nn.Module,
    text: Text,
    truth: torch.Tensor,
    control: tuple[torch.Tensor, torch.Tensor] | None,
    reference: torch.Tensor | None,
    stage: str,
    batch: int,
    device: str,
    crop: tuple[int, int] | None = None,
):
    """Flow matching on latents: predict noise minus data at sigma drawn with a shift.

    With a reference half of the steps show it, to half as many clips: it doubles the tokens. With a crop, so many rows
    and columns of latents are seen of each clip, anywhere in it.
    """

    def loss(rng: np.random.Generator, generator: torch.Generator):
        shown = reference is not None and rng.random() < SHOWN
        count = batch // 2 if shown else batch
        chosen = rng.integers(len(truth), size=count)
        x0 = truth[chosen].to(device).float()  # [B, C, F, H, W]
        window = cropping(rng, x0.shape, crop)
        x0 = window(x0)
        captions = [text.captions[i] if rng.random() >= CAPTION_DROPOUT else "" for i in chosen]
        uniform = torch.rand(count, generator=generator)
        lowest = BOUNDARY if stage == "high" else 0.0
        shift = VACE_SHIFT if stage == "vace" else SHIFT
        sigma = shifted(uniform, lowest, 1.0, shift).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        s = sigma.view(-1, 1, 1, 1, 1)
        arguments = {}
        if control is not None:
            layouts = (rng.random(count) >= FIRST_SHARE).astype(int)
            states = assemble(control, chosen, layouts).to(device).float()
            arguments["control_hidden_states"] = window(states)
        context = in_context(model, reference[chosen].to(device).float()) if shown else nullcontext()
        with context, torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            predicted = model(
                hidden_states=(1 - s) * x0 + s * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=text(captions),
                **arguments,
            ).sample
        error = (predicted.float() - (noise - x0)).square().mean((1, 2, 3, 4))
        figures = {"shown" if shown else "alone": error.mean().item()} if reference is not None else {}
        near = error.detach()[sigma < 0.5]
        return error.mean(), {**figures, "near": near.mean().item()} if len(near) else figures

    return loss


def cropping(
    rng: np.random.Generator, shape: torch.Size, size: tuple[int, int] | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cuts the same windows, one a clip, out of whatever it is given, [B, ..., H, W]; all of it without a size."""
    if size is None:
        return lambda x: x
    corners = [
        [int(rng.integers(all_ - part + 1)) for all_, part in zip(shape[-2:], size, strict=True)]
        for _ in range(shape[0])
    ]
    return lambda x: torch.stack(
        [row[..., y0 : y0 + size[0], x0 : x0 + size[1]] for row, (y0, x0) in zip(x, corners, strict=True)]
    )


@torch.no_grad()
def truth_latents(vae: AutoencoderKLWan, shots: list[Shot], cache: Path) -> torch.Tensor:
    """Normalised latents of all truth clips: float16 [N, C, F, H, W]."""

    def compute() -> dict[str, torch.Tensor]:
        return {"truth": torch.stack([encode(vae, dataset.repeated(shot.truth)) for shot in shots])}

    return cached(cache, vae, (shot.truth for shot in shots), compute)["truth"]


@torch.no_grad()
def control_latents(
    vae: AutoencoderKLWan, shots: list[Shot], cache: Path, frames: int = 33
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inactive and reactive latents of a clip's two layouts, and the masks, as WanVACEPipeline makes them.

    Returns float16 [N, 2, 2C, F, H, W] and bool [N, 2, F] (true: generate).
    """

    def compute() -> dict[str, torch.Tensor]:
        latents, masks = [], []
        for number, shot in enumerate(shots):
            rng = np.random.default_rng((1, number))
            row, row_masks, inactive = [], [], {}
            for structure_name, anchors in (LAYOUT, OTHERS[number % len(OTHERS)]):
                known = dataset.known_frames(anchors, frames, rng)
                where = known[:, None, None, None]
                if anchors not in inactive:
                    truth = dataset.repeated(shot.truth)
                    inactive[anchors] = encode(vae, np.where(where, truth, np.uint8(GREY)))
                structure = dataset.repeated(getattr(shot, structure_name))
                reactive = encode(vae, np.where(where, np.uint8(GREY), structure))
                row.append(torch.cat([inactive[anchors], reactive]))
                # Sampled in time by nearest-exact, as the pipeline does it.
                mask = torch.from_numpy(~known).float()[None, None]
                row_masks.append(interpolate(mask, size=(frames + 3) // 4, mode="nearest-exact")[0, 0] > 0.5)
            latents.append(torch.stack(row))
            masks.append(torch.stack(row_masks))
            if (number + 1) % 50 == 0:
                print(f"control latents {number + 1} of {len(shots)}", flush=True)
        return {"control": torch.stack(latents), "mask": torch.stack(masks)}

    pictures = (getattr(shot, look) for shot in shots for look in ("truth", "depth", "edges"))
    found = cached(cache, vae, pictures, compute, repr((LAYOUT, OTHERS)))
    return found["control"], found["mask"]


@torch.no_grad()
def reference_latents(vae: AutoencoderKLWan, shots: list[Shot], cache: Path, stage: str) -> torch.Tensor:
    """Normalised latents of truth clips in other colours: float16 [N, C, F, H, W]."""

    def compute() -> dict[str, torch.Tensor]:
        clips = [recoloured(shot.truth, np.random.default_rng((2, n)), stage) for n, shot in enumerate(shots)]
        return {"reference": torch.stack([encode(vae, dataset.repeated(clip)) for clip in clips])}

    return cached(cache, vae, (shot.truth for shot in shots), compute)["reference"]


def recoloured(frames: np.ndarray, rng: np.random.Generator, stage: str) -> np.ndarray:
    """A clip in other colours, sharper or softer, the same in all frames: uint8 [F, H, W, 3].

    Nothing of the render's look is in it: what there is to learn is where to look, not what to make of it. For the
    high-noise expert colours differ little: where they differ much it guesses the middle, and makes a render pale.
    The low-noise one has the other expert's colours before it, and is to take those: its references differ much.
    """
    spread = {"high": 1.0, "low": 6.0}[stage]

    def about_one(by: float) -> float:
        return float(np.exp(rng.uniform(-by, by) * spread))

    x = frames.astype(np.float32) / 255
    x = x ** about_one(0.05)
    grey = x.mean(-1, keepdims=True)
    x = grey + about_one(0.1) * (x - grey)
    gains = np.exp(rng.uniform(-0.02, 0.02, 3) * spread).astype(np.float32)
    x = 0.4 + about_one(0.05) * (x * gains - 0.4)
    x += rng.uniform(-0.015, 0.015) * spread
    amount = rng.uniform(-0.7, 1.5 if stage == "high" else 3.0)
    x = np.stack([f + amount * (f - cv2.GaussianBlur(f, (0, 0), 1.0)) for f in x])
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def assemble(
    control: tuple[torch.Tensor, torch.Tensor], chosen: np.ndarray, layouts: np.ndarray
) -> torch.Tensor:
    """VACE's control states of some clips, each in one of its two layouts: [B, 2C + 64, F, H, W]."""
    latents, masks = control
    states = latents[chosen, layouts]  # [B, 2C, F, H, W]
    mask = masks[chosen, layouts].to(states.dtype)  # [B, F]
    shape = (len(chosen), 64, *states.shape[2:])
    return torch.cat([states, mask[:, None, :, None, None].expand(shape)], dim=1)


def encode(vae: AutoencoderKLWan, frames: np.ndarray) -> torch.Tensor:
    """uint8 [F, H, W, 3] -> normalised latents, float16 [C, (F-1)/4+1, H/8, W/8]."""
    device = next(vae.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(frames)).to(device).float() / 127.5 - 1
    x = x.permute(3, 0, 1, 2)[None].contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        z = vae.encode(x).latent_dist.mode()
    return normalised(vae, z)[0].half().cpu()


def cached(
    path: Path, vae: nn.Module, pictures: Iterable[np.ndarray], compute, settings: str = ""
) -> dict[str, torch.Tensor]:
    """Tensors from a file, made first where it is missing or was made of other pictures, by another VAE or otherwise."""
    key = hashlib.sha256(settings.encode())
    for tensor in vae.state_dict().values():
        key.update(tensor.float().cpu().contiguous().numpy().data)
    for picture in pictures:
        key.update(np.ascontiguousarray(picture).data)
    if path.exists():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("made_of") == key.hexdigest():
                return load_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    save_file(tensors, path.with_suffix(".tmp"), metadata={"made_of": key.hexdigest()})
    path.with_suffix(".tmp").rename(path)
    return tensors


def save(out: Path) -> None:
    """Write the pipeline folders from the trained parts; VACE where it is trained already."""
    text = Text(out, [], trained=False)
    vae = AutoencoderKLWan.from_pretrained(out / "wan_vae")
    experts = {}
    for stage in ("low", "high"):
        state = out / stage / "state" / "model.safetensors"
        experts[stage] = architectures.wan_transformer()
        experts[stage].load_state_dict(
            load_file(state if state.exists() else out / "low/state/model.safetensors")
        )
    folder = out / "checkpoints"
    architectures.save_wan(folder / "wan", vae, text.encoder, text.tokenizer, experts["high"], experts["low"])
    if (out / "vace" / "state" / "model.safetensors").exists():
        vace = architectures.vace_transformer()
        vace.load_state_dict(load_file(out / "vace" / "state" / "model.safetensors"))
        architectures.save_vace(folder / "vace", vace)


if __name__ == "__main__":
    main()
