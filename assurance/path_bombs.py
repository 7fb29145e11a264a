"""Paths that are no files, or files that do not end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def path_bombs(content: bytes) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Yield the name of each, and what makes it in a folder and returns its path."""

    def made(make: Callable[[Path], None], name: str = "hostile") -> Callable[[Path], Path]:
        def place(folder: Path) -> Path:
            path = folder / name
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                path.unlink()
            elif path.is_dir():
                path.rmdir()
            make(path)
            return path

        return place

    def larger(path: Path, size: int) -> None:
        path.write_bytes(content)
        os.truncate(path, size)

    yield "a pipe that nobody writes to", made(os.mkfifo)
    yield "a folder", made(Path.mkdir)
    yield "/dev/zero", lambda _: Path("/dev/zero")
    yield "/dev/null", lambda _: Path("/dev/null")
    yield "a link to /dev/zero", made(lambda path: path.symlink_to("/dev/zero"))
    yield "a link to itself", made(lambda path: path.symlink_to(path))
    yield "a link to nothing", made(lambda path: path.symlink_to("nothing"))
    yield "no such file", lambda folder: folder / "absent"
    yield "a path with a NUL", lambda folder: folder / "a\0b"
    yield "a path of 5,000 characters", lambda folder: folder / ("x" * 5_000)
    yield "a path that UTF-8 cannot hold", lambda folder: folder / "\ud800"
    yield "a good image and 255 MB of nothing", made(lambda path: larger(path, 255 * 10**6))
    yield "a file of 257 MiB", made(lambda path: larger(path, 257 * 2**20))
    yield "a file of 1 TB with holes", made(lambda path: larger(path, 10**12))
