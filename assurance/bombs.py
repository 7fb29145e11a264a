"""Hostile files made for the purpose, each through every stage.

``python -m assurance.bombs`` writes the record. Most are a few bytes that ask for gigabytes of
memory or for hours; some are legal and merely at a limit, and may be scored.
"""

from __future__ import annotations

import io
import os
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydicom.data.data_manager import DATA_ROOT
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from rich.progress import track

from assurance.canaries import DIGITS, NAME, WORD
from assurance.corpus import write_good_views
from assurance.frame_bombs import frame_bombs
from assurance.mutation import FAILURES
from assurance.part10 import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAGIC,
    PIXEL_DATA,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    File,
    bare,
    element,
    encapsulated,
    even,
    file_meta,
    plain_file,
)
from assurance.reading import MOST_CPU_SECONDS, MOST_MIB, Judgement
from assurance.trial import RESULTS, Table, Trial, measured_on, write_trial
from assurance.watch import Watched

_PRIVATE = 0x00091001
_SEQUENCE = 0x00081140
_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Bomb:
    """One hostile file or path."""

    name: str
    place: Callable[[Path], Path]
    """Makes it in a folder and returns its path."""


@dataclass(frozen=True, kw_only=True)
class Blast:
    """What came of one."""

    name: str
    file_bytes: int
    judgement: Judgement


def bombs() -> Iterator[Bomb]:
    """Yield all of them; each is made when its turn comes."""
    plain = plain_file()
    for name, content in _scraps():
        yield _of_bytes(name, content)
    for name, hostile in (
        *_structures(plain),
        *_values(plain),
        *_native_pixels(plain),
        *_encapsulations(plain),
    ):
        yield _of_bytes(name, hostile)
    for name, file in frame_bombs(plain):
        yield _of_bytes(name, file.content())
    for name, place in _paths(plain.content()):
        yield Bomb(name=name, place=place)
    for path in sorted(Path(DATA_ROOT, "test_files").rglob("*")):
        yield Bomb(name=f"pydicom's {path.name}", place=lambda _, path=path: path)


def _of_bytes(name: str, content: bytes) -> Bomb:
    def place(folder: Path) -> Path:
        path = folder / "hostile.dcm"
        path.write_bytes(content)
        return path

    return Bomb(name=name, place=place)


def _scraps() -> Iterator[tuple[str, bytes]]:
    for length in (0, 1, 127, 128, 131):
        yield f"a file of {length} bytes", (bytes(128) + MAGIC)[:length]
    yield "the magic and nothing", bytes(128) + MAGIC
    yield "the magic and a byte", bytes(128) + b"DICM\x02"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("image.dcm", bytes(2**20))
    yield "a zip renamed", archive.getvalue()
    yield "file meta that never ends", bytes(128) + MAGIC + file_meta("1.2") * 50_000
    yield "file meta of 4 GiB", bytes(128) + MAGIC + element(0x20001, "OB", b"", 0xFFFFFFF0)
    # A megabyte of zeros, deflated behind a full flush, may be repeated as often as one likes.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    zeros = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = zeros * 2048 + packer.flush()
    yield (
        "deflated, 2 GiB of zeros",
        (bytes(128) + MAGIC + file_meta(DeflatedExplicitVRLittleEndian) + bomb),
    )


