"""Phantom exams: the truth in the manifest is in the pixels, and the traps are what they claim."""

import csv
import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.tensor import build_view
from mammoclip_sdk.views import read_exam
from training import data, phantom
from training.breast import (
    DENSITIES,
    Detector,
    Parenchyma,
    draw_breasts,
    draw_parenchyma,
    power_law_field,
    render,
)
from training.encodings import write
from training.lead_marker import draw_lead_marker
from training.lesions import INNOCENT, SUSPICIOUS, Body, Kind, Lesion, add_shadow, make_lesion
from training.phantom import Category, PhantomSettings, make_exam, make_exams
from training.phantom_files import MANIFEST_COLUMNS, write_exams
from training.vendors import PROFILES, ExamIdentity, to_dataset

SMALL = PhantomSettings(seed=7, rows=128, columns=104)


@pytest.fixture(scope="module")
def exams():
    return list(make_exams(SMALL, 60))


def suspicious_views(exam):
    return {
        view
        for view, image in exam.views.items()
        if any(box.kind in SUSPICIOUS for box in image.boxes)
    }


def test_same_seed_and_index_give_the_same_bytes_and_others_do_not():
    first, again, other = make_exam(SMALL, 3), make_exam(SMALL, 3), make_exam(SMALL, 4)
    for view in VIEWS:
        assert first.datasets[view].PixelData == again.datasets[view].PixelData
        assert first.datasets[view].to_json() == again.datasets[view].to_json()
        assert first.datasets[view].PixelData != other.datasets[view].PixelData


def test_malignant_lesions_are_in_both_views_of_one_breast_and_nowhere_else(exams):
    malignant = [exam for exam in exams if exam.malignant]
    assert len(malignant) > 15
    sides = set()
    for exam in malignant:
        marked = {
            view for view, image in exam.views.items() if any(b.malignant for b in image.boxes)
        }
        assert marked in ({View.LCC, View.LMLO}, {View.RCC, View.RMLO})
        assert suspicious_views(exam) == marked
        sides |= {view.laterality for view in marked}
    assert sides == {"L", "R"}


@pytest.mark.parametrize(
    ("category", "views"),
    [
        (Category.NORMAL, [set()]),
        (Category.INNOCENT, [set()]),
        (Category.SINGLE, [{view} for view in VIEWS]),
        (Category.CROSSED, [{View.LCC, View.RMLO}, {View.RCC, View.LMLO}]),
        (Category.SYMMETRIC, [set(VIEWS)]),
    ],
)
def test_traps_show_the_suspicious_appearance_where_it_does_not_mean_cancer(exams, category, views):
    found = [exam for exam in exams if exam.category is category]
    assert found, f"no {category} exam among {len(exams)}"
    for exam in found:
        assert not exam.malignant
        assert not any(box.malignant for image in exam.views.values() for box in image.boxes)
        assert suspicious_views(exam) in views


def test_every_trap_uses_every_suspicious_kind_so_that_the_kind_alone_decides_nothing(exams):
    kinds = {
        malignant: Counter(
            box.kind
            for exam in exams
            if exam.malignant is malignant
            for image in exam.views.values()
            for box in image.boxes
            if box.kind in SUSPICIOUS
        )
        for malignant in (True, False)
    }
    for counts in kinds.values():
        assert set(counts) == set(SUSPICIOUS)
        assert max(counts.values()) < 0.7 * sum(counts.values())


def innocent_views(exam):
    """For each lesion that is not suspicious, its views."""
    return [
        view for view, image in exam.views.items() for box in image.boxes if box.kind in INNOCENT
    ]


def test_incidental_lesions_lie_in_both_views_of_a_breast_of_malignant_and_other_exams_alike():
    always, never = (
        list(make_exams(replace(SMALL, incidental_share=share), 30)) for share in (1.0, 0.0)
    )
    for exam in always:
        found = innocent_views(exam)
        assert len(found) == (4 if exam.category is Category.INNOCENT else 2)
        assert {view.laterality + "CC" for view in found} <= set(found)
        assert {view.laterality + "MLO" for view in found} <= set(found)
    assert {exam.malignant for exam in always} == {True, False}
    for exam in never:
        assert bool(innocent_views(exam)) == (exam.category is Category.INNOCENT)


