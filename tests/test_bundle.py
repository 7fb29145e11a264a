"""Bundles: strict to read, whole or absent when written, and any flipped bit is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import prompt, tiny_files, tiny_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    SCHEMA,
    Attachment,
    manifest_from_json,
    manifest_to_json,
    read_bundle,
    sha256,
    write_bundle,
)
from mammoclip_sdk.bundle import files as bundle_files
from mammoclip_sdk.bundle import folder as bundle_folder
from mammoclip_sdk.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleNotFoundError,
    BundleVersionError,
)

Plain = dict[str, Any]
MANIFEST = json.loads(manifest_to_json(tiny_manifest(tiny_files())))


def rewrite(path: Path, change: Callable[[Plain], object]) -> None:
    """Change the manifest as an editor would that knows the checksum."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    change(manifest)
    data = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_text(f"{sha256(data)}  manifest.json\n")


def read_with(change: Callable[[Plain], object]) -> str:
    """Read the tiny manifest with a change, and return what was found wrong with it."""
    manifest = json.loads(json.dumps(MANIFEST))
    change(manifest)
    with pytest.raises(BundleFormatError) as caught:
        manifest_from_json(json.dumps(manifest), subject="m")
    return caught.value.found


def zipped(folder: Path, *, top: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, top + file.name)
    return path


def test_what_is_written_is_read_back_equal(tiny_bundle: Path) -> None:
    files = tiny_files()
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest == tiny_manifest(files)
    assert bundle.files == files
    assert bundle.sha256 == sha256((tiny_bundle / "manifest.json").read_bytes())


@pytest.mark.parametrize("top", ["", "tiny_bundle/"])
def test_a_zip_of_the_folder_or_of_its_files_is_the_same_bundle(
    tiny_bundle: Path, top: str
) -> None:
    folder, archive = read_bundle(tiny_bundle), read_bundle(zipped(tiny_bundle, top=top))
    assert (archive.manifest, archive.sha256, archive.files) == (
        folder.manifest,
        folder.sha256,
        folder.files,
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_any_flipped_bit_is_noticed(
    tiny_bundle: Path, place: float, bit: int, data: st.DataObject
) -> None:
    names = sorted(file.name for file in tiny_bundle.iterdir())
    assert names == ["golden.npz", "manifest.json", "manifest.sha256", "model.fp32.onnx"]
    file = tiny_bundle / data.draw(st.sampled_from(names))
    intact = file.read_bytes()
    damaged = bytearray(intact)
    damaged[int(place * len(damaged))] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        with pytest.raises(BundleIntegrityError, match=r"manifest\.json|other bytes in"):
            read_bundle(tiny_bundle)
    finally:
        file.write_bytes(intact)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_zip_is_noticed_or_changes_nothing(
    tiny_bundle: Path, place: float, bit: int
) -> None:
    path = zipped(tiny_bundle)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = read_bundle(path)
    except BundleError:
        return
    assert found.files == tiny_files()
    assert found.manifest == tiny_manifest(tiny_files())


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_truncated_zip_is_refused(tiny_bundle: Path, cut: float) -> None:
    path = zipped(tiny_bundle)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(BundleIntegrityError):
        read_bundle(path)


def attachment(kind: str, file: str, digest: str = "0" * 64) -> Plain:
    return {"kind": kind, "file": file, "sha256": digest}


def half(manifest: Plain, **ranges: object) -> None:
    """Add an fp16 graph, with the ranges of its blocks."""
    graph = {**manifest["graphs"][0], "file": "model.fp16.onnx", "precision": "fp16", **ranges}
    manifest["graphs"].append(graph)
    manifest["golden"]["tolerance"]["fp16"] = 0.1


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([2], "float32 block 2 is none of the 2 that were measured"),
        ([-1], "float32 block -1 is none of the 2"),
        ([1, 1], "float32_blocks: '1' occurs 2 times"),
    ],
)
def test_a_block_in_float32_is_one_that_was_measured(blocks: list[int], problem: str) -> None:
    ranges = {"largest_activations": [3.0, 20_000.0], "float32_blocks": blocks}
    assert problem in read_with(lambda manifest: half(manifest, **ranges))
    manifest = json.loads(json.dumps(MANIFEST))
    half(manifest, **{**ranges, "float32_blocks": [1]})
    assert manifest_from_json(json.dumps(manifest), subject="m").graphs[1].float32_blocks == (1,)


