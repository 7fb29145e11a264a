"""The bill of materials: by CycloneDX's own schema, and the same for the same manifest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from conftest import tiny_files, tiny_manifest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mammoclip_sdk.bundle import Attachment, Calibration, Manifest
from mammoclip_sdk.bundle.sbom import to_json

TOOLS = {"torch": "2.14.1", "onnx": "1.23.0"}


@pytest.fixture
def manifest() -> Manifest:
    return tiny_manifest(tiny_files())


def plain(manifest: Manifest) -> Any:
    return json.loads(to_json(manifest, tools=TOOLS))


def problem(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


@pytest.mark.parametrize("tools", [TOOLS, {}], ids=["tools", "none"])
def test_cyclonedx_accepts_it(manifest: Manifest, tools: dict[str, str]) -> None:
    assert problem(to_json(manifest, tools=tools)) is None
    bare = replace(manifest, measurements=(), not_for_clinical_use=False)
    assert problem(to_json(bare, tools=tools)) is None
    other = replace(manifest.model_card, licence="LicenseRef-Vendor-EULA-1.0")
    assert problem(to_json(replace(manifest, model_card=other), tools=tools)) is None


def test_the_validator_would_have_noticed(manifest: Manifest) -> None:
    spoiled = plain(manifest)
    spoiled["components"][0]["hashes"][0]["content"] = "no hash"
    assert problem(json.dumps(spoiled)) is not None


def test_the_model_is_a_machine_learning_model_with_a_card(manifest: Manifest) -> None:
    model = plain(manifest)["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "tiny",
        "1.2.3",
    )
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert model["pedigree"]["commits"] == [{"uid": "0" * 40}]
    card = model["modelCard"]
    assert card["considerations"]["technicalLimitations"] == ["It knows nothing about breasts."]
    assert card["considerations"]["useCases"][0].startswith("Not for clinical use. ")
    [metric] = card["quantitativeAnalysis"]["performanceMetrics"]
    assert metric == {
        "type": "AUC",
        "value": "0.5",
        "slice": "malignancy, 100 exams: noise; 95% interval, wilson",
        "confidenceInterval": {"lowerBound": "0.4", "upperBound": "0.6"},
    }
    assert card["modelParameters"]["outputs"] == [{"format": "malignancy: uncalibrated score"}]
    [dataset] = card["modelParameters"]["datasets"]
    assert dataset["description"] == manifest.model_card.training_data


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("MIT OR (Apache-2.0 AND LicenseRef-Vendor)", None),
        ("GPL-2.0-only WITH Classpath-exception-2.0", None),
        ("MIT License", {"license": {"name": "MIT License"}}),
        ("All rights reserved, © Vendor", {"license": {"name": "All rights reserved, © Vendor"}}),
    ],
)
def test_only_what_is_an_spdx_expression_goes_out_as_one(
    manifest: Manifest, licence: str, said: object
) -> None:
    card = replace(manifest.model_card, licence=licence)
    made = replace(manifest, model_card=card)
    model = plain(made)["metadata"]["component"]
    assert model["licenses"] == [said or {"expression": licence}]
    assert problem(to_json(made, tools=TOOLS)) is None


def test_a_calibrated_output_says_so(manifest: Manifest) -> None:
    calibration = Calibration(slope=1.0, intercept=0.0, fitted_on="x")
    findings = (replace(manifest.findings[0], calibration=calibration),)
    model = plain(replace(manifest, findings=findings))["metadata"]["component"]
    [output] = model["modelCard"]["modelParameters"]["outputs"]
    assert output == {"format": "malignancy: calibrated probability"}


def test_the_base_model_and_the_checkpoint_are_ancestors(manifest: Manifest) -> None:
    ancestors = plain(manifest)["metadata"]["component"]["pedigree"]["ancestors"]
    assert [(one["name"], one["hashes"][0]["content"]) for one in ancestors] == [
        ("checkpoint of tiny", "0" * 64),
        ("open_clip none", "1" * 64),
    ]


def test_every_file_is_a_component_that_the_model_depends_on(manifest: Manifest) -> None:
    certificate = Attachment(kind="certificate", file="certificate.json", sha256="4" * 64)
    made = plain(replace(manifest, attachments=(certificate,)))
    files = {one["name"]: one["hashes"] for one in made["components"]}
    assert files == {
        "model.fp32.onnx": [{"alg": "SHA-256", "content": manifest.graphs[0].sha256}],
        "golden.npz": [{"alg": "SHA-256", "content": manifest.golden.sha256}],
        "certificate.json": [{"alg": "SHA-256", "content": "4" * 64}],
    }
    assert made["dependencies"] == [{"ref": "model", "dependsOn": list(files)}]


def test_prompts_and_tokenizer_are_told(manifest: Manifest) -> None:
    properties = plain(manifest)["metadata"]["component"]["properties"]
    known = {entry["name"]: entry["value"] for entry in properties}
    assert known["mammoclip:release"] == "4"
    assert known["mammoclip:malignancy:tokenizer_sha256"] == "2" * 64
    assert known["mammoclip:malignancy:positive_prompt"] == manifest.findings[0].positive_prompt


def test_tools_are_listed_by_name(manifest: Manifest) -> None:
    assert plain(manifest)["metadata"]["tools"]["components"] == [
        {"type": "application", "name": "onnx", "version": "1.23.0"},
        {"type": "application", "name": "torch", "version": "2.14.1"},
    ]


def test_the_same_manifest_gives_the_same_text_and_another_another_serial_number(
    manifest: Manifest,
) -> None:
    text = to_json(manifest, tools=TOOLS)
    assert to_json(manifest, tools=dict(reversed(TOOLS.items()))) == text
    number = plain(manifest)["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", number)
    assert plain(replace(manifest, version="1.2.4"))["serialNumber"] != number
    assert "timestamp" not in text
