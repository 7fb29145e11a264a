"""Many mammograms -> one for each view, all of one study; what was passed over is kept by name.

The preferences are those of clinical use, the most important first: the view itself, then what
was done to the breast, then how the image was made and kept, then when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydicom import Dataset

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.attributes import READ
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED
from mammoclip_sdk.errors import AmbiguousViewError, MissingViewError, MixedExamError
from mammoclip_sdk.exam import VIEWS, Alternative, Exam, SourceImage, View
from mammoclip_sdk.views.acquisition import PARTIAL
from mammoclip_sdk.views.mammogram import Mammogram

_LISTED = 20  # files that a message names before it only counts
_ONE_EXAM = timedelta(days=1)  # an exam may be finished after midnight


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A mammogram, and where it can be read again."""

    name: str
    mammogram: Mammogram
    source: Path | Dataset

    def as_view(self, view: View) -> SourceImage:
        """Return what the decoder needs, once the view is settled."""
        return SourceImage(
            view=view,
            name=self.name,
            path=self.source if isinstance(self.source, Path) else None,
            dataset=None if isinstance(self.source, Path) else self.source,
            sop_instance_uid=self.mammogram.sop_instance_uid,
            identity=self.mammogram.identity,
            acquisition=self.mammogram.acquisition,
        )

    def passed_over(self, view: View, reason: str) -> Alternative:
        """Return what the result says of an image that was not taken."""
        uid = self.mammogram.sop_instance_uid
        return Alternative(view=view, name=self.name, reason=reason, sop_instance_uid=uid)

    def read(self) -> Dataset:
        """Return the whole image."""
        if isinstance(self.source, Path):
            return gate.read_dataset_of(self.source, name=self.name)
        return self.source


def choose(candidates: list[Candidate], skipped: list[str], *, strict: bool) -> Exam:
    """Give each view its best candidate; ``skipped`` says what was found and could not be one.

    The choice depends on what the images are, not on the order in which they come.

    Raises
    ------
    MixedExamError, MissingViewError
    AmbiguousViewError
        Images that differ share one SOP Instance UID, or ``strict`` and there was a choice.
    """
    require_one_exam(candidates)
    originals, alternatives = _without_copies(candidates)
    claims: dict[View, list[Candidate]] = {view: [] for view in VIEWS}
    for candidate in originals:
        if candidate.mammogram.view is not None:
            claims[candidate.mammogram.view].append(candidate)
    notes = [f"skipped {text}" for text in skipped]
    _require_all(claims, notes)
    if strict:
        _require_no_choice(claims)
    claims = {view: _by_one_clock(claimants) for view, claimants in claims.items()}
    best = _best(claims)
    for view, claimants in claims.items():
        notes += best[view].mammogram.notes
        alternatives += [
            other.passed_over(view, _why(best[view], other))
            for other in _ranked(claimants)
            if other is not best[view]
        ]
    return Exam(
        images={view: best[view].as_view(view) for view in VIEWS},
        alternatives=tuple(alternatives),
        notes=tuple(notes),
        study_instance_uid=candidates[0].mammogram.study,  # which all of them have
    )


def require_one_exam(candidates: Iterable[Candidate]) -> None:
    """Refuse images of more than one patient, study or day.

    An empty Patient ID counts as one; what a header does not say of birth or day contradicts
    nothing.
    """
    mammograms = [candidate.mammogram for candidate in candidates]
    for tag, values in (
        ("Patient ID (0010,0020)", {item.patient for item in mammograms}),
        ("Study Instance UID (0020,000D)", {item.study for item in mammograms}),
        ("Patient's Birth Date (0010,0030)", {item.birth_date for item in mammograms} - {""}),
    ):
        if len(values) > 1:
            raise _mixed(tag, f"{len(values)} different values", len(mammograms))
    days = [item.acquisition_day for item in mammograms if item.acquisition_day is not None]
    if days and max(days) - min(days) > _ONE_EXAM:
        found = "days that lie more than one day apart"
        raise _mixed("Acquisition Date (0008,0022)", found, len(mammograms))


def _mixed(tag: str, found: str, images: int) -> MixedExamError:
    return MixedExamError(
        tag,
        found=f"{found} in {images} images",
        expected="one patient, one study, one visit",
        remedy="Hand over one exam at a time; mammoclip-sdk scan (mammoclip_sdk.archive.scan) "
        "lists those of a folder.",
    )


def _without_copies(candidates: list[Candidate]) -> tuple[list[Candidate], list[Alternative]]:
    """Set copies of one instance aside, which must be the same in all that is read of them."""
    originals: dict[str, Candidate] = {}
    copies: list[Alternative] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.name):
        original = originals.setdefault(candidate.mammogram.sop_instance_uid, candidate)
        if original is candidate or candidate.mammogram.view is None:
            continue
        if not _same_content(original, candidate):
            raise AmbiguousViewError(
                "SOP Instance UID (0008,0018)",
                found=f"one value in {original.name} and {candidate.name}, which differ",
                expected="a UID for each image",
                remedy="Leave out the one that is not meant, and have it corrected at the source.",
            )
        reason = f"it is a copy of {original.name}"
        copies.append(candidate.passed_over(candidate.mammogram.view, reason))
    return list(originals.values()), copies


def _same_content(one: Candidate, other: Candidate) -> bool:
    first, second = one.read(), other.read()
    with shielded(other.name):
        encodings = {image.file_meta.TransferSyntaxUID for image in (first, second)}
        return len(encodings) == 1 and all(first.get(tag) == second.get(tag) for tag in READ)


