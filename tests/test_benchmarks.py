"""Reports of figures: nothing is typed in by hand, and the README says what the bundle says."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.latency import Case, Report, Timing, time_in_turn, to_markdown
from benchmarks.machine import describe_machine
from benchmarks.readme import README, accuracy_text, write_region
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE


def region(name):
    text = README.read_text(encoding="utf-8")
    return text.split(f"<!-- begin: {name} -->")[1].split(f"<!-- end: {name} -->")[0].strip()


def test_the_readme_repeats_the_shipped_bundles_own_figures():
    assert region("demo-model") == accuracy_text(read_bundle(DEMO_BUNDLE).manifest).strip()


def test_the_readme_repeats_the_last_latency_report():
    report = README.parent / "benchmarks" / "results" / "latency.md"
    assert region("latency") == report.read_text().partition("\n\n")[2].strip()


def test_contenders_are_timed_in_turn_after_a_warm_up():
    order = []
    times = time_in_turn(
        [lambda: order.append("a"), lambda: order.append("b")], rounds=4, what="test"
    )
    assert order == ["a", "b"] * 7
    assert times.shape == (2, 4)
    assert (times > 0).all()


def test_the_report_shows_times_ratio_difference_hardware_and_bundle():
    machine = describe_machine()
    timing = Timing(
        contender="fast runtime",
        median_ms=2.5,
        p95_ms=3.25,
        speedup=4.0,
        worst_logit_difference=1.5e-4,
    )
    case = Case(model="m", bundle_sha256="abcdef" * 8, weights="w", rounds=7, timings=(timing,))
    report = Report(command="make bench", machine=machine, cases=(case,), stages_ms={"read": 1.5})
    text = to_markdown(report)
    assert "| fast runtime | 2.5 | 3.2 | 4.00 | 1.5e-04 |" in text
    assert machine.processor in text
    assert f"numpy {np.__version__}" in text
    assert "abcdefabcdef" in text
    assert "read 1.5" in text
    assert json.loads(json.dumps(asdict(report)))["cases"][0]["rounds"] == 7


def test_a_region_that_is_not_there_is_an_error_and_the_file_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: a -->\nold\n<!-- end: a -->\n")
    write_region(page, "a", "new")
    assert page.read_text() == "<!-- begin: a -->\nnew\n<!-- end: a -->\n"
    with pytest.raises(ValueError, match="no single region 'b'"):
        write_region(page, "b", "new")
    assert "new" in page.read_text()
