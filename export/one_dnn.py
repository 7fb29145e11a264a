"""PyTorch's float32 products by oneDNN instead of MKL, which on processors not by Intel is slower.

MKL has no AVX-512 for those: on an AMD EPYC of 2026 a linear layer takes twice as long by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def one_dnn() -> Iterator[None]:
    """Let linear layers on the CPU, in float32 and without gradients, be computed by oneDNN.

    They round otherwise in the last digit, as any two computations of the same in float32 do, and
    in the same way every time. Where torch was built without oneDNN nothing changes.
    """
    if not torch.backends.mkldnn.is_available():
        yield
        return
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention as one operator hides its layers
    try:
        with _LinearLayers():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class _LinearLayers(TorchDispatchMode):
    """Takes the operator that a linear layer with a bias becomes."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.addmm.default and not kwargs:
            bias, tokens, weight = args
            if bias.ndim == 1 and tokens.dtype is torch.float32 and tokens.device.type == "cpu":
                stored = weight.t().contiguous()
                return functional.linear(tokens.to_mkldnn(), stored, bias).to_dense()
        return func(*args, **(kwargs or {}))