def _structures(plain: File) -> Iterator[tuple[str, bytes]]:
    whole = plain.content()
    for vr in (*LONG_VRS, *SHORT_VRS):
        for length in (0xFFFFFFF0, UNDEFINED, 2**31):
            lying = plain.having(_PRIVATE, element(_PRIVATE, vr, b"", length))
            yield f"{vr} of {length:#x}", lying.content()
    start, end = element(_SEQUENCE, "SQ", b"", UNDEFINED), bare(SEQUENCE_END)
    item, item_end = bare(ITEM, length=UNDEFINED), bare(ITEM_END)
    for depth in (17, 1_000, 20_000):
        nested = (start + item) * depth + (item_end + end) * depth
        yield f"{depth:,} sequences in one another", plain.having(_SEQUENCE, nested).content()
    yield (
        "20,000 sequences that do not end",
        (plain.having(_SEQUENCE, (start + item) * 20_000).content()),
    )
    defined = b""
    for _ in range(3_000):
        defined = element(_SEQUENCE, "SQ", bare(ITEM, defined))
    yield "3,000 sequences of stated length", plain.having(_SEQUENCE, defined).content()
    unknown = element(_PRIVATE, "UN", b"", UNDEFINED) + item
    yield "20,000 unknown sequences", plain.having(_PRIVATE, unknown * 20_000).content()
    yield (
        "a million empty items",
        (plain.having(_SEQUENCE, start + bare(ITEM) * _MILLION + end).content()),
    )
    yield (
        "a million items in the view's code",
        (plain.having(0x540220, element(0x540220, "SQ", bare(ITEM) * _MILLION)).content()),
    )
    yield (
        "a million empty elements",
        (plain.having(_PRIVATE, element(_PRIVATE, "LO", b"") * _MILLION).content()),
    )
    yield (
        "a million tags, rising",
        (
            plain.having(
                0x00090000,
                b"".join(element(0x00090000 + 2 * n, "LO", b"") for n in range(30_000)),
            ).content()
        ),
    )
    yield (
        "a header of 17 MB in one value",
        (plain.having(_PRIVATE, element(_PRIVATE, "OB", bytes(17 * 2**20))).content()),
    )
    many = b"".join(element(0x00091000 + n, "UN", bytes(900)) for n in range(19_000))
    yield "a header of 17 MB in 19,000 values", plain.having(_PRIVATE, many).content()
    pixels = plain.elements[PIXEL_DATA]
    for tag in (0x00280010, 0x00100010, 0x00080018, 0x00540220):
        twice = plain.elements[tag] * 2
        yield f"{tag:08X} twice", plain.having(tag, twice).content()
    yield "Pixel Data twice", whole + pixels
    yield "Pixel Data first", plain.having(0x00080000, pixels).content()
    yield (
        "Pixel Data in a sequence alone",
        (
            plain.having(PIXEL_DATA, b"")
            .having(_SEQUENCE, element(_SEQUENCE, "SQ", bare(ITEM, pixels)))
            .content()
        ),
    )
    yield (
        "Float Pixel Data",
        (plain.having(PIXEL_DATA, element(0x7FE00008, "OF", bytes(96 * 80 * 4))).content()),
    )
    backwards = b"".join(plain.elements[tag] for tag in sorted(plain.elements, reverse=True))
    yield "tags backwards", plain.preamble + MAGIC + file_meta(plain.syntax) + backwards
    yield "file meta again in the dataset", plain.having(0x1, file_meta("1.2.3")).content()
    yield "delimiters alone", plain.having(0x1, (item_end + end) * 100_000).content()
    yield (
        "Big Endian by name",
        (File(elements=plain.elements, syntax=ExplicitVRBigEndian).content()),
    )
    yield (
        "a transfer syntax of 1 MB",
        (File(elements=plain.elements, syntax="1." * 30_000 + "1").content()),
    )
    for name, magic in (("PE", b"MZ"), ("ELF", b"\x7fELF"), ("Mach-O", b"\xcf\xfa\xed\xfe"),
                        ("PDF", b"%PDF-1.7"), ("TIFF", b"II*\0")):  # fmt: skip
        polyglot = File(elements=plain.elements, preamble=magic.ljust(128, b"\0"))
        yield f"also a {name} file", polyglot.content()


def _values(plain: File) -> Iterator[tuple[str, bytes]]:
    megabyte, fifteen = b"1" * 2**20, b"\\".join([b"1"] * 7_500_000)
    implicit = plain_file(ImplicitVRLittleEndian)
    for tag in (0x00281050, 0x00281053, 0x00200013, 0x00280008, 0x00280010, 0x00181114):
        yield f"{tag:08X} of 1 MB", implicit.having(tag, bare(tag, megabyte)).content()
        many = bare(tag, even(fifteen))
        yield f"{tag:08X} of 7.5 million values", implicit.having(tag, many).content()
    code = bare(0x00540220, bare(ITEM, bare(0x00080100, even(fifteen))))
    yield "7.5 million values of a code", implicit.having(0x00540220, code).content()
    numbers = ("NaN", "1e308", "-1e308", "1e-320", "inf", "0", "-0", "1e400", "", "1,5", "0x10",
               "1_000", "\u0661", DIGITS, f"{WORD}", "9" * 60)  # fmt: skip
    for tag in (0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00181114, 0x00280008):
        for number in numbers:
            value = even(number.encode())
            yield (
                f"{tag:08X} {number[:12]!r}",
                (plain.having(tag, element(tag, "DS", value)).content()),
            )
    for tag, vr in ((0x00200013, "IS"), (0x00080022, "DA"), (0x00080032, "TM"), (0x0008002A, "DT"),
                    (0x00101010, "AS"), (0x00101030, "DS"), (0x0020000D, "UI"),
                    (0x00020010, "UI"), (0x00280010, "US"), (0x00280120, "SS")):  # fmt: skip
        for word in (NAME, DIGITS, f"{WORD}\\{DIGITS}", "\x1b$B\x1b(B", "\ufffd" * 30):
            said = plain.having(tag, element(tag, vr, even(word.encode())))
            yield f"{tag:08X} {vr} with {word[:12]!a}", said.content()
    for tag in (0x00280010, 0x00280120, 0x00280121):
        for vr in ("UV", "SV", "UL"):
            largest = element(tag, vr, b"\xff" * (4 if vr == "UL" else 8))
            yield f"{tag:08X} {vr} with every bit set", plain.having(tag, largest).content()
    name = even(f"{NAME}\x1b$B\xff\x1b(B={NAME}=\x1b$)C{NAME}".encode("latin-1"))
    for charset in ("NO_SUCH", "\\ISO 2022 IR 87\\ISO 2022 IR 159", "ISO_IR 192\\GB18030",
                    "\\".join(["ISO 2022 IR 6"] * 4_000), "\\" * 5_000, "utf-8", WORD,
                    "ISO 2022 IR 58", "\x1b\x1b"):  # fmt: skip
        hostile = plain.having(0x00080005, element(0x00080005, "CS", even(charset.encode())))
        for tag in (0x00100010, 0x0008103E, 0x00185101):
            vr = "PN" if tag == 0x00100010 else "LO"
            hostile = hostile.having(tag, element(tag, vr, name))
        yield f"character set {charset[:24]!a}", hostile.content()
    yield from _tables(plain)


