"""Loading: the pipelines of a profile, from folders or hub names, on its device and in its type; and giving them back.

Serves the models of the paper's 3.1 to 3.3 (Qwen-Image-Edit, VACE, Wan2.2); metrics and methods name and load their own.
Reads model folders, which weights.py finds and checks; writes nothing. A VACE folder may hold its own transformer only:
the parts it lacks are those of the Wan folder.
"""

import gc
import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from rmkit.errors import InputError
from rmkit.kit import accelerators, editor, store, weights
from rmkit.kit.accelerators import Role
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    import diffusers
    import torch
    from transformers import PreTrainedTokenizerBase

    WanLike = diffusers.WanPipeline | diffusers.WanVACEPipeline | diffusers.LucyEditPipeline

ROLES: tuple[Role, ...] = get_args(Role)  # the models that every profile names, under `models`
SHARED = ("vae", "text_encoder", "tokenizer")  # parts that a VACE folder may leave to the Wan folder
TEXT_TOKENS = 512  # Wan's text length

P = TypeVar("P", bound="diffusers.DiffusionPipeline")


def device(profile: Profile) -> "torch.device":
    """The device the profile asks for; 'auto' is CUDA when there is one."""
    import torch

    wanted = profile.models.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "models.device is 'cuda' and this machine has no CUDA GPU that torch can see: "
            "set it to 'auto' or 'cpu'."
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def dtype(profile: Profile) -> "torch.dtype":
    """The type the transformers and text encoders compute in; the VAEs of video stay in float32."""
    import torch

    return getattr(torch, profile.models.dtype)


def require_gpu(profile: Profile, what: str) -> None:
    """Raise InputError when `what` would run on the CPU in bfloat16 without the profile saying so: days a clip."""
    asked = (profile.models.device, profile.models.dtype)
    if device(profile).type == "cpu" and asked == ("auto", "bfloat16"):
        raise InputError(
            f"{what} needs a CUDA GPU and torch sees none here: run it on another machine, leave it out of "
            "the profile, or set models.device to 'cpu' to wait for it."
        )


def generator(seed: int) -> "torch.Generator":
    """Random numbers drawn on the CPU, so that a seed means the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def check(profile: Profile, role: Role) -> None:
    """Raise InputError unless the model is complete on disk (or on the hub, and the hub is reachable).

    Reads headers only: every part of model_index.json is there, no weight file missing or truncated.
    """
    require(profile, role)
    _folder(profile, role)
    if role == "vace" and _borrowed(profile):
        _folder(profile, "wan")
    accelerators.settings(profile, role)


def require(profile: Profile, role: Role) -> None:
    """Raise InputError where the settings under `models` ask for what is not here; loads nothing."""
    target, asked = device(profile), profile.models
    if asked.attention:
        from diffusers.models.attention_dispatch import AttentionBackendName

        known = sorted(backend.value for backend in AttentionBackendName)
        if asked.attention not in known:
            raise InputError(
                f"models.attention is '{asked.attention}', which diffusers does not know; it knows {', '.join(known)}."
            )
    if role == "editor" and asked.editor_weights == "nf4":
        if target.type == "cpu" or not importlib.util.find_spec("bitsandbytes"):
            raise InputError(
                "models.editor_weights is 'nf4', which needs a CUDA GPU and the package bitsandbytes "
                "(pip install bitsandbytes): install it, or set it to 'fp8' or 'full'."
            )
        if asked.offload == "group":
            raise InputError(
                "models.editor_weights is 'nf4', whose weights do not travel block by block: set models.offload to "
                "'model', or models.editor_weights to 'fp8'."
            )


def settings(profile: Profile, role: Role) -> dict[str, Any]:
    """What of `models` decides the numbers of a role's model beside its weights, for a recipe."""
    asked = profile.models
    rounding: dict[str, Any] = {"attention": asked.attention} if asked.attention else {}
    if role == "editor" and asked.editor_weights != "full":
        rounding["weights"] = asked.editor_weights
    return {"dtype": asked.dtype} | rounding


@contextmanager
def given_back() -> Iterator[None]:
    """What is loaded inside, and no longer held by anybody at the end, leaves the memory there and then.

    A model whose forward was replaced (by offloading, by accelerate) is in a reference cycle, so that letting go of it frees
    nothing until cycles are collected; and CUDA keeps what was freed. Also a decorator, of a function that loads.
    """
    try:
        yield
    finally:
        gc.collect()
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def fingerprint(profile: Profile, role: Role) -> str:
    """Content hash of all that loading the model reads; for a hub name its commit."""
    root, commit = _folder(profile, role)
    parts = [commit or weights.content(root)]
    if role == "vace" and (borrowed := _borrowed(profile)):
        root, commit = _folder(profile, "wan")
        parts += [commit or store.fingerprint(root / part) for part in borrowed]
    return "+".join(parts)