def test_shares_and_contrast_are_those_of_the_settings():
    for share in (0.0, 1.0):
        drawn = make_exams(replace(SMALL, malignant_share=share), 12)
        assert {exam.malignant for exam in drawn} == {share == 1.0}
    faint, strong = (
        make_exam(replace(SMALL, malignant_share=1.0, contrast=(value, value)), 5)
        for value in (0.1, 0.2)
    )
    for view in VIEWS:
        bare = make_exam(replace(SMALL, malignant_share=1.0, contrast=(0.0, 0.0)), 5)
        added = [
            exam.views[view].displayed - bare.views[view].displayed for exam in (faint, strong)
        ]
        clear = strong.views[view].displayed < 1
        assert added[1][clear] == pytest.approx(2 * added[0][clear], abs=1e-5)


def without_lesions(exam):
    """The same exam with every lesion's contrast at zero, and nothing else changed."""
    index = int(exam.name.rsplit("-", 1)[1])
    return make_exam(replace(SMALL, contrast=(0.0, 0.0)), index)


def test_a_lesion_lies_at_the_same_depth_behind_the_nipple_in_both_views(exams):
    for exam in (exam for exam in exams if exam.malignant):
        columns = [
            box.left + box.width / 2
            for image in exam.views.values()
            for box in image.boxes
            if box.malignant
        ]
        assert columns[0] == pytest.approx(columns[1], abs=1.5)


def test_the_oblique_view_is_another_projection_of_the_same_lesion(exams):
    rows = np.array(
        [
            [box.top + box.height / 2 for image in exam.views.values() for box in image.boxes]
            for exam in exams
            if exam.malignant and sum(len(image.boxes) for image in exam.views.values()) == 2
        ]
    )
    assert len(rows) > 10
    assert np.abs(rows[:, 0] - rows[:, 1]).max() > 8, "pixels of 1.8 mm"
    assert len(np.unique(rows[:, 0].round())) > 5


def test_the_boxes_hold_what_the_lesions_add_on_both_sides(exams):
    sides = set()
    for exam in exams[:24]:
        bare = without_lesions(exam)
        for view, image in exam.views.items():
            added = image.displayed - bare.views[view].displayed
            if not image.boxes:
                assert not added.any()
                continue
            sides.add(view.laterality)
            inside = np.zeros(added.shape, bool)
            for box in image.boxes:
                inside[box.top : box.top + box.height, box.left : box.left + box.width] = True
            assert added.max() > 0.03
            assert added[inside].sum() > 0.9 * added.sum()
    assert sides == {"L", "R"}


def test_every_kind_and_every_density_occurs_and_is_named_in_the_captions(exams):
    for exam in exams:
        for view, image in exam.views.items():
            name = {"CC": "craniocaudal", "MLO": "mediolateral oblique"}[view.projection]
            assert image.caption.startswith(f"{name} mammogram, density ")
            for kind in Kind:
                assert (kind.value in image.caption) == any(b.kind is kind for b in image.boxes)
            assert ("no abnormality" in image.caption) == (not image.boxes)
            suspicious = any(box.kind in SUSPICIOUS for box in image.boxes)
            assert ("suspicious appearance," in image.caption) == suspicious
            assert ("benign appearance, " in image.caption) == (
                bool(image.boxes) and not suspicious
            )
    captions = [image.caption for exam in exams for image in exam.views.values()]
    for word in [*(kind.value for kind in Kind), *(f"density {d}" for d in DENSITIES)]:
        assert any(word in caption for caption in captions), word


