"""Where a bundle is put: whole or not at all, over an earlier bundle and over nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_files, tiny_manifest

from mammoclip_sdk.bundle import read_bundle, sha256, swap, write_bundle
from mammoclip_sdk.errors import BundleError, BundleNotFoundError

BYTES = dict[str, bytes]


def write(path: Path, version: str = "2.0.0", *, overwrite: bool = True) -> None:
    files = tiny_files()
    write_bundle(path, replace(tiny_manifest(files), version=version), files, overwrite=overwrite)


def version(path: Path) -> str:
    return read_bundle(path).manifest.version


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def everything(folder: Path) -> BYTES:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to put one folder in another's place; Linux alone has the first."""
    if request.param == "two renames":
        monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("names are exchanged on Linux alone")
    return str(request.param)


# What may be overwritten


def test_nothing_is_overwritten_unless_asked(tiny_bundle: Path, tmp_path: Path, way: str) -> None:
    with pytest.raises(BundleError, match="already at this path"):
        write(tiny_bundle, overwrite=False)
    assert version(tiny_bundle) == "1.2.3"
    write(tiny_bundle)
    assert version(tiny_bundle) == "2.0.0"
    assert names(tmp_path) == ["tiny_bundle"]


def a_web_project(folder: Path) -> None:
    folder.mkdir()
    (folder / "src").mkdir()
    (folder / "src" / "thesis.txt").write_text("years of work")
    (folder / "manifest.json").write_text('{"name": "my app"}')


def its_checksum_too(folder: Path) -> None:
    a_web_project(folder)
    (folder / "manifest.sha256").write_text("0" * 64 + "  manifest.json\n")


def a_bundle_with(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")

    return make


def a_folder_as_a_graph(folder: Path) -> None:
    write(folder)
    (folder / "model.fp32.onnx").unlink()
    (folder / "model.fp32.onnx").mkdir()


def a_text(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (a_text, "something that is not a bundle; expected"),
        (Path.mkdir, "something that is not a bundle; expected"),
        (a_web_project, "something that is not a bundle; expected"),
        (its_checksum_too, "not a bundle, or a damaged one: manifest.sha256 disagrees"),
        (a_bundle_with("thesis.txt"), "a bundle with 'thesis.txt' in it"),
        (a_bundle_with("malignancy"), "a bundle with 'malignancy' in it"),
        (a_bundle_with("src/thesis.txt"), "a bundle with 'src' in it"),
        (a_folder_as_a_graph, "a bundle with 'model.fp32.onnx' in it"),
    ],
    ids=["text", "empty", "web", "checksum", "with text", "prompt's word", "with folder", "graph"],
)
def test_what_is_not_a_bundle_alone_is_never_deleted(
    tmp_path: Path, make: Callable[[Path], object], found: str
) -> None:
    make(tmp_path / "out")
    before = everything(tmp_path)
    with pytest.raises(BundleError) as caught:
        write(tmp_path / "out")
    assert found in str(caught.value)
    assert everything(tmp_path) == before
    assert names(tmp_path) == ["out"]


def test_a_damaged_bundle_or_one_of_another_schema_is_a_bundle(tiny_bundle: Path) -> None:
    (tiny_bundle / "golden.npz").unlink()
    (tiny_bundle / "model.fp32.onnx").write_bytes(b"")
    manifest = b'{"schema": 99, "graphs": [{"file":"model.fp32.onnx"}]}'
    (tiny_bundle / "manifest.json").write_bytes(manifest)
    (tiny_bundle / "manifest.sha256").write_text(f"{sha256(manifest)}  manifest.json\n")
    write(tiny_bundle)
    assert version(tiny_bundle) == "2.0.0"


@pytest.mark.parametrize("inside", ["new", "deep/new"])
def test_no_bundle_is_written_into_another(tiny_bundle: Path, inside: str) -> None:
    before = everything(tiny_bundle)
    with pytest.raises(BundleError, match="a path inside the bundle"):
        write(tiny_bundle / inside, overwrite=False)
    assert everything(tiny_bundle) == before
    assert version(tiny_bundle) == "1.2.3"


