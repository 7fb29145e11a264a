"""Small good files in every transfer syntax, rich in structure: what mutations are made from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from assurance import canaries
from assurance.reading import SUSPECT
from mammoclip_sdk.exam import VIEWS, View
from training.encodings import NATIVE, TRANSFER_SYNTAXES, encode, fits
from training.phantom import PhantomExam, PhantomSettings, make_exam
from training.vendor_profiles import PROFILES, VendorProfile
from training.vendors import ExamIdentity, to_dataset

ROWS, COLUMNS = 96, 80
"""Pixels: small, so that a case costs milliseconds."""
_SEED = 1
_PER_SYNTAX = 5
_IDENTITY = ExamIdentity.derive(_SEED, 0)


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One good file."""

    syntax: str
    profile: str
    content: bytes
    frame_at: int
    """Where Pixel Data (7FE0,0010) begins: the header is before it."""
    frame: bytes
    """The native pixels, or the one fragment."""

    def with_frame(self, frame: bytes, *, mended: bool) -> bytes:
        """Return the file with another frame, whose length is said again or not."""
        head, _, tail = self.content.rpartition(self.frame)
        if mended:
            tail = b"\0" * (len(frame) % 2) + tail
            head = head[:-4] + (len(frame) + len(frame) % 2).to_bytes(4, "little")
        return head + frame + tail


def make_corpus() -> tuple[Seed, ...]:
    """Encode the suspect view as several vendors write it, in every syntax that holds it.

    Each header has canaries, private elements, a nested sequence, an overlay and a VOI LUT more
    than the view needs.
    """
    datasets = {profile.name: _dataset(SUSPECT, profile) for profile in PROFILES}
    seeds = []
    for syntax in TRANSFER_SYNTAXES:
        fitting = [
            profile.name
            for profile in PROFILES
            if fits(profile.bits_stored, signed=profile.signed, transfer_syntax=syntax)
        ]
        step = max(1, len(fitting) // _PER_SYNTAX)
        for name in fitting[::step][:_PER_SYNTAX]:
            seeds.append(_seed(datasets[name], syntax, name))
    return tuple(seeds)


def write_good_views(folder: Path) -> Path:
    """Write the other three views of the exam that the corpus' files belong to."""
    for view in VIEWS:
        if view is not SUSPECT:
            content = _content(_dataset(view, PROFILES[0]), ExplicitVRLittleEndian)
            (folder / view.value).write_bytes(content)
    return folder


def plain_dataset() -> Dataset:
    """Return the suspect view with native pixels, for whoever writes its file byte by byte."""
    return _dataset(SUSPECT, PROFILES[0])


@lru_cache(maxsize=1)
def _exam() -> PhantomExam:
    return make_exam(PhantomSettings(seed=_SEED, rows=ROWS, columns=COLUMNS), 0)


def _dataset(view: View, profile: VendorProfile) -> Dataset:
    rng = np.random.default_rng([_SEED, VIEWS.index(view)])
    dataset = to_dataset(
        _exam().views[view].displayed,
        view=view,
        profile=profile,
        identity=_IDENTITY,
        pixel_spacing=0.1,
        rng=rng,
    )
    canaries.mark(dataset)
    private = dataset.private_block(0x0019, "MAMMOCLIP TEST", create=True)
    private.add_new(0x01, "LO", f"{canaries.WORD} private")
    private.add_new(0x02, "OB", bytes(range(64)))
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "99X", canaries.WORD
    outer = Dataset()
    outer.ConceptNameCodeSequence = [inner]
    outer.TextValue = f"{canaries.WORD} in a sequence"
    dataset.AcquisitionContextSequence = [outer, Dataset()]
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60003000, "OW", bytes(8))
    return dataset


def _seed(dataset: Dataset, syntax: UID, profile: str) -> Seed:
    content = _content(dataset, syntax)
    frame_at = content.rindex(b"\xe0\x7f\x10\x00")
    value = content[frame_at + (8 if syntax == ImplicitVRLittleEndian else 12) :]
    frame = value
    if syntax not in NATIVE:
        table_end = 8 + int.from_bytes(value[4:8], "little")
        frame = value[table_end + 8 : -8]  # behind its item, before the delimiter
    return Seed(syntax=syntax, profile=profile, content=content, frame_at=frame_at, frame=frame)


def _content(dataset: Dataset, syntax: UID) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, encode(dataset, syntax), enforce_file_format=True)
    return buffer.getvalue()
