"""Why an exam gets no answer, or one with a caution: stable codes, and what each comes from.

========== ======================= ============================================================
code       title                   known from, and what follows
========== ======================= ============================================================
G01        Kind of image           header: an error; the image is no mammogram for presentation
G02        Set of views            header: an error; not exactly one of LCC, RCC, LMLO, RMLO
G03        Identity                header: an error; more than one patient, study or visit
G04        One image, two views    pixels: blocks
G05        Side                    header: an error; pixels and header: blocks, or warns of an
                                   image that is stored mirrored and says so
G07        Modified view           header: an error; a view modifier that is accepted: warns
G08        Breast implant          header: an error; pixels: blocks, warns of an oblique view
                                   alone; nothing for a model that was validated on implants
G09        Content                 pixels: an error, blocks or warns; annotation and loss: warns
G10        Geometry                header: an error; header and pixels: blocks
G11        Device                  header: warns of one that the model was not validated on
G14        Output of the model     blocks what is no embedding or no probability
========== ======================= ============================================================

What headers alone say is an error that carries the code; what is seen in the content of an exam is
a `quality.Reason` of its prediction. G06, G12 and G13 are kept free for a check of the view by its
content, of the population, and of the distance from the images the model has learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGE_KIND = "G01"
VIEW_SET = "G02"
IDENTITY = "G03"
DUPLICATE_VIEW = "G04"
WRONG_SIDE = "G05"
MODIFIED_VIEW = "G07"
IMPLANT = "G08"
CONTENT = "G09"
GEOMETRY = "G10"
DEVICE = "G11"
OUTPUT = "G14"


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a reason's code stands for; the wording is for people and may change."""

    title: str
    action: str
    """What the reader of it can do."""
    errors: frozenset[str] = frozenset()
    """`MammoClipError.code` of the errors that are given for it."""


CODES: dict[str, Code] = {
    IMAGE_KIND: Code(
        title="Kind of image",
        action="Hand over the For Presentation mammogram of the same exposure.",
        errors=frozenset(
            {
                "biopsy",
                "contrast_enhanced",
                "dicomdir",
                "multi_frame",
                "not_greyscale",
                "quality_control",
                "rejected",
                "secondary_capture",
                "specimen",
                "synthetic_2d",
                "tomosynthesis",
                "tomosynthesis_projections",
                "tomosynthesis_slice",
                "unsupported_intent",
                "unsupported_modality",
                "unsupported_sop_class",
            }
        ),
    ),
    VIEW_SET: Code(
        title="Set of views",
        action="Hand over one image for each of LCC, RCC, LMLO, RMLO.",
        errors=frozenset(
            {
                "ambiguous_view",
                "both_breasts",
                "missing_view",
                "same_image_twice",
                "unknown_view",
                "unsupported_view",
                "view_contradiction",
            }
        ),
    ),
    IDENTITY: Code(
        title="Identity",
        action="Hand over the images of one patient, one study and one visit.",
        errors=frozenset({"mixed_exam"}),
    ),
    DUPLICATE_VIEW: Code(
        title="One image, two views",
        action="Find out which view the image shows, and hand over the other one.",
    ),
    WRONG_SIDE: Code(
        title="Side",
        action="Find out which breast the image shows, and have its header corrected.",
        errors=frozenset({"laterality_contradiction", "unsupported_laterality", "view_mismatch"}),
    ),
    MODIFIED_VIEW: Code(
        title="Modified view",
        action="Hand over the plain view, if there is one.",
        errors=frozenset({"magnification", "spot_compression", "tangential"}),
    ),
    IMPLANT: Code(
        title="Breast implant",
        action="Use a model that was validated on breasts with implants.",
        errors=frozenset({"implant"}),
    ),
    CONTENT: Code(
        title="Content",
        action="Look at the image: its window, its polarity, and whether it shows a breast.",
        errors=frozenset({"no_breast"}),
    ),
    GEOMETRY: Code(
        title="Geometry",
        action="Hand over the image as the detector took it, neither scaled nor cut.",
        errors=frozenset({"image_size"}),
    ),
    DEVICE: Code(
        title="Device",
        action="Validate the model on images of this device before relying on it.",
    ),
    OUTPUT: Code(
        title="Output of the model",
        action="Verify the bundle on this device: mammoclip-sdk bundle verify.",
        errors=frozenset({"unusable_output"}),
    ),
}

_BY_ERROR = {error: code for code, row in CODES.items() for error in row.errors}


def reason_of(error_code: str) -> str | None:
    """Return the code of the reason that an error of this code is given for.

    None for damaged files, for arguments, bundles and devices: nothing is known of the exam then.
    """
    return _BY_ERROR.get(error_code)
