"""The package offers these names and no others."""

from __future__ import annotations

import copy
import importlib.metadata
import pickle
import subprocess
import sys

import pytest

import mammoclip_sdk
from mammoclip_sdk import errors


def test_public_names() -> None:
    assert sorted(mammoclip_sdk.__all__) == [
        "Prediction",
        "Predictor",
        "Trust",
        "View",
        "__version__",
        "archive",
        "errors",
        "predict",
    ]
    assert all(hasattr(mammoclip_sdk, name) for name in mammoclip_sdk.__all__)
    assert dir(mammoclip_sdk) == sorted(mammoclip_sdk.__all__)
    assert mammoclip_sdk.__version__ == importlib.metadata.version("mammoclip-sdk")


@pytest.mark.parametrize("name", ["archive", "errors"])
def test_modules_are_there_when_they_are_asked_for_and_not_before(name: str) -> None:
    code = (
        "import sys, mammoclip_sdk\n"
        f"name = 'mammoclip_sdk.{name}'\n"
        "print([loaded for loaded in sys.modules if loaded.startswith('mammoclip_sdk.')])\n"
        f"print(mammoclip_sdk.{name} is sys.modules['mammoclip_sdk.{name}'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def tree(kind: type[errors.MammoClipError]) -> list[type[errors.MammoClipError]]:
    below = [c for c in kind.__subclasses__() if c.__module__ == errors.__name__]
    return [kind, *(found for child in below for found in tree(child))]


@pytest.mark.parametrize("kind", tree(errors.MammoClipError))
@pytest.mark.parametrize("code", [None, "special"])
def test_errors_pass_between_processes_whole(
    kind: type[errors.MammoClipError], code: str | None
) -> None:
    error = kind("IM1", found="a", expected="b", remedy="C.", code=code)
    error.add_note("while testing")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(again) is kind
        assert str(again) == "IM1: found a; expected b. C."
        assert again.to_dict() == error.to_dict()
        assert again.code == (code or kind.code)
        assert again.__notes__ == ["while testing"]
