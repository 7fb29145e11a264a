"""What decides a model's shape and its starting weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mammoclip_sdk import strict_json
from training.adapters import AdapterConfig
from training.checkpoint import CheckpointRecord
from training.checkpoint_folder import record_error

POOLINGS = ("mean_cls", "first_cls")
VIEW_EMBEDDINGS = ("none", "learned")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the model's shape and its starting weights."""

    open_clip_model: str
    """A name known to open_clip (``ViT-B-32``), the name of a JSON file in ``training/configs``
    (``phantom-clip``), or the path of such a file."""
    pretrained: str | None
    """None for random weights; the path of a weights file in open_clip's layout (.safetensors,
    .pt, .pth, .bin); or of a checkpoint folder."""
    image_size: tuple[int, int]
    """(height, width) of a view in pixels, multiples of the patch size."""
    n_local: int
    """Blocks that see one view at a time, from the first; 0 makes every block global, the
    encoder's depth makes none (late fusion)."""
    pooling: str = "mean_cls"
    """``mean_cls`` averages the class tokens of the views; ``first_cls`` takes the first view's."""
    view_embedding: str = "none"
    """``none``, or ``learned``: one vector for each of the four views, zero at the start."""
    image_adapter: AdapterConfig | None
    text_adapter: AdapterConfig | None

    def __post_init__(self) -> None:
        """Refuse, all together, values that mean nothing."""
        problems = []
        if self.pooling not in POOLINGS:
            problems.append(f"pooling is {self.pooling!r}, expected one of {', '.join(POOLINGS)}")
        if self.view_embedding not in VIEW_EMBEDDINGS:
            problems.append(
                f"view_embedding is {self.view_embedding!r}, "
                f"expected one of {', '.join(VIEW_EMBEDDINGS)}"
            )
        if problems:
            raise ValueError("ModelConfig: " + "; ".join(problems))


def config_of(record: CheckpointRecord, folder: Path) -> ModelConfig:
    """Return the configuration a checkpoint's record holds.

    Raises
    ------
    CheckpointError
        With every key that is unknown, missing or of no meaning.
    """
    problems: list[str] = []
    try:
        config = strict_json.from_plain(ModelConfig, record.model, problems, "model")
    except ValueError as error:
        raise record_error(folder, [*problems, f"model: {error}"]) from error
    if config is None:
        raise record_error(folder, problems)
    return config