def _tables(plain: File) -> Iterator[tuple[str, bytes]]:
    def table(descriptor: tuple[int, int, int], entries: int, vr: str = "OW") -> bytes:
        described = element(0x00283002, "US", struct.pack("<3H", *descriptor))
        data = struct.pack(f"<{entries}H", *(n % 65536 for n in range(entries)))
        return bare(ITEM, described + element(0x00283006, vr, data))

    for tag, name in ((0x00283010, "VOI LUT"), (0x00283000, "Modality LUT")):
        for said, held in ((0, 2), (65535, 1), (1, 65535), (0, 65536), (2, 0), (4096, 4095)):
            for first in (0, 65535, 32768):
                file = plain.having(tag, element(tag, "SQ", table((said, first, 16), held)))
                yield f"{name}: {said} entries from {first}, {held} there", file.content()
        wide = element(0x00283002, "UV", struct.pack("<3Q", 2, 2**64 - 1, 16))
        wide += element(0x00283006, "US", b"\0\0\1\0")
        far = plain.having(tag, element(tag, "SQ", bare(ITEM, wide)))
        yield f"{name}: first value of 64 bits", far.content()
        short = table((16, 0, 16), 16, "US") + bare(ITEM)
        yield f"{name}: an empty item", plain.having(tag, element(tag, "SQ", short)).content()
        for count in (100, 1_000):
            many = table((0, 0, 16), 65536) * count
            yield (
                f"{name}: {count} items of 65536 entries",
                (plain.having(tag, element(tag, "SQ", many)).content()),
            )
    overlays = plain
    for group in range(0x6000, 0x6100, 2):
        tag = group << 16 | 0x102
        overlays = overlays.having(tag, element(tag, "US", b"\xff\xff"))
    yield "128 overlays at bit 65535", overlays.content()


def _native_pixels(plain: File) -> Iterator[tuple[str, bytes]]:
    four = element(PIXEL_DATA, "OW", bytes(4))
    for rows, columns in ((65535, 65535), (0, 0), (65535, 1), (1, 65535), (8192, 8192), (64, 64)):
        file = plain.sized(rows, columns).having(PIXEL_DATA, four)
        yield f"native, {rows} x {columns} in 4 bytes", file.content()
    for length in (0, 2**31, UNDEFINED, 0xFFFFFFFE):
        lying = plain.having(PIXEL_DATA, element(PIXEL_DATA, "OW", bytes(4), length))
        yield f"native, of {length:#x} bytes by its own word", lying.content()
    for tag, name in ((0x00280010, "Rows"), (0x00280100, "Bits Allocated")):
        for vr in ("UL", "OW", "SS", "DS", "SQ", "UN", "AT"):
            value = bytes(4) if vr == "SQ" else struct.pack("<I", 96)
            yield f"{name} as {vr}", plain.having(tag, element(tag, vr, value)).content()
    for samples, frames in ((65535, "1"), (3, "1"), (1, "2147483647"), (0, "-1"), (1, "1e9")):
        file = plain.having(0x00280002, element(0x00280002, "US", struct.pack("<H", samples)))
        file = file.having(0x00280008, element(0x00280008, "IS", even(frames.encode())))
        yield f"native, {samples} samples, {frames} frames", file.content()
    largest = plain.sized(8_000, 8_000, 16)
    pixels = bytes(range(256)) * 125 * 4_000
    yield (
        "native, the largest image",
        (largest.having(PIXEL_DATA, element(PIXEL_DATA, "OW", pixels)).content()),
    )


