"""What an export refuses before its long work: places, descriptions, precisions nothing runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certified import certificate
from conftest import tiny_files, tiny_manifest
from rich.console import Console

pytest.importorskip("torch")

from small_checkpoint import invoke

from export import build_engine, manifest, runtimes
from export.errors import ExportError
from export.place import check_place
from export.settings import ExportConfig
from export.stages import Stages
from export.verify import ParityError
from mammoclip_sdk.bundle import Calibration, Manifest, read_bundle, write_bundle
from mammoclip_sdk.engines.folder import engines_folder
from mammoclip_sdk.errors import EngineError
from mammoclip_sdk.parity.certificate import Absence

EXPORTED = build_engine.Exported(certificate=certificate(), engines=(), files={})


def settings(out: Path, **changes: Any) -> ExportConfig:
    return ExportConfig(checkpoint=Path("never looked at"), out=out, **changes)


def refused(out: Path, **changes: Any) -> ExportError:
    with pytest.raises(ExportError) as caught:
        check_place(settings(out, **changes))
    return caught.value


# Places


def test_a_new_path_and_a_bundle_to_overwrite_are_places(tiny_bundle: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    check_place(settings(tmp_path / "deep" / "new", record=tmp_path / "record.json"))
    check_place(settings(tiny_bundle, overwrite=True, engine_folder=tmp_path / "engines"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_that_has_some_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "web" / "src").mkdir(parents=True)
    (tmp_path / "web" / "manifest.json").write_text('{"name": "my app"}')
    assert refused(tmp_path / "web", overwrite=True).found == "something that is not a bundle"


def test_a_place_inside_another_bundle_is_none(tiny_bundle: Path) -> None:
    found = refused(tiny_bundle / "new").found
    assert found.startswith(f"a path inside the bundle {tiny_bundle.resolve()}")
    read_bundle(tiny_bundle)


@pytest.mark.parametrize("key", ["record", "engine_folder"])
@pytest.mark.parametrize("inside", ["", "record.json", "deep/record.json"])
def test_nothing_else_is_put_into_a_bundle(
    tiny_bundle: Path, tmp_path: Path, key: str, inside: str
) -> None:
    new = tmp_path / "new"
    for out, place in ((new, new / inside), (new, tiny_bundle / inside)):
        error = refused(out, **{key: place})
        assert error.subject == str(place)
        assert error.found == "a place inside a bundle, which could not be read then"


def test_a_record_needs_a_folder_that_exists(tmp_path: Path) -> None:
    assert refused(tmp_path / "new", record=tmp_path / "no" / "r.json").found == "no such folder"


def test_a_record_replaces_nothing(tmp_path: Path) -> None:
    key, link = tmp_path / "key.pem", tmp_path / "link.json"
    key.write_text("the only one")
    link.symlink_to(tmp_path / "nowhere")
    for taken in (key, link, tmp_path):
        error = refused(tmp_path / "new", record=taken)
        assert (error.subject, error.found) == (str(taken), "something of that name")
    config = settings(tmp_path / "new", record=key)
    with pytest.raises(FileExistsError):  # though it appeared since
        build_engine.write_record(config.record, Stages(Console(quiet=True)), EXPORTED)
    assert key.read_text() == "the only one"


def test_the_root_is_no_place() -> None:
    assert refused(Path(Path.cwd().anchor)).found == "something already at this path"


@pytest.mark.skipif(os.name != "posix", reason="the length of a name is the file system's")
def test_a_name_that_is_too_long_while_it_is_written_is_refused(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(".") - len(".01234567.partial")
    check_place(settings(tmp_path / ("b" * longest)))
    assert "File name too long" in refused(tmp_path / ("b" * (longest + 1))).found
    files = tiny_files()
    write_bundle(tmp_path / ("b" * longest), tiny_manifest(files), files)


def test_engines_are_not_kept_in_a_bundle(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inside in (tiny_bundle, tiny_bundle / "engines"):
        with pytest.raises(EngineError, match="inside the bundle"):
            engines_folder(inside)
        monkeypatch.setenv("MAMMOCLIP_ENGINES", str(inside))
        with pytest.raises(EngineError, match="inside the bundle"):
            engines_folder(None)


# Descriptions

TINY = tiny_manifest(tiny_files())
(FINDING,) = TINY.findings


def calibrated(slope: float, intercept: float = 0.0) -> Manifest:
    calibration = Calibration(slope=slope, intercept=intercept, fitted_on="x")
    return replace(TINY, findings=(replace(FINDING, calibration=calibration),))


@pytest.mark.parametrize(
    ("described", "found"),
    [
        (replace(TINY, name="\x1b[31mtiny"), "has spaces around it, or letters that nobody sees"),
        (calibrated(0.0), "calibration.slope: 0.0 is not positive"),
        (calibrated(-1.0), "calibration.slope: -1.0 is not positive"),
        (calibrated(float("nan")), "not JSON compliant"),
        (calibrated(1001.0), "calibration.slope: 1001 is beyond 1000"),
        (calibrated(1.0, -1001.0), "calibration.intercept: -1001 is beyond 1000"),
        (replace(TINY, model_card=replace(TINY.model_card, licence="")), "licence: empty"),
        (replace(TINY, intended_use="a\rb"), "has control characters"),
    ],
    ids=["name", "slope 0", "slope -1", "slope NaN", "steep", "intercept", "licence", "use"],
)
def test_what_no_manifest_takes_is_refused_after_the_first_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: Manifest, found: str
) -> None:
    monkeypatch.setattr(build_engine, "ask", lambda *_: (SimpleNamespace(findings=()), None))
    monkeypatch.setattr(build_engine, "reference_graph", lambda *_: None)
    monkeypatch.setattr(build_engine, "calibration_exams", lambda *_: pytest.fail("long work"))
    monkeypatch.setattr(manifest, "make_manifest", lambda *_: described)
    with pytest.raises(ExportError) as caught:
        build_engine.main(settings(tmp_path / "new"))
    assert found in caught.value.found
    assert caught.value.subject == "never looked at, with these settings"
    assert caught.value.remedy == "Correct the option, or the checkpoint's record, that says it."
    assert list(tmp_path.iterdir()) == []


def test_the_record_stays_out_of_what_the_bundle_keeps_of_the_settings(tmp_path: Path) -> None:
    kept = settings(tmp_path / "new", record=tmp_path / "record.json").recorded()
    assert not {"checkpoint", "record", "out", "engine_folder", "sign"} & kept.keys()


# Precisions


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that has no bfloat16, as most workstations'."""

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(runtimes.openvino, "load", lambda: SimpleNamespace(Core=Core))


