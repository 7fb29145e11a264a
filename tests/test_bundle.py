"""Bundles: strict to read, whole or absent when written, and any flipped bit is noticed."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import prompt, tiny_files, tiny_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mammoclip_sdk import bundle_files
from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    SCHEMA,
    manifest_from_json,
    manifest_to_json,
    read_bundle,
    sha256,
    write_bundle,
)
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
        monkeypatch.setattr(bundle_files.os, "fsync", refuse)
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
