"""The report: one page that needs nothing else, shows what was scored and hides no doubt."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import exams
import imagecodecs
import numpy as np
import pydicom
import pytest
from arrays import arrays

from mammoclip_sdk import Predictor
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import VIEWS, Device
from mammoclip_sdk.prediction import Examination
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.report import to_html, write_report
from mammoclip_sdk.report.pictures import HANGING


class Page(HTMLParser):
    """Every element's attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def examination(tiny_bundle: Path, tmp_path: Path) -> Examination:
    exams.write_exam(tmp_path / "exam", exams.PLAIN)
    return Predictor(tiny_bundle, "cpu").examine(tmp_path / "exam")


def with_answer(examination: Examination, **changes: object) -> Examination:
    return replace(examination, prediction=replace(examination.prediction, **changes))


def test_the_page_says_what_was_found_read_and_run(examination: Examination) -> None:
    text = Page(to_html(examination)).text
    prediction = examination.prediction
    (finding,) = prediction.findings
    for words in (
        "Not for clinical use.",
        "it knows nothing about breasts",
        "malignancy",
        f"{finding.score:.3f}",
        "uncalibrated score, 0 to 1: it orders exams, and is no probability",
        f"uncalibrated logit {finding.logit:+.2f}",
        "The frame is the part that goes to the model, fitted into 32 rows and 24 columns.",
        "Caution, G11 Device.",
        "Validate the model on images of this device before relying on it.",
        "threshold 0.000 reached (measured: sensitivity 0.50, 0.40 to 0.60, specificity 0.50, ",
        "threshold 1.000 not reached",
        "Explicit VR Little Endian",
        "IM4",
        f"Study Instance UID {exams.ROOT}.100",
        *(str(record.sop_instance_uid) for record in prediction.views),
        prediction.views[0].pixel_sha256[:16],
        prediction.provenance.bundle_sha256,
        prediction.provenance.runtime,
        "2 golden exams",
        prediction.answered_at,
        f"pydicom {pydicom.__version__}, imagecodecs {imagecodecs.__version__}, "
        f"numpy {np.__version__}",
        "not strict, decoded in the same process",
        "0.500 (95% interval 0.400 to 0.600, Wilson) on 100 exams: noise",
        "It knows nothing about breasts.",
    ):
        assert words in text


def test_every_printed_sheet_says_what_the_model_is_not_for(examination: Examination) -> None:
    note = '@page { @bottom-center { content: "Not for clinical use" } }'
    assert note in to_html(examination)
    provenance = replace(examination.prediction.provenance, not_for_clinical_use=False)
    assert "Not for clinical use" not in to_html(with_answer(examination, provenance=provenance))


def sheet_top(html: str) -> str:
    """What the style sheet puts at the top of every printed sheet, its escapes undone."""
    (written,) = re.findall(r'@page { @top-center { content: "([^"]*)" } }', html)
    return re.sub(r"\\([0-9a-f]+) ", lambda found: chr(int(found[1], 16)), written)


def test_every_printed_sheet_says_which_exam_it_is_of(examination: Examination) -> None:
    prediction = examination.prediction
    of_study = f"Mammography report, study {exams.ROOT}.100, {prediction.answered_at}"
    html = to_html(examination)
    assert sheet_top(html) == of_study
    assert f"<title>{of_study}</title>" in html
    of_arrays = to_html(with_answer(examination, study_instance_uid=None))
    pixels = prediction.views[0].pixel_sha256[:16]
    assert sheet_top(of_arrays).startswith(f"Mammography report, LCC with pixels {pixels}, ")
    assert "No Study Instance UID: an array was handed over." in Page(of_arrays).text
    evil = '"}</style><script>alert(1)</script>\n\\'
    html = to_html(with_answer(examination, study_instance_uid=evil + "9" * 99))
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert sheet_top(html).startswith('Mammography report, study "}</style><script>alert(1)')
    assert sheet_top(html).count("9") < 64  # a UID has at most 64 characters (PS3.5, 9.1)