def test_an_activation_is_a_magnitude() -> None:
    assert "largest activation -3.0 of block 0 is negative" in read_with(
        lambda manifest: half(manifest, largest_activations=[-3.0])
    )


def test_there_is_one_text_for_one_manifest() -> None:
    manifest = tiny_manifest(tiny_files())
    tolerance = {"int8": 1, "fp32": 0.5, "bf16": 0.25}
    unordered = replace(manifest, golden=replace(manifest.golden, tolerance=tolerance))
    text = manifest_to_json(unordered)
    assert '"bf16": 0.25,\n      "fp32": 0.5,\n      "int8": 1.0\n' in text
    assert manifest_to_json(manifest_from_json(text, subject="m")) == text
    backwards = dict(reversed(tolerance.items()))
    other = replace(manifest, golden=replace(manifest.golden, tolerance=backwards))
    assert manifest_to_json(other) == text


def test_all_problems_come_together() -> None:
    def change(manifest: Plain) -> None:
        manifest["colour"] = "red"
        del manifest["release"]
        manifest["name"] = 3
        manifest["findings"][0]["logit_scale"] = "ten"
        manifest["preprocessing"]["height"] = True
        manifest["graphs"][0]["inputs"][0]["shape"] = [1.5]

    found = read_with(change)
    assert found.startswith("6 problems: ")
    for problem in (
        "colour: unknown key",
        "release: missing",
        "name: 3 instead of str",
        "findings[0].logit_scale: 'ten' instead of float",
        "preprocessing.height: True instead of int",
        "graphs[0].inputs[0].shape[0]: 1.5 instead of int or str",
    ):
        assert problem in found