def load(profile: Profile, kind: type[P], name: str) -> P:
    """The diffusers pipeline of a folder or hub name that has been checked."""
    return _place(profile, _loaded(kind, **_arguments(profile, name)))


def _loaded(kind: type[P], **arguments: Any) -> P:
    """A pipeline by from_pretrained; InputError where its configs and its weights do not go together."""
    try:
        return kind.from_pretrained(**arguments)
    except (AttributeError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        if getattr(error, "errno", None):
            raise  # of the disk
        said = str(error).partition(". ")[0]
        name = arguments["pretrained_model_name_or_path"]
        raise InputError(
            f"{name} cannot be loaded as a {kind.__name__} ({said}): copy the model again."
        ) from error


def load_wan(
    profile: Profile, without: Collection[str] = (), on_cpu: bool = False
) -> "diffusers.WanPipeline":
    """The text-to-video pipeline of the IC-LoRA (paper, 3.3), but for the parts in `without`.

    on_cpu: it waits there, whatever the device, and the caller moves what it needs.
    """
    check(profile, "wan")
    from diffusers import WanPipeline

    absent = dict.fromkeys(without)
    pipeline = _loaded(WanPipeline, **_arguments(profile, profile.models.wan), **absent)
    return _place(profile, pipeline, on_cpu)


def load_vace(profile: Profile) -> "diffusers.WanVACEPipeline":
    """The VACE pipeline of the propagation (paper, 3.1)."""
    check(profile, "vace")
    from diffusers import WanPipeline, WanVACEPipeline
    from diffusers.video_processor import VideoProcessor

    shared: dict[str, Any] = {}
    if borrowed := _borrowed(profile):
        absent = {name: None for name in ("transformer", "transformer_2")}
        wan = _loaded(WanPipeline, **_arguments(profile, profile.models.wan), **absent)
        shared = {name: getattr(wan, name) for name in borrowed}
    pipeline = _loaded(WanVACEPipeline, **_arguments(profile, profile.models.vace), **shared)
    # The pipeline counts the VAE's stages and overlooks its patch_size; the config knows the true stride.
    stride = pipeline.vae.config.scale_factor_spatial
    if stride is not None:
        pipeline.vae_scale_factor_spatial = stride
        pipeline.video_processor = VideoProcessor(vae_scale_factor=stride)
    return _place(profile, pipeline)


def load_editor(profile: Profile) -> "diffusers.QwenImageEditPipeline":
    """The image editor of the anchors (paper, 3.1): Qwen-Image-Edit, or its Plus form by class name."""
    check(profile, "editor")
    import diffusers
    from transformers.utils import is_torchvision_available

    arguments = _arguments(profile, profile.models.editor)
    root = Path(arguments["pretrained_model_name_or_path"])
    name = weights.pipeline_index(root)["_class_name"]
    if not (kind := getattr(diffusers, name, None)):
        raise InputError(
            f"models.editor: {root} is a {name}, which diffusers {diffusers.__version__} does not know."
        )
    # One type throughout: this pipeline hands latents over in the text encoder's type.
    arguments["dtype"] = dtype(profile)
    if profile.models.editor_weights == "nf4":
        arguments["quantization_config"] = editor.nf4(dtype(profile))
    if not (is_torchvision_available() and (root / "processor").is_dir()):
        arguments["processor"] = editor.processor(root)
    pipeline = _loaded(kind, **arguments)
    editor.check_template(pipeline)
    accelerators.put_on(profile, pipeline, "editor")
    if profile.models.editor_weights == "fp8":  # after the accelerator, which keeps its own type
        import torch

        pipeline.transformer.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=dtype(profile))
    return _place(profile, pipeline)


def set_flow_shift(pipeline: "diffusers.WanPipeline | diffusers.WanVACEPipeline", shift: float) -> None:
    """Have a pipeline sample by UniPC on flow sigmas with this shift."""
    from diffusers import UniPCMultistepScheduler

    pipeline.scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def require_cells(pipeline: "WanLike", height: int, width: int, misfit: str) -> None:
    """Raise InputError, opening with `misfit`, unless a size in pixels is made of whole cells of the model.

    The pipelines would only warn, and shrink what they are given.
    """
    side = cell(pipeline)
    if height % side or width % side:
        raise InputError(f"{misfit}, which works in cells of {side} pixels: choose multiples of {side}.")


