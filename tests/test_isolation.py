"""A decoder that crashes, hangs or swells costs one image an error, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import spawn
from pathlib import Path

import exams
import numpy as np
import pydicom
import pytest
from exams import VARIANTS

from mammoclip_sdk import pixels
from mammoclip_sdk.errors import DeviceError, InputError
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.isolation import IsolatedDecoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ROW = {variant.name: variant for variant in VARIANTS}
IN_CHILD = """
import os, sys, time
sys.path[:] = {path!r}
from mammoclip_sdk import pixels
from mammoclip_sdk.isolation import process as decoding_process
decode, answer = pixels._decode, decoding_process._answer
def bad_decode(image, levels):
    if image.name == "bad":
        {decode}
    return decode(image, levels)
def bad_answer(image, levels, result):
    said = answer(image, levels, result)
    if image.name == "bad":
        {answer}
    return said
pixels._decode, decoding_process._answer = bad_decode, bad_answer
decoding_process.serve()
"""


def child(*, decode: str = "pass", answer: str = "pass") -> list[str]:
    """A child whose decoder, or whose answer, goes wrong for the image called ``bad``."""
    code = IN_CHILD.format(path=sys.path, decode=decode, answer=answer)
    return [sys.executable, "-P", "-c", code]


def children() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exam")
    names = ("explicit-le", "rle", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000-lossless", "signed")
    return {name: exams.write_exam(folder / name, ROW[name])[0] for name in names}


@pytest.fixture
def image(paths: dict[str, Path]) -> Callable[[str], SourceImage]:
    return lambda name: SourceImage(view=View.LCC, name=name, path=paths["explicit-le"])


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    running, open_before = children(), descriptors()
    yield
    assert children() <= running
    assert descriptors() == open_before


def code_of(decoder: IsolatedDecoder, image: SourceImage) -> str:
    with pytest.raises(InputError) as caught:
        decoder.decode(image)
    assert caught.value.subject == image.name
    busy = caught.value.remedy.startswith("If the machine was busy, try again; otherwise take ")
    assert busy == (caught.value.code == "decoder_timeout")
    return caught.value.code


def test_a_child_gives_what_this_process_would(paths: dict[str, Path]) -> None:
    with IsolatedDecoder(1) as decoder:
        for path in paths.values():
            for image in (
                SourceImage(view=View.LCC, name="x", path=path),
                SourceImage(view=View.LCC, name="x", dataset=pydicom.dcmread(path)),
            ):
                for levels in (0, 2):
                    expected = pixels.decode(image, levels=levels)
                    stored = decoder.decode(image, levels=levels)
                    assert np.array_equal(stored.pixels, expected.pixels)
                    assert stored.sha256 == expected.sha256
                    assert stored.reduction == expected.reduction
                    assert stored.transfer_syntax == expected.transfer_syntax
                    assert stored.display.windows == expected.display.windows
        array = np.full((70, 80), 9, np.uint8)
        assert decoder.decode(SourceImage(view=View.RCC, name="a", array=array)).pixels is array


def test_the_errors_of_a_child_are_those_of_this_process(tmp_path: Path) -> None:
    path = exams.write_exam(tmp_path, ROW["jpeg-ls"])[0]
    content = bytearray(path.read_bytes())
    content[-3000:-2990] = bytes(10)
    path.write_bytes(content)
    image = SourceImage(view=View.LCC, name="IM1", path=path)
    with pytest.raises(InputError) as expected:
        pixels.decode(image)
    with IsolatedDecoder(1) as decoder:
        for _ in range(2):
            with pytest.raises(type(expected.value)) as caught:
                decoder.decode(image)
            assert caught.value.to_dict() == expected.value.to_dict()
        assert len(decoder._idle) == 1  # the child goes on


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("decoder_crashed", child(decode="import ctypes; ctypes.string_at(0)")),
        ("decoder_crashed", child(decode="os.abort()")),
        ("decoder_crashed", child(decode="raise SystemExit")),
        ("decoder_crashed", child(decode="os.kill(os.getpid(), 9)")),
        ("decoder_memory", child(decode="bytearray(2**31)")),
        ("decoder_answer", child(answer="said['levels'] = 1")),
        ("decoder_answer", child(answer="said['levels'] = '0'")),
        ("decoder_answer", child(answer="said['levels'] = -1")),
        ("decoder_answer", child(answer="result[:2] = bytes([255, 255])")),
        ("decoder_answer", child(answer="said['error'] = 'KeyboardInterrupt'")),
        ("decoder_answer", child(answer="said['shape'] = [80, 96]")),
        ("decoder_crashed", child(answer="said = [said]")),
        ("decoder_crashed", child(answer="said = {'error': 70000 * 'x'}")),
    ],
)
def test_what_goes_wrong_in_a_child_costs_one_error(
    image: Callable[[str], SourceImage], code: str, command: list[str]
) -> None:
    with IsolatedDecoder(1, command=command) as decoder:
        expected = decoder.decode(image("good"))
        assert code_of(decoder, image("bad")) == code
        assert decoder.decode(image("good")).sha256 == expected.sha256
        assert code_of(decoder, image("bad")) == code


@pytest.mark.parametrize("hang", ["time.sleep(60)", "while True: pass"])
def test_a_hang_ends_at_the_deadline_while_others_go_on(
    image: Callable[[str], SourceImage], hang: str
) -> None:
    with IsolatedDecoder(2, seconds=2, command=child(decode=hang)) as decoder:
        decoder.decode(image("good"))
        codes: list[str] = []
        begin = time.monotonic()
        waiting = threading.Thread(target=lambda: codes.append(code_of(decoder, image("bad"))))
        waiting.start()
        for _ in range(5):
            decoder.decode(image("good"))
        assert waiting.is_alive()
        waiting.join()
        assert codes == ["decoder_timeout"]
        assert 1.9 < time.monotonic() - begin < 6
        decoder.decode(image("good"))


def test_processor_time_counts_for_each_image_alone(image: Callable[[str], SourceImage]) -> None:
    busy = "end = time.process_time() + 0.9\n        while time.process_time() < end: pass"
    with IsolatedDecoder(1, seconds=4, command=child(decode=busy)) as decoder:
        for _ in range(5):
            decoder.decode(image("bad"))
        [worker] = decoder._idle
        limits = Path(f"/proc/{worker._process.pid}/limits").read_text()
    rows = {line[:25].strip(): line[26:46].strip() for line in limits.splitlines()}
    assert rows["Max address space"] == str(2**30)
    assert rows["Max core file size"] == "0"
    assert int(rows["Max cpu time"]) <= 9


def test_a_file_changed_between_its_header_and_its_pixels_is_noticed(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    path = tmp_path / "view"
    path.write_bytes(paths["rle"].read_bytes())
    exchange = f"open({str(path)!r}, 'ab').write(bytes(2))"
    with IsolatedDecoder(1, command=child(decode=exchange)) as decoder:
        for name in ("good", "bad", "good"):
            image = SourceImage(view=View.LCC, name=name, path=path)
            if name == "good":
                decoder.decode(image)
            else:
                assert code_of(decoder, image) == "changed"


def test_a_library_that_prints_does_not_answer(image: Callable[[str], SourceImage]) -> None:
    noise = "print('x' * 99); os.write(1, b'y' * 99); os.write(2, b'z')"
    with IsolatedDecoder(1, command=child(decode=noise)) as decoder:
        stored = decoder.decode(image("bad"))
    assert np.array_equal(stored.pixels, pixels.decode(image("good")).pixels)


def test_pixels_are_out_of_a_childs_reach(image: Callable[[str], SourceImage]) -> None:
    with IsolatedDecoder(1) as decoder:
        first = decoder.decode(image("x"))
        before = first.pixels.copy()
        [worker] = decoder._idle
        worker._result._memory[: first.pixels.nbytes] = bytes(first.pixels.nbytes)
        assert np.array_equal(first.pixels, before)
        with pytest.raises(OSError, match="not permitted"):
            os.truncate(worker._result.name, 0)


def test_threads_share_one_decoder(image: Callable[[str], SourceImage]) -> None:
    expected = pixels.decode(image("x")).sha256
    hashes: list[str] = []

    def work() -> None:
        hashes.extend(decoder.decode(image("x")).sha256 for _ in range(10))

    with IsolatedDecoder(2) as decoder:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(decoder._idle) <= 2
    assert hashes == [expected] * 60


def test_where_there_are_no_children_an_error_says_so(
    image: Callable[[str], SourceImage],
) -> None:
    decoder = IsolatedDecoder(1)
    decoder.close()
    commands = (["/does/not/exist"], [sys.executable, "-c", "pass"])
    for unusable in (decoder, *(IsolatedDecoder(1, command=command) for command in commands)):
        with pytest.raises(DeviceError) as caught:
            unusable.decode(image("x"))
        assert caught.value.code == "isolation_unavailable"
        with pytest.raises(DeviceError):
            unusable.start()


@pytest.fixture
def executable() -> Iterator[Callable[[str | None], None]]:
    before = spawn.get_executable()
    yield multiprocessing.set_executable
    multiprocessing.set_executable(before)


def test_an_application_without_an_interpreter_is_told_to_name_one(
    executable: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        with pytest.raises(DeviceError, match=r"set_executable\(path\)") as caught:
            IsolatedDecoder()
        assert caught.value.code == "isolation_unavailable"
        assert "no interpreter" in caught.value.found

    for none in (None, ""):
        executable(none)
        refused()
    python = sys.executable
    executable(python)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    refused()
    monkeypatch.setattr(sys, "executable", "/opt/viewer/viewer")
    with IsolatedDecoder(1) as decoder:  # the interpreter that the application named
        decoder.start()
        assert len(decoder._idle) == 1
    executable("/bin/false")
    with pytest.raises(DeviceError, match="does not start"):
        IsolatedDecoder(1).start()


def test_a_child_that_was_started_decodes(image: Callable[[str], SourceImage]) -> None:
    with IsolatedDecoder(1) as decoder:
        decoder.start()
        [ready] = decoder._idle
        decoder.start()
        decoder.decode(image("x"))
        assert decoder._idle == [ready]


def test_the_callers_script_is_not_run_again_and_no_child_outlives_it(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:] = {sys.path!r}
        from pathlib import Path
        with open({str(tmp_path / "runs")!r}, "a") as runs:
            runs.write("x")
        from mammoclip_sdk.exam import SourceImage, View
        from mammoclip_sdk.isolation import IsolatedDecoder
        decoder = IsolatedDecoder(1)
        path = Path({str(paths["rle"])!r})
        decoder.decode(SourceImage(view=View.LCC, name="x", path=path))
        print(decoder._idle[0]._process.pid)
        """)
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, check=True)
    assert done.stderr == b""
    assert (tmp_path / "runs").read_text() == "x"
    assert not Path(f"/proc/{int(done.stdout)}").exists()
