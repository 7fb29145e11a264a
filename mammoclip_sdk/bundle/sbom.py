"""A manifest -> its entry in a software bill of materials: CycloneDX 1.6 as JSON.

The model is a component of type ``machine-learning-model`` with a model card, its files are
components with their hashes, and its ancestors are the checkpoint it was exported from and the
weights that training left as they were. The same manifest gives the same text: there is no clock in
it, and the serial number is made of the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from mammoclip_sdk.bundle.manifest import Manifest, Measurement

_REFERENCE = "model"
_SPDX = re.compile(r"\(*[A-Za-z0-9.:+-]+\)*( (AND|OR|WITH) \(*[A-Za-z0-9.:+-]+\)*)*")
"""How an SPDX licence expression looks; other texts are the names of licences."""


def to_json(manifest: Manifest, *, tools: Mapping[str, str]) -> str:
    """Return the bill of materials.

    Parameters
    ----------
    manifest
        With the attachments that are known so far; this one is not among them.
    tools
        Name and version of the programs that made the graphs.
    """
    content: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": name, "version": version}
                    for name, version in sorted(tools.items())
                ]
            },
            "component": _model(manifest),
        },
        "components": [
            {"type": "file", "bom-ref": name, "name": name, "hashes": _sha256(digest)}
            for name, digest in manifest.file_hashes().items()
        ],
        "dependencies": [{"ref": _REFERENCE, "dependsOn": list(manifest.file_hashes())}],
    }
    content["serialNumber"] = _serial(content)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _serial(content: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=5).urn


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _REFERENCE,
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.intended_use,
        "licenses": [_licence(manifest.model_card.licence)],
        "pedigree": {
            "ancestors": _ancestors(manifest),
            "commits": [{"uid": manifest.source.git_commit}],
        },
        "modelCard": _card(manifest),
        "properties": _properties(manifest),
    }


def _licence(text: str) -> dict[str, Any]:
    return {"expression": text} if _SPDX.fullmatch(text) else {"license": {"name": text}}


def _card(manifest: Manifest) -> dict[str, Any]:
    keys, use = manifest.preprocessing, manifest.intended_use
    warning = "Not for clinical use. " if manifest.not_for_clinical_use else ""
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "similarity of four mammography views to pairs of text prompts",
            "architectureFamily": "vision transformer",
            "modelArchitecture": manifest.source.open_clip_model,
            "datasets": [
                {
                    "type": "dataset",
                    "name": "training data",
                    "description": manifest.model_card.training_data,
                }
            ],
            "inputs": [
                {
                    "format": f"views {', '.join(manifest.views)}: float32, "
                    f"{keys.height} x {keys.width} pixels each"
                }
            ],
            "outputs": [
                {
                    "format": f"{finding.name}: "
                    + ("calibrated probability" if finding.calibration else "uncalibrated score")
                }
                for finding in manifest.findings
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [_metric(one) for one in manifest.measurements]
        },
        "considerations": {
            "useCases": [f"{warning}{use}"],
            "technicalLimitations": list(manifest.model_card.limitations),
        },
    }


def _metric(measurement: Measurement) -> dict[str, Any]:
    value = measurement.value
    return {
        "type": measurement.name,
        "value": str(value.estimate),
        "slice": f"{measurement.finding}, {measurement.exams} exams: {measurement.data}; "
        f"{value.level:.0%} interval, {value.method}",
        "confidenceInterval": {"lowerBound": str(value.lower), "upperBound": str(value.upper)},
    }


def _properties(manifest: Manifest) -> list[dict[str, str]]:
    known = {"release": str(manifest.release)}
    for finding in manifest.findings:
        known |= {
            f"{finding.name}:negative_prompt": finding.negative_prompt,
            f"{finding.name}:positive_prompt": finding.positive_prompt,
            f"{finding.name}:tokenizer": finding.tokenizer,
            f"{finding.name}:tokenizer_sha256": finding.tokenizer_sha256,
        }
    return [{"name": f"mammoclip:{name}", "value": value} for name, value in known.items()]


def _ancestors(manifest: Manifest) -> list[dict[str, Any]]:
    source = manifest.source
    return [
        {
            "type": "machine-learning-model",
            "name": f"checkpoint of {manifest.name}",
            "hashes": _sha256(source.checkpoint_sha256),
        },
        {
            "type": "machine-learning-model",
            "name": f"open_clip {source.open_clip_model}",
            "description": "The weights that stayed as they were while the adapters were trained. "
            "The hash is of the tensors' names, types, shapes and values, by name.",
            "hashes": _sha256(source.base_sha256),
        },
    ]


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