def test_a_link_to_a_bundle_stays_a_link(tiny_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    try:
        link.symlink_to(tiny_bundle)
    except OSError:
        pytest.skip("this user may not make links")
    write(link)
    assert link.is_symlink()
    assert version(tiny_bundle) == "2.0.0"


# Failures and interruptions


LAST_STEP = {"exchange": 6, "two renames": 9}
"""Four files and their folder reach the disk; renames; and the folder around it."""
CLEARING = 8
"""Of two renames: the third, when the new bundle is in its place already."""


def failing_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full at one of the calls that change it; every other one works."""
    calls = [0]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def one(*arguments: object) -> object:
            calls[0] += 1
            if calls[0] == step:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments)

        return one

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))


@pytest.mark.skipif(os.name != "posix", reason="folders are not brought to the disk elsewhere")
@pytest.mark.parametrize("step", [step for step in range(1, 10) if step != CLEARING])
def test_a_disk_that_refuses_leaves_everything_as_it_was(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, step: int
) -> None:
    before = everything(tmp_path)
    failing_at(step, monkeypatch)
    if step > LAST_STEP[way]:
        write(tiny_bundle)
        assert version(tiny_bundle) == "2.0.0"
        return
    with pytest.raises(BundleError, match=r"No space left on device.*; nothing was changed"):
        write(tiny_bundle)
    assert everything(tmp_path) == before
    assert names(tmp_path) == ["tiny_bundle"]


@pytest.mark.skipif(os.name != "posix", reason="folders are not brought to the disk elsewhere")
@pytest.mark.parametrize("step", range(1, 8))
def test_a_disk_that_refuses_a_new_bundle_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    failing_at(step, monkeypatch)
    with pytest.raises(BundleError, match="No space left"):
        write(tmp_path / "new", overwrite=False)
    assert names(tmp_path) == []


def test_what_cannot_be_cleared_away_does_not_make_a_new_bundle_fail(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
    monkeypatch.setattr(swap, "sync_folder", lambda _: None)
    failing_at(7, monkeypatch)  # four files, and the third rename
    write(tiny_bundle)
    assert version(tiny_bundle) == "2.0.0"
    (left_behind,) = {*names(tmp_path)} - {"tiny_bundle"}
    assert version(tmp_path / left_behind) == "1.2.3"


def appearing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something of somebody else's takes the path while a bundle is written beside it."""
    ours = swap.sync_folder

    def then(folder: Path) -> None:
        ours(folder)
        if folder.name.endswith(swap.PARTIAL):
            path.mkdir()
            (path / "only_copy.txt").write_bytes(b"precious")

    monkeypatch.setattr(swap, "sync_folder", then)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_at_the_path_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    appearing(tmp_path / "b", monkeypatch)
    with pytest.raises(BundleError) as caught:
        write(tmp_path / "b", overwrite=overwrite)
    found = "something that is not a bundle" if overwrite else "something already at this path"
    assert caught.value.found == found
    assert everything(tmp_path) == {"b/only_copy.txt": b"precious"}
    assert names(tmp_path) == ["b"]


def test_a_folder_takes_no_name_that_another_has(tmp_path: Path) -> None:
    for name in ("new", "taken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "file").write_text("mine")
    before = everything(tmp_path)
    for taken in ("taken", "file"):
        with pytest.raises(FileExistsError):
            swap.put(tmp_path / "new", tmp_path / taken, replace=False)
        assert everything(tmp_path) == before
    swap.put(tmp_path / "new", tmp_path / "free", replace=False)
    assert names(tmp_path) == ["file", "free", "taken"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_of_two_that_write_one_new_path_at_once_one_is_told(tmp_path: Path) -> None:
    for attempt in range(10):
        children = []
        for version_ in ("1.0.0", "2.0.0"):
            child = os.fork()
            if child == 0:
                with suppress(BaseException):
                    write(tmp_path / str(attempt), version_, overwrite=False)
                    os._exit(0)
                os._exit(9)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 9]
        assert version(tmp_path / str(attempt)) == ("1.0.0", "2.0.0")[codes.index(0)]
        assert names(tmp_path) == [str(one) for one in range(attempt + 1)]


def killed_at(step: int, path: Path) -> bool:
    """Whether a child that overwrites the bundle, and is killed at a step, gets that far."""
    files = tiny_files()
    manifest = replace(tiny_manifest(files), version="2.0.0")
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            write_bundle(path, manifest, files, overwrite=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _die_at(step: int) -> None:
    calls = [0]

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **keys: object) -> object:
            calls[0] += 1
            if calls[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keys)

        return counted

    for holder, name in ((Path, "rename"), (os, "fsync"), (shutil, "rmtree"), (os, "unlink")):
        setattr(holder, name, dying(getattr(holder, name)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_whoever_is_killed_leaves_a_whole_bundle_or_its_name(tmp_path: Path, way: str) -> None:
    unnamed = 0
    for step in range(1, 40):
        root = tmp_path / str(step)
        write(root / "bundle", "1.2.3")
        killed = killed_at(step, root / "bundle")
        if (root / "bundle").exists():
            assert version(root / "bundle") in ("1.2.3", "2.0.0")
        else:
            unnamed += 1
            with pytest.raises(BundleNotFoundError, match="interrupted while overwriting") as told:
                read_bundle(root / "bundle")
            earlier = told.value.remedy.removeprefix("Rename ").partition(",")[0]
            assert version(root / earlier) == "1.2.3"
        write(root / "bundle", "3.0.0")
        assert version(root / "bundle") == "3.0.0"
        if not killed:
            break
    assert not killed
    assert step > 8
    assert unnamed == (0 if way == "exchange" else 1)


def left(folder: Path, name: str, hours: float) -> Path:
    path = folder / name
    if name.startswith(".b."):
        path.mkdir()
        (path / "model.fp32.onnx").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    past = path.stat().st_mtime - 3600 * hours
    os.utime(path, (past, past))
    return path


OLD = (".b.0123abcd.partial", ".b.0123abcd.earlier")
OTHERS = (
    ".b.0123abcd.partial.bak",
    ".b.0123ABCD.partial",
    ".b.x.0123abcd.partial",
    ".bb.0123abcd.partial",
    "b.0123abcd.partial",
)


def test_what_interruptions_left_is_cleared_away_after_a_day_and_nothing_else(
    tmp_path: Path,
) -> None:
    for name in OLD + OTHERS:
        left(tmp_path, name, hours=25)
    left(tmp_path, ".b.00000000.partial", hours=23)
    others = list(OTHERS)
    with suppress(OSError):  # this user may not make links
        (tmp_path / ".b.aaaaaaaa.partial").symlink_to(tmp_path / OTHERS[3])
        os.utime(tmp_path / ".b.aaaaaaaa.partial", (0, 0), follow_symlinks=False)
        others.append(".b.aaaaaaaa.partial")
    write(tmp_path / "b")
    # Of what was set aside, nobody knows that it is not wanted until the name is taken again.
    assert names(tmp_path) == sorted(["b", OLD[1], ".b.00000000.partial", *others])
    write(tmp_path / "b")
    assert names(tmp_path) == sorted(["b", ".b.00000000.partial", *others])


def test_the_latest_of_what_was_set_aside_is_named(tmp_path: Path) -> None:
    left(tmp_path, ".b.00000000.earlier", hours=1)
    left(tmp_path, ".b.00000001.earlier", hours=3)
    with pytest.raises(BundleNotFoundError, match=r"Rename \.b\.00000000\.earlier, which is"):
        read_bundle(tmp_path / "b")
    with pytest.raises(BundleNotFoundError, match="Check the path"):
        read_bundle(tmp_path / "other")