def cell(pipeline: "WanLike") -> int:
    """Pixels a side of what becomes one token: the VAE's factor times the transformer's patch."""
    parts = (pipeline.transformer, pipeline.transformer_2)
    patch = next(part for part in parts if part is not None).config.patch_size[1]
    return pipeline.vae_scale_factor_spatial * patch


def text_length(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens a prompt is padded to: Wan's 512, or less where the tokenizer was made for less."""
    return min(TEXT_TOKENS, tokenizer.model_max_length)


def vace_tokenizer(profile: Profile) -> str:
    """The folder or hub name of the pipeline whose tokenizer VACE reads prompts with."""
    return profile.models.wan if "tokenizer" in _borrowed(profile) else profile.models.vace


def speed_up_convolutions(vae: "diffusers.ModelMixin") -> None:
    """Have a VAE's 3-D convolutions run in oneDNN where it is on a CPU in float32: 3 times as fast, same result.

    Left alone, torch chooses a slow kernel of its own for a single clip of the miniature's size.
    """
    import torch

    if vae.device.type != "cpu" or vae.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return
    for conv in vae.modules():
        if isinstance(conv, torch.nn.Conv3d):
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last_3d)
            options = (conv.padding, conv.stride, conv.dilation, conv.groups)
            conv._conv_forward = lambda x, weight, bias, options=options: torch.mkldnn_convolution(
                x, weight, bias, *options
            )


def _folder(profile: Profile, role: Role) -> tuple[Path, str | None]:
    optional = SHARED if role == "vace" else ("processor",)
    return weights.pipeline_folder(f"models.{role}", getattr(profile.models, role), optional)


def _borrowed(profile: Profile) -> list[str]:
    """Parts that the VACE folder leaves to the Wan folder; a hub name is taken to have them all."""
    name = profile.models.vace
    if weights.is_hub_name(name):
        return []
    return [part for part in SHARED if not (resolve(name) / part).is_dir()]


def _arguments(profile: Profile, name: str) -> dict[str, Any]:
    """What from_pretrained is called with; a hub model is downloaded at its pinned commit first."""
    import diffusers
    import torch
    import transformers

    # Loading shows no bars of its own: they clutter notebooks and logs.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    root = resolve(name)
    if weights.is_hub_name(name):
        _, commit = weights.hub_snapshot(name, "model_index.json")
        repository = weights.repository(name)
        root = diffusers.DiffusionPipeline.download(repository, revision=commit, use_safetensors=True)
    return {
        "pretrained_model_name_or_path": str(root),
        # Wan's VAE loses detail in half precision; diffusers' own examples keep it in float32.
        "dtype": {"vae": torch.float32, "default": dtype(profile)},
        "use_safetensors": True,
    }


def _place(profile: Profile, pipeline: Any, on_cpu: bool = False) -> Any:
    """Silence the pipeline's own bars, and put it where the profile computes, with the attention it asks for."""
    pipeline.set_progress_bar_config(disable=True)
    target, offload = device(profile), profile.models.offload
    if profile.models.attention:
        _set_attention(pipeline, profile.models.attention)
    if target.type == "cpu":
        pipeline.to(target)
        speed_up_convolutions(pipeline.vae)
    elif on_cpu:
        pass
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=target)
    elif offload == "group":
        # A VAE is small, computes for long and has no blocks in a row. The others' wait pinned, and come on a stream.
        streamed = {"offload_type": "block_level", "num_blocks_per_group": 1, "use_stream": True}
        pipeline.enable_group_offload(onload_device=target, exclude_modules=["vae"], **streamed)
    else:
        pipeline.to(target)
    return pipeline


def _set_attention(pipeline: Any, backend: str) -> None:
    """Have every transformer of a pipeline attend by a backend of diffusers; InputError where it cannot be had here."""
    import diffusers
    from diffusers.models.attention_dispatch import attention_backend

    diffusers.utils.logging.get_logger("diffusers.models.modeling_utils").setLevel("ERROR")  # "experimental"
    for name, part in pipeline.components.items():
        if name.startswith("transformer") and part is not None:
            try:
                # It also sets the backend of every model to come, other profiles' too; the context puts that back.
                with attention_backend():
                    part.set_attention_backend(backend)
            except (RuntimeError, ImportError, ValueError) as error:
                raise InputError(
                    f"models.attention is '{backend}', which cannot be had here: {error}"
                ) from None
