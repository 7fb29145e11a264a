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
from conftest import tiny_files, tiny_manifest, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mammoclip_sdk.bundle import PREPROCESSING_VERSION, SCHEMA, read_bundle, sha256, write_bundle
from mammoclip_sdk.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleNotFoundError,
    BundleVersionError,
)

Plain = dict[str, Any]


def rewrite(path: Path, change: Callable[[Plain], object]) -> None:
    """Change the manifest as an editor would that knows the checksum."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    change(manifest)
    data = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_text(f"{sha256(data)}  manifest.json\n")


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


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["long", "null"])
def test_a_name_that_no_file_can_have_is_an_error_and_no_defect(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleNotFoundError, match="nothing at this path"):
        read_bundle(tmp_path / name)
    files = tiny_files()
    with pytest.raises(BundleError, match="a disk that refused"):
        write_bundle(tmp_path / name, tiny_manifest(files), files)
    assert list(tmp_path.iterdir()) == []


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
