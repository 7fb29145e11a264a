"""The answer, first on the page: each finding's number with its cautions, or why there is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape

from mammoclip_sdk.bundle import Finding, Interval, OperatingPoint
from mammoclip_sdk.prediction import Prediction
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.reasons import CODES
from mammoclip_sdk.scoring import FindingScore


def answer(prediction: Prediction, findings: Iterable[Finding]) -> str:
    """Return the section; ``findings`` are the bundle's."""
    blocks = _box("", (reason for reason in prediction.reasons if reason.severity == "block"))
    cautions = _box(
        "Caution, ", (reason for reason in prediction.reasons if reason.severity != "block")
    )
    questions = {finding.name: finding for finding in findings}
    parts = [_finding(score, questions[score.name], cautions) for score in prediction.findings]
    if prediction.status == "abstained":
        parts.append(
            "<h1>Not scored</h1><p>This exam was not analysed, and there is no probability. "
            f"That is not a negative result.</p>{blocks}{cautions}"
        )
    return f'<section class="answer">{"".join(parts)}</section>'


def _box(kind: str, reasons: Iterable[Reason]) -> str:
    """Frame reasons as visibly as what the model may be used for; each code is told once."""
    by_code: defaultdict[str, list[Reason]] = defaultdict(list)
    for reason in reasons:
        by_code[reason.code].append(reason)
    told = "".join(
        f"<p><b>{kind}{escape(code)} {escape(CODES[code].title)}.</b> "
        f"{escape(_message(of_code))} {escape(CODES[code].action)}</p>"
        for code, of_code in by_code.items()
    )
    return f'<div class="caution" role="note">{told}</div>' if told else ""


def _message(reasons: Iterable[Reason]) -> str:
    """Join messages; what holds for several views is said of the first, and advice once."""
    views: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    advice: dict[str, None] = {}
    for reason in reasons:
        what, stop, more = reason.message.partition(". ")
        of_any = what.removeprefix(f"{reason.view} ").removesuffix(".")
        said.setdefault(of_any, f"{what}{stop}".strip())
        views.setdefault(of_any, []).append(str(reason.view))
        advice |= {more: None} if more else {}
    same = {
        of_any: f" The same holds for {', '.join(others)}." if (others := found[1:]) else ""
        for of_any, found in views.items()
    }
    return " ".join([*(text + same[of_any] for of_any, text in said.items()), *advice])


def _finding(score: FindingScore, finding: Finding, cautions: str) -> str:
    kind = (
        "<b>uncalibrated score, 0 to 1: it orders exams, and is no probability</b>"
        if score.calibrated_on is None
        else f"probability, 0 to 1, as calibrated on {escape(score.calibrated_on)}"
    )
    return (
        f"<h1>{escape(score.name)}</h1>"
        f'<p class="number">{score.score:.3f}</p>{cautions}'
        f"<p>{kind} &middot; uncalibrated logit {score.logit:+.2f}</p>"
        f'<div class="scale" aria-hidden="true"><i style="left:{score.score:.2%}"></i></div>'
        + _operating_points(finding.operating_points, score.operating_points_met)
        + f"<p>Compared with the prompts &ldquo;{escape(finding.positive_prompt)}&rdquo; "
        f"and &ldquo;{escape(finding.negative_prompt)}&rdquo;.</p>"
    )


def _operating_points(points: tuple[OperatingPoint, ...], met: tuple[str, ...]) -> str:
    if not points:
        return "<p>No operating point is set for it.</p>"
    listed = "".join(_operating_point(point, met=point.name in met) for point in points)
    reached = [point.name for point in points if point.name in met]
    missed = [point.name for point in points if point.name not in met]
    between = ""
    if reached and missed:  # whatever they are called, this follows from which threshold is lower
        between = (
            f"<p><b>Between operating points: reaches {_quoted(reached)}, whose lower threshold "
            f"misses fewer exams and flags more; does not reach {_quoted(missed)}, whose higher "
            "threshold flags fewer and misses more.</b></p>"
        )
    return f"{between}<ul>{listed}</ul>"


def _quoted(names: list[str]) -> str:
    return " and ".join(f"&ldquo;{escape(name)}&rdquo;" for name in names)


def _operating_point(point: OperatingPoint, *, met: bool) -> str:
    state = "reached" if met else "not reached"
    return (
        f"<li><b>{escape(point.name)}</b>: threshold {point.threshold:.3f} {state}"
        f" (measured: sensitivity {_range(point.sensitivity)},"
        f" specificity {_range(point.specificity)})</li>"
    )


def _range(one: Interval) -> str:
    return f"{one.estimate:.2f}, {one.lower:.2f} to {one.upper:.2f}"