def setter(path: str, value: object) -> Callable[[Plain], None]:
    def change(manifest: Plain) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target: Any = manifest
        for part in parents:
            target = target[part]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("views", ["RCC", "LCC", "LMLO", "RMLO"], "views: ['RCC'"),
        ("intended_use", " ", "intended_use: empty"),
        ("findings", [], "at least one"),
        ("findings.0.positive_embedding", [0.5, *prompt(1)[1:]], "length 1.11803 instead of 1"),
        ("findings.0.positive_embedding", [1.0], "embeddings of different lengths [1, 6]"),
        ("findings.0.logit_scale", 0, "logit_scale: 0.0 is not positive"),
        (
            "findings.0.calibration",
            {"slope": -1, "intercept": 0, "fitted_on": "x"},
            "calibration.slope: -1.0",
        ),
        ("findings.0.operating_points.0.threshold", 1.1, "threshold 1.1"),
        ("findings.0.operating_points.0.name", "never", "'never' occurs 2 times"),
        ("measurements.0.value.lower", 0.55, "0.5 outside 0.55 to 0.6"),
        ("measurements.0.finding", "density", "no finding 'density'"),
        ("preprocessing.geometry", "crop", "'crop' is none of letterbox, stretch"),
        ("preprocessing.voi", "percentile", "if and only if"),
        ("preprocessing.height", 64, "instead of (B, 4, 1, 64, 24)"),
        ("preprocessing.crop_margin", -0.1, "crop_margin: -0.1"),
        ("preprocessing.crop_margin", 0.995, "crop_margin: 0.995 is not in 0 to 0.99"),
        ("preprocessing.segmentation_threshold", -0.01, "segmentation_threshold: -0.01 is not in"),
        ("preprocessing.segmentation_threshold", 1.0, "threshold: 1.0 is not in 0 to 0.99"),
        ("preprocessing.height", 0, "height: 0 is not in 1 to 8192"),
        ("preprocessing.width", 8193, "width: 8193 is not in 1 to 8192"),
        ("preprocessing.jpeg2000_reduction", 6, "jpeg2000_reduction: 6 is not in 0 to 5"),
        ("preprocessing.jpeg2000_reduction", -1, "jpeg2000_reduction: -1 is not in 0 to 5"),
        ("graphs.0.precision", "fp8", "precision 'fp8'"),
        ("graphs.0.file", "../model.onnx", "not a plain file name"),
        ("graphs.0.file", "/etc/passwd", "not a plain file name"),
        ("graphs.0.file", "golden.npz", "'golden.npz' occurs 2 times"),
        ("graphs.0.sha256", "A" * 64, "64 lower-case hexadecimal digits"),
        ("graphs.0.outputs.0.shape", ["B", 7], "instead of one embedding of 6 numbers"),
        ("graphs.0.inputs.0.dtype", "float16", "'float16' instead of 'float32'"),
        ("golden.tolerance", {"fp16": 0.1}, "golden.tolerance: none for fp32"),
        ("golden.count", 0, "golden.count: 0"),
        ("golden.tolerance", {"fp32": 0.1, "fp8": 0.1}, "golden.tolerance: 0.1 for 'fp8'"),
        ("golden.tolerance", {"fp32": 0.1, "bf16": 0}, "golden.tolerance: 0.0 for 'bf16'"),
        ("release", -1, "release: -1 is negative"),
        ("source.base_sha256", "1" * 63, "source.base_sha256 is not 64 lower-case hexadecimal"),
        ("source.checkpoint_sha256", "unknown", "source.checkpoint_sha256 is not 64"),
        ("findings.0.tokenizer_sha256", "G" * 64, "malignancy'.tokenizer_sha256 is not 64"),
        ("model_card.licence", "", "model_card.licence: empty"),
        ("model_card.training_data", " ", "model_card.training_data: empty"),
        ("model_card.limitations", [], "model_card.limitations: none"),
        ("model_card.limitations", ["small", ""], "model_card.limitations: none, or an empty one"),
        ("graphs.0.largest_activations", [1.0], "which limit no fp32 graph"),
        ("graphs.0.float32_blocks", [0], "float32 block 0 is none of the 0 that were measured"),
        ("attachments", [attachment("certificate", "../c")], "'../c': not a plain file name"),
        ("attachments", [attachment("certificate", "manifest.sig")], "not a plain file name"),
        ("attachments", [attachment("certificate", "golden.npz")], "'golden.npz' occurs 2 times"),
        ("attachments", [attachment("poem", "p.txt")], "attachment 'poem' is none of parity_exams"),
        ("attachments", [attachment("sbom", "s", "0" * 65)], "s: sha256 is not 64 lower-case"),
        (
            "attachments",
            [attachment("sbom", "a"), attachment("sbom", "b")],
            "attachments: 'sbom' occurs 2 times",
        ),
        ("source.seed", 10**400, None),
        ("findings.0.logit_scale", 10**400, "a finite number"),
        ("source.training_report", {"a": {"b": "\ud800"}}, "training_report.a.b"),
    ],
)
def test_a_contradiction_is_named(path: str, value: object, problem: str | None) -> None:
    if problem is not None:
        assert problem in read_with(setter(path, value))
    else:  # a whole number has no largest value
        text = json.dumps(MANIFEST).replace('"seed": 7', f'"seed": {value}')
        assert manifest_from_json(text, subject="m").source.seed == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "top level: an array instead of an object"),
        (json.dumps(MANIFEST).replace("10.0", "NaN"), "NaN is not a number"),
        (json.dumps(MANIFEST).replace("10.0", "1e999"), "inf instead of a finite number"),
        (json.dumps(MANIFEST).replace('"release": 4', '"release": 4, "release": 5'), "twice"),
    ],
)
def test_text_that_is_not_plain_json_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BundleFormatError) as caught:
        manifest_from_json(text, subject="m")
    assert problem in caught.value.found


@pytest.mark.parametrize(("key", "place"), [("schema", ()), ("version", ("preprocessing",))])
def test_a_newer_bundle_says_so_before_anything_else(
    tiny_bundle: Path, key: str, place: tuple[str, ...]
) -> None:
    def change(manifest: Plain) -> None:
        manifest["from_the_future"] = True
        target = manifest[place[0]] if place else manifest
        target[key] = 99

    rewrite(tiny_bundle, change)
    with pytest.raises(BundleVersionError, match="newer version of mammoclip-sdk") as caught:
        read_bundle(tiny_bundle)
    known = {"schema": SCHEMA, "version": PREPROCESSING_VERSION}
    assert (caught.value.found, caught.value.expected) == ("99", str(known[key]))


@pytest.mark.parametrize(
    "name",
    ["nul.onnx", "CON", "Aux.tar.gz", "com1", "LPT9.npz", "model.", "model..", "-x", "a b", "é"],
)
def test_names_that_some_system_reads_otherwise_are_refused(name: str) -> None:
    assert "not a plain file name" in read_with(setter("graphs.0.file", name))


