"""Signatures: whoever is trusted signed exactly these bytes, or the bundle is not read."""

from __future__ import annotations

import base64
import builtins
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certified import certificate, certified, uncertified, write_certified
from conftest import KeyPair, make_keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed import sign

from mammoclip_sdk.bundle import (
    Bundle,
    Trust,
    manifest_to_json,
    read_bundle,
    sha256,
    write_bundle,
)
from mammoclip_sdk.bundle.keys import PASSWORD
from mammoclip_sdk.bundle.signature import load_signer
from mammoclip_sdk.bundle.trusted import require_trusted
from mammoclip_sdk.errors import (
    BundleCertificateError,
    BundleError,
    BundleIntegrityError,
    BundleSignatureError,
)
from mammoclip_sdk.parity.signing import sign_bundle, signature_of

OPENSSL = shutil.which("openssl")


@pytest.fixture
def signed(tmp_path: Path, keys: KeyPair) -> Path:
    """A bundle that the vendor has signed."""
    path = write_certified(tmp_path / "signed")
    sign_bundle(path, load_signer(keys.private))
    return path


@pytest.fixture
def certified_bundle(tmp_path: Path) -> Path:
    """A bundle that may be signed."""
    return write_certified(tmp_path / "certified")


def failing() -> Bundle:
    """A bundle whose certificate says that a gate failed."""
    one, *others = certificate().comparisons
    *gates, golden = one.gates
    failed = replace(one, gates=(*gates, replace(golden, value=1.0, verdict="failed")))
    return certified(replace(certificate(), comparisons=(failed, *others)))


def trust(*pairs: KeyPair) -> Trust:
    return Trust.in_files([pair.public for pair in pairs])


def refusal(path: Path, trusted: Trust) -> BundleSignatureError:
    with pytest.raises(BundleSignatureError) as caught:
        read_bundle(path, trusted)
    return caught.value


def test_a_signed_bundle_is_read_and_says_who_signed_it(signed: Path, keys: KeyPair) -> None:
    bundle = read_bundle(signed, trust(keys))
    assert bundle.trusted
    assert bundle.signature is not None
    assert (bundle.signature.key_id,) == trust(keys).key_ids()
    assert bundle.files == certified().files
    unchecked = read_bundle(signed)
    assert unchecked.signature == bundle.signature
    assert not unchecked.trusted


