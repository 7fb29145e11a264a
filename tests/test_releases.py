"""Accepted releases: a trusted bundle never goes back in silence, nor is the record begun anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from conftest import FakeSession, KeyPair, make_keys, tiny_embedding, tiny_files, tiny_manifest
from signed import signature

from mammoclip_sdk import Predictor
from mammoclip_sdk.bundle import Trust, read_bundle, releases, write_bundle
from mammoclip_sdk.bundle.releases import COMMAND, USE, Release
from mammoclip_sdk.bundle.trusted import accept_release
from mammoclip_sdk.errors import BundleReleaseError, BundleSignatureError, InferenceError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, keys: KeyPair) -> Write:
    """Write a signed release of the tiny bundle."""

    def written(release: int, pair: KeyPair = keys, name: str = "tiny") -> Path:
        files = tiny_files()
        changes = {"release": release, "version": f"{release}.0", "name": name}
        path = tmp_path / f"{name}-{release}-{pair.public.stem}"
        manifest = replace(tiny_manifest(files), **changes)
        if path.exists():
            return path
        write_bundle(path, manifest, files, signature=signature(manifest, pair))
        return path

    return written


@pytest.fixture
def trust(keys: KeyPair) -> Trust:
    return Trust.in_files([keys.public])


def use(path: Path, trust: Trust) -> None:
    Predictor(path, session=FakeSession(), trust=trust).close()


def entries(folder: Path, name: str = "releases.json") -> list[tuple[int, str]]:
    record = json.loads((folder / name).read_text("utf-8"))
    return [(entry["accepted"]["release"], entry["by"]) for entry in record["acceptances"]]


def test_an_older_release_is_refused_before_any_graph_is_loaded(
    write: Write, trust: Trust, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer, older = write(5), write(4)
    use(older, trust)
    use(newer, trust)
    monkeypatch.setattr("mammoclip_sdk.predictor.open_session", None)
    for action in (lambda: Predictor(older, trust=trust), lambda: read_bundle(older, trust)):
        with pytest.raises(BundleReleaseError) as caught:
            action()
        error = caught.value
        assert (error.code, error.subject) == ("release_rolled_back", "tiny 4.0")
        assert error.found == "release 4"
        assert error.expected.startswith("release 5 (5.0, accepted 2")
        assert "mammoclip-sdk bundle accept" in error.remedy
    assert read_bundle(newer, trust).trusted
    assert entries(own_state) == [(4, "use"), (5, "use")]


def test_reading_records_nothing_and_the_same_release_is_recorded_once(
    write: Write, trust: Trust, own_state: Path
) -> None:
    path = write(5)
    read_bundle(path, trust)
    assert not (own_state / "releases.json").exists()
    use(path, trust)
    before = (own_state / "releases.json").read_bytes()
    use(path, trust)
    assert (own_state / "releases.json").read_bytes() == before
    assert entries(own_state) == [(5, "use")]
    assert sorted(entry.name for entry in own_state.iterdir()) == [
        "releases.json",
        "releases.json.lock",
    ]


def test_without_a_trusted_key_nothing_is_recorded(write: Write, own_state: Path) -> None:
    Predictor(write(5), session=FakeSession()).close()
    assert list(own_state.iterdir()) == []


def test_a_release_whose_golden_exams_fail_is_not_recorded(
    write: Write, trust: Trust, own_state: Path
) -> None:
    wrong = FakeSession(compute=lambda views: -tiny_embedding(views))
    with pytest.raises(InferenceError, match="golden exams whose logits"):
        Predictor(write(5), session=wrong, trust=trust)
    assert list(own_state.iterdir()) == []
    use(write(4), trust)
    assert entries(own_state) == [(4, "use")]


def test_bundles_of_another_name_count_for_themselves(write: Write, trust: Trust) -> None:
    use(write(5), trust)
    use(write(1, name="other"), trust)
    with pytest.raises(BundleReleaseError):
        use(write(4), trust)


@pytest.mark.parametrize("name", ["TINY", "\uff54iny", "Tiny"])
def test_a_name_in_other_letters_is_no_other_bundle(write: Write, trust: Trust, name: str) -> None:
    use(write(5, name=name), trust)
    with pytest.raises(BundleReleaseError, match="release 5"):
        read_bundle(write(4), trust)


def test_two_bundles_of_one_release_number_are_each_recorded_once(
    write: Write, trust: Trust, tmp_path: Path, own_state: Path, keys: KeyPair
) -> None:
    other = tmp_path / "other"
    files, manifest = tiny_files(), replace(tiny_manifest(tiny_files()), release=5)
    write_bundle(other, manifest, files, signature=signature(manifest, keys))
    for _ in range(3):
        use(write(5), trust)
        use(other, trust)
    assert entries(own_state) == [(5, "use")] * 2
    use(write(6), trust)
    accept_release(
        read_bundle(other, replace(trust, allow_older=True)),
        replace(trust, allow_older=True),
        by=COMMAND,
    )
    use(write(6), trust)  # and what was accepted before that does not stand in for it
    assert [number for number, _ in entries(own_state)] == [5, 5, 6, 5, 6]


def test_a_vendor_goes_on_counting_with_another_key(
    write: Write, trust: Trust, keys: KeyPair, tmp_path: Path
) -> None:
    following = make_keys(tmp_path, "following")
    both = Trust.in_files([keys.public, following.public])
    use(write(5), both)
    use(write(6, following), both)
    with pytest.raises(BundleReleaseError, match="expected release 6"):
        use(write(5), both)  # signed by a key that is still trusted
    use(write(1, following), Trust.in_files([following.public], accepted=tmp_path / "fresh.json"))


def test_releases_of_a_key_that_is_not_trusted_do_not_count(
    write: Write, trust: Trust, tmp_path: Path
) -> None:
    stranger = make_keys(tmp_path, "stranger")
    use(write(9, stranger), Trust.in_files([stranger.public]))
    use(write(5), trust)


def test_an_older_release_is_accepted_on_purpose_and_that_is_noted(
    write: Write, trust: Trust, own_state: Path
) -> None:
    newer, older = write(5), write(4)
    use(newer, trust)
    asked = replace(trust, allow_older=True)
    replaced = accept_release(read_bundle(older, asked), asked, by=COMMAND)
    assert replaced is not None
    assert (replaced.release, replaced.version) == (5, "5.0")
    use(older, trust)
    assert entries(own_state) == [(5, "use"), (4, "command")]
    use(newer, trust)
    with pytest.raises(BundleReleaseError):
        use(older, trust)


def test_to_allow_older_ones_is_not_enough_to_put_one_to_use(write: Write, trust: Trust) -> None:
    use(write(5), trust)
    with pytest.raises(BundleReleaseError, match="found release 4"):
        use(write(4), replace(trust, allow_older=True))


def test_a_bundle_in_memory_is_held_against_the_record_again(write: Write, trust: Trust) -> None:
    older = read_bundle(write(4), trust)
    use(write(5), trust)
    with pytest.raises(BundleReleaseError):
        Predictor(older, session=FakeSession(), trust=trust)


def test_another_process_may_have_accepted_a_later_release_meanwhile(
    write: Write, trust: Trust, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer, record = write(4), write(5), own_state / "releases.json"
    use(newer, trust)
    theirs = record.read_bytes()
    record.unlink()
    lock = releases._lock

    def after_the_other(file: IO[bytes]) -> None:
        lock(file)
        record.write_bytes(theirs)

    monkeypatch.setattr(releases, "_lock", after_the_other)
    with pytest.raises(BundleReleaseError, match="found release 4; expected release 5"):
        use(older, trust)
    assert record.read_bytes() == theirs


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"schema": 2, "acceptances": []}',
        b'{"schema": 1, "acceptances": [], "comment": ""}',
        b'{"schema": 1, "acceptances": [{"accepted": null, "at": "", "by": "use"}]}',
    ],
)
def test_a_damaged_record_is_an_error_and_stays_as_it_is(
    write: Write, trust: Trust, own_state: Path, content: bytes
) -> None:
    record = own_state / "releases.json"
    record.write_bytes(content)
    for action in (
        lambda: read_bundle(write(5), trust),
        lambda: Predictor(write(6), session=FakeSession(), trust=trust),
    ):
        with pytest.raises(BundleReleaseError, match="backup") as caught:
            action()
        assert (caught.value.code, caught.value.subject) == ("releases_damaged", str(record))
        assert f"bundle accept BUNDLE --trust KEY --accepted {record}." in caught.value.remedy
    assert record.read_bytes() == content


def test_an_entry_of_an_unknown_kind_is_damage(write: Write, trust: Trust, own_state: Path) -> None:
    use(write(5), trust)
    record = own_state / "releases.json"
    record.write_text(record.read_text("utf-8").replace('"use"', '"hearsay"'), "utf-8")
    with pytest.raises(BundleReleaseError, match="neither use nor command"):
        read_bundle(write(6), trust)


def test_a_record_that_is_a_folder_is_damage(write: Write, trust: Trust, own_state: Path) -> None:
    (own_state / "releases.json").mkdir()
    with pytest.raises(BundleReleaseError, match="cannot be read"):
        read_bundle(write(5), trust)


def test_a_link_to_a_record_is_followed_and_stays_a_link(
    write: Write, trust: Trust, own_state: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "site" / "accepted.json"
    shared.parent.mkdir()
    link = own_state / "releases.json"
    link.symlink_to(shared)
    for _ in range(2):  # a disk that is not there is no first use
        with pytest.raises(BundleReleaseError, match="leads nowhere") as caught:
            read_bundle(write(5), trust)
        assert caught.value.code == "releases_damaged"
    link.unlink()
    use(write(5), trust)
    link.replace(shared)
    link.symlink_to(shared)
    use(write(6), trust)
    assert link.is_symlink()
    assert entries(shared.parent, "accepted.json") == [(5, "use"), (6, "use")]
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(BundleReleaseError, match="leads nowhere"):
        read_bundle(write(7), trust)


def test_where_nothing_can_be_recorded_the_bundle_is_not_used(
    write: Write, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "releases.json"
    with pytest.raises(BundleReleaseError) as caught:
        use(write(5), replace(trust, accepted=path))
    assert caught.value.code == "releases_unwritable"

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = write(5)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BundleReleaseError, match="No space left") as caught:
        use(path, trust)
    assert caught.value.code == "releases_unwritable"
    assert "MAMMOCLIP_STATE" in caught.value.remedy


def test_a_folder_that_may_not_be_made_is_named(
    write: Write, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(5)

    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(BundleReleaseError, match="Permission denied") as caught:
        use(path, replace(trust, accepted=tmp_path / "site" / "accepted.json"))
    assert caught.value.code == "releases_unwritable"
    assert caught.value.subject == str(tmp_path / "site" / "accepted.json")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_named(
    write: Write, trust: Trust, own_state: Path
) -> None:
    own_state.chmod(0o500)
    try:
        with pytest.raises(BundleReleaseError, match="Permission denied") as caught:
            use(write(5), trust)
        assert caught.value.code == "releases_unwritable"
    finally:
        own_state.chmod(0o700)


def test_a_record_that_says_it_already_need_not_be_written(
    write: Write, trust: Trust, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(5)
    use(path, trust)
    monkeypatch.setattr(releases, "_write", None)
    monkeypatch.setattr(releases, "_locked", None)
    use(path, trust)


def test_what_another_process_recorded_meanwhile_is_not_recorded_again(
    write: Write, trust: Trust, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = releases._locked

    @contextmanager
    def after_another(file: Path) -> Iterator[None]:
        monkeypatch.setattr(releases, "_locked", lock)
        use(write(5), trust)
        with lock(file):
            yield

    monkeypatch.setattr(releases, "_locked", after_another)
    use(write(5), trust)
    assert entries(own_state) == [(5, "use")]


def test_processes_do_not_lose_one_anothers_entries(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "releases.json"
    code = (
        "import sys\nfrom pathlib import Path\nfrom mammoclip_sdk.bundle.releases import *\n"
        "for number in range(5):\n"
        "    one = Release(bundle=f'{sys.argv[2]}-{number}', release=1, version='1',"
        " sha256='0' * 64, key_id='k')\n"
        "    accept(one, ('k',), Path(sys.argv[1]), by=USE)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(file), str(number)])
        for number in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    record = json.loads(file.read_text("utf-8"))
    assert len({entry["accepted"]["bundle"] for entry in record["acceptances"]}) == 20


def test_a_lock_that_is_never_released_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "releases.json"
    monkeypatch.setattr(releases, "_PATIENCE", 0.1)
    one = Release(bundle="b", release=1, version="1", sha256="0" * 64, key_id="k")
    with releases._locked(file), pytest.raises(BundleReleaseError) as caught:
        releases.accept(one, ("k",), file, by=USE)
    assert caught.value.code == "releases_unwritable"
    assert releases.accept(one, ("k",), file, by=USE) is None


def test_where_the_record_is_kept(
    tmp_path: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert releases.record_file(tmp_path / "mine.json") == tmp_path / "mine.json"
    assert releases.record_file(None) == own_state / "releases.json"
    monkeypatch.delenv("MAMMOCLIP_STATE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, folder in (
        ("linux", tmp_path / "xdg" / "mammoclip-sdk"),
        ("darwin", tmp_path / "Library" / "Application Support" / "mammoclip-sdk"),
        ("win32", tmp_path / "local" / "mammoclip-sdk"),
    ):
        monkeypatch.setattr(releases.sys, "platform", platform)
        assert releases.record_file(None) == folder / "releases.json"


def test_a_user_without_a_home_has_to_name_a_place(
    write: Write, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_STATE_HOME", "LOCALAPPDATA", "MAMMOCLIP_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    path, nowhere = write(5), replace(trust, accepted=None)
    with pytest.raises(BundleReleaseError, match="a user without a home folder") as caught:
        read_bundle(path, nowhere)
    assert caught.value.code == "releases_unwritable"
    assert caught.value.remedy == ("Name a file with --accepted, or a folder with MAMMOCLIP_STATE.")
    assert read_bundle(path, replace(trust, accepted=tmp_path / "named.json")).trusted
    monkeypatch.setenv("MAMMOCLIP_STATE", str(tmp_path))
    assert read_bundle(path, nowhere).trusted


def test_what_opening_failed_after_is_closed_again(
    write: Write, trust: Trust, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession()
    monkeypatch.setattr("mammoclip_sdk.predictor.open_session", lambda *a, **k: session)

    def read_only(*arguments: object) -> None:
        raise OSError(30, "read-only")

    path = write(5)
    monkeypatch.setattr(Path, "replace", read_only)
    with pytest.raises(BundleReleaseError, match="read-only"):
        Predictor(path, trust=trust)
    assert session.closed


def test_the_answer_says_which_trusted_key_signed(write: Write, trust: Trust) -> None:
    scorer = Predictor(write(5), session=FakeSession(), trust=trust)
    assert scorer.provenance.signed_by == trust.key_ids()[0]
    assert Predictor(write(6), session=FakeSession()).provenance.signed_by is None


def test_an_unverified_bundle_is_not_accepted(write: Write, trust: Trust) -> None:
    with pytest.raises(BundleSignatureError):
        accept_release(read_bundle(write(5)), trust, by=COMMAND)
