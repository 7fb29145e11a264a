"""What stands between every session and an answer: one row for each exam, and nothing else.

Whether a row is an embedding is for `scoring` to say, exam by exam: a runtime that fails for one
exam of a batch has not failed for its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import InferenceError

if TYPE_CHECKING:
    from mammoclip_sdk.sessions import Session


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

    @property
    def engine(self) -> object:
        """The device engine that runs, for `sessions.trt`; None on a runtime without one."""
        return getattr(self._session, "engine", None)

    @property
    def gpu(self) -> object:
        """The GPU that the engine runs on; None on a runtime without engines."""
        return getattr(self._session, "gpu", None)

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the session; see `sessions.Session.run`."""
        embedding = np.asarray(self._session.run(tensors))
        size = len(self._bundle.manifest.findings[0].positive_embedding)
        shape = (len(tensors["views"]), size)
        if embedding.shape == shape and embedding.dtype == np.float32:
            return embedding
        raise InferenceError(
            f"{self._bundle.path} on {self.runtime}",
            found=f"an output of {embedding.dtype} {embedding.shape}",
            expected=f"float32 {shape}",
            remedy="Do not use this device with this bundle; mammoclip-sdk bundle verify tells "
            "more.",
        )

    def close(self) -> None:
        """See `sessions.Session`."""
        self._session.close()