def test_a_caution_stands_directly_under_the_number_and_as_visibly_as_the_use(
    examination: Examination,
) -> None:
    html = to_html(examination)
    (finding,) = examination.prediction.findings
    box = '<div class="caution" role="note"><p><b>Caution, G11 Device.</b> '
    assert f'<p class="number">{finding.score:.3f}</p>{box}' in html
    assert ".use, .caution { padding: .7rem 1rem; background: var(--note);" in html
    assert 'class="caution"' not in to_html(with_answer(examination, reasons=()))
    both = (finding, finding)  # of several findings, none is without it
    assert to_html(with_answer(examination, findings=both)).count(f"</p>{box}") == 2


def test_between_operating_points_the_page_says_what_that_means(
    examination: Examination,
) -> None:
    def said(*met: str) -> str:
        (finding,) = examination.prediction.findings
        answer = replace(finding, operating_points_met=met)
        return " ".join(Page(to_html(with_answer(examination, findings=(answer,)))).text.split())

    words = (
        "Between operating points: reaches “always”, whose lower threshold misses fewer exams and "
        "flags more; does not reach “never”, whose higher threshold flags fewer and misses more."
    )
    assert words in said("always")
    for met in ((), ("always", "never")):
        assert "Between operating points" not in said(*met)


def test_a_probability_says_for_which_exams_it_was_calibrated(examination: Examination) -> None:
    (finding,) = examination.prediction.findings
    fitted = replace(finding, probability=0.123, score=0.123, calibrated=True, calibrated_on="<x>")
    html = to_html(with_answer(examination, findings=(fitted,)))
    assert "0.123" in html
    assert "probability, 0 to 1, as calibrated on &lt;x&gt; " in html
    assert "is no probability" not in html


def test_nothing_is_fetched_and_nothing_runs(examination: Examination) -> None:
    html = to_html(examination)
    page = Page(html)
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not page.all("script")
    assert not page.all("link")
    addresses = [
        value or ""
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data")
    ]
    assert len(addresses) == 4
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html


@pytest.mark.parametrize("chest_wall", ["as usual", "swapped"])
def test_views_hang_with_chest_walls_in_the_middle_and_the_crop_framed(
    examination: Examination, chest_wall: str
) -> None:
    if chest_wall == "swapped":  # the same exam, exported by a device that turns its images
        records = []
        for record in examination.prediction.views:
            old = record.geometry
            top, left, height, width = old.crop
            crop = (top, old.source_shape[1] - left - width, height, width)
            geometry = replace(old, crop=crop, mirrored=not old.mirrored)
            records.append(replace(record, geometry=geometry))
        pictures = {view: picture[:, ::-1] for view, picture in examination.pictures.items()}
        examination = replace(with_answer(examination, views=tuple(records)), pictures=pictures)
    page = Page(to_html(examination))
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert labels == [str(view) for view in HANGING] == ["RCC", "LCC", "RMLO", "LMLO"]
    for view, image, rect in zip(HANGING, page.all("image"), page.all("rect"), strict=True):
        data = base64.b64decode((image["href"] or "").partition(",")[2])
        picture = imagecodecs.png_decode(data)
        left_half, right_half = np.array_split(picture.mean(axis=0), 2)
        tissue_at_right = right_half.mean() > left_half.mean()
        assert tissue_at_right == (view.laterality == "R")
        left, width = int(rect["x"] or -1), int(rect["width"] or -1)
        columns = float(image["width"] or 0)
        assert (left + width == columns) == (view.laterality == "R")
        assert (left == 0) == (view.laterality == "L")
    assert ("turned left to right" in page.text) == (chest_wall == "swapped")


def test_an_exam_that_was_not_scored_shows_no_number(examination: Examination) -> None:
    reason = Reason(code="G04", severity="block", view=VIEWS[1], message="twice the same")
    refused = with_answer(examination, status="abstained", findings=(), reasons=(reason,))
    page = Page(to_html(refused))
    assert "Not scored" in page.text
    assert "That is not a negative result." in page.text
    assert "G04" in page.text
    assert "One image, two views. twice the same" in " ".join(page.text.split())
    assert "Find out which view the image shows" in page.text
    assert [div.get("class") for div in page.all("div")].count("caution") == 1
    assert not [p for p in page.all("p") if p.get("class") == "number"]
    assert "probability, 0 to 1" not in page.text


