"""A bundle's files: read when they are needed, never twice, and never without end."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_files, tiny_manifest, zipped

from mammoclip_sdk.bundle import Attachment, read_bundle, sha256, write_bundle
from mammoclip_sdk.bundle import files as bundle_files
from mammoclip_sdk.errors import BundleFormatError, BundleIntegrityError, BundleNotFoundError


def test_a_zip_bomb_is_not_unpacked(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tiny_bundle)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bin", bytes(50_000_000))
    with pytest.raises(BundleFormatError, match=r"bomb\.bin, which unpacks to 50000000"):
        read_bundle(path)
    monkeypatch.setattr(bundle_files, "MAX_BYTES", 10_000)
    with pytest.raises(BundleFormatError, match="at most 64 files, 10000 bytes"):
        read_bundle(zipped(tiny_bundle))


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


@pytest.mark.parametrize("name", ["manifest.json", "model.fp32.onnx", "golden.npz"])
def test_a_file_of_a_bundle_in_its_place_is_told_the_folder(
    tiny_bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (tiny_bundle / name).is_file()
    monkeypatch.chdir(tiny_bundle)
    for path in (tiny_bundle / name, Path(name)):
        with pytest.raises(BundleNotFoundError) as caught:
            read_bundle(path)
        assert caught.value.found == "one file of a bundle"
        assert caught.value.remedy == f"Name the bundle's folder, {tiny_bundle}."