def test_the_exam_caption_names_the_malignant_lesion_and_its_side(exams):
    for exam in exams:
        if not exam.malignant:
            assert exam.caption == "mammogram exam, benign or normal"
            continue
        ((kind, side),) = {
            (box.kind.value, "left" if view.laterality == "L" else "right")
            for view, image in exam.views.items()
            for box in image.boxes
            if box.malignant
        }
        assert exam.caption == f"mammogram exam, malignant {kind} in the {side} breast"


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_is_made_of_what_a_reader_would_see(seed):
    made = {
        kind: make_lesion(
            kind, center=(0.0, 0.0, 0.0), contrast=0.3, rng=np.random.default_rng(seed)
        )
        for kind in Kind
    }

    def largest(kind):
        return max(body.radius for body in made[kind].bodies)

    spiculated, smooth = made[Kind.SPICULATED_MASS], made[Kind.CIRCUMSCRIBED_MASS]
    reach = [np.linalg.norm(body.offset) for body in spiculated.bodies if body.radius < 1]
    assert max(reach) > 1.6 * spiculated.radius, "spicules leave the core"
    assert largest(Kind.SPICULATED_MASS) > 2, "which is a mass"
    assert not any(body.sharp for body in spiculated.bodies)
    assert all(body.sharp for body in smooth.bodies)
    assert smooth.extent < 1.1 * smooth.radius
    assert len(made[Kind.MICROCALCIFICATIONS].bodies) >= 12
    assert largest(Kind.MICROCALCIFICATIONS) < 0.75  # mm: below 1 mm across, or little more
    assert 2 <= len(made[Kind.COARSE_CALCIFICATIONS].bodies) <= 4
    assert min(body.radius for body in made[Kind.COARSE_CALCIFICATIONS].bodies) > 1
    assert made[Kind.ASYMMETRY].extent > 8
    assert max(body.amount for body in made[Kind.ASYMMETRY].bodies) <= 0.4, "and no core"


@given(spacing=st.floats(0.05, 1.0), row=st.floats(40, 60), column=st.floats(40, 60))
@settings(max_examples=30, deadline=None)
def test_a_calcification_keeps_its_total_brightness_at_every_pixel_size(spacing, row, column):
    body = Body(offset=(0, 0, 0), radius=0.4, amount=1.0, sharp=False)
    lesion = Lesion(
        kind=Kind.MICROCALCIFICATIONS, center=(0, 0, 0), radius=1, contrast=1.0, bodies=(body,)
    )
    image = np.zeros((100, 100), np.float32)
    add_shadow(image, lesion, points=np.array([[row, column]] * 2), spacing=spacing)
    assert image.sum() * spacing**2 == pytest.approx(np.pi * 0.4**2, rel=0.03)


def test_a_shadow_is_capped_at_four_times_the_contrast():
    body = Body(offset=(0, 0, 0), radius=5.0, amount=3.0, sharp=True)
    lesion = Lesion(
        kind=Kind.ASYMMETRY, center=(0, 0, 0), radius=5, contrast=0.1, bodies=(body, body)
    )
    image = np.zeros((60, 60), np.float32)
    add_shadow(image, lesion, points=np.full((3, 2), 30.5), spacing=1.0)
    assert image.max() == pytest.approx(0.4)
    assert (image == image.max()).sum() > 10, "3 + 3 would have been more"


def test_the_detector_adds_noise_to_tissue_and_none_to_air(monkeypatch):
    flat = np.zeros((SMALL.rows, SMALL.columns), np.float32)
    smooth = dict.fromkeys(VIEWS, Parenchyma(glandular=flat, texture=flat))
    monkeypatch.setattr(phantom, "draw_parenchyma", lambda detector, rng: smooth)
    displayed = make_exam(replace(SMALL, contrast=(0.0, 0.0)), 2).views[View.LCC].displayed
    tissue = displayed[55:85, 8:32]
    rough = tissue[:, 2:] - 2 * tissue[:, 1:-1] + tissue[:, :-2]
    assert rough.std() == pytest.approx(6**0.5 * 0.012, rel=0.15)
    assert not displayed[-6:].any()


def test_parenchyma_has_a_power_spectrum_of_exponent_three():
    detector = Detector(rows=512, columns=512)
    field = power_law_field(detector, np.random.default_rng(1))
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(512, detector.spacing)] * 2))
    bands = np.geomspace(0.03, 0.8, 12)
    means = [
        power[(frequency >= low) & (frequency < high)].mean()
        for low, high in itertools.pairwise(bands)
    ]
    slope = np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(means), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.15)


