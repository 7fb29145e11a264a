"""Every error this package raises, as one tree.

::

    MammoClipError
    ├── InputError                      what the caller handed over cannot be scored
    │   ├── NotDicomError               not a DICOM Part 10 file
    │   ├── DicomReadError              DICOM, but damaged or outside the accepted limits
    │   ├── UnsupportedImageError       readable, but not a view this software may score
    │   │   └── UnsupportedTransferSyntaxError
    │   ├── PixelError                  the pixels cannot be turned into a model input
    │   └── ExamError                   the images do not make up one exam
    │       ├── MissingViewError
    │       ├── AmbiguousViewError
    │       └── MixedExamError
    ├── BundleError                     the bundle cannot be used
    │   ├── BundleNotFoundError
    │   ├── BundleFormatError           unknown, missing or contradictory manifest keys
    │   ├── BundleVersionError          a newer schema or preprocessing than this software knows
    │   ├── BundleIntegrityError        bytes differ from what the manifest promises
    │   ├── BundleCertificateError      no parity certificate, or not one that its graphs passed
    │   ├── BundleSignatureError        not signed by a key that is trusted, or a key is no key
    │   └── BundleReleaseError          an older release than was accepted, or nobody can tell
    └── DeviceError                     the runtime cannot do what was asked
        ├── RuntimeNotInstalledError
        ├── RuntimeConflictError        two packages that overwrite one another
        ├── EngineError                 a device engine that is not there, or not the one built
        └── InferenceError              a runtime failed, or answered with something unusable

A message says what it is about, what was found, what was expected and what to do.
It names files and DICOM tags, never the value of a tag that may identify a patient.
"""

from __future__ import annotations

import functools
from typing import Any

from mammoclip_sdk.reasons import reason_of


class MammoClipError(Exception):
    """Base of the tree; catching it catches everything this package raises on purpose.

    Attributes
    ----------
    subject : str
        The file, tag, key or argument the error is about.
    found, expected : str
        What was there, and what should have been.
    remedy : str
        What the reader of the message can do.
    code : str
        Stable identifier for programs; never reworded.
    """

    code = "error"

    def __init__(
        self,
        subject: str,
        *,
        found: str,
        expected: str,
        remedy: str,
        code: str | None = None,
    ) -> None:
        self.subject = subject
        self.found = found
        self.expected = expected
        self.remedy = remedy
        if code is not None:
            self.code = code
        super().__init__(f"{subject}: found {found}; expected {expected}. {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the class with the finished message alone.
        parts = {"found": self.found, "expected": self.expected, "remedy": self.remedy}
        return functools.partial(type(self), **parts), (self.subject,), self.__dict__

    @property
    def reason(self) -> str | None:
        """Code in `reasons.CODES` for an exam that may not be scored; None for other errors."""
        return reason_of(self.code)

    def to_dict(self) -> dict[str, str | None]:
        """Return the parts of the message for machine readers (JSON-serialisable)."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "reason": self.reason,
            "subject": self.subject,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }


class InputError(MammoClipError):
    """What the caller handed over cannot be scored."""

    code = "input"


class NotDicomError(InputError):
    """The bytes are not a DICOM Part 10 file."""

    code = "not_dicom"


class DicomReadError(InputError):
    """The file is DICOM, but damaged, truncated or outside the accepted limits."""

    code = "dicom_unreadable"


class UnsupportedImageError(InputError):
    """The image is readable, but is not one this software may score."""

    code = "unsupported_image"


class UnsupportedTransferSyntaxError(UnsupportedImageError):
    """The pixels are encoded in a way no accepted decoder reads."""

    code = "unsupported_transfer_syntax"


class PixelError(InputError):
    """The pixels cannot be turned into a model input."""

    code = "pixels"


class ExamError(InputError):
    """The images do not make up one four-view exam."""

    code = "exam"


class MissingViewError(ExamError):
    """At least one of LCC, RCC, LMLO, RMLO is absent; it is never filled with zeros."""

    code = "missing_view"


class AmbiguousViewError(ExamError):
    """More than one image claims a view and the caller asked for no choice to be made."""

    code = "ambiguous_view"


class MixedExamError(ExamError):
    """The images belong to more than one patient or study."""

    code = "mixed_exam"


class BundleError(MammoClipError):
    """The bundle cannot be used."""

    code = "bundle"


class BundleNotFoundError(BundleError):
    """There is no complete bundle at the path."""

    code = "bundle_not_found"


class BundleFormatError(BundleError):
    """The manifest has unknown, missing or contradictory keys."""

    code = "bundle_format"


class BundleVersionError(BundleError):
    """The bundle was written for a newer version of this software."""

    code = "bundle_version"


class BundleIntegrityError(BundleError):
    """A file of the bundle is not the one its manifest promises."""

    code = "bundle_integrity"


class BundleCertificateError(BundleError):
    """The bundle has no parity certificate that its own graphs have passed."""

    code = "bundle_certificate"


class BundleSignatureError(BundleError):
    """The bundle is not signed by a key that the caller trusts, or a key cannot be used."""

    code = "bundle_signature"


class BundleReleaseError(BundleError):
    """An earlier release than one accepted before, or the record of those cannot be used."""

    code = "bundle_release"


class DeviceError(MammoClipError):
    """The runtime cannot do what was asked of it."""

    code = "device"


class RuntimeNotInstalledError(DeviceError):
    """The inference runtime that was asked for is not installed or does not load."""

    code = "runtime_not_installed"


class RuntimeConflictError(DeviceError):
    """Two installed packages overwrite one another's files."""

    code = "runtime_conflict"


class EngineError(DeviceError):
    """A device engine cannot be built, is not there, or is not the one that was built."""

    code = "engine"


class InferenceError(DeviceError):
    """A runtime failed, or answered with something that must not be reported."""

    code = "inference"
