"""Side, pixels and Patient Orientation: what cannot be true together is not scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_exams import GOOD, brief, everywhere, exam, judge, model_input

from mammoclip_sdk.exam import View


@pytest.mark.parametrize("orientation", [(), ("A",), ("", ""), ("AP", "R"), ("F", "R")])
def test_without_an_orientation_pixels_and_side_decide(orientation: tuple[str, ...]) -> None:
    silent = everywhere(patient_orientation=orientation)
    assert judge(silent) == ()
    found = judge(silent, model_input(turned=(View.RCC, View.LMLO)))
    assert brief(found) == [("G05", "block", "RCC"), ("G05", "block", "LMLO")]
    assert "named a right breast, but its chest wall lies where a left breast's does" in (
        found[0].message
    )


@pytest.mark.parametrize(
    ("view", "orientation", "turned", "severity"),
    [
        (View.LCC, ("A", "R"), False, None),
        (View.LCC, ("A", "R"), True, "block"),  # the pixels were mirrored
        (View.LCC, ("P", "R"), True, "warn"),  # and the header says so
        (View.LCC, ("P", "R"), False, "block"),
        (View.LCC, ("P", "L"), True, "block"),  # a right breast under a left one's name
        (View.LCC, ("A", "L"), False, "block"),
        (View.RCC, ("A", "L"), True, "warn"),
        (View.RCC, ("A", "R"), True, "block"),
        (View.LCC, ("A", "LR"), False, None),  # columns that lead to both sides say neither
        (View.LCC, ("A", "FR"), False, "block"),  # an oblique view under the name of the other
        (View.RCC, ("P", "F"), False, "block"),
        (View.LCC, ("F", "A"), False, "block"),  # turned by a quarter
        (View.RMLO, ("HL", "P"), False, "block"),
        (View.RMLO, ("", "P"), False, "block"),
        (View.LMLO, ("A", "R"), False, None),
        (View.LMLO, ("A", "FR"), False, None),
        (View.LMLO, ("A", "F"), False, None),
        (View.LMLO, ("P", "F"), True, "block"),  # either mirrored, or the other breast
        (View.LMLO, ("A", "HL"), False, "block"),
        (View.LMLO, ("A", "H"), False, "block"),
        (View.RMLO, ("A", "FL"), True, "warn"),
    ],
)
def test_side_pixels_and_orientation_must_agree(
    view: View, orientation: tuple[str, str], turned: bool, severity: str | None
) -> None:
    found = judge(
        exam({view: {"patient_orientation": orientation}}),
        model_input(turned=(view,) if turned else ()),
    )
    assert brief(found) == ([] if severity is None else [("G05", severity, view)])
    assert all("(0020,0020)" in reason.message for reason in found)


def test_what_the_header_shows_is_said() -> None:
    for letters, said in ((("A", "FR"), "an oblique one"), (("L", "A"), "turned by a quarter")):
        (reason,) = judge(exam({View.LCC: {"patient_orientation": letters}}))
        assert said in reason.message


def test_a_view_without_content_has_no_side_to_be_wrong() -> None:
    empty = {View.LCC: replace(GOOD, share=0.001), View.RCC: replace(GOOD, saturated=0.2)}
    found = judge(given=model_input(empty, turned=(View.LCC, View.RCC)))
    assert brief(found) == [
        ("G09", "block", "LCC"),
        ("G09", "warn", "RCC"),
        ("G05", "block", "RCC"),
    ]
