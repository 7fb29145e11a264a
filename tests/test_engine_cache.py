"""Engines are stored whole or not at all, and believed by hash alone."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sidecars import A2000, ADA, a_sidecar, listing

from mammoclip_sdk.bundle import sha256
from mammoclip_sdk.engines import cache, matching
from mammoclip_sdk.engines.sidecar import Parity, sidecar_to_json
from mammoclip_sdk.errors import EngineError

# -- storing --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("plan", [b"first", b"second"])
@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_new(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    step: str,
    before: bool,
    plan: bytes,
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
        cache.store(tmp_path, a_sidecar(), plan)
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
    plan_file = engine.plan.name.replace(engine.sidecar.key[:16], claims.key[:16])
    for forged in (claims, replace(claims, plan_file=plan_file)):
        engine.sidecar_path.write_bytes(sidecar_to_json(forged))
        (entry,) = cache.entries(tmp_path)
        assert (entry.engine, entry.problem) == (None, "its names are not those of its content")


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