@pytest.mark.parametrize("name", ["a", "model.fp32.onnx", "console", "com10.npz", "nul-1", "A_-"])
def test_plain_names_are_not(name: str) -> None:
    assert bundle_files.is_plain_name(name)


def test_a_missing_bundle_and_one_without_manifest(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="nothing at this path"):
        read_bundle(tmp_path / "absent")
    (tiny_bundle / "manifest.json").unlink()
    with pytest.raises(BundleNotFoundError, match=r"no manifest\.json"):
        read_bundle(tiny_bundle)


def test_files_are_exactly_those_of_the_manifest(tiny_bundle: Path) -> None:
    (tiny_bundle / "notes.txt").write_text("hello")
    with pytest.raises(BundleFormatError, match=r"notes\.txt is not in the manifest"):
        read_bundle(tiny_bundle)
    (tiny_bundle / "notes.txt").unlink()
    (tiny_bundle / "sub").mkdir()
    with pytest.raises(BundleFormatError, match="found sub"):
        read_bundle(tiny_bundle)
    (tiny_bundle / "sub").rmdir()
    (tiny_bundle / "golden.npz").unlink()
    with pytest.raises(BundleIntegrityError, match=r"no golden\.npz"):
        read_bundle(tiny_bundle)


def test_a_manifest_without_its_checksum_is_refused(tiny_bundle: Path) -> None:
    (tiny_bundle / "manifest.sha256").unlink()
    with pytest.raises(BundleIntegrityError, match="no checksum"):
        read_bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["../evil", "/abs", "a/b/c", "..\\evil", ".hidden"])
def test_a_zip_cannot_name_files_elsewhere(tiny_bundle: Path, name: str) -> None:
    path = zipped(tiny_bundle)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BundleFormatError, match="plain names"):
        read_bundle(path)


def test_a_zip_bomb_is_not_unpacked(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tiny_bundle)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bin", bytes(50_000_000))
    with pytest.raises(BundleFormatError, match=r"bomb\.bin, which unpacks to 50000000"):
        read_bundle(path)
    monkeypatch.setattr(bundle_files, "MAX_BYTES", 10_000)
    with pytest.raises(BundleFormatError, match="at most 64 files, 10000 bytes"):
        read_bundle(zipped(tiny_bundle))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["long", "null"])