def test_parenchyma_is_in_every_exam_in_the_strength_its_breast_has(exams):
    for exam in exams[:12]:  # well inside the breast; the detector's noise alone is 0.012
        for view, image in without_lesions(exam).views.items():
            inside = slice(12, 32) if view.laterality == "L" else slice(-32, -12)
            assert image.displayed[60:84, inside].std() > 0.04
    rng, detector = np.random.default_rng(6), Detector(rows=128, columns=104)
    parenchyma = draw_parenchyma(detector, rng)[View.LCC]
    strengths = []
    for _ in range(20):
        breast = draw_breasts(rng)["L"]
        smooth = replace(breast, density="D", texture=0.0)
        rough = replace(smooth, texture=breast.texture)
        pictures = [render(b, View.LCC, parenchyma, detector).tissue for b in (rough, smooth)]
        added = (pictures[0] - pictures[1])[60:84, 12:32]
        expected = breast.texture * parenchyma.texture[60:84, 12:32]
        unclipped = pictures[0][60:84, 12:32] > 0.121
        assert added[unclipped] == pytest.approx(expected[unclipped], abs=1e-5)
        strengths.append(breast.texture)
    assert 0.06 <= min(strengths) < 0.08 < 0.1 < max(strengths) <= 0.12


def test_the_two_breasts_are_alike_but_not_identical():
    fields = draw_parenchyma(Detector(rows=256, columns=208), np.random.default_rng(2))
    for projection in ("CC", "MLO"):
        left, right = (fields[View(side + projection)].glandular.ravel() for side in "LR")
        assert 0.4 < np.corrcoef(left, right)[0, 1] < 0.95
    unrelated = np.corrcoef(
        fields[View.LCC].glandular.ravel(), fields[View.LMLO].glandular.ravel()
    )[0, 1]
    assert abs(unrelated) < 0.4
    breasts = draw_breasts(np.random.default_rng(2))
    for length in ("depth", "half_width", "middle"):
        left, right = (getattr(breasts[side], length) for side in "LR")
        assert 0.001 < abs(left / right - 1) < 0.09
    assert breasts["L"].density == breasts["R"].density


@pytest.fixture(scope="module")
def smooth():
    """The two views of a left breast without texture, and the breast."""
    detector = Detector(rows=512, columns=416)
    breast = replace(draw_breasts(np.random.default_rng(4))["L"], texture=0.0)
    flat = np.zeros((detector.rows, detector.columns), np.float32)
    parenchyma = Parenchyma(glandular=flat, texture=flat)
    pictures = {
        view: render(breast, view, parenchyma, detector).displayed()
        for view in (View.LCC, View.LMLO)
    }
    return breast, detector, pictures


def test_density_classes_are_ordered_by_brightness():
    rng = np.random.default_rng(3)
    detector = Detector(rows=256, columns=208)
    breast = draw_breasts(rng)["L"]
    parenchyma = draw_parenchyma(detector, rng)[View.LCC]
    means = [
        render(replace(breast, density=density), View.LCC, parenchyma, detector).displayed().mean()
        for density in DENSITIES
    ]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.01


def test_only_the_mlo_view_shows_the_pectoral_muscle(smooth):
    breast, detector, pictures = smooth
    above = round((breast.middle - 0.8 * breast.half_width) / detector.spacing)
    wall = slice(2, 12)
    assert pictures[View.LMLO][above, wall].mean() - pictures[View.LCC][above, wall].mean() > 0.15
    below = round((breast.middle + 0.5 * breast.half_width) / detector.spacing)
    assert pictures[View.LMLO][below, wall].mean() < pictures[View.LMLO][above, wall].mean() - 0.15


def test_a_skin_line_runs_inside_the_outline(smooth):
    breast, detector, pictures = smooth
    row = round((breast.middle - 0.5 * breast.half_width) / detector.spacing)
    profile = pictures[View.LCC][row]
    outline = int(np.flatnonzero(profile).max())
    rim = profile[outline - 8 : outline + 1]
    peak = int(rim.argmax())
    assert 2 <= peak <= 7, "a line, not the edge itself and not the tissue behind it"
    assert rim[peak] > 1.2 * profile[outline - 12 : outline - 7].min()


def test_the_nipple_stands_out_of_the_outline(smooth):
    breast, detector, pictures = smooth
    tip = int((breast.depth + 3.0) / detector.spacing)
    row = int(breast.middle / detector.spacing)
    for picture in pictures.values():
        assert picture[row, tip] > 0.05
        assert picture[row - 40, tip] == 0


