"""Fuzz the native core's C++ entry points under AddressSanitizer and UBSan, and record it.

    python -m assurance.native_fuzz --seconds 600 --out assurance/results/native_fuzz.json

Builds ``cpp/fuzz`` with clang's libFuzzer where that is, else with the system's compiler and the
small driver beside the targets, which mutates without feedback from coverage. The corpus grows
from run to run in ``build/native-fuzz``, where the inputs of crashes are kept too.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assurance.trial import Table, Trial, today, write_trial
from benchmarks.machine import describe_machine
from training.provenance import git_commit

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "native-fuzz"
SANITIZERS = "AddressSanitizer and UndefinedBehaviorSanitizer"
TARGETS = {
    "tensor": "find_breast, place, resample",
    "grey_values": "count_codes, grey_scale",
    "run_lengths": "decode_run_lengths",
    "jpeg": "decode_jpeg_lossless, jpeg_blocks_fault",
    "jpeg2000": "jpeg2000_fault",
}
"""Program ``fuzz_NAME`` of ``cpp/fuzz``, and the entry points that it calls."""

_SEEDS = 200
_SEED_BYTES = (64, 200, 500, 1500)
_MOST_SECONDS_AN_INPUT = 60  # by the wall clock, on a machine that may be busy
_MOST_MIB = 2048
_ARTIFACTS = {"crash": "crashes", "timeout": "hangs", "oom": "out of memory", "leak": "leaks"}
"""How libFuzzer names the input it stopped at; the driver of our own knows crashes alone.
It also keeps ``slow-unit-*``, which it did not stop at."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What mutates the inputs, and the compiler that goes with it."""

    name: str
    compiler: str
    version: str
    """First line of ``compiler --version``."""


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    """What came of one target."""

    target: str
    executions: int
    cpu_seconds: float
    wall_seconds: float
    edges: str
    """Reached, of all that there are; empty where the engine does not count them."""
    corpus_files: int
    corpus_bytes: int
    open: dict[str, int]
    report: str
    """The last of what the program wrote, for whoever has to mend it."""


def find_engine() -> Engine:
    """Return libFuzzer where clang can link it, else the driver of our own.

    Raises
    ------
    RuntimeError
        No compiler can link a program with sanitizers.
    """
    for name, compiler, flags in (
        ("libFuzzer", "clang++", "-fsanitize=fuzzer,address,undefined"),
        ("standalone driver", "g++", "-fsanitize=address,undefined"),
        ("standalone driver", "c++", "-fsanitize=address,undefined"),
    ):
        if _links(compiler, flags):
            said = subprocess.run([compiler, "--version"], capture_output=True, text=True)
            return Engine(name=name, compiler=compiler, version=said.stdout.splitlines()[0])
    raise RuntimeError(
        "no fuzzer: found no C++ compiler that links with -fsanitize=address,undefined; expected "
        "clang++ or g++. Install one, such as Debian's package clang."
    )


def _links(compiler: str, flags: str) -> bool:
    if shutil.which(compiler) is None:
        return False
    source = (
        "#include <cstddef>\n#include <cstdint>\n"
        'extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) { return 0; }\n'
    )
    if "fuzzer" not in flags:
        source += "int main() { return 0; }\n"
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, flags, "-x", "c++", "-", "-o", f"{folder}/program"]
        return subprocess.run(command, input=source, text=True, capture_output=True).returncode == 0


def build(
    engine: Engine,
    folder: Path,
    *,
    source: Path = ROOT / "cpp",
    targets: Iterable[str] = tuple(TARGETS),
) -> Path:
    """Compile the core and fuzz targets; return the folder of the programs.

    Raises
    ------
    RuntimeError
        They do not compile; the message ends with what the compiler said.
    """
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")])}
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise RuntimeError("no cmake: found none; expected it beside Python. Run: make test")
    ninja = shutil.which("ninja", path=environment["PATH"])
    compiler = f"-DCMAKE_CXX_COMPILER={engine.compiler}"
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    programs = [f"fuzz_{target}" for target in targets]
    configure = [cmake, "-S", source, "-B", folder, "-DMAMMOCLIP_FUZZ=ON", compiler, *generator]
    for command in (configure, [cmake, "--build", folder, "--target", *programs]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"the fuzz targets do not compile:\n{(done.stdout + done.stderr)[-4000:]}"
            )
    return folder / "fuzz"


