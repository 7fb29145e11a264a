"""No bundle that computes something else, none half-written; then signature and engines."""

import errno
import functools
import re
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from small_checkpoint import (
    bytes_below,
    everything,
    invoke,
)
from tensorrt_here import needs_rtx

from export import answers, build_engine
from export.build_engine import ExportConfig
from export.engines import build_engines
from export.errors import ExportError
from export.exams import parity_exams, phantoms
from export.fold import fold
from export.precision import half
from export.stages import Stages
from mammoclip_sdk.bundle import (
    read_bundle,
)
from mammoclip_sdk.errors import BundleError, BundleSignatureError, EngineError


@pytest.fixture(scope="module", autouse=True)
def exams_are_made_once():
    """The same phantoms for every export here: they follow from the seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "parity_exams", functools.cache(parity_exams))
        patch.setattr(build_engine, "phantoms", functools.cache(phantoms))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return everything(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def checkpoint(exported):
    return exported[1].checkpoint


# The gate


@pytest.fixture
def earlier(exported, tmp_path):
    """A bundle in place of the one that is to be written, and its bytes."""
    shutil.copytree(exported[1].out, tmp_path / "bundle")
    yield tmp_path / "bundle", bytes_below(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_no_bundle_is_written_when_the_graph_computes_something_else(
    checkpoint, earlier, monkeypatch
):
    def wrong_fold(model):
        folded = fold(model)
        folded.blocks[1].mlp.output.layer.weight.mul_(1.01)
        return folded

    monkeypatch.setattr(answers, "fold", wrong_fold)
    out, before = earlier
    code, said = invoke(
        "--checkpoint", checkpoint, "--out", out, "--precisions", "fp32", "--overwrite"
    )
    assert code == 1
    assert "No bundle was written" in said
    assert re.search(r"difference of a logit, at scale 100: \d.*, at most 0\.001 \(exam \d+", said)
    assert bytes_below(out) == before


def test_no_bundle_is_written_when_half_precision_alone_is_wrong(checkpoint, tmp_path, monkeypatch):
    from export import graphs

    def wrong_half(encoder, *, float32_blocks):
        made = half(encoder, float32_blocks=float32_blocks)
        made.blocks[0].mlp.output.layer.weight.mul_(1.2)
        return made

    monkeypatch.setattr(graphs, "half", wrong_half)
    code, said = invoke(
        "--checkpoint", checkpoint, "--out", tmp_path / "bundle", "--precisions", "fp32,fp16"
    )
    assert code == 1
    assert re.search(r"onnxruntime \S+ CPUExecutionProvider, fp16: difference of a logit", said)
    assert "fp32: difference" not in said
    assert list(tmp_path.iterdir()) == []


# Where it goes


@pytest.fixture
def quick(exported, monkeypatch):
    """An export whose long stages were done before: what is left is what it writes."""
    result, config, _ = exported
    made = read_bundle(config.out)
    made = replace(made, files={name: made.files[name] for name in result.files})
    monkeypatch.setattr(build_engine, "ask", lambda *_: (SimpleNamespace(findings=()), None))
    monkeypatch.setattr(build_engine, "calibration_exams", lambda *_: np.zeros(1))
    for stage in ("reference_graph", "check_description", "with_half", "with_int8"):
        monkeypatch.setattr(build_engine, stage, lambda *_: None)
    monkeypatch.setattr(build_engine, "certified", lambda *_: (made, result.certificate))
    return config


@contextmanager
def no_file_beyond(size):
    """The kernel refuses to make any file of this process longer, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_earlier_bundle(quick, earlier):
    out, before = earlier
    config = replace(quick, out=out, overwrite=True)
    with no_file_beyond(30_000), pytest.raises(BundleError, match="a disk that refused"):
        build_engine.main(config)
    assert bytes_below(out) == before
    build_engine.main(config)
    assert bytes_below(out) == before


def test_a_taken_or_unwritable_place_is_refused_before_the_long_work(
    checkpoint, tmp_path, monkeypatch
):
    def place(out, **keys):
        config = ExportConfig(checkpoint=tmp_path / "not even looked at", out=out, **keys)
        with pytest.raises(ExportError) as caught:
            build_engine.main(config)
        return caught.value.found

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    assert place(tmp_path / "notes") == "something already at this path"
    assert place(tmp_path / "notes", overwrite=True) == "something that is not a bundle"
    assert place(tmp_path / "notes" / "text" / "bundle").startswith("a folder that cannot be")
    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **_: (_ for _ in ()).throw(refused))
    assert place(tmp_path / "a" / "b") == (
        f"a folder that cannot be written to ({tmp_path}: Permission denied)"
    )
    assert (tmp_path / "notes" / "text").read_text() == "mine"


# Signature and engines


def test_a_bundle_can_be_signed_and_a_key_that_is_none_is_said_first(quick, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    def written(key, name):
        path = tmp_path / name
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path

    out = tmp_path / "bundle"
    for key in (
        tmp_path / "absent.pem",
        written(ec.generate_private_key(ec.SECP256R1()), "other.pem"),
    ):
        with pytest.raises(BundleSignatureError):
            build_engine.main(
                replace(quick, checkpoint=tmp_path / "not even looked at", out=out, sign=key)
            )
    private = ed25519.Ed25519PrivateKey.generate()
    build_engine.main(replace(quick, out=out, sign=written(private, "key.pem")))
    assert (out / "manifest.sig").is_file()
    assert read_bundle(out).signature is not None
    assert "key.pem" not in (out / "manifest.json").read_text()


@needs_rtx
def test_an_engine_is_built_from_the_written_bundle_and_says_that_it_was_not_run(
    quick, tmp_path, capsys
):
    config = replace(
        quick,
        out=tmp_path / "bundle",
        engines=("tensorrt_rtx",),
        engine_folder=tmp_path / "engines",
    )
    stages = Stages(Console(width=400))
    (engine,) = build_engine.main(config, stages).engines
    fp16 = read_bundle(tmp_path / "bundle").manifest.graphs[1]
    assert engine.sidecar.graph_sha256 == fp16.sha256
    assert (engine.sidecar.flavour, engine.sidecar.precision) == ("tensorrt_rtx", "fp16")
    assert Path(engine.path).stat().st_size == engine.sidecar.plan_bytes > 10_000
    assert stages.ended[-1].name == "engine tensorrt_rtx"
    if engine.sidecar.gpu is None:
        assert engine.sidecar.parity.startswith("not run")
        assert "parity: not run" in capsys.readouterr().out


@needs_rtx
def test_a_disk_too_full_for_an_engine_leaves_the_bundle_and_no_engine(exported, tmp_path):
    folder = tmp_path / "engines"
    config = replace(exported[1], engines=("tensorrt_rtx",), engine_folder=folder)
    before = bytes_below(config.out)
    with no_file_beyond(10_000), pytest.raises(EngineError):
        build_engines(config, Stages(Console(quiet=True)))
    assert bytes_below(config.out) == before
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_an_engine_of_a_flavour_that_is_not_installed_is_refused_first(tmp_path):
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        code, said = invoke(
            "--checkpoint", tmp_path, "--out", tmp_path / "bundle", "--engine", "tensorrt"
        )
        assert code == 2
        assert "No bundle was written: " in said
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("full TensorRT is installed")
