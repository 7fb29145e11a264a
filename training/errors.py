"""What training and export cannot use: what was found, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 12
"""Problems that a message spells out; a model has hundreds of tensors."""


class UnusableInputError(ValueError):
    """What was handed over cannot be used; nothing was written.

    Attributes
    ----------
    subject : str
        The file, tensor or option the error is about.
    found, expected, remedy : str
        What was there, what should have been, and what the reader of the message can do.
    """

    def __init__(self, subject: object, *, found: str, expected: str, remedy: str) -> None:
        self.subject = str(subject)
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(f"{subject}: found {found}; expected {expected}. {remedy}")


class CheckpointError(UnusableInputError):
    """A checkpoint folder is not what it says, or is none."""


class CohortError(UnusableInputError):
    """Exams, or the manifest that lists them, that no model can be trained or measured on."""


class TrainingError(UnusableInputError):
    """Settings with which training cannot run, or went astray."""


def together(problems: Sequence[str]) -> str:
    """Put problems into one sentence; of very many, the first ones and how many more."""
    more = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
