"""Memory that an export has freed goes back to the system."""

import sys
from pathlib import Path

import numpy as np
import pytest

from export.memory import release

_MIB = 2**20


def resident():
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / _MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked for it")
def test_what_was_freed_between_what_is_kept_goes_back():
    blocks = [np.ones(64_000, np.uint8) for _ in range(4096)]
    kept = blocks[::64]  # glibc gives back by itself only what lies behind all that is in use
    del blocks
    before = resident()
    release()
    assert resident() < before - 50
    assert len(kept) == 64