@pytest.mark.usefixtures("without_bf16")
def test_a_precision_that_nothing_here_runs_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        build_engine.main(settings(tmp_path / "new"))
    assert caught.value.found == "bf16, for which there is here a CPU that runs fp32, int8"
    assert "--precisions" in caught.value.remedy
    runtimes.require_runtimes(settings(tmp_path / "new", precisions=("fp32", "int8")))


@pytest.mark.usefixtures("without_bf16")
def test_who_asks_for_no_precisions_gets_those_that_run_here_and_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(build_engine, "main", lambda config, stages: asked.append(config))
    monkeypatch.setattr(build_engine, "summary", lambda *_: "")
    code, said = invoke("--checkpoint", tmp_path, "--out", tmp_path / "new")
    assert code == 0
    assert [config.precisions for config in asked] == [("fp32", "fp16", "int8")]
    assert "bf16 is left out, and the bundle will not be run in it" in said


def test_a_precision_that_nothing_here_ran_is_not_certified() -> None:
    made = replace(
        certificate(), absent=(Absence(device="cuda", precision="fp16", reason="no GPU"),)
    )
    runtimes.require_compared(made, ("fp32", "bf16"))
    with pytest.raises(ParityError) as caught:
        runtimes.require_compared(made, ("fp32", "fp16", "bf16"))
    assert "found no runtime here that runs fp16 (cuda in fp16: no GPU)" in str(caught.value)
    assert "leave it out with --precisions" in str(caught.value)