def test_what_holds_for_several_views_is_told_once(examination: Examination) -> None:
    advice = "Check it. Twice."
    reasons = tuple(
        Reason(code=code, severity="block", view=view, message=message)
        for code, view, message in (
            *(("G09", view, f"{view} is all white: 1.0 of it. {advice}") for view in VIEWS[:3]),
            ("G09", VIEWS[3], f"{VIEWS[3]} shows noise. {advice}"),
            ("G04", VIEWS[1], f"{VIEWS[1]} has the same pixels as {VIEWS[0]}: one image."),
            ("G04", VIEWS[2], f"{VIEWS[2]} has the same pixels as {VIEWS[0]}: one image."),
            ("G14", None, "The output is unusable"),
        )
    )
    page = Page(to_html(with_answer(examination, status="abstained", findings=(), reasons=reasons)))
    text = " ".join(page.text.split())
    assert (
        "G09 Content. LCC is all white: 1.0 of it. The same holds for RCC, LMLO. RMLO shows noise. "
        "Check it. Twice. Look at the image: " in text
    )
    assert (
        "G04 One image, two views. RCC has the same pixels as LCC: one image. "
        "The same holds for LMLO. Find out which" in text
    )
    assert "G14 Output of the model. The output is unusable Verify" in text
    assert text.count("Check it.") == text.count("Look at the image") == 1


def test_arrays_have_no_identity_to_show(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, "cpu") as predictor:
        page = Page(to_html(predictor.examine(arrays())))
    text = " ".join(page.text.split())
    assert "No Study Instance UID: an array was handed over." in text
    assert "LCC views[LCC] 96 × 80 array" in text
    assert "UID None" not in text


def test_the_caption_says_whether_anything_went_to_the_model(examination: Examination) -> None:
    timing = examination.prediction.timing
    assert timing.inference is not None
    refused = with_answer(examination, timing=replace(timing, inference=None, scoring=None))
    would = (
        "The frame is the part that would have gone to the model, fitted into 32 rows and 24 "
        "columns; nothing went to it."
    )
    assert would in Page(to_html(refused)).text
    assert "The frame is the part that goes to the model" not in Page(to_html(refused)).text


def test_devices_and_levels_left_out_are_named(examination: Examination) -> None:
    device = Device(manufacturer="Maker", model="One")
    first, *others = examination.prediction.views
    for levels, words in ((1, "1 finest level "), (2, "2 finest levels ")):
        records = (replace(first, device=device, reduction_levels=levels), *others)
        text = Page(to_html(with_answer(examination, views=records))).text
        assert text.count("Maker One") == 1
        assert text.count(f", without its {words}") == 1
        assert text.count("of the reduced pixels") == 1
    assert "of the reduced pixels" not in Page(to_html(examination)).text


def test_a_device_takes_no_more_of_the_page_than_a_header_may_say(
    examination: Examination,
) -> None:
    """Manufacturer and model are LO: at most 64 characters each (PS3.5, 6.2)."""
    device = Device(manufacturer="M" * 5_000 + "\n", model="\x1b[2J" + "O" * 5_000)
    first, *others = examination.prediction.views
    html = to_html(with_answer(examination, views=(replace(first, device=device), *others)))
    assert f"{'M' * 64} \\x1b[2J{'O' * 57}<br>" in html
    assert "M" * 65 not in html
    cells = [cell for cell in Page(html).all("td") if cell.get("class") == "image"]
    assert len(cells) == 4
    assert (
        ".image, .uid { overflow-wrap: anywhere }" in html
    )  # such a word must not widen the table


def test_a_finding_without_operating_points_says_so(examination: Examination) -> None:
    (finding,) = examination.manifest.findings
    without = replace(examination.manifest, findings=(replace(finding, operating_points=()),))
    words = "No operating point is set for it."
    assert words in Page(to_html(replace(examination, manifest=without))).text
    assert words not in Page(to_html(examination)).text


def test_a_figure_that_was_measured_on_several_sets_of_exams_is_told_of_each(
    examination: Examination,
) -> None:
    (first,) = examination.manifest.measurements
    second = replace(first, exams=77, data="another hospital's")
    manifest = replace(examination.manifest, measurements=(first, second))
    text = Page(to_html(replace(examination, manifest=manifest))).text
    assert f"on {first.exams} exams: {first.data}" in text
    assert "on 77 exams: another hospital's" in text