def test_a_zip_of_a_signed_bundle_is_signed(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "signed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(signed.iterdir()):
            archive.write(file, file.name)
    assert read_bundle(path, trust(keys)).trusted


def test_an_unsigned_bundle_is_refused_where_a_key_is_trusted(
    tiny_bundle: Path, keys: KeyPair
) -> None:
    error = refusal(tiny_bundle, trust(keys))
    assert (error.code, error.found) == ("unsigned", "no manifest.sig")
    assert trust(keys).key_ids()[0] in error.expected
    assert not read_bundle(tiny_bundle).trusted


def test_another_keys_signature_is_refused_and_several_keys_may_be_trusted(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    other = make_keys(tmp_path, "other")
    error = refusal(signed, trust(other))
    assert error.code == "untrusted_key"
    assert error.found == f"a signature of key {trust(keys).key_ids()[0]}"
    assert trust(other).key_ids()[0] in error.expected
    assert read_bundle(signed, trust(other, keys)).trusted


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "manifest.sig"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(
    signed: Path, keys: KeyPair, name: str, place: float, bit: int
) -> None:
    file = signed / name
    intact = file.read_bytes()
    damaged = bytearray(intact)
    damaged[int(place * len(damaged))] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        with pytest.raises((BundleSignatureError, BundleIntegrityError)):
            read_bundle(signed, trust(keys))
    finally:
        file.write_bytes(intact)


def forge(path: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest and its checksum, as whoever has no key can."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    change(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (path / "manifest.json").write_text(text, "utf-8")
    digest = sha256(text.encode())
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n", "utf-8")


def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(
    signed: Path, keys: KeyPair
) -> None:
    forge(signed, lambda manifest: manifest["findings"][0].update(logit_scale=11.0))
    error = refusal(signed, trust(keys))
    assert error.code == "signature_broken"
    assert "tell them" in error.remedy
    assert read_bundle(signed).manifest.findings[0].logit_scale == 11.0


def test_a_signature_is_judged_before_anything_else_in_the_manifest(
    signed: Path, keys: KeyPair
) -> None:
    forge(signed, lambda manifest: manifest.update(schema=99))
    assert refusal(signed, trust(keys)).code == "signature_broken"


def test_a_file_that_a_signed_manifest_names_is_guarded_by_its_hash(
    signed: Path, keys: KeyPair
) -> None:
    (signed / "model.fp32.onnx").write_bytes(b"another graph")
    with pytest.raises(BundleIntegrityError, match=r"other bytes in model\.fp32\.onnx"):
        read_bundle(signed, trust(keys))


def test_a_signed_manifest_has_one_form(certified_bundle: Path, keys: KeyPair) -> None:
    manifest = json.loads((certified_bundle / "manifest.json").read_text("utf-8"))
    text = json.dumps(dict(reversed(manifest.items())))
    (certified_bundle / "manifest.json").write_text(text, "utf-8")
    digest = sha256(text.encode())
    (certified_bundle / "manifest.sha256").write_text(f"{digest}  manifest.json\n", "utf-8")
    with pytest.raises(BundleSignatureError) as caught:
        sign_bundle(certified_bundle, load_signer(keys.private))
    assert caught.value.code == "not_canonical"
    sign(certified_bundle, keys)
    assert refusal(certified_bundle, trust(keys)).code == "not_canonical"


@pytest.mark.parametrize(
    ("make", "found"), [(uncertified, "no parity certificate"), (failing, "a golden exam's logit")]
)
def test_nothing_is_signed_that_no_certificate_proves(
    tmp_path: Path, keys: KeyPair, make: Callable[[], Bundle], found: str
) -> None:
    path, signer = write_certified(tmp_path / "bundle", make()), load_signer(keys.private)
    for refuse in (
        lambda: sign_bundle(path, signer),
        lambda: signature_of(read_bundle(path), signer),
    ):
        with pytest.raises(BundleCertificateError, match=found) as caught:
            refuse()
        assert caught.value.code == "bundle_certificate"
    assert not (path / "manifest.sig").exists()


def test_a_bundle_in_memory_is_signed_and_written_with_its_signature(
    tmp_path: Path, keys: KeyPair
) -> None:
    bundle, path = certified(), tmp_path / "bundle"
    made = signature_of(bundle, load_signer(keys.private))
    write_bundle(path, bundle.manifest, bundle.files, signature=made)
    assert read_bundle(path, trust(keys)).sha256 == bundle.sha256
    with pytest.raises(BundleSignatureError, match=r"found .*not JSON") as caught:
        write_bundle(tmp_path / "other", bundle.manifest, bundle.files, signature=b"")
    assert caught.value.code == "signature_unreadable"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        ({"algorithm": "RSA"}, "algorithm: 'RSA' instead of 'Ed25519'"),
        ({"signature": "A" * 88}, "not 64 bytes in base64"),
        ({"signature": "!" * 88}, "not 64 bytes in base64"),
        ({"signature": base64.b64encode(bytes(63)).decode()}, "not 64 bytes"),
        ({"comment": "x"}, "comment: unknown key"),
        ({"key_id": None}, "key_id: null instead of str"),
        ({"key_id": "\x1b[31m" + "a" * 59}, "key_id: not 64 lower-case hexadecimal digits"),
    ],
)
@pytest.mark.parametrize("with_trust", [False, True])
def test_what_is_no_signature_is_refused_whether_one_was_asked_for_or_not(
    signed: Path, keys: KeyPair, content: bytes | dict[str, object], problem: str, with_trust: bool
) -> None:
    file = signed / "manifest.sig"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.read_text("utf-8")), **content}).encode()
    file.write_bytes(content)
    with pytest.raises(BundleSignatureError, match=r"manifest\.sig: found") as caught:
        read_bundle(signed, trust(keys) if with_trust else None)
    assert problem in caught.value.found
    assert caught.value.code == "signature_unreadable"


