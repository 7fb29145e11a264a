"""A C++ program without Python makes the same view of the same pixels, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from mammoclip_sdk import tensor
from mammoclip_sdk.exam import DisplayAttributes, StoredImage, View, Window
from mammoclip_sdk.preprocessing import Preprocessing

CPP = Path(__file__).resolve().parents[1] / "cpp"
PREPROCESSING = Preprocessing(
    version=1,
    height=96,
    width=64,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example, built by cmake alone as a C++ caller would build it."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    if cmake is None or shutil.which("c++", path=path) is None:
        pytest.skip("no cmake or no C++ compiler to build the example with")
    folder = tmp_path_factory.mktemp("example")
    ninja = shutil.which("ninja", path=path)
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    configure = [cmake, "-S", CPP, "-B", folder, "-DMAMMOCLIP_EXAMPLE=ON", *generator]
    for command in (configure, [cmake, "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
    return folder / "mammoclip_view"


def phantom() -> np.ndarray:
    """MONOCHROME1: a half ellipse against the right edge, brighter air, padding at the left."""
    rows, columns = 901, 702
    row, column = np.mgrid[:rows, :columns] + 0.5
    inside = ((row - 420) / 350) ** 2 + ((columns - column) / 400) ** 2 < 1
    texture = np.random.default_rng(5).integers(0, 1200, (rows, columns))
    pixels = np.where(inside, 1000 + texture, 4000).astype("<u2")
    pixels[:, :40] = 4095
    return pixels


def test_the_example_makes_the_view_that_python_makes(program):
    pixels = phantom()
    display = DisplayAttributes(
        bits_stored=12,
        signed=False,
        photometric="MONOCHROME1",
        windows=(Window(center=2100.5, width=3100.0),),
        padding=(4095, 4095),
    )
    image = StoredImage(
        view=View.RCC,
        name="phantom",
        pixels=pixels,
        display=display,
        transfer_syntax="array",
    )
    expected, geometry, _ = tensor.build_view(image, PREPROCESSING)
    assert geometry.mirrored
    assert expected.max() > 0.5
    command = [program, "901", "702", "2100.5", "3100", "4095"]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True)
    assert done.stderr == b""
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<f4").reshape(96, 64), expected)


def test_the_example_says_why_there_is_no_view(program):
    air = np.full((64, 64), 4000, "<u2").tobytes()

    def message(*arguments: str, pixels: bytes = air) -> str:
        done = subprocess.run([program, *arguments], input=pixels, capture_output=True)
        assert done.returncode != 0
        assert done.stdout == b""
        return done.stderr.decode()

    assert "width 0" in message("64", "64", "2000", "0", "0")
    assert "breast" in message("64", "64", "2000", "1000", "0")
    assert "1 to 65535" in message("64", "65536", "2000", "1000", "0")
    assert "ends before" in message("64", "65", "2000", "1000", "0")