def test_who_signed_the_bundle_is_said_where_a_signature_was_asked_for(
    examination: Examination,
) -> None:
    assert "Signed by" not in Page(to_html(examination)).text
    provenance = replace(examination.prediction.provenance, signed_by="5e" * 32)
    text = Page(to_html(with_answer(examination, provenance=provenance))).text
    assert f"Signed by key {'5e' * 32}" in text


def test_how_files_were_read_is_said(examination: Examination) -> None:
    provenance = replace(examination.prediction.provenance, strict=True, isolated=True)
    text = Page(to_html(with_answer(examination, provenance=provenance))).text
    assert " strict, decoded in child processes" in text
    assert "not strict" not in text


def test_a_stretched_crop_is_said_to_be_one(examination: Examination) -> None:
    manifest = examination.manifest
    stretched = replace(manifest.preprocessing, geometry="stretch")
    changed = replace(examination, manifest=replace(manifest, preprocessing=stretched))
    assert "stretched to 32 rows and 24 columns." in Page(to_html(changed)).text


def test_names_from_elsewhere_are_text_and_never_markup(examination: Examination) -> None:
    evil = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"
    evil_device = Device(manufacturer=evil, model=evil)
    records = tuple(
        replace(record, name=evil, device=evil_device) for record in examination.prediction.views
    )
    provenance = replace(examination.prediction.provenance, bundle=evil, intended_use=evil)
    finding = replace(examination.prediction.findings[0], name=evil)
    question = replace(examination.manifest.findings[0], name=evil, positive_prompt=evil)
    changed = replace(
        with_answer(
            examination,
            views=records,
            notes=(evil,),
            provenance=provenance,
            findings=(finding,),
        ),
        manifest=replace(examination.manifest, findings=(question,)),
    )
    page = Page(to_html(changed))
    assert not page.all("script")
    assert not page.all("img")
    assert page.text.count("<script>alert(1)</script>") >= 16


def test_a_report_replaces_another_whole_or_not_at_all(
    examination: Examination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    page = folder / "r.html"
    page.write_text("<!DOCTYPE html>older")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(MammoClipError, match="No space left"):
            write_report(examination, page)
    assert [(f.name, f.read_text()) for f in folder.iterdir()] == [
        ("r.html", "<!DOCTYPE html>older")
    ]
    write_report(examination, page)
    assert [f.name for f in folder.iterdir()] == ["r.html"]
    assert page.read_text("utf-8") == to_html(examination)
    assert re.match(r"<!DOCTYPE html>\n<html lang=\"en\">", page.read_text("utf-8"))


def test_a_report_reaches_the_disk_before_it_takes_its_name(
    examination: Examination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append(f"sync {os.fstat(descriptor).st_size > 1000}")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_report(examination, tmp_path / "r.html")
    assert steps == ["sync True", "rename to r.html"]


def test_a_name_that_is_no_text_is_shown_as_an_escape(
    examination: Examination, tmp_path: Path
) -> None:
    name = os.fsdecode(b"IM\xff\xe91")
    records = tuple(replace(record, name=name) for record in examination.prediction.views)
    write_report(with_answer(examination, views=records), tmp_path / "r.html")
    assert r"IM\udcff\udce91" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["long", "null"])
def test_a_name_that_no_file_can_have_is_refused(
    examination: Examination, tmp_path: Path, name: str
) -> None:
    with pytest.raises(MammoClipError, match="a place that cannot be written") as caught:
        write_report(examination, tmp_path / name)
    assert caught.value.code == "report"


@pytest.mark.parametrize("place", ["absent/r.html", "file/r.html", "reports"])
def test_a_place_that_cannot_be_written_is_named(
    examination: Examination, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "reports").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MammoClipError, match=re.escape(str(tmp_path / place))) as caught:
        write_report(examination, tmp_path / place)
    assert caught.value.code == "report"
    assert sorted(tmp_path.iterdir()) == before


def test_a_report_never_replaces_a_file_that_is_no_report(
    examination: Examination, tmp_path: Path
) -> None:
    image = tmp_path / "IM0001.dcm"
    image.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(MammoClipError, match="a file that is no report") as caught:
        write_report(examination, image)
    assert caught.value.code == "report"
    assert image.read_bytes() == b"\0" * 128 + b"DICM"
    page = tmp_path / "page.html"
    write_report(examination, page)
    write_report(examination, page)