@pytest.mark.skipif(OPENSSL is None, reason="no openssl on this system")
def test_openssl_agrees_on_keys_identifiers_and_signatures(
    certified_bundle: Path, tmp_path: Path
) -> None:
    def openssl(*arguments: object) -> bytes:
        command = [str(OPENSSL), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=True, cwd=certified_bundle).stdout

    key, public, raw = (tmp_path / name for name in ("k.pem", "k.pub.pem", "raw"))
    openssl("genpkey", "-algorithm", "ed25519", "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    signer = load_signer(key)
    der = openssl("pkey", "-pubin", "-in", public, "-outform", "DER")
    assert signer.key_id == sha256(der)

    sign_bundle(certified_bundle, signer)
    made = json.loads((certified_bundle / "manifest.sig").read_text("utf-8"))
    raw.write_bytes(base64.b64decode(made["signature"]))
    check = ("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", "manifest.json")
    assert b"Verified Successfully" in openssl(*check, "-sigfile", raw)

    openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", "manifest.json", "-out", raw)
    made["signature"] = base64.b64encode(raw.read_bytes()).decode()
    (certified_bundle / "manifest.sig").write_text(json.dumps(made), "utf-8")
    assert read_bundle(certified_bundle, Trust.in_files([public])).trusted


def test_a_bundle_is_signed_where_it_lies_and_again_with_a_new_key(
    certified_bundle: Path, keys: KeyPair, tmp_path: Path
) -> None:
    before = {file.name: file.read_bytes() for file in certified_bundle.iterdir()}
    for pair in (keys, make_keys(tmp_path, "next")):
        bundle = sign_bundle(certified_bundle, load_signer(pair.private))
        assert bundle.signature is not None
        assert read_bundle(certified_bundle, trust(pair)).trusted
    after = {file.name: file.read_bytes() for file in certified_bundle.iterdir()}
    assert after.pop("manifest.sig").endswith(b"}\n")
    assert after == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".partial")] == []


def test_a_failed_signing_leaves_the_earlier_signature(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    before = (signed / "manifest.sig").read_bytes()
    signer = load_signer(make_keys(tmp_path, "next").private)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(BundleError, match="No space left"):
        sign_bundle(signed, signer)
    assert (signed / "manifest.sig").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".partial")] == []


