"""The folder of engines: whole or not there, believed by hash alone, and stale ones explained."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from conftest import tiny_files, tiny_manifest
from fake_tensorrt import FakeCuda, FakeTensorRT
from hypothesis import given
from hypothesis import strategies as st

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle, read_bundle, sha256, write_bundle
from mammoclip_sdk.engines import cache, matching
from mammoclip_sdk.engines.cuda import Gpu
from mammoclip_sdk.engines.folder import engines_folder, keep
from mammoclip_sdk.engines.matching import Machine
from mammoclip_sdk.engines.sidecar import (
    Parity,
    Profile,
    Sidecar,
    sidecar_from_json,
    sidecar_to_json,
)
from mammoclip_sdk.errors import EngineError

A2000 = Gpu(name="NVIDIA RTX A2000", compute_capability="8.6", driver="580.95.05")
ADA = Gpu(name="NVIDIA RTX 4000 Ada", compute_capability="8.9", driver="580.95.05")
HERE = Machine(versions={"tensorrt": "11.4.0.106", "tensorrt_rtx": "1.7.1.116"}, gpu=A2000)


def a_sidecar(**changes: Any) -> Sidecar:
    profile = Profile(name="views", minimum=(1, 4), optimum=(1, 4), maximum=(32, 4))
    facts = {
        "schema": 1,
        "graph_sha256": "a" * 64,
        "precision": "fp16",
        "flavour": "tensorrt",
        "version": "11.4.0.106",
        "gpu": A2000,
        "target": "current",
        "flags": ("strongly typed", "TF32 off"),
        "level": 3,
        "profiles": (profile,),
        "bundle": "tiny 1.2.3",
        "plan_file": "",
        "plan_sha256": "",
        "plan_bytes": 0,
        "built": "2026-11-24T12:00:00Z",
        "build_seconds": 4.2,
        "sdk_version": "0.2.0",
        "build_log": ("INFO: done",),
        "parity": "not run (runs at first load)",
        "golden": (),
    }
    return Sidecar(**{**facts, **changes})


DECIDING = {
    "schema": 2,
    "graph_sha256": "b" * 64,
    "precision": "fp32",
    "flavour": "tensorrt_rtx",
    "version": "11.3.0.99",
    "gpu": None,
    "target": "any",
    "flags": ("strongly typed",),
    "level": 4,
    "profiles": (Profile(name="views", minimum=(1, 4), optimum=(1, 4), maximum=(16, 4)),),
}
OTHER_GPUS = [
    replace(A2000, name="NVIDIA RTX A4000"),
    replace(A2000, compute_capability="8.9"),
    replace(A2000, driver="590.10"),
]


@pytest.mark.parametrize("name", DECIDING)
def test_the_key_changes_with_everything_that_decides_an_engine(name: str) -> None:
    assert a_sidecar(**{name: DECIDING[name]}).key != a_sidecar().key


@pytest.mark.parametrize("gpu", OTHER_GPUS)
def test_the_key_changes_with_the_gpu_and_its_driver(gpu: Gpu) -> None:
    assert a_sidecar(gpu=gpu).key != a_sidecar().key


def test_the_key_is_that_of_what_decides_alone() -> None:
    found_out = {
        "bundle": "other 2",
        "plan_file": "x",
        "plan_sha256": "c" * 64,
        "plan_bytes": 7,
        "built": "2027",
        "build_seconds": 1.0,
        "sdk_version": "9",
        "build_log": (),
        "parity": "passed",
        "golden": (Parity(gpu=ADA, exams=1, worst_difference=0.0, tolerance=0.1),),
    }
    assert found_out.keys() | DECIDING.keys() == {field.name for field in fields(Sidecar)}
    assert a_sidecar(**found_out).key == a_sidecar().key


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        a_sidecar,
        gpu=st.none() | st.builds(Gpu, name=text, compute_capability=text, driver=text),
        flags=st.lists(text).map(tuple),
        build_seconds=st.floats(0, 1e6),
        build_log=st.lists(text).map(tuple),
    )
)
def test_a_sidecar_reads_back_as_it_was_written(sidecar: Sidecar) -> None:
    assert sidecar_from_json(sidecar_to_json(sidecar), subject="it") == sidecar


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda plain: plain.pop("flags"), "flags: missing"),
        (lambda plain: plain.update(notes=""), "notes: unknown key"),
        (lambda plain: plain.update(level="3"), "level: '3' instead of int"),
        (lambda plain: plain.update(profiles=[]), "profiles: none"),
        (lambda plain: plain.update(flavour="openvino"), "flavour: 'openvino' is none of"),
    ],
)
def test_a_sidecar_is_read_strictly(change: Callable[[Any], Any], problem: str) -> None:
    plain = json.loads(sidecar_to_json(a_sidecar()))
    change(plain)
    with pytest.raises(EngineError, match=problem) as caught:
        sidecar_from_json(json.dumps(plain).encode(), subject="it")
    assert caught.value.code == "engine_damaged"


# -- storing --------------------------------------------------------------------------------------


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_the_plan_is_stored_as_it_is_and_the_sidecar_names_it(tmp_path: Path) -> None:
    engine = cache.store(tmp_path / "new" / "folder", a_sidecar(), b"a plan")
    key, digest = a_sidecar().key[:16], sha256(b"a plan")
    assert engine.plan == tmp_path / "new" / "folder" / f"{key}-{digest[:16]}.plan"
    assert engine.plan.read_bytes() == b"a plan"
    assert sorted(listing(engine.folder)) == [engine.plan.name, f"{key}.json"]
    assert (engine.sidecar.plan_sha256, engine.sidecar.plan_bytes) == (digest, 6)
    assert [entry.engine for entry in cache.entries(engine.folder)] == [engine]


def test_an_engine_that_is_built_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    cache.store(tmp_path, a_sidecar(), b"first")
    other = cache.store(tmp_path, a_sidecar(level=5), b"of another key")
    second = cache.store(tmp_path, a_sidecar(), b"second")
    assert {entry.engine for entry in cache.entries(tmp_path)} == {second, other}
    assert len(listing(tmp_path)) == 4


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, step: str, before: bool
) -> None:
    if before:
        cache.store(tmp_path, a_sidecar(), b"first")
    were, calls = listing(tmp_path), []
    module = os if step == "fsync" else Path
    works = getattr(module, step)

    def full(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return works(*arguments)

    monkeypatch.setattr(module, step, full)
    with pytest.raises(EngineError, match="No space left on device") as caught:
        cache.store(tmp_path, a_sidecar(), b"second")
    assert caught.value.code == "engine_write"
    assert listing(tmp_path) == were


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match="Not a directory"):
        cache.store(tmp_path / "file" / "engines", a_sidecar(), b"plan")


def _store_often(folder: Path, name: str, start: Any) -> None:
    start.wait()
    for count in range(30):
        cache.store(folder, a_sidecar(), f"{name} {count}".encode() * 1000)


def test_two_processes_that_build_at_once_leave_a_whole_engine_at_every_moment(
    tmp_path: Path,
) -> None:
    cache.store(tmp_path, a_sidecar(), b"at first")
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    builders = [
        context.Process(target=_store_often, args=(tmp_path, name, start)) for name in ("a", "b")
    ]
    for builder in builders:
        builder.start()
    start.set()
    seen = set()
    while any(builder.is_alive() for builder in builders):
        (entry,) = cache.entries(tmp_path)
        assert entry.engine is not None, entry.problem
        seen.add(entry.engine.sidecar.plan_sha256)
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    (entry,) = cache.entries(tmp_path)
    assert cache.read_plan(entry.engine)[:2] in (b"a ", b"b ")
    assert len(seen) > 1
    assert not list(tmp_path.glob("*.partial"))


# -- believing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [lambda plan: plan[:-1], lambda plan: plan + b"\0", lambda plan: b"", None]
)
def test_bytes_that_were_not_built_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes] | None
) -> None:
    engine = cache.store(tmp_path, a_sidecar(), b"a plan")
    if damage is None:
        engine.plan.unlink()
    else:
        engine.plan.write_bytes(damage(b"a plan"))
    with pytest.raises(EngineError) as caught:
        cache.read_plan(engine)
    assert caught.value.code == "engine_damaged"
    assert "engine prune" in caught.value.remedy


@pytest.mark.parametrize("name", ["../outside.plan", "0123456789abcdef-0123456789abcdef.plan"])
def test_a_sidecar_that_names_another_file_is_no_engine(tmp_path: Path, name: str) -> None:
    engine = cache.store(tmp_path, a_sidecar(), b"a plan")
    forged = replace(engine.sidecar, plan_file=name)
    engine.sidecar_path.write_bytes(sidecar_to_json(forged))
    (entry,) = cache.entries(tmp_path)
    assert (entry.engine, entry.problem) == (None, "its names are not those of its content")


def test_a_sidecar_whose_facts_were_changed_is_no_engine(tmp_path: Path) -> None:
    engine = cache.store(tmp_path, a_sidecar(), b"a plan")
    claims = replace(engine.sidecar, graph_sha256="b" * 64)
    engine.sidecar_path.write_bytes(sidecar_to_json(claims))
    (entry,) = cache.entries(tmp_path)
    assert entry.engine is None


def test_parity_is_kept_for_each_gpu_and_the_last_word_counts(tmp_path: Path) -> None:
    engine = cache.store(tmp_path, a_sidecar(), b"a plan")
    good = Parity(gpu=A2000, exams=2, worst_difference=0.01, tolerance=0.05)
    bad = Parity(gpu=ADA, exams=2, worst_difference=0.06, tolerance=0.05)
    again = cache.record(cache.record(cache.record(engine, good), bad), bad)
    assert again.sidecar.golden == (good, bad)
    assert again.sidecar.parity == "failed"
    assert next(cache.entries(tmp_path)).engine == again
    assert matching.is_active(again.sidecar, A2000)
    assert not matching.is_active(again.sidecar, ADA)
    assert not matching.is_active(again.sidecar, replace(A2000, driver="590.10"))
    assert not matching.is_active(again.sidecar, None)


def test_parity_of_an_engine_that_was_built_anew_meanwhile_is_not_the_new_ones(
    tmp_path: Path,
) -> None:
    old = cache.store(tmp_path, a_sidecar(), b"old")
    new = cache.store(tmp_path, a_sidecar(), b"new")
    cache.record(old, Parity(gpu=A2000, exams=2, worst_difference=0.0, tolerance=0.05))
    assert next(cache.entries(tmp_path)).engine == new


# -- explaining -----------------------------------------------------------------------------------


STALE = [
    ({"version": "11.3.0.99"}, "built by tensorrt 11.3.0.99, here is 11.4.0.106"),
    ({"graph_sha256": "b" * 64}, "built from another graph (bbbbbbbbbbbb)"),
    (
        {"gpu": ADA},
        "built on NVIDIA RTX 4000 Ada (8.9), here is NVIDIA RTX A2000 (8.6)",
    ),
    (
        {"gpu": replace(A2000, driver="570.1")},
        "built with driver 570.1, here is 580.95.05",
    ),
    ({"gpu": None}, "built for one GPU, and does not say for which"),
    (
        {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "target": "sm75"},
        "built for target sm75, here is compute capability 8.6",
    ),
]


@pytest.mark.parametrize(("changes", "words"), STALE)
def test_an_engine_that_is_stale_is_explained(changes: dict[str, Any], words: str) -> None:
    (misfit,) = matching.misfits(a_sidecar(**changes), HERE, ["a" * 64])
    assert (misfit.text, misfit.stale) == (words, True)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(HERE, gpu=None), "no GPU that works here"),
        (replace(HERE, versions={}), "tensorrt is not installed, or does not load"),
    ],
)
def test_what_is_missing_here_makes_no_engine_stale(machine: Machine, words: str) -> None:
    (misfit,) = matching.misfits(a_sidecar(), machine)
    assert (misfit.text, misfit.stale) == (words, False)


@pytest.mark.parametrize(
    ("capability", "target", "fits"),
    [
        ("7.5", "any", False),
        ("7.5", "sm75", True),
        ("8.0", "any", True),
        ("8.6", "any", True),
        ("8.6", "sm86", True),
        ("8.9", "sm86", False),
        ("12.0", "any", True),
        ("12.0", "sm120", True),
    ],
)
def test_engines_of_rtx_fit_every_gpu_of_their_target(
    capability: str, target: str, fits: bool
) -> None:
    built = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": None, "target": target}
    machine = replace(HERE, gpu=replace(ADA, compute_capability=capability))
    assert (matching.misfits(a_sidecar(**built), machine) == []) is fits


# -- one folder, several bundles ------------------------------------------------------------------


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeTensorRT:
    fake = FakeTensorRT("tensorrt", "11.4.0.106")
    fake_tensorrt.install(monkeypatch, fake, cuda=cuda)
    return fake


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def another_bundle(path: Path) -> Bundle:
    files = tiny_files()
    files["model.fp32.onnx"] += b"\x22\x01x"  # a documentation string: the same graph, other bytes
    write_bundle(path, tiny_manifest(files), files)
    return read_bundle(path)


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
    (folder / f"{'d' * 16}-{'d' * 16}.plan").write_bytes(b"just being built")
    reasons = {removed.path.name: removed.reason for removed in engines.prune(folder)}
    assert reasons.pop("e" * 16 + ".json").startswith("schema: missing")
    assert reasons == {
        stale.sidecar_path.name: "built with driver 580.95.05, here is 590.10",
        damaged.sidecar_path.name: "0 bytes with another SHA-256",
        f"{'f' * 16}-{'f' * 16}.plan": "a plan that no sidecar names",
        f".{'f' * 16}.json.0123abcd.partial": "left by a build that was cut off",
    }
    left = {name for name in listing(folder) if not name.startswith("timing-")}
    assert left == {
        good.plan.name, good.sidecar_path.name, "notes.json", f"{'d' * 16}-{'d' * 16}.plan",
    }  # fmt: skip
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


# -- the command line -----------------------------------------------------------------------------


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
