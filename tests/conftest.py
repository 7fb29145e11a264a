"""A bundle of a few kilobytes, whose graph is arithmetic one can follow; a plain exam; keys."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import exams
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    SCHEMA,
    Bundle,
    Finding,
    GoldenExams,
    Graph,
    Interval,
    Manifest,
    Measurement,
    ModelCard,
    OperatingPoint,
    Preprocessing,
    Source,
    Tensor,
    read_bundle,
    sha256,
    write_bundle,
)
from mammoclip_sdk.exam import PLAIN, VIEWS

HEIGHT, WIDTH, TILE, SIZE = 32, 24, 8, 6
FEATURES = len(VIEWS) * (HEIGHT // TILE) * (WIDTH // TILE)
LOGIT_SCALE = 10.0


def tiny_weights() -> NDArray[np.float32]:
    """(FEATURES, SIZE): from the mean grey value of every tile to the embedding."""
    return np.random.default_rng(7).normal(size=(FEATURES, SIZE)).astype(np.float32)


def tiny_embedding(views: NDArray[np.float32]) -> NDArray[np.float32]:
    """The tiny graph in NumPy: tile means, one matrix product, length 1."""
    batch = len(views)
    tiles = views.reshape(batch, 4, HEIGHT // TILE, TILE, WIDTH // TILE, TILE).mean(axis=(3, 5))
    product = tiles.reshape(batch, FEATURES) @ tiny_weights() + np.float32(0.01)
    return (product / np.linalg.norm(product, axis=1, keepdims=True)).astype(np.float32)


def tiny_graph(weights: NDArray[np.float32] | None = None) -> bytes:
    """The same as ONNX."""
    constants = {
        "grid": np.array([-1, 4, HEIGHT, WIDTH], np.int64),
        "row": np.array([-1, FEATURES], np.int64),
        "weights": tiny_weights() if weights is None else weights,
        "bias": np.full(SIZE, 0.01, np.float32),
    }
    tile = {"kernel_shape": [TILE, TILE], "strides": [TILE, TILE]}
    nodes = [
        helper.make_node("Reshape", ["views", "grid"], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["tiles"], **tile),
        helper.make_node("Reshape", ["tiles", "row"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("views", TensorProto.FLOAT, ["B", 4, 1, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", SIZE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def tiny_golden(count: int = 2) -> dict[str, NDArray[np.float32]]:
    views = np.random.default_rng(3).random((count, 4, 1, HEIGHT, WIDTH), dtype=np.float32)
    embedding = tiny_embedding(views)
    prompts = np.array([prompt(0), prompt(1)], np.float32)
    logits = np.float32(LOGIT_SCALE) * (embedding @ prompts.T)[:, None, :]
    return {"views": views, "embedding": embedding, "logits": logits}


def prompt(index: int) -> tuple[float, ...]:
    """A text embedding: one unit vector of the standard basis for each prompt."""
    return tuple(float(place == index) for place in range(SIZE))


def as_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tiny_files() -> dict[str, bytes]:
    return {"model.fp32.onnx": tiny_graph(), "golden.npz": as_npz(tiny_golden())}


PREPROCESSING = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=HEIGHT,
    width=WIDTH,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.02,
    crop_margin=0.02,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)
SOURCE = Source(
    git_commit="0" * 40,
    checkpoint_sha256="0" * 64,
    open_clip_model="none",
    base_sha256="1" * 64,
    seed=7,
    command="tests/conftest.py",
    training_report={"exams": 0, "loss": [0.5, None]},
)
HALF = Interval(estimate=0.5, lower=0.4, upper=0.6, level=0.95, method="wilson")
FINDING = Finding(
    name="malignancy",
    negative_prompt="a mammogram without a malignant lesion",
    positive_prompt="a mammogram with a malignant lesion",
    tokenizer="none",
    tokenizer_sha256="2" * 64,
    negative_embedding=prompt(0),
    positive_embedding=prompt(1),
    logit_scale=LOGIT_SCALE,
    calibration=None,
    operating_points=(
        OperatingPoint(name="always", threshold=0.0, sensitivity=HALF, specificity=HALF),
        OperatingPoint(name="never", threshold=1.0, sensitivity=HALF, specificity=HALF),
    ),
)
MEASURED = Measurement(name="AUC", finding="malignancy", value=HALF, exams=100, data="noise")
CARD = ModelCard(
    training_data="None: the weights are random numbers.",
    limitations=("It knows nothing about breasts.",),
    licence="Apache-2.0",
)


def tiny_manifest(files: Mapping[str, bytes]) -> Manifest:
    graph = Graph(
        file="model.fp32.onnx",
        sha256=sha256(files["model.fp32.onnx"]),
        precision="fp32",
        opset=17,
        inputs=(Tensor(name="views", shape=("B", 4, 1, HEIGHT, WIDTH), dtype="float32"),),
        outputs=(Tensor(name="embedding", shape=("B", SIZE), dtype="float32"),),
        largest_activations=(),
        float32_blocks=(),
    )
    golden = GoldenExams(
        file="golden.npz",
        sha256=sha256(files["golden.npz"]),
        count=2,
        tolerance={"fp32": 1e-4, "bf16": 0.02},
    )
    return Manifest(
        schema=SCHEMA,
        name="tiny",
        version="1.2.3",
        release=4,
        intended_use="Testing the software; it knows nothing about breasts.",
        not_for_clinical_use=True,
        acceptance=PLAIN,
        source=SOURCE,
        views=tuple(str(view) for view in VIEWS),
        preprocessing=PREPROCESSING,
        findings=(FINDING,),
        graphs=(graph,),
        golden=golden,
        measurements=(MEASURED,),
        model_card=CARD,
        attachments=(),
    )


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plain, uncompressed image of an exam, as a file has it."""
    return exams.write_exam(tmp_path_factory.mktemp("plain"), exams.PLAIN)[0].read_bytes()


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """The path of a valid bundle in a folder of its own."""
    path = tmp_path / "tiny_bundle"
    files = tiny_files()
    write_bundle(path, tiny_manifest(files), files)
    return path


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """The same, as it is read."""
    return read_bundle(tiny_bundle)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """The folder of a plain exam: IM1 to IM4, in the order of `VIEWS`."""
    exams.write_exam(tmp_path / "exam", exams.PLAIN)
    return tmp_path / "exam"