@pytest.mark.parametrize("view", VIEWS)
def test_the_lead_marker_is_away_from_the_chest_wall(view):
    displayed = np.zeros((512, 416), np.float32)
    draw_lead_marker(displayed, view, spacing=0.45)
    columns = np.flatnonzero(displayed.any(axis=0))
    assert (columns.min() > 300) if view.laterality == "L" else (columns.max() < 116)
    assert set(np.unique(displayed)) == {0.0, 1.0}


def test_every_exam_bears_its_own_markers(exams):
    spacing = Detector(rows=SMALL.rows, columns=SMALL.columns).spacing
    for view, image in exams[0].views.items():
        marker = np.zeros_like(image.displayed)
        draw_lead_marker(marker, view, spacing=spacing)
        corner = slice(0, SMALL.columns // 3) if view.laterality == "R" else slice(70, None)
        assert np.array_equal(image.displayed[:14, corner] == 1, marker[:14, corner] == 1)
        assert marker.sum() > 20


def test_written_exams_are_read_back_as_what_the_manifest_says(tmp_path):
    manifest = write_exams(SMALL, 12, tmp_path / "exams")
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames) == MANIFEST_COLUMNS
        rows = list(reader)
    assert len(rows) == 48
    profiles = {row["profile"] for row in rows}
    assert len(profiles) > 4, "a set of exams mixes vendors"
    for name in sorted({row["exam"] for row in rows}):
        mine = {row["view"]: row for row in rows if row["exam"] == name}
        exam = read_exam(tmp_path / "exams" / name)
        assert list(exam.images) == list(VIEWS)
        for view, image in exam.images.items():
            assert image.path == tmp_path / "exams" / mine[view]["file"]
        for row in mine.values():
            for box in json.loads(row["boxes"]):
                assert 0 <= box["top"] < 128
                assert 0 <= box["left"] < 104


def test_writing_over_an_earlier_set_is_refused(tmp_path):
    write_exams(SMALL, 1, tmp_path)
    with pytest.raises(FileExistsError, match="belongs to an earlier set"):
        write_exams(SMALL, 1, tmp_path)


MARKERS = {  # in the first 160 bytes of a frame, in this order
    "1.2.840.10008.1.2.4.81": (b"\xff\xd8", b"\xff\xf7"),  # SOI and SOF55: JPEG-LS
    "1.2.840.10008.1.2.4.91": (b"\xff\x4f", b"\xff\x51"),  # SOC and SIZ: JPEG 2000
    "1.2.840.10008.1.2.4.201": (b"\xff\x4f", b"\xff\x51", b"\xff\x50"),  # and CAP: Part 15
}


def file_rows(manifest):
    with manifest.open(newline="") as stream:
        return [(manifest.parent / row["file"], row) for row in csv.DictReader(stream)]


@pytest.mark.parametrize("syntax", MARKERS)
def test_a_set_is_written_in_the_transfer_syntax_asked_for(tmp_path, syntax):
    asked = replace(SMALL, transfer_syntax=syntax)
    for path, row in file_rows(write_exams(asked, 3, tmp_path)):
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == row["transfer_syntax"] == syntax
        head = next(generate_frames(dataset.PixelData, number_of_frames=1))[:160]
        places = [head.find(marker) for marker in MARKERS[syntax]]
        assert places[0] == 0
        assert places == sorted(places)
        assert (b"\xff\x50" in head) == (syntax == HTJ2KLossless)


