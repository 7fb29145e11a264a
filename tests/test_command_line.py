"""The command: its help, its usage errors, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import exams
import pytest
from command import COMMAND, run

import mammoclip_sdk
from mammoclip_sdk import predictor, sessions


def test_a_name_that_no_file_can_have_is_refused(tiny_bundle: Path, exam: Path) -> None:
    for arguments in (
        ["predict", "x" * 300, "--bundle", tiny_bundle],
        ["predict", exam, "--bundle", "x" * 300],
        ["bundle", "inspect", "x" * 300],
        ["predict", exam, "--bundle", tiny_bundle, "--report", "x" * 300],
    ):
        result = run(*arguments)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2
        assert "xxx: found " in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "x", "--nonsense"],
        ["nonsense"],
        ["bundle", "inspect"],
        ["bundle", "nonsense"],
        ["bundle", "sign", "x"],
        ["scan"],
    ],
)
def test_a_usage_error_is_json_where_json_was_asked_for(arguments: list[str]) -> None:
    result = run(*arguments, "--json")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    told = json.loads(result.stdout)["error"]
    assert list(told) == ["type", "code", "reason", "subject", "found", "expected", "remedy"]
    assert (told["type"], told["code"]) == ("UsageError", "usage")
    assert told["found"]
    assert result.stderr == f"UsageError: {told['found']}\n"
    plain = run(*arguments)
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert "Usage: " in plain.stderr


@pytest.mark.parametrize(
    "arguments",
    [["predict", ""], ["scan", ""], ["bundle", "inspect", ""], ["demo", "--report="]],
)
def test_an_empty_argument_is_not_the_folder_one_is_in(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams.write_exam(tmp_path, exams.PLAIN)
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "one of the arguments is empty" in result.stderr
    told = json.loads(run(*arguments, "--json").stdout)["error"]
    assert (told["type"], "is empty" in told["found"]) == ("UsageError", True)


def test_asking_for_json_changes_no_exit_code(tiny_bundle: Path, tmp_path: Path) -> None:
    assert run("bundle", "verify", tiny_bundle, "--json").exit_code == 0
    assert run("bundle", "verify", tmp_path / "absent", "--json").exit_code == 2
    assert run("predict", "--json", "--help").exit_code == 0


@pytest.mark.parametrize("command", [["predict"], ["demo"], ["bundle", "verify"]])
def test_help_names_every_device_and_precision(command: list[str]) -> None:
    words = " ".join(run(*command, "--help").stdout.replace("│", " ").split())
    for name in (*sessions.DEVICES, *sessions.PRECISIONS):
        assert name in words


def test_help_names_the_exit_codes_and_version_the_version() -> None:
    for arguments in (
        ["--help"],
        ["predict", "--help"],
        ["scan", "--help"],
        ["bundle", "inspect", "--help"],
        ["bundle", "verify", "--help"],
        ["bundle", "sign", "--help"],
        ["bundle", "accept", "--help"],
        ["engine", "build", "--help"],
    ):
        words = " ".join(run(*arguments).stdout.split())
        assert "3 read, but not scored (abstained), or nothing that scan takes for an exam" in words
    assert run("--version").stdout == f"mammoclip-sdk {mammoclip_sdk.__version__}\n"


def test_help_loads_none_of_the_heavy_modules() -> None:
    code = (
        "import sys\nfrom mammoclip_sdk.__main__ import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pydicom', 'imagecodecs', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_defect_shows_as_one(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(predictor.Predictor, "predict", broken)
    result = run("predict", exam, "--bundle", tiny_bundle)
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_a_warning_is_one_line_on_stderr() -> None:
    code = (
        "import warnings\nfrom mammoclip_sdk import __main__ as command\n"
        "command.app = lambda: warnings.warn('a GPU that\\n does not open', RuntimeWarning)\n"
        "command.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "RuntimeWarning: a GPU that\\n does not open\n")


def test_an_interrupt_ends_quietly(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor.Predictor, "predict", interrupted)
    result = run("predict", exam, "--bundle", tiny_bundle)
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["words", "json"])
def test_a_reader_that_goes_away_is_no_defect(tiny_bundle: Path, more: list[str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "bundle", "inspect", str(tiny_bundle), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (141, b"")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device here is always full")
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_cannot_be_written_is_no_defect(
    tiny_bundle: Path, tmp_path: Path, stream: str, more: list[str]
) -> None:
    path = tiny_bundle if stream == "stdout" else tmp_path / "absent"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with FULL.open("w") as full:
        done = subprocess.run(
            [*COMMAND, "bundle", "inspect", str(path), *more],
            **{**pipes, stream: full},  # type: ignore[arg-type]
            text=True,
            check=False,
        )
    assert done.returncode == 2
    if stream == "stdout":
        assert done.stderr.startswith("MammoClipError: standard output: found a place that cannot")
        assert done.stderr.endswith(" [stdout]\n")
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell here closes stdout")
def test_a_command_whose_output_is_closed_does_its_work(tiny_bundle: Path) -> None:
    for path, code in ((tiny_bundle, 0), (tiny_bundle / "absent", 2)):
        inspect = [*COMMAND, "bundle", "inspect", str(path)]
        done = subprocess.run(
            ["sh", "-c", '"$@" >&-', "sh", *inspect], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert done.stderr.count("\n") == (code == 2)  # one line, of what is absent


def test_the_installed_command_refuses_without_a_traceback(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    command = shutil.which("mammoclip-sdk", path=str(Path(sys.executable).parent))
    for start in ([command] if command else [], COMMAND):
        if start:
            done = subprocess.run(
                [*start, "bundle", "verify", str(tmp_path / "absent")],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 2
            assert done.stderr.startswith("BundleNotFoundError: ")
            assert "Traceback" not in done.stderr
            assert done.stdout == ""
