"""Train the video models of the miniature: both text-to-video experts with UMT5.

Reads rendered sequences of the pretrain split and `<out>/wan_vae/`; writes `<out>/{low,high}/` and at the end the
pipeline folder `<out>/checkpoints/wan`. Low noise first, on all noise levels and jointly with the text encoder; the
other starts from it. A large video model can copy from a clip it is shown, which is what an IC-LoRA builds on; a
tiny one has to learn it: in half of the steps the experts see the clip recoloured. What captions mean takes more scenes
than clips can be rendered of, so other steps are on single pictures, of which a scene costs a seventh.

    python data/diorama/train_video.py --rendered DIR --stills DIR --out DIR --stage low
"""

import hashlib
import itertools
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import architectures
import cv2
import dataset
import loop
import numpy as np
import torch
import train_vae
from architectures import BOUNDARY, SHIFT, TEXT_TOKENS
from dataset import Shot
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import UMT5EncoderModel

from rmkit.kit import prompts
from rmkit.kit.encode import denormalised, normalised
from rmkit.method.incontext import in_context
from rmkit.method.objective import shifted

CAPTION_DROPOUT = 0.1
PARTS = {"low": "wan/transformer_2", "high": "wan/transformer"}  # of checkpoints
LEARNING_RATE = {"low": 1.5e-3, "high": 5e-4}
FUSED = torch.nn.functional.scaled_dot_product_attention
CLEARED = 0.8  # share of the clips in bad weather that are shown in clear weather
SHOWN = 0.7  # share of the experts' steps on clips in which a reference is shown
PICTURED = 0.45  # share of all their steps that are on pictures, where there are stills
PICTURES = 8  # cost what a clip does
UNSEEN = 0.25  # of a weighted loss is spread over the channels alike, the rest by how much of each is seen


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--stage", choices=("low", "high", "save"), required=True)
    parser.add_argument("--stills", type=Path, help="folder of other scenes, rendered with --every 8")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=4, help="clips a step")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, help="instead of the stage's own")
    parser.add_argument("--start-from", type=Path, help="checkpoints folder to go on from")
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    written_out_attention(arguments.device)
    out, stage = arguments.out, arguments.stage
    if stage == "save":
        return save(out)
    shots = dataset.load(arguments.rendered, "pretrain", arguments.clips)
    # Every other scene is mirrored, in all its weathers, before it is encoded: what a latent's channels say of its cell does
    # not turn with the grid.
    shots = [dataset.mirrored(shot) if dataset.scene(shot) % 2 else shot for shot in shots]
    vae = AutoencoderKLWan.from_pretrained(out / "wan_vae").to(arguments.device).eval()
    train_vae.channels_last(vae)
    truth = truth_latents(vae, shots, out / "latents" / "truth")
    reference = reference_latents(vae, shots, out / "latents" / f"reference_{stage}", stage)
    clips = Captioned(truth, [shot.caption for shot in shots])
    pictures = None
    if arguments.stills:
        scenes = dataset.load(arguments.stills, "pretrain", arguments.clips)
        stills = [still for shot in scenes for still in dataset.stills(shot)]
        stills += [dataset.mirrored(still) for still in stills]
        latents = truth_latents(vae, stills, out / "latents" / "stills")
        pictures = Captioned(latents, [still.caption for still in stills])
    captions = clips.captions + (pictures.captions if pictures else [])
    text = Text(out, captions, stage == "low", arguments.start_from)
    model = start(stage, out, arguments.start_from).to(arguments.device)
    text.encoder.to(arguments.device)
    if arguments.compile:
        torch._dynamo.config.recompile_limit = 64  # the blocks are compiled for clips of several sizes
        for block in model.blocks:
            block.compile(dynamic=False)
    modules = {"model": model, "text_encoder": text.encoder} if stage == "low" else {"model": model}
    rate = arguments.learning_rate or LEARNING_RATE[stage]
    phases = []
    if stage == "low" and not arguments.start_from:
        # Most of what there is to learn is in single pictures, and three latent frames cost a fifth of nine.
        short = Captioned(truth[:, :, :3], clips.captions)
        loss = objective(model, text, short, None, pictures, stage, 2 * arguments.batch, arguments.device)
        phases.append(loop.Phase("short", arguments.steps // 2, rate, loss, warmup=0.03))
    loss = objective(model, text, clips, reference, pictures, stage, arguments.batch, arguments.device)
    # Frozen after the short clips, as all other models read these embeddings; also when going on from shipped weights.
    frozen = ("text_encoder",) if stage == "low" else ()
    phases.append(loop.Phase(stage, arguments.steps, rate, loss, warmup=0.03, frozen=frozen))
    loop.train(out / stage, modules, phases)


def written_out_attention(device: str) -> None:
    """Have transformers on a CPU use `attention` below."""
    if device == "cpu":
        torch.nn.functional.scaled_dot_product_attention = attention


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


@dataclass(frozen=True)
class Captioned:
    """Clips or pictures with what is said of them."""

    latents: torch.Tensor  # normalised, float16 [N, C, F, H, W]
    captions: list[str]


class Text:
    """Captions to embeddings the way WanPipeline makes them: [B] -> [B, 64, 96], zeros after the end.

    Raises InputError for a caption that would be cut: the words at its end would never be learned.
    """

    def __init__(self, out: Path, captions: list[str], trained: bool, start_from: Path | None = None) -> None:
        folder, state = out / "tokenizer", out / "low" / "state" / "text_encoder.safetensors"
        if start_from:
            folder = start_from / "wan" / "tokenizer"
        elif not folder.exists():
            architectures.caption_tokenizer(sorted(set(captions))).save_pretrained(folder)
        self.tokenizer = architectures.PreTrainedTokenizerFast.from_pretrained(folder)
        for caption in sorted(set(captions)):
            prompts.require_tokens(self.tokenizer, TEXT_TOKENS, f"the caption '{caption}'", caption)
        self.encoder = architectures.text_encoder(self.tokenizer).requires_grad_(trained)
        if not trained and state.exists():
            self.encoder.load_state_dict(load_file(state))
        elif start_from:
            self.encoder = UMT5EncoderModel.from_pretrained(
                start_from / "wan" / "text_encoder", dtype=torch.float32
            ).requires_grad_(trained)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt"
        ).to(self.encoder.device)
        embedded = self.encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return embedded * tokens.attention_mask[..., None]


def start(stage: str, out: Path, start_from: Path | None) -> WanTransformer3DModel:
    """A fresh low-noise expert, a high-noise one that starts from it, or the shipped one of the stage."""
    if start_from:
        return WanTransformer3DModel.from_pretrained(
            start_from / PARTS[stage], torch_dtype=torch.float32
        ).float()
    model = architectures.wan_transformer()
    if stage == "low":
        pass_through(model)
    else:
        model.load_state_dict(load_file(out / "low" / "state" / "model.safetensors"))
    return model


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
    clips: Captioned,
    reference: torch.Tensor | None,
    pictures: Captioned | None,
    stage: str,
    batch: int,
    device: str,
):
    """Flow matching on latents: predict noise minus data at sigma drawn with a shift.

    With pictures some of the steps are on them; with a reference half of the others show it, to half as many clips: it
    doubles the tokens.
    """

    def loss(rng: np.random.Generator, generator: torch.Generator):
        kind, source, count = "alone", clips, batch
        if pictures is not None and rng.random() < PICTURED:
            kind, source, count = "pictures", pictures, PICTURES * batch
        elif reference is not None and rng.random() < SHOWN:
            kind, count = "shown", batch // 2
        chosen = rng.integers(len(source.latents), size=count)
        x0 = source.latents[chosen].to(device).float()  # [B, C, F, H, W]
        captions = [source.captions[i] if rng.random() >= CAPTION_DROPOUT else "" for i in chosen]
        uniform = torch.rand(count, generator=generator)
        lowest = BOUNDARY if stage == "high" else 0.0
        sigma = shifted(uniform, lowest, 1.0, SHIFT).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        s = sigma.view(-1, 1, 1, 1, 1)
        shown = kind == "shown"
        context = in_context(model, reference[chosen].to(device).float()) if shown else nullcontext()
        with context, loop.autocast(device):
            predicted = model(
                hidden_states=(1 - s) * x0 + s * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=text(captions),
            ).sample
        error = (predicted.float() - (noise - x0)).square().mean((1, 2, 3, 4))
        figures = {kind: error.mean().item()}
        near = error.detach()[sigma < 0.5]
        return error.mean(), {**figures, "near": near.mean().item()} if len(near) else figures

    return loss