def _encapsulations(plain: File) -> Iterator[tuple[str, bytes]]:
    def file(data: bytes, syntax: str = JPEG2000Lossless) -> bytes:
        return File(elements=plain.having(PIXEL_DATA, data).elements, syntax=syntax).content()

    native = plain.elements[PIXEL_DATA]
    for syntax in (JPEG2000Lossless, RLELossless):
        yield f"{syntax.name} by name, native by nature", file(native, syntax)
        yield f"{syntax.name}, no fragments", file(encapsulated(), syntax)
        yield f"{syntax.name}, a million fragments", file(encapsulated(*[b"ab"] * _MILLION), syntax)
        yield f"{syntax.name}, empty fragments", file(encapsulated(*[b""] * _MILLION), syntax)
    start = element(PIXEL_DATA, "OB", b"", UNDEFINED)
    yield "an offset table of 16 MB", file(start + bare(ITEM, bytes(2**24)) + bare(SEQUENCE_END))
    yield "an item of 4 GiB", file(start + bare(ITEM) + bare(ITEM, b"", 0xFFFFFFF0))
    yield "an item of undefined length", file(start + bare(ITEM, b"", UNDEFINED) * 50_000)
    yield "no offset table", file(start + bare(SEQUENCE_END))
    yield "no end", file(start + bare(ITEM) + bare(ITEM, b"\xff\x4f\xff\x51"))
    yield "elements for items", file(start + element(_PRIVATE, "LO", b"") * 100_000)


def _paths(content: bytes) -> Iterator[tuple[str, Callable[[Path], Path]]]:
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


def run(only: Callable[[Bomb], bool] = lambda _: True) -> tuple[list[Blast], float]:
    """Read every bomb that ``only`` lets pass, and return what came of it and the time it took."""
    started = time.perf_counter()
    blasts = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with Watched(write_good_views(place)) as watched:
            for bomb in track(filter(only, bombs()), "Hostile files", total=None):
                path = bomb.place(place)
                blasts.append(
                    Blast(name=bomb.name, file_bytes=_size(path), judgement=watched.judge(path))
                )
    return blasts, time.perf_counter() - started


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def record(blasts: list[Blast], wall_seconds: float) -> Trial:
    """Lay out a run as a trial."""
    judgements = [blast.judgement for blast in blasts]
    costly = sorted(blasts, key=lambda blast: blast.judgement.peak_mib, reverse=True)[:5]
    costly += sorted(blasts, key=lambda blast: blast.judgement.cpu_seconds, reverse=True)[:5]
    return Trial(
        title="Hostile files",
        account=(
            "Files made to exhaust memory, time or patience: lengths that lie, sequences without "
            "end, headers and codestreams that ask for gigabytes, values of no type, paths that "
            "are no files; and the test files that pydicom brings. A failure is anything but a "
            "result or an error of this package, a "
            f"patient's value in any message, more than {MOST_MIB:.0f} MiB of resident memory, or "
            f"more than {MOST_CPU_SECONDS:.0f} s of processor time for a file."
        ),
        **measured_on("python -m assurance.bombs"),
        executions=len(blasts),
        cpu_seconds=round(sum(judgement.cpu_seconds for judgement in judgements), 1),
        wall_seconds=round(wall_seconds, 1),
        peak_mib=round(max(judgement.peak_mib for judgement in judgements), 1),
        slowest_cpu_seconds=round(max(judgement.cpu_seconds for judgement in judgements), 3),
        corpus_files=len(blasts),
        corpus_bytes=sum(blast.file_bytes for blast in blasts if blast.file_bytes < 2**30),
        open={kind: sum(each.kind == kind for each in judgements) for kind in FAILURES},
        rates=(),
        tables=(
            Table(
                caption="The costliest, by memory and by time",
                columns=("file", "bytes", "what came of it", "CPU s", "peak MiB"),
                rows=tuple(dict.fromkeys(map(_row, costly))),
            ),
        ),
        notes=(),
    )


def _row(blast: Blast) -> tuple[str, ...]:
    judgement = blast.judgement
    outcome = judgement.kind + (f" ({judgement.code})" if judgement.code else "")
    return (
        blast.name,
        f"{blast.file_bytes:,}",
        outcome,
        f"{judgement.cpu_seconds:.2f}",
        f"{judgement.peak_mib:.0f}",
    )


def command(
    out: Annotated[Path, typer.Option(help="Record to write.")] = RESULTS / "bombs.json",
    only: Annotated[str, typer.Option(help="Those alone whose names hold this.")] = "",
) -> None:
    """Read hostile files."""
    blasts, wall_seconds = run(lambda bomb: only in bomb.name)
    write_trial(record(blasts, wall_seconds), out)
    failed = [blast for blast in blasts if blast.judgement.failed]
    for blast in failed:
        typer.echo(f"{' | '.join(_row(blast))}\n{blast.judgement.detail[-2000:]}", err=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(command)
