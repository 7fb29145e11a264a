"""Values of no type, of any length, in any character set, and tables that promise others."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydicom.uid import ImplicitVRLittleEndian

from assurance.canaries import DIGITS, NAME, WORD
from assurance.part10 import ITEM, File, bare, element, even, plain_file

_VIEW_CODES = 0x00540220
_NUMBERS = ("NaN", "1e308", "-1e308", "1e-320", "inf", "0", "-0", "1e400", "", "1,5", "0x10",
            "1_000", "\u0661", DIGITS, f"{WORD}", "9" * 60)  # fmt: skip
_TYPED = ((0x00200013, "IS"), (0x00080022, "DA"), (0x00080032, "TM"), (0x0008002A, "DT"),
          (0x00101010, "AS"), (0x00101030, "DS"), (0x0020000D, "UI"),
          (0x00020010, "UI"), (0x00280010, "US"), (0x00280120, "SS"))  # fmt: skip
_CHARACTER_SETS = ("NO_SUCH", "\\ISO 2022 IR 87\\ISO 2022 IR 159", "ISO_IR 192\\GB18030",
                   "\\".join(["ISO 2022 IR 6"] * 4_000), "\\" * 5_000, "utf-8", WORD,
                   "ISO 2022 IR 58", "\x1b\x1b")  # fmt: skip
_Named = Iterator[tuple[str, File]]


def value_bombs(plain: File) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each."""
    for bombs in (_long, _numbers, _texts, _bits, _character_sets, _tables, _overlays):
        for name, file in bombs(plain):
            yield name, file.content()


def _long(_: File) -> _Named:
    megabyte, fifteen = b"1" * 2**20, even(b"\\".join([b"1"] * 7_500_000))
    implicit = plain_file(ImplicitVRLittleEndian)
    for tag in (0x00281050, 0x00281053, 0x00200013, 0x00280008, 0x00280010, 0x00181114):
        yield f"{tag:08X} of 1 MB", implicit.having(tag, bare(tag, megabyte))
        yield f"{tag:08X} of 7.5 million values", implicit.having(tag, bare(tag, fifteen))
    code = bare(_VIEW_CODES, bare(ITEM, bare(0x00080100, fifteen)))
    yield "7.5 million values of a code", implicit.having(_VIEW_CODES, code)


def _numbers(plain: File) -> _Named:
    for tag in (0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00181114, 0x00280008):
        for number in _NUMBERS:
            said = plain.having(tag, element(tag, "DS", even(number.encode())))
            yield f"{tag:08X} {number[:12]!r}", said


def _texts(plain: File) -> _Named:
    for tag, vr in _TYPED:
        for word in (NAME, DIGITS, f"{WORD}\\{DIGITS}", "\x1b$B\x1b(B", "\ufffd" * 30):
            said = plain.having(tag, element(tag, vr, even(word.encode())))
            yield f"{tag:08X} {vr} with {word[:12]!a}", said


def _bits(plain: File) -> _Named:
    for tag in (0x00280010, 0x00280120, 0x00280121):
        for vr in ("UV", "SV", "UL"):
            largest = element(tag, vr, b"\xff" * (4 if vr == "UL" else 8))
            yield f"{tag:08X} {vr} with every bit set", plain.having(tag, largest)


def _character_sets(plain: File) -> _Named:
    name = even(f"{NAME}\x1b$B\xff\x1b(B={NAME}=\x1b$)C{NAME}".encode("latin-1"))
    for charset in _CHARACTER_SETS:
        hostile = plain.having(0x00080005, element(0x00080005, "CS", even(charset.encode())))
        for tag in (0x00100010, 0x0008103E, 0x00185101):
            vr = "PN" if tag == 0x00100010 else "LO"
            hostile = hostile.having(tag, element(tag, vr, name))
        yield f"character set {charset[:24]!a}", hostile


def _table(descriptor: tuple[int, int, int], entries: int, vr: str = "OW") -> bytes:
    described = element(0x00283002, "US", struct.pack("<3H", *descriptor))
    data = struct.pack(f"<{entries}H", *(n % 65536 for n in range(entries)))
    return bare(ITEM, described + element(0x00283006, vr, data))


def _tables(plain: File) -> _Named:
    for tag, name in ((0x00283010, "VOI LUT"), (0x00283000, "Modality LUT")):

        def holding(items: bytes, tag: int = tag) -> File:
            return plain.having(tag, element(tag, "SQ", items))

        for said, held in ((0, 2), (65535, 1), (1, 65535), (0, 65536), (2, 0), (4096, 4095)):
            for first in (0, 65535, 32768):
                file = holding(_table((said, first, 16), held))
                yield f"{name}: {said} entries from {first}, {held} there", file
        wide = element(0x00283002, "UV", struct.pack("<3Q", 2, 2**64 - 1, 16))
        wide += element(0x00283006, "US", b"\0\0\1\0")
        yield f"{name}: first value of 64 bits", holding(bare(ITEM, wide))
        yield f"{name}: an empty item", holding(_table((16, 0, 16), 16, "US") + bare(ITEM))
        for count in (100, 1_000):
            many = holding(_table((0, 0, 16), 65536) * count)
            yield f"{name}: {count} items of 65536 entries", many


def _overlays(plain: File) -> _Named:
    overlays = plain
    for group in range(0x6000, 0x6100, 2):
        tag = group << 16 | 0x102
        overlays = overlays.having(tag, element(tag, "US", b"\xff\xff"))
    yield "128 overlays at bit 65535", overlays
