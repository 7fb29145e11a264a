"""The precisions that a runtime here can compare: asked before the work, and held after it."""

from __future__ import annotations

from export.errors import ExportError
from export.settings import ExportConfig
from export.verify import ParityError
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.parity.certificate import Certificate
from mammoclip_sdk.sessions import openvino


def incomparable() -> dict[str, str]:
    """Say which precisions nothing here can run, and why, before any work is done for them.

    ONNX Runtime runs every graph on any processor; bfloat16 takes OpenVINO, and a processor that
    has it.
    """
    try:
        openvino.require("bf16")
    except DeviceError as error:
        return {"bf16": error.found}
    return {}


def require_runtimes(config: ExportConfig) -> None:
    """Refuse, before the long work, a precision in which nothing here could be compared.

    Raises
    ------
    ExportError
    """
    missing = {one: why for one, why in incomparable().items() if one in config.precisions}
    if missing:
        raise ExportError(
            "settings of the export",
            found="; ".join(
                f"{one}, for which there is here {why}" for one, why in missing.items()
            ),
            expected="precisions that a runtime here runs, for each has to be compared",
            remedy="Install openvino, export on a processor that has it, or leave it out with "
            "--precisions.",
        )


def require_compared(certificate: Certificate, precisions: tuple[str, ...]) -> None:
    """Refuse a bundle that may be run in a precision in which nothing was compared.

    Raises
    ------
    ParityError
    """
    compared = {one.precision for one in certificate.comparisons}
    missing = [precision for precision in precisions if precision not in compared]
    if missing:
        reasons = {f"{one.device} in {one.precision}: {one.reason}" for one in certificate.absent}
        raise ParityError(
            f"the graphs: found no runtime here that runs {', '.join(missing)} "
            f"({'; '.join(sorted(reasons))}); expected every precision to be compared. Install a "
            "runtime that does, such as openvino, or leave it out with --precisions.",
            certificate,
        )
