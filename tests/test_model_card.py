"""Model cards: what the manifest says, all of it, escaped, and on a page that stands alone."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from conftest import prompt, tiny_files, tiny_manifest

from mammoclip_sdk.bundle import Attachment, Calibration, Finding, Manifest
from mammoclip_sdk.bundle.model_card import page
from mammoclip_sdk.exam import Acceptance, Device


class Reader(HTMLParser):
    """The page's texts, its tables' rows, and which elements and attributes it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.lasttag in ("td", "th") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture
def manifest() -> Manifest:
    return tiny_manifest(tiny_files())


def read(manifest: Manifest) -> Reader:
    return Reader(page(manifest))


def facts(manifest: Manifest) -> dict[str, str]:
    return {row[0]: row[1].strip() for row in read(manifest).rows if len(row) == 2}


def text(manifest: Manifest) -> str:
    return " ".join("".join(read(manifest).texts).split())


def test_the_use_comes_first_and_says_what_it_is_not_for(manifest: Manifest) -> None:
    html = page(manifest)
    assert html.index("<strong>Not for clinical use.</strong>") < html.index("<h1>")
    assert manifest.intended_use in text(manifest)
    assert "<h1>Model card: tiny 1.2.3</h1>" in html
    assert 'content: "Not for clinical use"' in html  # on every printed sheet
    assert "Release 4, licence Apache-2.0" in text(manifest)
    clinical = replace(manifest, not_for_clinical_use=False)
    assert "Not for clinical use" not in page(clinical)


def test_findings_have_their_prompts_and_operating_points_with_intervals(
    manifest: Manifest,
) -> None:
    said = text(manifest)
    assert "Finding: malignancy" in said
    assert (
        "An exam is scored by how much nearer it lies to “a mammogram with a malignant lesion” "
        "than to “a mammogram without a malignant lesion”."
    ) in said
    interval = "0.500 (95% interval 0.400 to 0.600, Wilson)"
    assert ["always", "0.000", interval, interval] in read(manifest).rows
    assert ["never", "1.000", interval, interval] in read(manifest).rows


def test_a_finding_without_calibration_or_operating_points_says_so(manifest: Manifest) -> None:
    (finding,) = manifest.findings
    assert "Uncalibrated: its number orders exams, and is no probability." in text(manifest)
    assert "no operating point" not in text(manifest)
    bare = replace(manifest, findings=(replace(finding, operating_points=()),))
    assert "It has no operating point: no threshold was validated." in text(bare)
    calibration = Calibration(slope=2.0, intercept=0.5, fitted_on="300 exams")
    fitted = replace(manifest, findings=(replace(finding, calibration=calibration),))
    assert "Calibrated by Platt scaling, fitted on 300 exams." in text(fitted)
    assert "Uncalibrated" not in text(fitted)


def second(finding: Finding) -> Finding:
    return replace(finding, name="density", positive_prompt="a dense breast", tokenizer="other",
                   tokenizer_sha256="3" * 64, positive_embedding=prompt(2))  # fmt: skip


def test_every_finding_is_there(manifest: Manifest) -> None:
    (finding,) = manifest.findings
    both = replace(manifest, findings=(finding, second(finding)))
    assert "Finding: malignancy" in text(both)
    assert "Finding: density" in text(both)
    known = facts(both)
    assert known["Tokenizer, malignancy"] == "none"
    assert known["SHA-256 of its vocabulary, density"] == "3" * 64


def test_figures_data_and_limits(manifest: Manifest) -> None:
    interval = "0.500 (95% interval 0.400 to 0.600, Wilson)"
    assert ["AUC", "malignancy", interval, "100", "noise"] in read(manifest).rows
    assert manifest.model_card.training_data in text(manifest)
    for limitation in manifest.model_card.limitations:
        assert f"<li>{limitation}</li>" in page(manifest)
    unmeasured = replace(manifest, measurements=())
    assert "Nothing was measured on exams that it never saw." in text(unmeasured)


