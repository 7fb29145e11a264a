"""What of TensorRT for RTX and of GPUs there is here, for tests that need it, or that need none."""

from __future__ import annotations

import pytest

from mammoclip_sdk.engines import cuda as gpus
from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.errors import RuntimeNotInstalledError

try:
    RTX = flavours.load("tensorrt_rtx")
except RuntimeNotInstalledError as error:
    RTX, WITHOUT_RTX = None, f"tensorrt-rtx does not load: {error.found}"
else:
    WITHOUT_RTX = ""


GPU = gpus.find_gpu()
needs_rtx = pytest.mark.skipif(RTX is None, reason=WITHOUT_RTX)
no_gpu = pytest.mark.skipif(GPU is not None, reason="says what happens without a GPU")