def test_a_set_is_written_as_each_vendor_writes_unless_asked_otherwise(tmp_path):
    own = {profile.name: profile.transfer_syntax for profile in PROFILES}
    rows = file_rows(write_exams(SMALL, 6, tmp_path))
    assert len({row["transfer_syntax"] for _, row in rows}) > 2
    for path, row in rows:
        written = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        assert written == row["transfer_syntax"] == own[row["profile"]]


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        ("1.2.840.10008.1.2.4.50", {8}),
        ("1.2.840.10008.1.2.4.51", {12}),
        ("1.2.840.10008.1.2.4.91", {8, 10, 12, 13, 14}),
        (None, {8, 10, 12, 13, 14}),
    ],
)
def test_vendors_are_drawn_from_those_whose_values_the_transfer_syntax_holds(syntax, bits):
    profiles = replace(SMALL, transfer_syntax=syntax).profiles
    assert {profile.bits_stored for profile in profiles} == bits
    signed = {profile.signed for profile in profiles}
    assert signed == ({False} if syntax else {False, True}), "a lossy code has no sign"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"rows": 63}, "rows 64 to 4096; rows / columns"),
        ({"rows": 4097, "columns": 3328}, "rows 64 to 4096; found"),
        ({"rows": 4096, "columns": 3329}, "columns 64 to 3328"),
        ({"rows": 128, "columns": 72}, r"rows / columns 1\.0 to 1\.75"),
        ({"rows": 128, "columns": 129}, r"rows / columns 1\.0 to 1\.75"),
        ({"malignant_share": 1.1}, "malignant_share 0 to 1"),
        ({"incidental_share": float("nan")}, "incidental_share 0 to 1"),
        ({"contrast": (0.4, 0.3)}, "contrast 0 <= low <= high <= 1"),
        ({"transfer_syntax": "1.2.840.10008.1.2.2"}, r"None or one of 1\.2\.840\.10008\.1\.2, "),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **wrong)


def phantom_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training.phantom", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_writes_what_its_options_ask_for_and_says_so_in_a_file(tmp_path):
    asked = PhantomSettings(
        seed=9,
        rows=128,
        columns=104,
        malignant_share=1.0,
        contrast=(0.3, 0.6),
        incidental_share=0.0,
        transfer_syntax="1.2.840.10008.1.2.1",
    )
    sizes = ("--exams", 2, "--seed", 9, "--rows", 128, "--columns", 104)
    shares = ("--malignant-share", 1, "--contrast", 0.3, 0.6, "--incidental-share", 0)
    native = ("--transfer-syntax", "1.2.840.10008.1.2.1")
    done = phantom_command("--out", tmp_path, *sizes, *shares, *native)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "settings.json").read_text())
    assert saved == json.loads(json.dumps(asdict(asked) | {"exams": 2}))
    rows = file_rows(tmp_path / "manifest.csv")
    expected = [make_exam(asked, index).datasets[view] for index in range(2) for view in VIEWS]
    assert len(rows) == len(expected)
    for (path, row), dataset in zip(rows, expected, strict=True):
        assert row["malignant"] == "1"
        assert pydicom.dcmread(path).PixelData == dataset.PixelData


def test_the_command_refuses_in_words_and_writes_nothing(tmp_path):
    done = phantom_command("--out", tmp_path / "exams", "--rows", 9000)
    assert done.returncode == 2
    assert done.stderr.startswith("No exams were written: phantom settings: expected rows 64 to")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "exams").exists()


def test_a_view_of_full_size_goes_from_phantom_to_tensor(tmp_path):
    detector, rng = Detector(rows=4096, columns=3328), np.random.default_rng(1)
    glandular, texture = (power_law_field(detector, rng) for _ in range(2))
    breast = draw_breasts(rng)["R"]
    parenchyma = Parenchyma(glandular=glandular, texture=texture)
    displayed = render(breast, View.RMLO, parenchyma, detector).displayed().clip(0, 1)[:, ::-1]
    profile = next(p for p in PROFILES if p.transfer_syntax == JPEG2000Lossless)
    dataset = to_dataset(
        np.ascontiguousarray(displayed),
        view=View.RMLO,
        profile=profile,
        identity=ExamIdentity.derive(SMALL.seed, 1),
        pixel_spacing=detector.spacing,
        rng=rng,
    )
    write(dataset, tmp_path / "view.dcm", profile.transfer_syntax)
    small = make_exam(SMALL, 1).datasets
    others = [small[view] for view in VIEWS if view is not View.RMLO]
    image = decode(read_exam([*others, tmp_path / "view.dcm"]).images[View.RMLO])
    assert image.pixels.shape == (4096, 3328)
    np.testing.assert_array_equal(image.pixels, dataset.pixel_array)
    tensor = build_view(image, FULL_VIEW)[0]
    assert tensor.shape == (1024, 512)
    wall, far = tensor[400:600, :100], tensor[400:600, -100:]
    assert wall.mean() > 0.2 > 2 * far.mean(), "the chest wall is at the left"
    assert (tensor == 0).mean() > 0.1


FULL_VIEW = replace(data.PREPROCESSING, height=1024, width=512)