@dataclass
class FakeSession:
    """A session in NumPy, which runs what it is told to and remembers what it was given."""

    compute: Callable[[NDArray[np.float32]], NDArray[np.float32]] = tiny_embedding
    runtime: str = "fake 1.0 NumPy"
    device: str = "cpu"
    precision: str = "fp32"
    batches: tuple[int, ...] = ()
    closed: bool = False

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        self.batches += (len(tensors["views"]),)
        return self.compute(tensors["views"])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_session() -> FakeSession:
    return FakeSession()


def altered(path: Path, **changes: object) -> Bundle:
    """The bundle at the path with other manifest fields, unchecked and in memory only."""
    bundle = read_bundle(path)
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


def with_file(path: Path, name: str, data: bytes) -> Bundle:
    """The bundle at the path with other bytes under the same manifest, as no reader lets pass."""
    bundle = read_bundle(path)
    return replace(bundle, files={**bundle.files, name: data})


def zipped(folder: Path, *, top: str = "") -> Path:
    """A zip of the folder's files, beside it."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, top + file.name)
    return path


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key in two PEM files."""

    private: Path
    public: Path


def make_keys(folder: Path, name: str, password: bytes | None = None) -> KeyPair:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).encode()[:32])
    locked = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    pair = KeyPair(private=folder / f"{name}.pem", public=folder / f"{name}.pub.pem")
    pair.private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
    pair.public.write_bytes(
        key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    return pair


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    """The vendor's key."""
    return make_keys(tmp_path, "vendor")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where accepted releases and engines are kept: nowhere that is the user's."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("MAMMOCLIP_STATE", str(folder))
    monkeypatch.setenv("MAMMOCLIP_ENGINES", str(folder / "engines"))
    return folder