def write_seeds(corpus: Path) -> None:
    """Fill an empty corpus with bytes of several lengths, always the same ones."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    source = random.Random(1)  # noqa: S311, no secret
    for number in range(_SEEDS):
        length = _SEED_BYTES[number % len(_SEED_BYTES)]
        (corpus / f"seed-{number:03}").write_bytes(source.randbytes(length))


def fuzz(target: str, programs: Path, engine: Engine, *, seconds: float, folder: Path) -> Fuzzed:
    """Run one target; its corpus and the inputs that it stopped at are kept in the folder."""
    corpus, kept = folder / "corpus" / target, folder / "stopped-at" / target
    write_seeds(corpus)
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    command = [programs / f"fuzz_{target}", f"-max_total_time={seconds:.0f}"]
    command += [f"-artifact_prefix={kept}/"]
    if engine.name == "libFuzzer":
        command += [f"-timeout={_MOST_SECONDS_AN_INPUT}", f"-rss_limit_mb={_MOST_MIB}"]
        command += ["-print_final_stats=1"]
    before, start = _cpu_seconds_of_children(), time.monotonic()
    hangs = 0
    with tempfile.TemporaryFile() as log:
        try:
            code = subprocess.run(
                [*command, corpus], stdout=log, stderr=log, timeout=seconds + 120
            ).returncode
        except subprocess.TimeoutExpired:
            code, hangs = 1, 1
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
    files = list(corpus.iterdir())
    return Fuzzed(
        target=target,
        executions=int(_last(r"number_of_executed_units: (\d+)", said) or 0),
        cpu_seconds=_cpu_seconds_of_children() - before,
        wall_seconds=time.monotonic() - start,
        edges=_edges(said),
        corpus_files=len(files),
        corpus_bytes=sum(file.stat().st_size for file in files),
        open=_open(kept, hangs, code),
        report=said[-4000:],
    )


def _cpu_seconds_of_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return str(found[-1]) if found else ""


def _edges(said: str) -> str:
    reached, there = _last(r"cov: (\d+)", said), _last(r"\((\d+) PCs\)", said)
    return f"{reached} of {there}" if reached and there else ""


def _open(kept: Path, hangs: int, code: int) -> dict[str, int]:
    """Count what a run stopped at; a program that failed and kept nothing crashed all the same."""
    found = dict.fromkeys(_ARTIFACTS.values(), 0)
    for file in kept.iterdir():
        kind = _ARTIFACTS.get(file.name.partition("-")[0])
        if kind is not None:
            found[kind] += 1
    if hangs:
        return found | {"crashes": 0, "hangs": 1}
    if code != 0 and not any(found.values()):
        found["crashes"] = 1
    return found


def trial_of(engine: Engine, runs: list[Fuzzed], command: str) -> Trial:
    """Put the runs into one record."""
    return Trial(
        title="Native core",
        account=(
            f"The C++ entry points, compiled with {SANITIZERS} and called with whatever arguments "
            f"{engine.name} ({engine.version}) makes of its bytes: sizes, rectangles, masks, "
            "windows and tables that fit and that do not. A failure is any report of a sanitizer, "
            "any exception but std::invalid_argument, a result that is not finite or out of "
            "range, and anything but 0 where nothing was placed."
        ),
        command=command,
        date=today(),
        commit=git_commit(),
        machine=describe_machine(),
        executions=sum(run.executions for run in runs),
        cpu_seconds=round(sum(run.cpu_seconds for run in runs), 1),
        wall_seconds=round(sum(run.wall_seconds for run in runs), 1),
        peak_mib=None,
        slowest_cpu_seconds=None,
        corpus_files=sum(run.corpus_files for run in runs),
        corpus_bytes=sum(run.corpus_bytes for run in runs),
        open={kind: sum(run.open[kind] for run in runs) for kind in _ARTIFACTS.values()},
        rates=(),
        tables=(
            Table(
                caption="Executions by entry point",
                columns=("entry points", "executions", "CPU seconds", "edges", "corpus", "open"),
                rows=tuple(
                    (
                        TARGETS[run.target],
                        f"{run.executions:,}",
                        f"{run.cpu_seconds:.0f}",
                        run.edges or "not counted",
                        f"{run.corpus_files:,} files",
                        str(sum(run.open.values())),
                    )
                    for run in runs
                ),
            ),
        ),
        notes=(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Build, run every target, write the record; 1 when something is open."""
    parser = argparse.ArgumentParser(description="Fuzz the native core.")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--out", type=Path, required=True, help="the record, FILE.json")
    asked = parser.parse_args(arguments)
    engine = find_engine()
    folder = WORK / engine.compiler
    programs = build(engine, folder / "cmake")
    runs = []
    for target in TARGETS:
        run = fuzz(target, programs, engine, seconds=asked.seconds, folder=folder)
        print(f"{target}: {run.executions:,} executions, open: {sum(run.open.values())}")
        if any(run.open.values()):
            print(run.report, file=sys.stderr)
        runs.append(run)
    command = f"python -m assurance.native_fuzz --seconds {asked.seconds:.0f} --out {asked.out}"
    write_trial(trial_of(engine, runs, command), asked.out)
    return int(any(any(run.open.values()) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