def test_a_name_that_no_file_can_have_is_an_error_and_no_defect(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleNotFoundError, match="nothing at this path"):
        read_bundle(tmp_path / name)
    files = tiny_files()
    with pytest.raises(BundleError, match="a disk that refused"):
        write_bundle(tmp_path / name, tiny_manifest(files), files)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unless_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    files = tiny_files()
    newer = replace(tiny_manifest(files), version="2.0.0")
    with pytest.raises(BundleError, match="already at this path"):
        write_bundle(tiny_bundle, newer, files)
    assert read_bundle(tiny_bundle).manifest.version == "1.2.3"
    write_bundle(tiny_bundle, newer, files, overwrite=True)
    assert read_bundle(tiny_bundle).manifest.version == "2.0.0"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        write_bundle(tmp_path / "thesis", newer, files, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["thesis", "tiny_bundle"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_while_writing_leaves_everything_as_it_was(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    files = tiny_files()
    newer = replace(tiny_manifest(files), version="2.0.0")
    rename = Path.rename

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse_the_new(source: Path, target: Path) -> Path:
        if source.name.endswith(".partial"):
            refuse()
        return rename(source, target)

    if step == "fsync":
        monkeypatch.setattr(bundle_folder.os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(tiny_bundle, newer, files, overwrite=True)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(tmp_path / "other", newer, files)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny_bundle"]
    assert read_bundle(tiny_bundle).manifest.version == "1.2.3"


def test_the_manifest_is_the_last_file_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_file = Path.open

    def recording(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        opened.append(self.name)
        return open_file(self, mode, *more, **options)

    monkeypatch.setattr(Path, "open", recording)
    files = tiny_files()
    write_bundle(tmp_path / "b", tiny_manifest(files), files)
    assert opened[-1] == "manifest.json"
    assert sorted(opened) == sorted([*files, "manifest.sha256", "manifest.json"])


def test_what_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    files = tiny_files()
    manifest = tiny_manifest(files)
    path = tmp_path / "b"
    with pytest.raises(BundleIntegrityError, match=r"other bytes in golden\.npz"):
        write_bundle(path, manifest, {**files, "golden.npz": b"x"})
    with pytest.raises(BundleFormatError, match=r"extra\.bin is not in the manifest"):
        write_bundle(path, manifest, {**files, "extra.bin": b"x"})
    with pytest.raises(BundleFormatError, match=r"golden\.tolerance: none for fp32"):
        write_bundle(path, replace(manifest, golden=replace(manifest.golden, tolerance={})), files)
    nan = replace(manifest.preprocessing, crop_margin=float("nan"))
    with pytest.raises(BundleFormatError, match="not JSON compliant"):
        write_bundle(path, replace(manifest, preprocessing=nan), files)
    with pytest.raises(BundleVersionError):
        write_bundle(path, replace(manifest, schema=SCHEMA + 1), files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_the_checksum_file_is_what_sha256sum_reads(tiny_bundle: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "manifest.sha256"],
        cwd=tiny_bundle,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "manifest.json: OK\n"


LARGE = 16 * 2**20


@pytest.fixture
def large_bundle(tmp_path: Path) -> Path:
    """A bundle with an attachment that does not stay in memory."""
    data = np.random.default_rng(5).bytes(LARGE)
    files = {**tiny_files(), "parity.npz": data}
    exams = Attachment(kind="parity_exams", file="parity.npz", sha256=sha256(data))
    path = tmp_path / "large"
    write_bundle(path, replace(tiny_manifest(files), attachments=(exams,)), files)
    return path


def peak_of(action: Callable[[], object]) -> int:
    """The most memory, in bytes, that Python held during the action and not before it."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_reading_a_bundle_takes_no_memory_for_its_large_files(
    large_bundle: Path, packed: bool
) -> None:
    path = zipped(large_bundle) if packed else large_bundle
    assert peak_of(lambda: read_bundle(path)) < 6 * 2**20
    bundle = read_bundle(path)
    assert bundle.size("parity.npz") == LARGE
    assert peak_of(lambda: "parity.npz" in bundle.files) < 2**20
    assert peak_of(lambda: bundle.files["parity.npz"]) < 1.25 * LARGE + 4 * 2**20
    assert bundle.files["parity.npz"] == (large_bundle / "parity.npz").read_bytes()


def test_a_bundle_is_copied_one_large_file_at_a_time(large_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(large_bundle)
    copy = tmp_path / "copy"
    assert peak_of(lambda: write_bundle(copy, bundle.manifest, bundle.files)) < 1.3 * LARGE
    assert read_bundle(copy).sha256 == bundle.sha256


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (flip, "other bytes than when the bundle was read"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "other bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "other bytes"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "other bytes"),
    ],
    ids=["flipped", "longer", "shorter", "gone", "empty"],
)
def test_a_large_file_that_changes_after_it_was_read_is_refused(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    found: str,
) -> None:
    monkeypatch.setattr(bundle_files, "KEPT_BYTES", 0)
    bundle = read_bundle(tiny_bundle)
    assert bundle.files["model.fp32.onnx"] == tiny_files()["model.fp32.onnx"]
    change(tiny_bundle / "model.fp32.onnx")
    with pytest.raises(BundleIntegrityError, match=found):
        bundle.files["model.fp32.onnx"]
    assert bundle.files["golden.npz"] == tiny_files()["golden.npz"]


def test_a_zip_that_changes_after_it_was_read_is_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_files, "KEPT_BYTES", 0)
    path = zipped(tiny_bundle)
    bundle = read_bundle(path)
    with zipfile.ZipFile(path, "w") as archive:  # a whole zip of the same names
        for file in sorted(tiny_bundle.iterdir()):
            archive.writestr(file.name, bytes(file.stat().st_size))
    with pytest.raises(BundleIntegrityError):
        bundle.files["model.fp32.onnx"]
    path.unlink()
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        bundle.files["golden.npz"]


def test_a_small_file_is_not_read_again(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    shutil.rmtree(tiny_bundle)
    assert bundle.files == tiny_files()


def test_files_may_be_asked_for_from_threads_and_other_folders(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_files, "KEPT_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    for path in (Path("tiny_bundle"), zipped(Path("tiny_bundle"))):
        bundle = read_bundle(path)
        monkeypatch.chdir("/")
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(bundle.files.__getitem__, ["model.fp32.onnx", "golden.npz"] * 8)
            )
        assert answers == [tiny_files()["model.fp32.onnx"], tiny_files()["golden.npz"]] * 8
        monkeypatch.chdir(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = bundle_files._check_listing

    def growing(path: Path, sizes: dict[str, int]) -> None:
        check(path, sizes)
        with (tiny_bundle / "golden.npz").open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(bundle_files, "_check_listing", growing)
    with pytest.raises(BundleIntegrityError, match="grows or shrinks while it is read"):
        read_bundle(tiny_bundle)


def test_one_file_cannot_be_larger_than_a_graph_can_be(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_files, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleFormatError, match="1000 in one of them"):
        read_bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "manifest.sig"])
def test_what_is_read_whole_is_short(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(bundle_files, "MAX_MANIFEST_BYTES", 20_000)
    assert (tiny_bundle / "manifest.json").stat().st_size < 20_000
    (tiny_bundle / name).write_bytes(bytes(20_001))
    with pytest.raises(BundleFormatError, match="20001 in the manifest or beside it"):
        read_bundle(tiny_bundle)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_by_another_method_is_refused(tiny_bundle: Path, method: int) -> None:
    path = tiny_bundle.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(tiny_bundle.iterdir()):
            archive.write(file, file.name)
    with pytest.raises(BundleIntegrityError, match="packed by another method than deflate"):
        read_bundle(path)


def test_an_attachment_is_found_by_its_kind_and_guarded_as_graphs_are(large_bundle: Path) -> None:
    manifest = read_bundle(large_bundle).manifest
    found = manifest.attachment("parity_exams")
    assert found is not None
    assert found.file == "parity.npz"
    assert manifest.attachment("certificate") is None
    flip(large_bundle / "parity.npz")
    with pytest.raises(BundleIntegrityError, match=r"other bytes in parity\.npz"):
        read_bundle(large_bundle)
    (large_bundle / "parity.npz").unlink()
    with pytest.raises(BundleIntegrityError, match=r"no parity\.npz"):
        read_bundle(large_bundle)


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)
    with pytest.raises(BundleNotFoundError, match="neither a folder nor a file"):
        read_bundle(pipe)


def test_a_training_report_is_not_nested_without_end() -> None:
    def nested(depth: int) -> object:
        value: object = []
        for _ in range(depth):
            value = [value]
        return value

    for depth in (100, 400, 480):  # Python's own limit lies where the caller's stack leaves it
        found = read_with(lambda m, n=depth: m["source"].update(training_report={"a": nested(n)}))
        assert "instead of at most 64 within one another" in found
    deepest = json.loads(json.dumps(MANIFEST))
    deepest["source"]["training_report"] = {"a": nested(60)}
    read = manifest_from_json(json.dumps(deepest), subject="m")
    assert json.loads(manifest_to_json(read)) == deepest


def test_of_very_many_problems_the_first_are_told() -> None:
    found = read_with(lambda m: m.update({f"key{number}": 0 for number in range(50_000)}))
    assert found.startswith("50000 problems: key0: unknown key; key1: unknown key; ")
    assert found.endswith("; and 49980 more")
    assert len(found) < 1000


@pytest.mark.parametrize(
    "text", ["tiny\nsigned     by key 1, trusted", "\x1b[8m", "\u202egnp", "\x9b"]
)
@pytest.mark.parametrize("place", ["name", "intended_use"])
def test_texts_hold_nothing_that_steers_a_terminal(place: str, text: str) -> None:
    found = read_with(lambda m: m.update({place: text}))
    assert f"{place}: {text!a} has control characters" in found


def test_every_text_that_is_shown_is_one_line() -> None:
    found = read_with(lambda m: m["model_card"].update(limitations=["one", "two\nthree"]))
    assert "model_card.limitations[1]: 'two\\nthree' has control characters" in found
    found = read_with(lambda m: m["findings"][0].update(name="a\x07"))
    assert "findings[0].name: " in found


@pytest.mark.parametrize("name", ["MODEL.fp32.onnx", "Manifest.JSON"])
def test_names_that_one_file_has_on_windows_are_refused(name: str) -> None:
    found = read_with(lambda m: m["golden"].update(file=name))
    assert "occurs 2 times" in found or "not a plain file name" in found


def test_a_zip_with_an_endless_directory_is_refused_before_it_is_listed(tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(22_000):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    tracemalloc.start()
    try:
        with pytest.raises(BundleIntegrityError, match=r"a directory of \d{7} bytes"):
            read_bundle(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6
