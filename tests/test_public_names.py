"""The package offers these names and no others."""

from __future__ import annotations

import importlib.metadata

import mammoclip_sdk


def test_public_names() -> None:
    assert sorted(mammoclip_sdk.__all__) == [
        "Prediction",
        "Predictor",
        "View",
        "__version__",
        "errors",
        "predict",
    ]
    assert all(hasattr(mammoclip_sdk, name) for name in mammoclip_sdk.__all__)
    assert dir(mammoclip_sdk) == sorted(mammoclip_sdk.__all__)
    assert mammoclip_sdk.__version__ == importlib.metadata.version("mammoclip-sdk")