def test_what_is_accepted_and_what_is_done_to_it(manifest: Manifest) -> None:
    known = facts(manifest)
    assert known["Breast implants"] == "refused"
    assert known["Devices validated on"] == "none; every exam gets a caution"
    assert known["Size"] == "32 rows and 24 columns a view, letterbox"
    device = Device(manufacturer="Maker", model="One")
    accepting = Acceptance(implants=True, synthetic_2d=False, devices=(device,))
    known = facts(replace(manifest, acceptance=accepting))
    assert known["Breast implants"] == "accepted"
    assert known["Synthesised 2D images"] == "refused"
    assert known["Devices validated on"] == "Maker One"


@pytest.mark.parametrize(
    ("reduction", "said"),
    [
        (0, "every resolution level is decoded"),
        (1, "at most 1 finest resolution level left out, where the model input does not need them"),
        (2, "at most 2 finest resolution levels left out, where the model input does not need"),
    ],
)
def test_resolution_levels_are_left_out_only_where_they_are_not_needed(
    manifest: Manifest, reduction: int, said: str
) -> None:
    keys = replace(manifest.preprocessing, jpeg2000_reduction=reduction)
    assert facts(replace(manifest, preprocessing=keys))["JPEG 2000"].startswith(said)


def test_hashes_lead_back_to_where_it_came_from(manifest: Manifest) -> None:
    certificate = Attachment(kind="certificate", file="certificate.json", sha256="4" * 64)
    known = facts(replace(manifest, attachments=(certificate,)))
    assert known["Git commit"] == "0" * 40
    assert known["SHA-256 of its tensors"] == "1" * 64
    assert known["SHA-256 of the checkpoint"] == "0" * 64
    assert known["SHA-256 of model.fp32.onnx"] == manifest.graphs[0].sha256
    assert known["SHA-256 of certificate.json"] == "4" * 64
    assert known["Seed"] == "7"
    unseeded = replace(manifest.source, seed=None)
    assert facts(replace(manifest, source=unseeded))["Seed"] == "not recorded"


def test_blocks_in_float32_are_named(manifest: Manifest) -> None:
    (graph,) = manifest.graphs
    half = replace(
        graph,
        file="model.fp16.onnx",
        precision="fp16",
        largest_activations=(1.0, 30_000.0),
        float32_blocks=(1,),
    )
    golden = replace(manifest.golden, tolerance={"fp32": 1e-4, "fp16": 0.005})
    rows = read(replace(manifest, graphs=(graph, half), golden=golden)).rows
    assert ["model.fp32.onnx", "fp32", "17", "none", "0.0001 of a logit"] in rows
    assert ["model.fp16.onnx", "fp16", "17", "1", "0.005 of a logit"] in rows


def test_texts_from_elsewhere_cannot_become_markup(manifest: Manifest) -> None:
    evil = '<script>alert("x")</script>&'
    (finding,) = manifest.findings
    card = replace(manifest.model_card, training_data=evil, limitations=(evil,), licence=evil)
    spoiled = replace(
        manifest,
        name=evil,
        version=evil,
        intended_use=evil,
        model_card=card,
        findings=(replace(finding, name=evil, positive_prompt=evil, tokenizer=evil),),
        source=replace(manifest.source, command=evil, open_clip_model=evil),
        measurements=(replace(manifest.measurements[0], name=evil, data=evil),),
    )
    found = read(spoiled)
    assert "script" not in found.tags
    assert page(spoiled).count("<script") == 0
    assert "".join(found.texts).count(evil) >= 11


def test_the_page_stands_alone_and_is_the_same_every_time(manifest: Manifest) -> None:
    html = page(manifest)
    assert html == page(manifest)
    assert "default-src 'none'" in html
    found = Reader(html)
    assert found.tags.isdisjoint({"script", "link", "iframe", "img", "object", "form"})
    assert found.attributes.isdisjoint({"src", "href", "onload", "onclick"})
