"""The manifest: strict to read, and every contradiction is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import prompt, tiny_files, tiny_manifest

from mammoclip_sdk.bundle import files as bundle_files
from mammoclip_sdk.bundle import manifest_from_json, manifest_to_json
from mammoclip_sdk.errors import BundleFormatError

Plain = dict[str, Any]

MANIFEST = json.loads(manifest_to_json(tiny_manifest(tiny_files())))


def read_with(change: Callable[[Plain], object]) -> str:
    """Read the tiny manifest with a change, and return what was found wrong with it."""
    manifest = json.loads(json.dumps(MANIFEST))
    change(manifest)
    with pytest.raises(BundleFormatError) as caught:
        manifest_from_json(json.dumps(manifest), subject="m")
    return caught.value.found


def attachment(kind: str, file: str, digest: str = "0" * 64) -> Plain:
    return {"kind": kind, "file": file, "sha256": digest}


def half(manifest: Plain, **ranges: object) -> None:
    """Add an fp16 graph, with the ranges of its blocks."""
    graph = {**manifest["graphs"][0], "file": "model.fp16.onnx", "precision": "fp16", **ranges}
    manifest["graphs"].append(graph)
    manifest["golden"]["tolerance"]["fp16"] = 0.005


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
    tolerance = {"int8": 0.02, "fp32": 0.0001, "bf16": 0.01}
    (finding,) = manifest.findings
    manifest = replace(manifest, findings=(replace(finding, logit_scale=10),))
    unordered = replace(manifest, golden=replace(manifest.golden, tolerance=tolerance))
    text = manifest_to_json(unordered)
    assert '"bf16": 0.01,\n      "fp32": 0.0001,\n      "int8": 0.02\n' in text
    assert '"logit_scale": 10.0,\n' in text
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


@pytest.mark.parametrize(
    "name",
    ["nul.onnx", "CON", "Aux.tar.gz", "com1", "LPT9.npz", "model.", "model..", "-x", "a b", "é"],
)
def test_names_that_some_system_reads_otherwise_are_refused(name: str) -> None:
    assert "not a plain file name" in read_with(setter("graphs.0.file", name))


@pytest.mark.parametrize("name", ["a", "model.fp32.onnx", "console", "com10.npz", "nul-1", "A_-"])
def test_plain_names_are_not(name: str) -> None:
    assert bundle_files.is_plain_name(name)


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
