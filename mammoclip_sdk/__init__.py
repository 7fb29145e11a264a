"""Four mammography views in, a probability of malignancy out, without torch.

The names load on first use, so that asking the command line for help does not wait for them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoclip_sdk import archive, errors
    from mammoclip_sdk.bundle.signature import Trust
    from mammoclip_sdk.exam import View
    from mammoclip_sdk.prediction import Prediction
    from mammoclip_sdk.predictor import Predictor, predict

__all__ = [
    "Prediction",
    "Predictor",
    "Trust",
    "View",
    "__version__",
    "archive",
    "errors",
    "predict",
]

__version__ = importlib.metadata.version("mammoclip-sdk")

_MODULES = ("archive", "errors")
_HOMES = {
    "Prediction": "prediction",
    "Predictor": "predictor",
    "Trust": "bundle.signature",
    "View": "exam",
    "predict": "predictor",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mammoclip_sdk.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"mammoclip_sdk.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
