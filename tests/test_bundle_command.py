"""`bundle`: looking into one, verifying, signing and accepting it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from certified import write_certified
from command import refused, run
from conftest import FakeSession, KeyPair, make_keys, tiny_embedding, tiny_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed import sign, signature
from tiny_graphs import many_bundle
from typer.testing import Result

from mammoclip_sdk import sessions
from mammoclip_sdk.bundle import read_bundle, write_bundle
from mammoclip_sdk.bundle.signature import load_signer


def test_verify_closes_its_session(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    monkeypatch.setattr(sessions, "open_session", lambda *arguments, **options: session)
    assert run("bundle", "verify", tiny_bundle).exit_code == 0
    assert session.closed
    session.closed, session.compute = False, lambda views: -tiny_embedding(views)
    refused(run("bundle", "verify", tiny_bundle), "InferenceError", "golden exams whose logits")
    assert session.closed


@pytest.mark.parametrize("command", ["predict", "inspect", "verify"])
def test_a_bundle_that_is_not_there_is_named(tmp_path: Path, exam: Path, command: str) -> None:
    absent = tmp_path / "nothing"
    arguments = ["predict", exam, "--bundle", absent]
    if command != "predict":
        arguments = ["bundle", command, absent]
    refused(run(*arguments), "BundleNotFoundError", absent)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_a_bundle_with_any_bit_flipped_is_refused(
    tiny_bundle: Path, exam: Path, place: float, bit: int, data: st.DataObject
) -> None:
    file = tiny_bundle / data.draw(st.sampled_from(sorted(f.name for f in tiny_bundle.iterdir())))
    command = data.draw(st.sampled_from(["predict", "inspect", "verify"]))
    intact = file.read_bytes()
    damaged = bytearray(intact)
    damaged[int(place * len(damaged))] ^= 1 << bit
    file.write_bytes(damaged)
    arguments = ["predict", exam, "--bundle", tiny_bundle]
    if command != "predict":
        arguments = ["bundle", command, tiny_bundle]
    try:
        refused(run(*arguments), "BundleIntegrityError", tiny_bundle)
    finally:
        file.write_bytes(intact)


def test_inspect_shows_the_manifest(tiny_bundle: Path) -> None:
    words = run("bundle", "inspect", tiny_bundle)
    assert words.exit_code == 0
    for part in (
        "tiny 1.2.3 (release 4)",
        "licence    Apache-2.0",
        "limit      It knows nothing about breasts.",
        "32 x 24 pixels",
        "jpeg2000_reduction 0",
        "accepts    no implants, no synthesised 2D; validated on 0 devices",
        "malignancy, uncalibrated",
        "AUC 0.500",
    ):
        assert part in words.stdout
    plain = json.loads(run("bundle", "inspect", tiny_bundle, "--json").stdout)
    assert plain["manifest"]["findings"][0]["positive_embedding"] == "6 numbers"
    assert plain["bytes"]["model.fp32.onnx"] == (tiny_bundle / "model.fp32.onnx").stat().st_size


def test_verify_runs_the_golden_exams(tiny_bundle: Path) -> None:
    words = run("bundle", "verify", tiny_bundle, "--device", "cpu")
    assert words.exit_code == 0
    assert words.stdout.startswith("tiny 1.2.3: verified\n")
    plain = json.loads(run("bundle", "verify", tiny_bundle, "--json").stdout)
    assert plain["verified"] is True
    assert 0 <= plain["worst_difference"] < 1e-5
    assert plain["exams"] == 2


@pytest.mark.parametrize(
    ("options", "said", "narrowed"),
    [
        (["--device", "cpu"], "on device cpu", {"device": "cpu", "precision": None}),
        (["--precision", "fp16"], "in precision fp16", {"device": "auto", "precision": "fp16"}),
        (
            ["--device", "cpu", "--precision", "fp32"],
            "on device cpu in precision fp32",
            {"device": "cpu", "precision": "fp32"},
        ),
    ],
)
def test_a_narrowed_run_is_not_taken_for_a_whole_one(
    tmp_path: Path, options: list[str], said: str, narrowed: dict[str, str | None]
) -> None:
    bundle = many_bundle()
    write_bundle(tmp_path / "many", bundle.manifest, bundle.files)
    verify = ["bundle", "verify", tmp_path / "many", "--parity"]
    first = run(*verify, *options).stdout.splitlines()[0]
    assert (
        first
        == f"tiny 1.2.3: every runtime {said} agrees within its limits; no other was asked for"
    )
    assert json.loads(run(*verify, *options, "--json").stdout)["narrowed_to"] == narrowed


def test_a_whole_run_says_that_every_runtime_agrees(tmp_path: Path) -> None:
    bundle = many_bundle(fp32=tiny_graph())
    write_bundle(tmp_path / "one", bundle.manifest, bundle.files)
    verify = ["bundle", "verify", tmp_path / "one", "--parity"]
    first = run(*verify).stdout.splitlines()[0]
    assert first == "tiny 1.2.3: every runtime that was here agrees within its limits"
    assert json.loads(run(*verify, "--json").stdout)["narrowed_to"] is None


@pytest.fixture
def signed(tiny_bundle: Path, keys: KeyPair) -> Path:
    return sign(tiny_bundle, keys)


def older(bundle: Path, path: Path, keys: KeyPair) -> Path:
    """The release before, signed as well."""
    newer = read_bundle(bundle)
    manifest = replace(newer.manifest, release=newer.manifest.release - 1, version="1.2.2")
    write_bundle(path, manifest, newer.files, signature=signature(manifest, keys))
    return path


def test_sign_says_which_key_signed(tmp_path: Path, keys: KeyPair) -> None:
    key_id, path = load_signer(keys.private).key_id, write_certified(tmp_path / "certified")
    result = run("bundle", "sign", path, "--key", keys.private)
    assert (result.exit_code, result.stdout) == (0, f"tiny 1.2.3: signed\n  key {key_id}\n")
    plain = json.loads(run("bundle", "sign", path, "--key", keys.private, "--json").stdout)
    assert plain == {"bundle_sha256": read_bundle(path).sha256, "key_id": key_id}
    refused(run("bundle", "sign", path, "--key", keys.public), "BundleSignatureError")


def test_inspect_says_whether_a_signature_was_verified(signed: Path, keys: KeyPair) -> None:
    key_id = load_signer(keys.private).key_id
    said = run("bundle", "inspect", signed).stdout
    assert f"signed     by key {key_id}, not verified: no key was given to trust\n" in said
    said = run("bundle", "inspect", signed, "--trust", keys.public).stdout
    assert f"signed     by key {key_id}, trusted\n" in said
    plain = json.loads(run("bundle", "inspect", signed, "--trust", keys.public, "--json").stdout)
    assert (plain["signed_by"], plain["trusted"]) == (key_id, True)
    (signed / "manifest.sig").unlink()
    assert "signed     no\n" in run("bundle", "inspect", signed).stdout


@pytest.mark.parametrize("command", ["predict", "scan", "inspect", "verify", "accept"])
def test_a_bundle_that_no_trusted_key_signed_is_refused(
    tiny_bundle: Path, exam: Path, keys: KeyPair, tmp_path: Path, command: str
) -> None:
    def start(trusted: Path) -> Result:
        if command in ("predict", "scan"):
            return run(command, exam, "--bundle", tiny_bundle, "--trust", trusted)
        return run("bundle", command, tiny_bundle, "--trust", trusted)

    refused(start(keys.public), "BundleSignatureError", "no manifest.sig", "[unsigned]")
    sign(tiny_bundle, keys)
    stranger = make_keys(tmp_path, "stranger")
    refused(start(stranger.public), "BundleSignatureError", "[untrusted_key]")
    refused(start(tmp_path / "absent.pem"), "BundleSignatureError", "[trust_key]")
    assert start(keys.public).exit_code == 0


def test_predict_records_what_it_used_and_refuses_to_go_back(
    signed: Path, exam: Path, keys: KeyPair, tmp_path: Path, own_state: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    trust = ["--trust", keys.public, "--json"]
    assert run("bundle", "inspect", signed, *trust).exit_code == 0
    assert run("bundle", "verify", signed, *trust).exit_code == 0
    assert run("predict", exam, "--bundle", before, *trust).exit_code == 0
    result = run("predict", exam, "--bundle", signed, *trust)
    assert result.exit_code == 0
    found = json.loads(result.stdout)["provenance"]["signed_by"]
    assert found == load_signer(keys.private).key_id
    for command in (
        ["predict", exam, "--bundle", before],
        ["scan", exam, "--bundle", before],
        ["bundle", "inspect", before],
    ):
        result = run(*command, *trust)
        refused(result, "BundleReleaseError", "release 3", "release 4", "[release_rolled_back]")
        assert json.loads(result.stdout)["error"]["code"] == "release_rolled_back"
    assert run("predict", exam, "--bundle", before).exit_code == 0  # where nothing is asked for


def test_going_back_takes_a_command_of_its_own(
    signed: Path, exam: Path, keys: KeyPair, tmp_path: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    record = tmp_path / "site" / "accepted.json"
    trust = ["--trust", keys.public, "--accepted", record]
    assert run("predict", exam, "--bundle", signed, *trust).exit_code == 0
    result = run("bundle", "accept", before, *trust)
    assert result.exit_code == 0
    assert result.stdout == (
        f"tiny 1.2.2 (release 3): accepted\n  before: 1.2.3 (release 4)\n  recorded in {record}\n"
    )
    assert run("predict", exam, "--bundle", before, *trust).exit_code == 0
    plain = json.loads(run("bundle", "accept", signed, *trust, "--json").stdout)
    assert (plain["accepted"]["release"], plain["before"]["release"]) == (4, 3)
    assert plain["record"] == str(record)
    kept = json.loads(record.read_text("utf-8"))["acceptances"]
    assert [(one["accepted"]["release"], one["by"]) for one in kept] == [
        (4, "use"), (3, "command"), (4, "command")
    ]  # fmt: skip


def test_the_remedy_for_an_older_release_names_the_record_it_was_held_against(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    record = tmp_path / "site" / "accepted.json"
    trust = ["--trust", keys.public, "--accepted", record]
    run("bundle", "accept", signed, *trust)
    refused(run("bundle", "inspect", before, *trust), "BundleReleaseError", f"--accepted {record}")


def test_a_figure_is_told_with_its_finding(tiny_bundle: Path) -> None:
    said = run("bundle", "inspect", tiny_bundle).stdout
    assert "measured   malignancy, AUC 0.500 (0.400 to 0.600) on 100 exams: noise\n" in said


def test_a_record_of_releases_needs_a_key(tiny_bundle: Path, tmp_path: Path) -> None:
    for arguments in (
        ["bundle", "inspect", tiny_bundle, "--accepted", tmp_path / "a.json"],
        ["bundle", "accept", tiny_bundle],
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--trust" in result.stderr
        told = json.loads(run(*arguments, "--json").stdout)["error"]
        assert (told["type"], "--trust" in told["found"]) == ("UsageError", True)