def truth_latents(vae: AutoencoderKLWan, shots: list[Shot], folder: Path) -> torch.Tensor:
    """Normalised latents of the truth of clips, or of stills: float16 [N, C, F, H, W]."""
    return encoded(vae, shots, [shot.truth for shot in shots], folder)


def reference_latents(vae: AutoencoderKLWan, shots: list[Shot], folder: Path, stage: str) -> torch.Tensor:
    """Normalised latents of what the experts are shown of clips (`spoilt`): float16 [N, C, F, H, W].

    Of a clip in bad weather that is mostly the same moment in clear weather: what the caption says of the weather goes.
    """
    clips = []
    for shot, clear in zip(shots, dataset.in_clear(shots), strict=True):
        rng = np.random.default_rng((2, dataset.number(shot), shot.first_frame))
        clips.append(spoilt((shots[clear] if rng.random() < CLEARED else shot).truth, rng, stage))
    return encoded(vae, shots, clips, folder)


def encoded(vae: AutoencoderKLWan, shots: list[Shot], clips: list[np.ndarray], folder: Path) -> torch.Tensor:
    """Clips or stills, uint8 [D, H, W, 3], at 16 fps to latents, float16 [N, C, F, H, W], in a file of `folder` a scene."""
    parts = []
    for scene, group in itertools.groupby(
        zip(shots, clips, strict=True), lambda pair: dataset.scene(pair[0])
    ):
        pictures = [dataset.repeated(clip) for _, clip in group]

        def compute(pictures: list[np.ndarray] = pictures) -> dict[str, torch.Tensor]:
            return {"latents": encode(vae, np.stack(pictures))}

        parts.append(cached(folder / f"{scene:05d}.safetensors", vae, pictures, compute)["latents"])
    return torch.cat(parts)


