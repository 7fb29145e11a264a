"""Which release of a bundle was accepted last: a signed bundle may not be replaced by an older one.

An older release is signed as well as a newer one, and has the faults that the newer one mends. What
was accepted is kept in a small JSON file of the user's, ``releases.json`` in the folder that
`STATE` names or that the system has for such files; it is written by rename, under a lock, and only
ever grows. One that cannot be understood is an error: started anew, it would accept anything.
Whoever may write to it can set it back, so that on a shared workstation it belongs to somebody
else than to those who use it.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from mammoclip_sdk import strict_json
from mammoclip_sdk.errors import BundleReleaseError

SCHEMA = 1
STATE = "MAMMOCLIP_STATE"
"""Environment variable with the folder of `FILE`."""
FILE = "releases.json"
USE, COMMAND = "use", "command"
"""Accepted because its golden exams passed; because somebody asked for it, older or not."""
_PATIENCE = 10.0
"""Seconds to wait for another process, which holds the lock for a few milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of one bundle, signed by one key."""

    bundle: str
    release: int
    version: str
    sha256: str
    """Of ``manifest.json``."""
    key_id: str


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """That a release was accepted, when, and by what."""

    accepted: Release
    at: str
    """UTC, as ISO 8601 writes it, to the second."""
    by: str
    """`USE` or `COMMAND`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The file: every acceptance that changed something, oldest first."""

    schema: int
    acceptances: tuple[Acceptance, ...]


def record_file(given: Path | None) -> Path:
    """Return where acceptances are kept: as given, or by `STATE`, or the user's own place.

    Raises
    ------
    BundleReleaseError
        ``releases_damaged``: a link there leads nowhere. ``releases_unwritable``: none is named,
        and the user has no home folder.
    """
    if given is not None:
        return _followed(given)
    folder = os.environ.get(STATE)
    return _followed((Path(folder) if folder else _users_own()) / FILE)


def _followed(file: Path) -> Path:
    """Follow a link, which writing by rename would replace; one to nothing is no first use."""
    try:
        if not file.is_symlink():
            return file
        file = file.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise _damaged(file, f"a link that leads nowhere ({error})") from error
    return file


def _users_own() -> Path:
    try:
        return _state_folder() / "mammoclip-sdk"
    except RuntimeError as error:  # neither a variable nor the system knows the user's home
        raise BundleReleaseError(
            "record of accepted releases",
            found="a user without a home folder",
            expected="a place where accepted releases can be recorded",
            remedy=f"Name a file with --accepted, or a folder with {STATE}.",
            code="releases_unwritable",
        ) from error


def _state_folder() -> Path:
    if sys.platform == "win32":
        state = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        state = Path.home() / "Library" / "Application Support"
    else:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state)


def require_not_older(release: Release, key_ids: Collection[str], file: Path) -> None:
    """Refuse a release that comes before the last one accepted.

    Parameters
    ----------
    key_ids
        Of all keys that are trusted: releases of one name count together, whichever of these keys
        signed them, for a vendor who changes keys goes on counting.

    Raises
    ------
    BundleReleaseError
        ``release_rolled_back``; ``releases_damaged``: the file cannot be understood.
    """
    _refuse_older(release, _last(_read(file), release.bundle, key_ids), file)


def _refuse_older(release: Release, last: Acceptance | None, file: Path) -> None:
    if last is not None and release.release < last.accepted.release:
        raise BundleReleaseError(
            f"{release.bundle} {release.version}",
            found=f"release {release.release}",
            expected=f"release {last.accepted.release} ({last.accepted.version}, accepted "
            f"{last.at}) or a later one",
            remedy="Use the later release. To go back on purpose: mammoclip-sdk bundle accept "
            f"BUNDLE --trust KEY --accepted {file}.",
            code="release_rolled_back",
        )


def accept(release: Release, key_ids: Collection[str], file: Path, *, by: str) -> Release | None:
    """Record that a release is accepted, unless nothing else has been since it was.

    Of two bundles with one release number, neither is older: they may be used in turn.

    Returns
    -------
    What was accepted before under this name, or None.

    Raises
    ------
    BundleReleaseError
        As `require_not_older` (a release older than another process accepted meanwhile; not for a
        command); ``releases_unwritable``: it cannot be recorded.
    """
    if _stands(_read(file), release, key_ids):  # needs no right to write
        return release
    with _locked(file):
        record = _read(file)
        if _stands(record, release, key_ids):  # by another process, meanwhile
            return release
        last = _last(record, release.bundle, key_ids)
        if by == USE:
            _refuse_older(release, last, file)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        acceptance = Acceptance(accepted=release, at=now, by=by)
        _write(file, Record(schema=SCHEMA, acceptances=(*record.acceptances, acceptance)))
    return None if last is None else last.accepted


def _last(record: Record, bundle: str, key_ids: Collection[str]) -> Acceptance | None:
    return next(_current(record, bundle, key_ids), None)


def _stands(record: Record, release: Release, key_ids: Collection[str]) -> bool:
    return any(one.accepted == release for one in _current(record, release.bundle, key_ids))


def _current(record: Record, bundle: str, key_ids: Collection[str]) -> Iterator[Acceptance]:
    """Go back through the acceptances of a name, as long as they have the last one's number."""
    number = None
    for acceptance in reversed(record.acceptances):
        accepted = acceptance.accepted
        if _counted(accepted.bundle) == _counted(bundle) and accepted.key_id in key_ids:
            if number not in (None, accepted.release):
                return
            number = accepted.release
            yield acceptance


def _counted(name: str) -> str:
    """Return what releases count under: a name in other letters is no other bundle."""
    return unicodedata.normalize("NFKC", name).casefold()


def _read(file: Path) -> Record:
    try:
        text = file.read_bytes().decode("utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):  # nothing was accepted yet
        return Record(schema=SCHEMA, acceptances=())
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise _damaged(file, f"a file that cannot be read ({error})") from error
    plain, problems = strict_json.parse(text)
    record = None if plain is None else strict_json.from_plain(Record, plain, problems)
    if record is not None and record.schema != SCHEMA:
        problems.append(f"schema: {record.schema} instead of {SCHEMA}")
    if record is not None and not {a.by for a in record.acceptances} <= {USE, COMMAND}:
        problems.append(f"by: neither {USE} nor {COMMAND}")
    if record is None or problems:
        raise _damaged(file, strict_json.listed(problems))
    return record


def _damaged(file: Path, found: str) -> BundleReleaseError:
    return BundleReleaseError(
        str(file),
        found=found,
        expected="the record of accepted releases, as this software writes it",
        remedy="Bring it back from a backup. If there is none, move it away, and accept the "
        f"release in use: mammoclip-sdk bundle accept BUNDLE --trust KEY --accepted {file}.",
        code="releases_damaged",
    )


def _write(file: Path, record: Record) -> None:
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(strict_json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _unwritable(file: Path, error: OSError | ValueError) -> BundleReleaseError:
    return BundleReleaseError(
        str(file),
        found=f"a place that cannot be written ({getattr(error, 'strerror', None) or error})",
        expected="one where accepted releases can be recorded",
        remedy=f"Name another with --accepted or {STATE}, or have somebody who may write there run "
        f"mammoclip-sdk bundle accept BUNDLE --trust KEY --accepted {file} once for this release.",
        code="releases_unwritable",
    )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes from the file; the system lets go of the lock of one that dies."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f"{file.name}.lock").open("ab")
    except (OSError, ValueError) as error:
        raise _unwritable(file, error) from error
    with lock:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                _lock(lock)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise _unwritable(file, error) from error
                time.sleep(0.02)
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
