"""Phantom exams -> the tensors a model is trained on, by the SDK's own preprocessing.

Training sees exactly what serving sees: every exam goes through vendor-like headers,
``mammoclip_sdk.pixels`` and ``mammoclip_sdk.tensor``. Augmentation comes only after that.
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import PREPROCESSING_VERSION, Preprocessing
from mammoclip_sdk.exam import VIEWS, SourceImage, View
from training.phantom import PhantomExam, PhantomSettings, make_exam

PREPROCESSING = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=224,
    width=224,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=2,
)
"""What training starts from; a model of another input size replaces height and width."""
_CHUNK = 25
"""Exams a worker makes at a time."""
_DRAWING = frozenset(
    {
        "phantom",
        "phantom_settings",
        "breast",
        "lesions",
        "lead_marker",
        "vendors",
        "vendor_profiles",
        "stored_values",
    }
)
"""Modules of this folder that decide the pixels and headers of an exam."""


@dataclass(frozen=True, kw_only=True)
class ExamSet:
    """A set of exams, ready for the model."""

    views: torch.Tensor
    """uint8 (N, 4, 1, height, width); 255 is a displayed value of 1."""
    malignant: torch.Tensor
    """bool (N,)."""
    categories: tuple[str, ...] = ()
    """Of phantom exams, why each is or is not malignant."""
    view_captions: tuple[tuple[str, ...], ...] = ()
    """Of phantom exams, one caption for each of `VIEWS`."""

    def __len__(self) -> int:
        return len(self.malignant)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    settings: PhantomSettings
    preprocessing: Preprocessing
    first: int
    exams: int


def phantom_set(
    settings: PhantomSettings,
    exams: int,
    preprocessing: Preprocessing,
    *,
    cache: Path,
    workers: int = 2,
) -> ExamSet:
    """Make a set of phantom exams as tensors, or read it from ``cache`` if it is the same set.

    Parameters
    ----------
    cache : Path
        A safetensors file; its metadata hold everything the set was made from, and a file made
        from anything else is an error.
    """
    recipe = json.dumps(
        {
            "phantom": asdict(settings),
            "exams": exams,
            "preprocessing": asdict(preprocessing),
            "phantom_sources": _phantom_sources(),
        },
        sort_keys=True,
    )
    if cache.exists():
        return _read(cache, recipe)
    chunks = [
        _Recipe(
            settings=settings,
            preprocessing=preprocessing,
            first=first,
            exams=min(_CHUNK, exams - first),
        )
        for first in range(0, exams, _CHUNK)
    ]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        made = list(track(pool.map(_make_chunk, chunks), total=len(chunks), description=cache.stem))
    views = np.concatenate([chunk[0] for chunk in made])
    facts = [fact for chunk in made for fact in chunk[1]]
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {"views": torch.from_numpy(views)},
        cache,
        metadata={"recipe": recipe, "facts": json.dumps(facts)},
    )
    return _exam_set(torch.from_numpy(views), facts)


def _phantom_sources() -> str:
    """Hash what draws the exams, so that a cache never outlives a change of the generator."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(
        b"".join(path.read_bytes() for path in sources if path.stem in _DRAWING)
    ).hexdigest()


def _make_chunk(recipe: _Recipe) -> tuple[NDArray[np.uint8], list[dict[str, object]]]:
    views, facts = [], []
    for index in range(recipe.first, recipe.first + recipe.exams):
        exam = make_exam(recipe.settings, index)
        views.append(model_input(exam, recipe.preprocessing))
        facts.append(
            {
                "malignant": exam.malignant,
                "category": exam.category.value,
                "captions": [exam.views[view].caption for view in VIEWS],
            }
        )
    return np.stack(views), facts


def model_input(exam: PhantomExam, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Read a phantom as an exam is read: (4, 1, height, width), 255 is a displayed value of 1."""
    images = {
        view: pixels.decode(
            SourceImage(view=view, name=f"{exam.name}/{view}", dataset=exam.datasets[view])
        )
        for view in VIEWS
    }
    built = tensor.build(images, preprocessing).tensors["views"][0]
    return np.round(built * 255).astype(np.uint8)


def _read(cache: Path, recipe: str) -> ExamSet:
    with safe_open(cache, framework="pt") as stream:
        metadata = stream.metadata()
        if metadata["recipe"] != recipe:
            raise ValueError(
                f"{cache}: found exams made from other settings; expected those asked for. "
                "Delete the file or name another folder."
            )
        return _exam_set(stream.get_tensor("views"), json.loads(metadata["facts"]))


def _exam_set(views: torch.Tensor, facts: list[dict[str, object]]) -> ExamSet:
    return ExamSet(
        views=views,
        malignant=torch.tensor([bool(fact["malignant"]) for fact in facts]),
        categories=tuple(str(fact["category"]) for fact in facts),
        view_captions=tuple(tuple(fact["captions"]) for fact in facts),
    )


def augment(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, scale the brightness of and bend the tone curve of a batch, each view by itself.

    Parameters
    ----------
    views : float32 (..., 1, height, width), 0 to 1

    Returns
    -------
    float32 of the same shape, 0 to 1. Air stays air, and left is never exchanged with right.
    """
    flat = views.reshape(-1, *views.shape[-2:])
    count, height, width = flat.shape
    down = torch.randint(-6, 7, (count,), generator=generator)
    across = torch.randint(0, 5, (count,), generator=generator)
    rows = (torch.arange(height)[None, :] - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width)[None, :] + across[:, None]).clamp(0, width - 1)
    moved = flat[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    tone = torch.exp(0.15 * torch.randn((count, 1, 1), generator=generator))
    gain = torch.exp(0.08 * torch.randn((count, 1, 1), generator=generator))
    return (gain * moved.clamp_min(1e-4) ** tone).clamp(0, 1).reshape(views.shape)


def swap_sides(
    views: torch.Tensor, order: tuple[View, ...], generator: torch.Generator
) -> torch.Tensor:
    """Exchange the left and the right breast of half of the exams.

    Every chest wall is at the left, so that a mirrored woman is the same four images in another
    order. The label does not change: it asks whether there is cancer, not where. Where ``order``
    lacks the other side of a view, nothing is exchanged.

    Parameters
    ----------
    views : float32 (B, V, 1, height, width)
        In the order ``order``.
    """
    mirrored = [View(("R" if v.laterality == "L" else "L") + v.projection) for v in order]
    if set(mirrored) != set(order):
        return views
    other = [order.index(view) for view in mirrored]
    swapped = torch.rand(len(views), generator=generator) < 0.5
    return torch.where(swapped[:, None, None, None, None], views[:, other], views)
