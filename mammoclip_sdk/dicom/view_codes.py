"""How DICOM names mammographic views: codes of CID 4014 and 4015, and the words vendors write.

Everything a header may say is recognised, so that what is not a plain CC or MLO can be refused by
name: an ML taken for an MLO, or a magnified detail taken for a breast, would be scored as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STANDARD = frozenset({"CC", "MLO"})

PROJECTIONS: dict[str, tuple[str, str]] = {
    # PS3.16 CID 4014: code meaning -> (SNOMED CT, retired SNOMED RT)
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "specimen": ("127457009", "G-8310"),
}
_DEPRECATED_PROJECTIONS = {"Y-X1770": "XCCL", "Y-X1771": "XCCM"}
SPECIMEN = "specimen"
"""The projection that shows what was taken out of a breast."""

REFUSED_MODIFIERS: dict[str, tuple[str, str]] = {
    # PS3.16 CID 4015: what no longer shows the breast as a screening view does
    "spot compression": ("399055006", "R-102D7"),
    "magnification": ("399163009", "R-102D6"),
    "tangential": ("399110001", "R-102C2"),
}
IMPLANT_DISPLACED = "implant displaced"
"""The modifier that says, too, that there is an implant."""
OTHER_MODIFIERS: dict[str, tuple[str, str]] = {
    # PS3.16 CID 4015: usable, but only where nothing plainer is there; displaced implants are an
    # indication of their own
    IMPLANT_DISPLACED: ("399209000", "R-102D5"),
    "cleavage": ("399161006", "R-102D2"),
    "axillary tail": ("399011000", "R-102D1"),
    "rolled lateral": ("399197002", "R-102D3"),
    "rolled medial": ("399226006", "R-102D4"),
    "rolled inferior": ("414493004", "R-102CA"),
    "rolled superior": ("415670009", "R-102C9"),
    "nipple in profile": ("442581004", "R-40AB3"),
    "anterior compression": ("441752004", ""),
    "infra-mammary fold": ("442593008", "R-40ABE"),
    "axillary tissue": ("442580003", "R-40AB2"),
}
_SUFFIXES = {
    # ACR labels, appended to the view in View Position
    "ID": IMPLANT_DISPLACED,
    "M": "magnification",
    "S": "spot compression",
    "SPT": "spot compression",
    "SPOT": "spot compression",
    "MAG": "magnification",
    "TAN": "tangential",
    "CV": "cleavage",
    "AT": "axillary tail",
    "RL": "rolled lateral",
    "RM": "rolled medial",
    "RI": "rolled inferior",
    "RS": "rolled superior",
    "NP": "nipple in profile",
    "AC": "anterior compression",
    "IMF": "infra-mammary fold",
}
_SPELLED = {
    # wherever a word begins so, in any text, also of a paddle: "10CM SPOT CONTACT", "1.8MAG"
    "SPOT": "spot compression",
    "SPT": "spot compression",
    "MAG": "magnification",
    "TANG": "tangential",
    "EKLUND": IMPLANT_DISPLACED,
}
SYNTHETIC_2D = re.compile(
    r"(?:(?<!C)|(?<=CC))C-?VIEW|S-?VIEW|(?<![A-Z])G-?VIEW|V-?PREVIEW"
    r"|(?:INTELLIGENT|INSIGHT) ?2D|TOMO_2D|GENERATED_2D"
    r"|SYNTHETIC|SYNTHESI[SZ]ED|(?<![A-Z])SYNTH(?![A-Z])|(?<![A-Z])SYNC?[-_ ]?2D"
)
"""What vendors call a 2D image synthesised from tomosynthesis, in upper case. The second C of
"CC-View" is the view's, and MagView is no G-View."""
_RETIRED_SCHEMES = ("SRT", "SNM3", "99SDM")
_SIDES = {"L": "L", "LEFT": "L", "LT": "L", "R": "R", "RIGHT": "R", "RT": "R"}
_SPELLING = "|".join(_SPELLED)
_SPELLED_WORD = re.compile(rf"(?<![A-Z])(?:{_SPELLING})")
_FREE_WORD = re.compile(
    r"(?<![A-Z])(?:SPOTS?|SPT|MAGS?|MAGN|MAGNIF[A-Z]*|TANG|TANGENT[A-Z]*|EKLUND|[CK]OMP[A-Z]*)+"
    r"(?![A-Z])"
)
"""Whole words, also joined ("MAGSPOT"): people write of Magdeburg, MagView and Dr. Tanguy, too."""
_BEFORE_A_NUMBER = re.compile(r"\b(?:ID|AT)(?=[\s:#]*\d)")
"""A number's name and a setting's: "LCC ID 4711", "MLO at 28 kV"."""
_INITIALS = frozenset({"M", "S"})
_SUFFIX = "|".join(sorted(_SUFFIXES, key=len, reverse=True))
_LABEL = re.compile(
    r"(?P<side>L|R|LEFT|RIGHT)?"
    r"(?P<projection>XCCL|XCCM|XCC|CC|MLO|LMO|ML|LM|FB|SIO|ISO)"
    rf"(?P<suffixes>(?:{_SUFFIX})*)"
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a text says of a view."""

    sides: frozenset[str] = frozenset()
    """``L``, ``R``: two where the text contradicts itself."""
    projections: frozenset[str] = frozenset()
    modifiers: frozenset[str] = frozenset()
    unread: bool = False
    """Whether the text has words that say none of these."""

    @property
    def side(self) -> str | None:
        """The side, when the text names one."""
        return next(iter(self.sides)) if len(self.sides) == 1 else None

    @property
    def projection(self) -> str | None:
        """The view, when the text names one."""
        return next(iter(self.projections)) if len(self.projections) == 1 else None


def projection_of_code(value: str, scheme: str) -> str | None:
    """Return the view a code of CID 4014 stands for, or None for an unknown one."""
    return _PROJECTION_OF.get((scheme, value))


def modifier_of_code(value: str, scheme: str) -> str | None:
    """Return the view modifier a code of CID 4015 stands for, or None for an unknown one."""
    return _MODIFIER_OF.get((scheme, value))


def read_label(text: str, *, free: bool = False) -> Label:
    """Read words such as ``R CC``, ``LMLO``, ``MLOID`` or ``TOMO R MAMMOGRAPHY,CC``.

    ``free`` text is people's own: there only whole words are modifiers, and a lone M or S is none.
    """
    sides: set[str] = set()
    projections: set[str] = set()
    modifiers: set[str] = set()
    unread: set[str] = set()
    text = SYNTHETIC_2D.sub(" ", text.upper())  # the "S" of "S-View" is no suffix,
    text = re.sub(r"(?<=CC|LO)['\u2019]S\b", "", text)  # nor is that of "CC's"
    if free:
        text = _BEFORE_A_NUMBER.sub(" ", text)
    words = re.findall(r"[A-Z]+", text)
    for word in words:
        label = _LABEL.fullmatch(word)
        if word in _SIDES:
            sides.add(_SIDES[word])
        elif label:
            projections.add(label["projection"])
            sides.update(_SIDES[side] for side in [label["side"]] if side)
            modifiers.update(_suffixes(label["suffixes"]))
        else:
            unread.add(word)
    modifiers.update(_SPELLED[word] for word in _spelled(text, free=free))
    # A bare suffix means something only beside a view: "CC ID", but not the "M" of a name.
    if projections:
        alone = _SUFFIXES.keys() - (_INITIALS if free else frozenset())
        modifiers.update(_SUFFIXES[word] for word in words if word in alone)
    return Label(
        sides=frozenset(sides),
        projections=frozenset(projections),
        modifiers=frozenset(modifiers),
        unread=bool(unread),
    )


def _spelled(text: str, *, free: bool) -> list[str]:
    if free:
        return re.findall(_SPELLING, " ".join(_FREE_WORD.findall(text)))
    return _SPELLED_WORD.findall(text)


def _suffixes(text: str) -> list[str]:
    return [_SUFFIXES[part] for part in re.findall(_SUFFIX, text)]


def _by_code(table: dict[str, tuple[str, str]]) -> dict[tuple[str, str], str]:
    clinical_terms = {("SCT", code): meaning for meaning, (code, _) in table.items()}
    retired = {
        (scheme, code): meaning
        for meaning, (_, code) in table.items()
        for scheme in _RETIRED_SCHEMES
        if code
    }
    return clinical_terms | retired


_PROJECTION_OF = _by_code(PROJECTIONS) | {
    (scheme, code): meaning
    for code, meaning in _DEPRECATED_PROJECTIONS.items()
    for scheme in _RETIRED_SCHEMES
}
_MODIFIER_OF = _by_code(REFUSED_MODIFIERS | OTHER_MODIFIERS)
"""By (scheme, code)."""
