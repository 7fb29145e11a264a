"""One folder, several bundles: which engine is found, what is pruned, and where it lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from conftest import tiny_files, tiny_manifest
from fake_tensorrt import FakeCuda, FakeTensorRT
from sidecars import A2000, a_sidecar, listing

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle, read_bundle, write_bundle
from mammoclip_sdk.engines import cache
from mammoclip_sdk.engines.folder import engines_folder, keep
from mammoclip_sdk.errors import EngineError


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeTensorRT:
    fake = FakeTensorRT("tensorrt", "11.4.0.106")
    fake_tensorrt.install(monkeypatch, fake, cuda=cuda)
    return fake


def another_bundle(path: Path) -> Bundle:
    files = tiny_files()
    files["model.fp32.onnx"] += b"\x22\x01x"  # a documentation string: the same graph, other bytes
    write_bundle(path, tiny_manifest(files), files)
    return read_bundle(path)


# -- finding --------------------------------------------------------------------------------------


def test_a_stale_engine_is_not_used_and_the_error_says_why(
    bundle: Bundle, full: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    engine = engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)
    assert engines.find(bundle, "fp32", tmp_path) == engine
    cuda.driver = "590.10"
    with pytest.raises(EngineError) as caught:
        engines.find(bundle, "fp32", tmp_path)
    assert caught.value.found == (
        f"none in {tmp_path} ({engine.sidecar_path.name}: built with driver 580.95.05, here is "
        "590.10)"
    )


def test_an_engine_of_another_graph_is_never_taken(
    bundle: Bundle, full: FakeTensorRT, tmp_path: Path
) -> None:
    other = another_bundle(tmp_path / "other")
    engines.build(other, flavour="tensorrt", precision="fp32", engines=tmp_path)
    with pytest.raises(EngineError) as caught:
        engines.find(bundle, "fp32", tmp_path)
    assert caught.value.code == "engine_missing"


# -- pruning --------------------------------------------------------------------------------------


def test_prune_removes_what_can_never_be_used_here_and_says_why(
    bundle: Bundle, full: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    folder = tmp_path / "engines"
    stale = engines.build(bundle, flavour="tensorrt", precision="fp32", engines=folder, level=1)
    keep(stale.kernels(A2000), b"kernels")
    cuda.driver = "590.10"
    good = engines.build(bundle, flavour="tensorrt", precision="fp32", engines=folder)
    damaged = engines.build(bundle, flavour="tensorrt", precision="fp32", engines=folder, level=5)
    damaged.plan.write_bytes(b"")
    (folder / ("e" * 16 + ".json")).write_text("{}")
    (folder / "notes.json").write_text("not an engine's name")
    for name in (f"{'f' * 16}-{'f' * 16}.plan", f".{'f' * 16}.json.0123abcd.partial"):
        (folder / name).write_bytes(b"left behind")
        os.utime(folder / name, (0, 0))
    under_way = {f"{'d' * 16}-{'d' * 16}.plan", f".{'d' * 16}.json.0123abcd.partial"}
    for name in under_way:
        (folder / name).write_bytes(b"just being built")
    reasons = {removed.path.name: removed.reason for removed in engines.prune(folder)}
    assert reasons.pop("e" * 16 + ".json").startswith("schema: missing")
    assert reasons == {
        stale.sidecar_path.name: "built with driver 580.95.05, here is 590.10",
        damaged.sidecar_path.name: "0 bytes with another SHA-256",
        f"{'f' * 16}-{'f' * 16}.plan": "a plan that no sidecar names",
        f".{'f' * 16}.json.0123abcd.partial": "left by a build that was cut off",
    }
    left = {name for name in listing(folder) if not name.startswith("timing-")}
    assert left == {good.plan.name, good.sidecar_path.name, "notes.json", *under_way}
    assert engines.prune(folder) == ()


def test_prune_for_a_bundle_removes_the_engines_of_other_graphs(
    bundle: Bundle, full: FakeTensorRT, tmp_path: Path
) -> None:
    folder = tmp_path / "engines"
    other = another_bundle(tmp_path / "other")
    kept = engines.build(bundle, flavour="tensorrt", precision="fp32", engines=folder)
    gone = engines.build(other, flavour="tensorrt", precision="fp32", engines=folder)
    assert engines.prune(folder) == ()
    (removed,) = engines.prune(folder, (bundle,))
    assert removed.path == gone.sidecar_path
    assert "another graph" in removed.reason
    assert [entry.engine for entry in cache.entries(folder)] == [kept]


def test_prune_on_a_machine_without_gpu_or_flavour_removes_no_engine(
    bundle: Bundle, full: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)
    fake_tensorrt.install(monkeypatch, cuda=None)
    assert engines.prune(tmp_path) == ()


def command(*words: str | Path, folder: Path) -> tuple[int, Any]:
    """Run `engine` in a process of its own, as a machine without a GPU has it."""
    done = subprocess.run(
        [sys.executable, "-m", "mammoclip_sdk", "engine", *map(str, words), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "MAMMOCLIP_ENGINES": str(folder)},
    )
    return done.returncode, json.loads(done.stdout)


def test_the_commands_list_and_prune_what_is_there(tmp_path: Path) -> None:
    engine = cache.store(tmp_path, a_sidecar(version="0.1"), b"a plan")
    code, (listed,) = command("list", folder=tmp_path)
    assert (code, listed["path"]) == (0, str(engine.sidecar_path))
    assert (listed["usable"], listed["active"]) == (False, False)
    assert listed["sidecar"]["parity"] == "not run (runs at first load)"
    engine.plan.write_bytes(b"b plan")
    code, (removed,) = command("prune", folder=tmp_path)
    assert removed == {"path": str(engine.sidecar_path), "reason": "6 bytes with another SHA-256"}
    assert command("list", folder=tmp_path) == (0, [])


@pytest.mark.parametrize("what", ["list", "prune"])
def test_a_named_folder_that_is_none_is_an_error_and_one_to_be_made_is_not(
    tmp_path: Path, what: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    for name, found in (
        ("nowhere", "nothing that can be read (No such file or directory)"),
        ("x" * 300, "nothing that can be read (File name too long)"),
        ("file", "something that is no folder"),
    ):
        code, said = command(what, "--engines", tmp_path / name, folder=tmp_path)
        assert (code, said["error"]["code"]) == (2, "engine_missing")
        assert said["error"]["subject"] == str(tmp_path / name)
        assert said["error"]["found"] == found
    assert command(what, folder=tmp_path / "later") == (0, [])
    assert command(what, "--engines", tmp_path, folder=tmp_path / "later") == (0, [])


# -- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/mammoclip-sdk/engines"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "home/xdg/mammoclip-sdk/engines"),
        ("win32", {"LOCALAPPDATA": "{home}/Local"}, "home/Local/mammoclip-sdk/engines"),
        ("win32", {}, "home/AppData/Local/mammoclip-sdk/engines"),
        ("darwin", {}, "home/Library/Caches/mammoclip-sdk/engines"),
        ("linux", {"MAMMOCLIP_ENGINES": "{home}/mine"}, "home/mine"),
    ],
)
def test_the_folder_is_the_argument_or_the_variable_or_the_users_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "MAMMOCLIP_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert engines_folder(None) == tmp_path / expected
    assert engines_folder(tmp_path / "named") == tmp_path / "named"


def test_a_user_without_a_home_has_to_name_a_folder(
    bundle: Bundle, full: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "MAMMOCLIP_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(EngineError, match="MAMMOCLIP_ENGINES"):
        engines.find(bundle, "fp32")
    assert not engines.is_active(bundle, "fp32")


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    bundle: Bundle, full: FakeTensorRT, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EngineError, match="Not a directory"):
        engines.find(bundle, "fp32", tmp_path / "file")
    assert not engines.is_active(bundle, "fp32", tmp_path / "file")


def test_the_folder_is_the_users_alone(tmp_path: Path) -> None:
    engine = cache.store(tmp_path / "engines", a_sidecar(), b"native code")
    assert engine.folder.stat().st_mode & 0o077 == 0