def spoilt(frames: np.ndarray, rng: np.random.Generator, stage: str) -> np.ndarray:
    """A clip as the experts are shown it, uint8 [F, H, W, 3] to the same: other colours, flat light, no fine grain, jagged edges.

    Nothing of the render is in it, and no two clips are spoilt alike: what there is to learn is where to look, and that
    neither colours nor fine structure are to be copied.
    """
    x = recoloured(frames, rng, stage).astype(np.float32)
    if rng.random() < 0.6:
        strength, reach = rng.uniform(0.2, 0.9), rng.uniform(6, 16)
        x = np.stack([flattened(f, strength, reach) for f in x])
    if rng.random() < 0.5:
        grain = rng.uniform(10, 40)
        x = np.stack([cv2.bilateralFilter(f, 5, grain, 2.0) for f in x])
    if rng.random() < 0.7:
        share = rng.uniform(0.5, 1.0)
        x = np.stack([f + share * (aliased(f) - f) for f in x])
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


def flattened(frame: np.ndarray, strength: float, reach: float) -> np.ndarray:
    """Less light and shade over `reach` pixels: float32 [H, W, 3] to the same, 0..255."""
    light = cv2.GaussianBlur(frame.mean(-1), (0, 0), reach) + 8
    return frame * ((light.mean() / light) ** strength)[..., None]


def aliased(frame: np.ndarray) -> np.ndarray:
    """Soft edges as hard steps, and one sample a pixel without a filter: float32 [H, W, 3] to the same."""
    fine = cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    around = np.ones((5, 5), np.uint8)
    low, high = cv2.erode(fine, around), cv2.dilate(fine, around)
    # Each point takes the nearer of the two extremes around it, all channels alike.
    nearer_high = (high - fine).sum(-1, keepdims=True) < (fine - low).sum(-1, keepdims=True)
    return np.where(nearer_high, high, low)[1::3, 1::3]


def recoloured(frames: np.ndarray, rng: np.random.Generator, stage: str) -> np.ndarray:
    """A clip in other colours, sharper or softer, the same in all frames: uint8 [F, H, W, 3].

    For the high-noise expert colours differ little: where they differ much it guesses the middle, and makes a render pale.
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


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: np.ndarray) -> torch.Tensor:
    """uint8 [B, F, H, W, 3] -> normalised latents, float16 [B, C, (F-1)/4+1, H/8, W/8]."""
    x = train_vae.pixels(vae, clips)  # [B, 3, F, H, W]
    with loop.autocast(x.device):
        z = vae.encode(x).latent_dist.mode()
    return normalised(vae, z).half().cpu()


@torch.no_grad()
def channel_weights(vae: nn.Module, clips: np.ndarray) -> torch.Tensor:
    """By how much the pictures show it when a latent channel errs: float32 [C], one in the mean.

    From clips, uint8 [B, F, H, W, 3]. The channels differ a hundredfold (the first has a quarter of it all), and a loss that
    counts them alike is mostly about what nobody sees. Some of it stays so, for the fine detail that makes a picture sharp.
    """
    device = next(vae.parameters()).device
    z = encode(vae, clips).float()
    noise = 0.3 * torch.randn(z[:, 0].shape, generator=torch.Generator().manual_seed(0))

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        with loop.autocast(device):
            return vae.decode(denormalised(vae, latents.to(device))).sample.float()

    right, changes = decoded(z), []
    for channel in range(z.shape[1]):
        wrong = z.clone()
        wrong[:, channel] += noise
        changes.append((decoded(wrong) - right).square().mean())
    seen = torch.stack(changes).cpu()
    return UNSEEN + (1 - UNSEEN) * seen / seen.mean()


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
    """Write the pipeline folder from the trained parts."""
    text = Text(out, [], trained=False)
    vae = AutoencoderKLWan.from_pretrained(out / "wan_vae")
    experts = {}
    for stage in ("low", "high"):
        state = out / stage / "state" / "model.safetensors"
        experts[stage] = architectures.wan_transformer()
        experts[stage].load_state_dict(
            load_file(state if state.exists() else out / "low/state/model.safetensors")
        )
    architectures.save_wan(
        out / "checkpoints" / "wan", vae, text.encoder, text.tokenizer, experts["high"], experts["low"]
    )


if __name__ == "__main__":
    main()
