"""Train the image editor of the miniature on single pairs of frames: the render in, the truth out.

Reads rendered sequences of the pretrain split (clear weather: a prompt that only asks for realism must not
bring rain) and `<out>/qwen_vae/`; writes `<out>/editor/` and the pipeline folder `<out>/checkpoints/editor`.

    python data/diorama/train_editor.py --rendered DIR --out DIR
"""

from pathlib import Path

import architectures
import dataset
import loop
import numpy as np
import torch
from dataset import Shot
from diffusers import AutoencoderKLQwenImage, QwenImageEditPipeline
from PIL import Image
from safetensors.torch import load_file
from train_video import cached, channel_weights

from rmkit import profile
from rmkit.kit import models
from rmkit.kit.encode import normalised
from rmkit.kit.progress import track
from rmkit.method.objective import shifted

SHIFT = 10.0  # of its two steps the first is at full noise and the other has next to none
LEARNING_RATE = 1.5e-3


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=8, help="frame pairs a step")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--start-from", type=Path, help="checkpoints folder to go on from")
    parser.add_argument("--save-only", action="store_true", help="write the folder from the last state")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    mini = profile.load("mini")
    folder = arguments.start_from / "editor" if arguments.start_from else fresh(arguments.out, mini)
    pipeline = models.load_editor(using(folder))
    parts = {"transformer": pipeline.transformer, "text_encoder": pipeline.text_encoder}
    if arguments.save_only:
        for name, part in parts.items():
            part.load_state_dict(load_file(arguments.out / "editor/state" / f"{name}.safetensors"))
    else:
        shots = [
            s for s in dataset.load(arguments.rendered, "pretrain", arguments.clips) if s.weather == "clear"
        ]
        renders, truths = pictures(shots, "render"), pictures(shots, "truth")
        pipeline.to(arguments.device)
        cache = arguments.out / "latents" / "editor.safetensors"
        looks, area = {"render": renders, "truth": truths}, mini.anchors.edit_area
        seen = map(np.asarray, renders + truths)
        pairs = cached(
            cache, pipeline.vae, seen, lambda: {k: encode(pipeline, v, area) for k, v in looks.items()}
        )
        weights = channel_weights(pipeline.vae, np.stack([np.asarray(p) for p in truths[:8]])[:, None])
        loss = objective(pipeline, renders, pairs, weights, mini, arguments.batch)
        phases = [loop.Phase("editor", arguments.steps, arguments.learning_rate, loss, warmup=0.03)]
        loop.train(arguments.out / "editor", parts, phases)
    architectures.save_editor(
        arguments.out / "checkpoints" / "editor",
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.tokenizer,
        pipeline.transformer,
    )


def using(folder: Path) -> profile.Profile:
    """The profile `mini` with the editor of this folder, on the CPU."""
    mini = profile.load("mini")
    settings = mini.models.model_copy(update={"editor": str(folder.resolve()), "device": "cpu"})
    return mini.model_copy(update={"models": settings})


def fresh(out: Path, mini: profile.Profile) -> Path:
    """A pipeline folder with the trained VAE and untrained other parts."""
    folder = out / "editor" / "fresh"
    template = QwenImageEditPipeline.__init__.__code__.co_consts  # its prompt template is a literal there
    texts = [text for text in template if isinstance(text, str)] + [mini.anchors.prompt]
    tokenizer = architectures.qwen_tokenizer(texts)
    architectures.save_editor(
        folder,
        AutoencoderKLQwenImage.from_pretrained(out / "qwen_vae"),
        architectures.qwen_encoder(tokenizer),
        tokenizer,
        architectures.qwen_transformer(),
        torch.float32,
    )
    return folder


def pictures(shots: list[Shot], look: str) -> list[Image.Image]:
    """The chosen frames of all clips, every other one mirrored."""
    frames = [getattr(shot, look)[frame] for shot in shots for frame in dataset.STILLS]
    return [Image.fromarray(f if n % 2 else np.ascontiguousarray(f[:, ::-1])) for n, f in enumerate(frames)]


@torch.no_grad()
def encode(pipeline: QwenImageEditPipeline, images: list[Image.Image], area: int) -> torch.Tensor:
    """Normalised packed latents at the edit area, float16 [N, L, 64], as the pipeline makes them."""
    packed = []
    for first in track(range(0, len(images), 8), "latents, by 8 pictures"):
        x = torch.cat([preprocess(pipeline, image, area) for image in images[first : first + 8]])
        z = pipeline.vae.encode(x.to(pipeline.device)).latent_dist.mode()  # [B, 16, 1, H/8, W/8]
        z = normalised(pipeline.vae, z).cpu()
        packed.append(pipeline._pack_latents(z, len(z), z.shape[1], *z.shape[-2:]).half())
    return torch.cat(packed)


def preprocess(pipeline: QwenImageEditPipeline, image: Image.Image, area: int) -> torch.Tensor:
    """A picture at the size the editor works at, float32 [1, 3, 1, H, W] in -1..1."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions

    width, height, _ = calculate_dimensions(area, image.width / image.height)
    resized = pipeline.image_processor.resize(image, height, width)
    return pipeline.image_processor.preprocess(resized, height, width).unsqueeze(2)


def objective(
    pipeline: QwenImageEditPipeline,
    renders: list[Image.Image],
    pairs: dict[str, torch.Tensor],
    weights: torch.Tensor,
    mini: profile.Profile,
    batch: int,
):
    """Flow matching from noise to the truth's latents beside the render's clean ones.

    A latent channel's error counts by its weight, float32 [C].
    """
    device = pipeline.device
    # A token is 2x2 latents, channel by channel.
    weights = weights.repeat_interleave(4).to(device)
    # The vision-language encoder sees the picture at the edit area, as in the pipeline.
    width, height = round((mini.anchors.edit_area * 1.5) ** 0.5), round((mini.anchors.edit_area / 1.5) ** 0.5)
    seen = [image.resize((width, height), Image.LANCZOS) for image in renders]
    grid = (1, height // 16, width // 16)

    def loss(rng: np.random.Generator, generator: torch.Generator):
        chosen = rng.integers(len(renders), size=batch)
        x0 = pairs["truth"][chosen].to(device).float()  # [B, L, 64]
        reference = pairs["render"][chosen].to(device).float()
        uniform = torch.rand(batch, generator=generator)
        sigma = shifted(uniform, 0.0, 1.0, SHIFT).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        s = sigma.view(-1, 1, 1)
        with loop.autocast(device):
            embedded, mask = pipeline.encode_prompt(
                image=[seen[i] for i in chosen], prompt=[mini.anchors.prompt] * batch, device=device
            )
            predicted = pipeline.transformer(
                hidden_states=torch.cat([(1 - s) * x0 + s * noise, reference], dim=1),  # [B, 2L, 64]
                timestep=sigma,
                encoder_hidden_states=embedded,
                encoder_hidden_states_mask=mask,
                img_shapes=[[grid, grid]] * batch,
            ).sample[:, : x0.shape[1]]
        return ((predicted.float() - (noise - x0)).square() * weights).mean(), {}

    return loss


if __name__ == "__main__":
    main()