def test_a_zip_and_a_damaged_bundle_are_not_signed(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(signed.iterdir()):
            archive.write(file, file.name)
    with pytest.raises(BundleError, match="sign the folder"):
        sign_bundle(path, load_signer(keys.private))
    (signed / "golden.npz").write_bytes(b"x")
    with pytest.raises(BundleIntegrityError):
        sign_bundle(signed, load_signer(keys.private))


def test_a_bundle_in_memory_is_trusted_only_by_the_key_it_was_read_with(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    require_trusted(read_bundle(signed, trust(keys)), trust(keys))
    other = make_keys(tmp_path, "other")
    unread = replace(read_bundle(signed), trusted=False)
    for bundle, trusted in (
        (unread, trust(keys)),
        (read_bundle(signed, trust(keys)), trust(other)),
    ):
        with pytest.raises(BundleSignatureError) as caught:
            require_trusted(bundle, trusted)
        assert caught.value.code == "unverified"


# --- keys ---


def test_an_encrypted_key_takes_its_password_from_the_environment_or_from_whoever_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_keys(tmp_path, "locked", password=b"secret")
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "secret"

    assert load_signer(pair.private, ask=ask).key_id == trust(pair).key_ids()[0]
    assert asked == ["Password of locked.pem: "]
    monkeypatch.setenv(PASSWORD, "secret")
    assert load_signer(pair.private, ask=ask).key_id == trust(pair).key_ids()[0]
    assert len(asked) == 1
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(BundleSignatureError) as caught:
        load_signer(pair.private)
    assert caught.value.code == "signing_key"
    assert "wrong" not in str(caught.value)


def test_an_encrypted_key_without_a_terminal_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_keys(tmp_path, "locked", password=b"secret")
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(BundleSignatureError, match="no terminal and no MAMMOCLIP_KEY_PASSWORD"):
        load_signer(pair.private)


def test_an_open_key_asks_for_nothing(keys: KeyPair) -> None:
    def ask(question: str) -> str:
        raise AssertionError(question)

    load_signer(keys.private, ask=ask)


def key_of_another_kind(tmp_path: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub.pem"
    private.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_what_is_no_key_is_refused(tmp_path: Path, keys: KeyPair) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "long").write_bytes(bytes(100_000))
    private, public = key_of_another_kind(tmp_path)
    for path, found in (
        (tmp_path / "absent", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / "long", "more than 65536 bytes"),
        (tmp_path / "text", "no key that opens"),
        (keys.public, "a public key"),
        (private, "a private key of another kind"),
    ):
        with pytest.raises(BundleSignatureError) as caught:
            load_signer(path)
        assert (caught.value.code, found in caught.value.found) == ("signing_key", True), path
    for path, found in (
        (tmp_path / "absent", "cannot be read"),
        (tmp_path / "long", "more than 65536 bytes"),
        (tmp_path / "text", "no public key in PEM"),
        (keys.private, "a private key"),
        (public, "a public key of another kind"),
    ):
        with pytest.raises(BundleSignatureError) as caught:
            Trust.in_files([path]).key_ids()
        assert (caught.value.code, found in caught.value.found) == ("trust_key", True), path


def test_of_several_keys_the_one_that_is_none_is_named(signed: Path, keys: KeyPair) -> None:
    public, private = keys.public.read_bytes(), keys.private.read_bytes()
    for data, found in ((b"hello", "no public key in PEM"), (private, "a private key")):
        with pytest.raises(BundleSignatureError, match=found) as caught:
            read_bundle(signed, Trust(public_keys=(public, data)))
        assert (caught.value.code, caught.value.subject) == ("trust_key", "trusted key 2")


def test_a_key_of_the_wrong_half_is_named_with_what_to_do(tmp_path: Path, keys: KeyPair) -> None:
    locked = make_keys(tmp_path, "locked", password=b"secret")
    for path in (keys.private, locked.private):
        with pytest.raises(BundleSignatureError) as caught:
            Trust.in_files([keys.public, path])
        assert (caught.value.subject, caught.value.found) == (str(path), "a private key")
        assert "A private key does not belong on a workstation" in caught.value.remedy
    with pytest.raises(BundleSignatureError) as caught:
        load_signer(keys.public)
    assert (caught.value.subject, caught.value.found) == (str(keys.public), "a public key")
    assert caught.value.expected == "an Ed25519 private key in PEM"
    assert caught.value.remedy == "Name the private key that belongs to it."


def test_a_bundle_behind_a_link_is_signed_where_it_lies(
    certified_bundle: Path, tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "current"
    link.symlink_to(certified_bundle)
    moved: list[Path] = []
    replace_file = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (moved.append(self.parent), replace_file(self, to))[1]
    )
    sign_bundle(link, load_signer(keys.private))
    assert moved == [certified_bundle.resolve().parent]  # the link's own folder may be another disk
    assert read_bundle(certified_bundle, Trust.in_files([keys.public])).trusted


def test_no_key_at_all_trusts_nothing(signed: Path) -> None:
    error = refusal(signed, Trust(public_keys=()))
    assert (error.code, error.found) == ("trust_key", "no key to trust")


def test_without_cryptography_only_signatures_are_missing(
    signed: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = trust(keys)
    load = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.split(".")[0] == "cryptography":
            raise ImportError("No module named 'cryptography'")
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert read_bundle(signed).manifest.name == "tiny"
    for action in (lambda: read_bundle(signed, trusted), lambda: load_signer(keys.private)):
        with pytest.raises(BundleSignatureError, match=r"mammoclip-sdk\[signing\]") as caught:
            action()
        assert caught.value.code == "signing_not_installed"


def test_what_is_signed_is_the_manifest_as_it_is_written(signed: Path) -> None:
    text = (signed / "manifest.json").read_text("utf-8")
    assert text == manifest_to_json(read_bundle(signed).manifest)
