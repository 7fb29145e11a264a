"""Memory between the stages of an export, each of which needs much of it."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

import torch


def release() -> None:
    """Give back to the system what earlier stages no longer need.

    Torch remembers the last model it exported, what it remembers holds the weights in cycles, and
    glibc keeps what was freed for itself.
    """
    torch.compiler.reset()
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
