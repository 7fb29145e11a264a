"""What is taken from open_clip: configurations, modules, the layout of weights, tokenizers.

Besides `tokenizer`, the only file that imports open_clip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transformer import text_global_pool
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from training.errors import UnusableInputError
from training.tokenizer import tokenizer_name, tokenizer_of, tokenizer_sha256

CONFIGS = Path(__file__).parent / "configs"
CLIP_MEAN: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
CLIP_STD: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "ClipLoss",
    "architecture_of",
    "build",
    "interpolate_positions",
    "load_weights",
    "refuse_unsupported",
    "text_global_pool",
    "tokenizer_name",
    "tokenizer_of",
    "tokenizer_sha256",
    "weights_file",
]


def architecture_of(name: str) -> dict[str, Any]:
    """Return the open_clip configuration of this name, or in this JSON file.

    Raises
    ------
    UnusableInputError
        The name is not known, or the architecture is not supported.
    """
    path = Path(name) if name.endswith(".json") else CONFIGS / f"{name}.json"
    if path.is_file():
        architecture = json.loads(path.read_text(encoding="utf-8"))
    elif name in open_clip.list_models():
        architecture = deepcopy(open_clip.get_model_config(name))
    else:
        raise UnusableInputError(
            f"open_clip model {name!r}",
            found=f"no such name in open_clip {open_clip.__version__}, and no file {path.name}",
            expected="one of open_clip.list_models(), or a JSON file",
            remedy="Check the name, or name the file.",
        )
    refuse_unsupported(name, architecture)
    return architecture


def refuse_unsupported(name: str, architecture: Mapping[str, Any]) -> None:
    """Refuse an open_clip configuration that is none, or has parts that are not supported.

    Raises
    ------
    UnusableInputError
        Naming every such part.
    """
    configs = ("vision_cfg", "text_cfg")
    if not isinstance(architecture, Mapping) or not all(
        isinstance(architecture.get(key), Mapping) for key in configs
    ):
        raise UnusableInputError(
            f"open_clip model {name!r}",
            found=f"no {' and '.join(configs)}",
            expected="the JSON object of an open_clip configuration with both",
            remedy="Name another file.",
        )
    vision, text = (architecture[key] for key in configs)
    problems = [
        problem
        for problem, found in {
            "an image encoder from timm": vision.get("timm_model_name"),
            "a ResNet image encoder": isinstance(vision.get("layers"), list | tuple),
            "attentional pooling": vision.get("attentional_pool"),
            "no class-token pooling": vision.get("pool_type", "tok") != "tok",
            "fixed position embeddings": vision.get("pos_embed_type", "learnable") != "learnable",
            "a Hugging Face text encoder": text.get("hf_model_name"),
            "a text class token": text.get("embed_cls"),
            # open_clip itself cannot run it.
            "attention by cosine": any(c.get("scaled_cosine_attn") for c in (vision, text)),
            "a multimodal decoder": architecture.get("multimodal_cfg"),
        }.items()
        if found
    ]
    if problems:
        raise UnusableInputError(
            f"open_clip model {name!r}",
            found=", ".join(problems),
            expected="open_clip's own VisionTransformer with class-token pooling and learned "
            "positions, and its own text transformer",
            remedy="Take one such as ViT-B-32, ViT-B-16, ViT-L-14 or their -quickgelu variants.",
        )


def build(architecture: Mapping[str, Any], image_size: tuple[int, int]) -> CLIP | CustomTextCLIP:
    """Build the open_clip model for images of (height, width), with random weights."""
    keys = deepcopy(dict(architecture))
    patch = keys["vision_cfg"].get("patch_size", 16)
    patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
    if image_size[0] % patch_height or image_size[1] % patch_width:
        raise ValueError(
            f"image_size is {image_size[0]} x {image_size[1]} pixels; expected multiples of the "
            f"patch size, {patch_height} x {patch_width}"
        )
    keys["vision_cfg"]["image_size"] = tuple(image_size)
    custom_text = keys.pop("custom_text", False)
    return CustomTextCLIP(**keys) if custom_text else CLIP(**keys)


def weights_file(name: str, pretrained: str, architecture: Mapping[str, Any]) -> Path:
    """Return the weights file at a path; nothing is ever downloaded.

    Raises
    ------
    UnusableInputError
        There is none. Where the path is an open_clip tag of the model, the remedy names the
        repository that its weights are published in, and another activation than the model's.
    """
    if Path(pretrained).is_file():
        return Path(pretrained)
    published = get_pretrained_cfg(name, pretrained)
    repository = published.get("hf_hub", "").rstrip("/")
    remedy = (
        "On a machine with a network, download open_clip_model.safetensors of "
        f"{repository or 'the open_clip model'} from the Hugging Face Hub (hf download "
        f"{repository or 'REPOSITORY'} open_clip_model.safetensors); copy it here, and give its "
        "path."
    )
    if published and published.get("quick_gelu", False) != architecture.get("quick_gelu", False):
        remedy += (
            f" They were trained with another activation than {name}: name the model with or "
            "without -quickgelu, whichever this is not."
        )
    raise UnusableInputError(
        "pretrained weights",
        found=f"no file {pretrained}",
        expected="the pretrained weights as a file on disk, .safetensors, .pt, .pth or .bin, "
        "or a checkpoint folder",
        remedy=remedy,
    )


def load_weights(clip: CLIP | CustomTextCLIP, path: Path) -> None:
    """Load a weights file in open_clip's layout into a model; every key must have its place.

    Position embeddings of another grid are interpolated; the file's grid is taken to be square.
    """
    state = _read_state(path)
    unusable = [
        name
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and not tensor.isfinite().all()
    ]
    if unusable:
        raise ValueError(f"{path.name}: NaN or infinity in {', '.join(unusable[:5])}")
    if "positional_embedding" in state and isinstance(clip, CustomTextCLIP):
        state = convert_to_custom_text_state_dict(state)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)
    key = "visual.positional_embedding"
    if key in state:
        side = round((state[key].shape[0] - 1) ** 0.5)
        state[key] = interpolate_positions(state[key], (side, side), clip.visual.grid_size)
    try:
        clip.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise ValueError(f"{path.name} does not fit the model: {exc}") from exc


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, without unpickling anything but tensors."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as exc:
            raise ValueError(
                f"{path.name} is no whole safetensors file ({exc}). Copy or download it again"
            ) from exc
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # unpickling errors come in many types
        raise ValueError(
            f"{path.name} is not a plain file of tensors ({type(exc).__name__}); expected "
            ".safetensors or what torch.save writes for a state dict. A TorchScript archive has "
            "to be converted first"
        ) from exc
    state = loaded.get("state_dict", loaded)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def interpolate_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample position embeddings (1 + h * w, D) from a grid (h, w) to another.

    Bicubic with antialiasing, as open_clip does; the class token's embedding stays.
    """
    if embedding.shape[0] != 1 + old[0] * old[1]:
        raise ValueError(
            f"{embedding.shape[0]} position embeddings; expected 1 + {old[0]} * {old[1]}, "
            "a class token and a square grid"
        )
    if tuple(old) == tuple(new):
        return embedding
    grid = embedding[1:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=tuple(new), mode="bicubic", antialias=True)
    return torch.cat([embedding[:1], grid.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)])
