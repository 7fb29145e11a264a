"""Where an export writes: judged before the long work, so that none of it is lost in the end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from export.errors import ExportError
from export.settings import ExportConfig
from mammoclip_sdk.bundle.folder import enclosing_bundle, obstacle
from mammoclip_sdk.bundle.swap import PARTIAL


def check_place(config: ExportConfig) -> None:
    """Refuse a place where no bundle could be written, or where it would not stay readable.

    Raises
    ------
    ExportError
    """
    found = _no_place(config.out, overwrite=config.overwrite)
    if found:
        raise ExportError(
            config.out,
            found=found,
            expected="a new path, or with --overwrite a bundle and nothing else, in a folder that "
            "can be written to",
            remedy="Name another path, or ask for overwrite to replace a bundle.",
        )
    record, out = config.record, config.out.resolve()
    for path in (record, config.engine_folder):
        if path is not None and (path.resolve().is_relative_to(out) or enclosing_bundle(path)):
            raise _misplaced(path, "a place inside a bundle, which could not be read then")
    if record is not None and os.path.lexists(record):  # it may be a key, or the checkpoint's
        raise _misplaced(record, "something of that name")
    if record is not None and not record.absolute().parent.is_dir():
        raise _misplaced(record, "no such folder")


def _no_place(out: Path, *, overwrite: bool) -> str:
    parent = next((one for one in out.resolve().parents if one.exists()), out)
    try:
        found = obstacle(out, overwrite=overwrite)
        if not found:
            # As long a name as the bundle has while it is written.
            prefix, suffix = f".{out.name}.", f".{PARTIAL}"
            with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=parent):
                pass
    except OSError as error:
        return f"a folder that cannot be written to ({parent}: {error.strerror})"
    return found


def _misplaced(path: Path, found: str) -> ExportError:
    return ExportError(
        path,
        found=found,
        expected="a place outside of any bundle; for a record, a new name in a folder that exists",
        remedy="Name another.",
    )