def _by_one_clock(claimants: list[Candidate]) -> list[Candidate]:
    """Take the moments of one view's images in UTC if all of them have it, or leave them."""
    if not all(one.mammogram.acquired.utc for one in claimants):
        return claimants
    return [
        replace(one, mammogram=replace(one.mammogram, acquired=one.mammogram.acquired.in_utc()))
        for one in claimants
    ]


_Preference = tuple[Callable[[Mammogram], Any], str]
_OF_THE_VIEW: tuple[_Preference, ...] = (
    (lambda image: not image.by_text, "a text alone says which view it is"),
    (lambda image: not image.demoting, "it is not a plain view ({demoting})"),
    (
        lambda image: IMPLANT_DISPLACED in image.acquisition.modifiers,
        "the implant is not displaced in it",
    ),
    (lambda image: not image.lossy, "it is lossy compressed"),
    (lambda image: not image.acquisition.synthetic_2d, "it is synthesised from tomosynthesis"),
)
_SAME_DEVICE = "the four views are there from one device, and it comes from another"
_OF_THE_EXPOSURE: tuple[_Preference, ...] = (
    (lambda image: PARTIAL not in image.acquisition.modifiers, "it shows a part of the breast"),
    (lambda image: image.area, "it has fewer pixels"),
    (lambda image: bool(image.acquired.text), "it does not say when it was acquired"),
    (lambda image: image.acquired.text, "it was acquired earlier"),
    (lambda image: image.instance_number, "its Instance Number (0020,0013) is lower"),
    (lambda image: image.sop_instance_uid, "it comes first by SOP Instance UID (0008,0018)"),
)
"""What is preferred, the most important first: the greater value wins. Between the two groups
stands that all four views come from one device."""


def _rank(image: Mammogram, preferences: tuple[_Preference, ...]) -> tuple[Any, ...]:
    return tuple(preference(image) for preference, _ in preferences)


def _ranked(claimants: list[Candidate]) -> list[Candidate]:
    def rank(candidate: Candidate) -> tuple[Any, ...]:
        return _rank(candidate.mammogram, _OF_THE_VIEW + _OF_THE_EXPOSURE)

    return sorted(claimants, key=rank, reverse=True)


def _best(claims: Mapping[View, list[Candidate]]) -> dict[View, Candidate]:
    """Take the best of each view, and of equals those of a device that has all four."""
    equals: dict[View, list[Candidate]] = {}
    for view, claimants in claims.items():
        ranked = _ranked(claimants)
        top = _rank(ranked[0].mammogram, _OF_THE_VIEW)
        equals[view] = [one for one in ranked if _rank(one.mammogram, _OF_THE_VIEW) == top]
    devices = set.intersection(*({_device(one) for one in equals[view]} for view in VIEWS))
    complete = [
        {view: next(one for one in equals[view] if _device(one) == device) for view in VIEWS}
        for device in devices
    ]

    def rank(four: Mapping[View, Candidate]) -> list[tuple[Any, ...]]:
        return [_rank(four[view].mammogram, _OF_THE_EXPOSURE) for view in VIEWS]

    return max(complete, key=rank, default={view: equals[view][0] for view in VIEWS})


def _device(candidate: Candidate) -> tuple[str, ...]:
    device = candidate.mammogram.acquisition.device
    return tuple("".join(name.split()).casefold() for name in (device.manufacturer, device.model))


def _why(best: Candidate, other: Candidate) -> str:
    """Say which preference decided; one always does, if only the SOP Instance UID."""
    for preference, reason in _OF_THE_VIEW:
        if preference(best.mammogram) != preference(other.mammogram):
            return reason.format(demoting=", ".join(other.mammogram.demoting))
    if _device(best) != _device(other) and _rank(best.mammogram, _OF_THE_EXPOSURE) < _rank(
        other.mammogram, _OF_THE_EXPOSURE
    ):
        return _SAME_DEVICE
    return next(
        reason
        for preference, reason in _OF_THE_EXPOSURE
        if preference(best.mammogram) != preference(other.mammogram)
    )


def _require_all(claims: Mapping[View, list[Candidate]], notes: list[str]) -> None:
    missing = [view.value for view in VIEWS if not claims[view]]
    if not missing:
        return
    found = ", ".join(view.value for view in VIEWS if claims[view]) or "none of them"
    for view, claimants in claims.items():
        if len(claimants) > 1:  # a wrong tag makes two of one view, and none of another
            names = [one.name for one in claimants[:_LISTED]]
            found += f"; {view.value} is claimed by {', '.join(names[:-1])} and {names[-1]}"
            found += ", one of which may be the missing view"
    if notes:
        found += f"; {'; '.join(notes[:_LISTED])}"
    if len(notes) > _LISTED:
        found += f"; and {len(notes) - _LISTED} more"
    raise MissingViewError(
        ", ".join(missing),
        found=found,
        expected="all four of LCC, RCC, LMLO, RMLO",
        remedy="Add the missing views; this software never scores an exam without them.",
    )


def _require_no_choice(claims: Mapping[View, list[Candidate]]) -> None:
    for view, claimants in claims.items():
        if len(claimants) > 1:
            raise AmbiguousViewError(
                view.value,
                found=f"{len(claimants)} images ({', '.join(one.name for one in claimants)})",
                expected="one image for each view",
                remedy="Hand over the image that is meant, or do not ask for strict.",
            )
