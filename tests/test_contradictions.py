"""Values that no manifest may hold: figures out of range, names that read like others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from conftest import FINDING, HALF, MEASURED, SOURCE, tiny_files, tiny_manifest

from mammoclip_sdk.bundle import Manifest
from mammoclip_sdk.bundle.contradictions import contradictions

MANIFEST = tiny_manifest(tiny_files())


def problems(**changes: Any) -> list[str]:
    return list(contradictions(replace(MANIFEST, **changes)))


def with_finding(**changes: Any) -> list[str]:
    return problems(findings=(replace(FINDING, **changes),))


def with_point(**changes: Any) -> list[str]:
    return with_finding(operating_points=(replace(FINDING.operating_points[0], **changes),))


def test_the_tiny_manifest_has_none() -> None:
    assert problems() == []


@pytest.mark.parametrize("name", ["tiny ", "\ttiny", "ti\u200bny", "tiny\u00a0", "ti\u2028ny"])
@pytest.mark.parametrize("key", ["name", "version"])
def test_a_name_that_reads_like_another_is_refused(key: str, name: str) -> None:
    expected = f"{key}: {name!a} has spaces around it, or letters that nobody sees"
    assert expected in problems(**{key: name})
    assert f"findings {name!r}: {name!a} has spaces" in " ".join(with_finding(name=name))
    assert f"operating_points: {name!a} has spaces" in " ".join(with_point(name=name))


@pytest.mark.parametrize("name", ["Brüst-Modell 2", "乳房撮影", "a b"])
def test_names_of_every_language_are_names(name: str) -> None:
    assert problems(name=name) == []


def test_an_empty_name_is_none() -> None:
    assert problems(name="") == ["name: empty"]
    assert with_finding(name=" ")[0] == "findings ' ': empty"
    assert with_point(name="") == ["findings 'malignancy'.operating_points: empty"]


def test_findings_that_differ_by_case_alone_are_one() -> None:
    twice = (FINDING, replace(FINDING, name="Malignancy"))
    assert problems(findings=twice, measurements=()) == ["findings: 'malignancy' occurs 2 times"]


def test_prompts_that_say_nothing_or_the_same_are_refused() -> None:
    assert with_finding(positive_prompt=" ") == ["findings 'malignancy'.positive_prompt: empty"]
    assert with_finding(positive_embedding=FINDING.negative_embedding) == [
        "findings 'malignancy': prompts of one meaning, between which no exam lies"
    ]


@pytest.mark.parametrize(
    ("estimate", "lower", "upper", "refused"),
    [
        (0.0, 0.0, 1.0, False),
        (1.0, 1.0, 1.0, False),
        (5.0, 4.0, 6.0, True),
        (-1.0, -2.0, 0.0, True),
        (0.9, 0.8, 1.01, True),
        (0.1, -0.01, 0.2, True),
    ],
)
def test_a_figure_is_a_share_or_an_area(
    estimate: float, lower: float, upper: float, refused: bool
) -> None:
    interval = replace(HALF, estimate=estimate, lower=lower, upper=upper)
    said = f"{lower} to {upper} is not in 0 to 1"
    for found in (
        with_point(sensitivity=interval),
        with_point(specificity=interval),
        problems(measurements=(replace(MEASURED, value=interval),)),
    ):
        assert [problem.partition(": ")[2] for problem in found] == [said] * refused


def test_a_graph_has_an_opset_and_a_source_a_commit_and_a_backbone() -> None:
    (graph,) = MANIFEST.graphs
    assert problems(graphs=(replace(graph, opset=-3),)) == [
        "model.fp32.onnx: opset -3 is not positive"
    ]
    assert problems(source=replace(SOURCE, git_commit="", open_clip_model=" ")) == [
        "source.git_commit: empty",
        "source.open_clip_model: empty",
    ]


def test_a_manifest_is_judged_whole() -> None:
    spoiled: Manifest = replace(
        MANIFEST, name="", source=replace(SOURCE, git_commit=""), intended_use=" "
    )
    assert list(contradictions(spoiled)) == [
        "name: empty",
        "intended_use: empty",
        "source.git_commit: empty",
    ]
