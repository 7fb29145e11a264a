"""What stands between every session and an answer: only embeddings pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import InferenceError

if TYPE_CHECKING:
    from mammoclip_sdk.sessions import Session

_UNIT_TOLERANCE = 1e-3
"""Largest accepted distance of an embedding's length from 1; float16 rounding stays below."""


class CheckedSession:
    """Any session, this package's or a caller's own, with its output checked at every run."""

    def __init__(self, session: Session, bundle: Bundle) -> None:
        self._session = session
        self._bundle = bundle

    @property
    def runtime(self) -> str:
        """See `sessions.Session`."""
        return self._session.runtime

    @property
    def device(self) -> str:
        """See `sessions.Session`."""
        return self._session.device

    @property
    def precision(self) -> str:
        """See `sessions.Session`."""
        return self._session.precision

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the session; see `sessions.Session.run`."""
        embedding = np.asarray(self._session.run(tensors))
        size = len(self._bundle.manifest.findings[0].positive_embedding)
        shape = (len(tensors["views"]), size)
        found = _fault(embedding, shape)
        if found is None:
            return embedding
        raise InferenceError(
            f"{self._bundle.path} on {self.runtime}",
            found=found,
            expected=f"finite float32 {shape}, each row of length 1 within {_UNIT_TOLERANCE}",
            remedy="Do not use this device with this bundle; mammoclip-sdk bundle verify tells "
            "more.",
        )

    def close(self) -> None:
        """See `sessions.Session`."""
        self._session.close()


def _fault(embedding: NDArray[Any], shape: tuple[int, int]) -> str | None:
    if embedding.shape != shape or embedding.dtype != np.float32:
        return f"an output of {embedding.dtype} {embedding.shape}"
    if not np.isfinite(embedding).all():
        return "an output with NaN or infinity"
    worst = float(np.abs(np.linalg.norm(embedding, axis=1) - 1).max(initial=0))
    if worst > _UNIT_TOLERANCE:
        return f"an embedding whose length is {worst:.3g} away from 1"
    return None
