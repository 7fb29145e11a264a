"""Many mammograms -> one for each view, all of one study; what was passed over is kept by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from mammoclip_sdk import gate
from mammoclip_sdk.errors import AmbiguousViewError, MissingViewError, MixedExamError
from mammoclip_sdk.exam import VIEWS, Alternative, Exam, SourceImage, View
from mammoclip_sdk.mammogram import Mammogram
from mammoclip_sdk.shield import shielded

_LISTED = 20  # refused files that a message names before it only counts


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
        )

    def read(self) -> Dataset:
        """Return the whole image."""
        if isinstance(self.source, Path):
            return gate.read_dataset(gate.read_file(self.source, name=self.name), name=self.name)
        return self.source


def choose(candidates: list[Candidate], skipped: list[str], *, strict: bool) -> Exam:
    """Give each view its best candidate; ``skipped`` says what was found and could not be one."""
    require_one_study(candidates)
    claims: dict[View, list[Candidate]] = {view: [] for view in VIEWS}
    notes = [f"skipped {text}" for text in skipped]
    originals, alternatives = _without_copies(candidates)
    for candidate in originals:
        if candidate.mammogram.view is not None:
            claims[candidate.mammogram.view].append(candidate)
    _require_all(claims, notes)
    images: dict[View, SourceImage] = {}
    for view, claimants in claims.items():
        best, *others = _ranked(claimants)
        if others and strict:
            raise AmbiguousViewError(
                view.value,
                found=f"{len(claimants)} images ({', '.join(item.name for item in claimants)})",
                expected="one image for each view",
                remedy="Hand over the image that is meant, or do not ask for strict.",
            )
        images[view] = best.as_view(view)
        notes += best.mammogram.notes
        alternatives += [
            Alternative(view=view, name=other.name, reason=_why(best.mammogram, other.mammogram))
            for other in others
        ]
    return Exam(images=images, alternatives=tuple(alternatives), notes=tuple(notes))


def _without_copies(candidates: list[Candidate]) -> tuple[list[Candidate], list[Alternative]]:
    """Set copies of one instance aside, which must be the same in all that is not file meta."""
    originals: dict[str, Candidate] = {}
    copies: list[Alternative] = []
    for candidate in candidates:
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
        copies.append(
            Alternative(view=candidate.mammogram.view, name=candidate.name, reason=reason)
        )
    return list(originals.values()), copies


def _same_content(one: Candidate, other: Candidate) -> bool:
    first, second = one.read(), other.read()
    with shielded(other.name):
        encodings = {image.file_meta.TransferSyntaxUID for image in (first, second)}
        return len(encodings) == 1 and bool(first == second)


_PREFERENCES: tuple[tuple[Callable[[Mammogram], Any], str], ...] = (
    (lambda image: not image.demoted, "it is not a plain view ({demoted})"),
    (lambda image: not image.lossy, "it is lossy compressed"),
    (lambda image: bool(image.acquired), "it does not say when it was acquired"),
    (lambda image: image.acquired, "it was acquired earlier"),
    (lambda image: image.instance_number, "its Instance Number (0020,0013) is lower"),
    (lambda image: image.sop_instance_uid, "it comes first by SOP Instance UID (0008,0018)"),
)
"""What is preferred, the most important first: the greater value wins."""


def _ranked(claimants: list[Candidate]) -> list[Candidate]:
    def rank(candidate: Candidate) -> tuple[Any, ...]:
        return tuple(preference(candidate.mammogram) for preference, _ in _PREFERENCES)

    return sorted(claimants, key=rank, reverse=True)


def _why(best: Mammogram, other: Mammogram) -> str:
    for preference, reason in _PREFERENCES:
        if preference(best) != preference(other):
            return reason.format(demoted=", ".join(other.demoted))
    return "nothing tells the two apart"


def require_one_study(candidates: Iterable[Candidate]) -> None:
    """Refuse images of more than one patient or study; an empty Patient ID counts as one."""
    mammograms = [candidate.mammogram for candidate in candidates]
    for tag, values in (
        ("Patient ID (0010,0020)", {item.patient for item in mammograms}),
        ("Study Instance UID (0020,000D)", {item.study for item in mammograms}),
    ):
        if len(values) > 1:
            raise MixedExamError(
                tag,
                found=f"{len(values)} different values in {len(mammograms)} images",
                expected="one patient and one study",
                remedy="Hand over one exam at a time.",
            )


def _require_all(claims: Mapping[View, list[Candidate]], notes: list[str]) -> None:
    missing = [view.value for view in VIEWS if not claims[view]]
    if not missing:
        return
    found = ", ".join(view.value for view in VIEWS if claims[view]) or "none of them"
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
