"""`mammoclip-sdk engine`: build device engines for this machine, list and prune what there is."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mammoclip_sdk.commands.options import (
    AcceptedFile,
    AsJson,
    BundlePath,
    TrustedKeys,
    trust_of,
)
from mammoclip_sdk.commands.output import CODES, failures, print_json, print_lines
from mammoclip_sdk.errors import EngineError

if TYPE_CHECKING:
    from mammoclip_sdk.bundle import Bundle
    from mammoclip_sdk.engines import Status

app = typer.Typer(
    help="Build device engines (TensorRT, TensorRT for RTX), list and prune them.",
    no_args_is_help=True,
)

Engines = Annotated[
    Path | None,
    typer.Option(
        "--engines",
        help="The folder of engines; without it MAMMOCLIP_ENGINES, or else the user's own cache. "
        "predict takes engines from those two.",
    ),
]
Bundles = Annotated[
    list[Path] | None,
    typer.Argument(help="Bundles whose graphs count; without any, those of all."),
]


@app.command(epilog=CODES)
def build(
    bundle: BundlePath,
    flavour: Annotated[
        str,
        typer.Option(help="tensorrt_rtx (needs no GPU to build) or tensorrt."),
    ],
    precision: Annotated[
        str | None,
        typer.Option(help="fp16 or fp32; without it fp16 where the bundle has it, or else fp32."),
    ] = None,
    engines: Engines = None,
    max_batch: Annotated[int, typer.Option(help="Most exams in one run.")] = 32,
    level: Annotated[
        int, typer.Option(help="Of optimisation, 0 (built quickest) to 5 (tried longest).")
    ] = 3,
    target: Annotated[
        str | None,
        typer.Option(
            help="tensorrt_rtx: any (default, compute capability 8.0 on), current, or one such as "
            "sm75."
        ),
    ] = None,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
    as_json: AsJson = False,
) -> None:
    """Build an engine of a bundle's graph; on a GPU that it fits, run the golden exams with it."""
    with failures(as_json):
        from mammoclip_sdk import engines as device_engines
        from mammoclip_sdk.bundle import read_bundle
        from mammoclip_sdk.bundle.graphs import has_graph
        from mammoclip_sdk.golden import prove

        source = read_bundle(bundle, trust_of(trust, accepted))
        if precision is None:
            precision = "fp16" if has_graph(source, "fp16") else "fp32"
        built = device_engines.build(
            source,
            flavour=flavour,
            precision=precision,
            engines=engines,
            max_batch=max_batch,
            level=level,
            target=target,
        )
        status = device_engines.status(prove(source, built))
        if as_json:
            print_json(_plain(status))
        else:
            print_lines(_lines(status), wrap=False)


@app.command("list", epilog=CODES)
def list_engines(bundles: Bundles = None, engines: Engines = None, as_json: AsJson = False) -> None:
    """Say of every engine whether it can be used here, and why not."""
    with failures(as_json):
        from mammoclip_sdk import engines as device_engines

        _require_folder(engines)
        found = device_engines.survey(engines, _read(bundles))
        if as_json:
            print_json([_plain(status) for status in found])
        elif found:
            print_lines((line for status in found for line in _lines(status)), wrap=False)
        else:
            print_lines([f"No engines in {device_engines.engines_folder(engines)}."], wrap=False)


@app.command(epilog=CODES)
def prune(bundles: Bundles = None, engines: Engines = None, as_json: AsJson = False) -> None:
    """Remove engines that cannot be used on this machine any more, and what builds left behind.

    With bundles, also the engines of every other graph.
    """
    with failures(as_json):
        from mammoclip_sdk import engines as device_engines
        from mammoclip_sdk.strict_json import to_plain

        _require_folder(engines)
        removed = device_engines.prune(engines, _read(bundles))
        if as_json:
            print_json([to_plain(one) for one in removed])
            return
        lines = [f"removed {one.path}: {one.reason}" for one in removed]
        lines.append(f"{len(removed)} removed from {device_engines.engines_folder(engines)}.")
        print_lines(lines, wrap=False)


def _require_folder(engines: Path | None) -> None:
    """Refuse a named folder that is none: "no engines" would be said of a slip of the pen.

    The default folder may be one that no build has made yet.
    """
    if engines is None:
        return
    try:
        mode = engines.stat().st_mode
    except OSError as error:
        found = f"nothing that can be read ({error.strerror})"
    else:
        if stat.S_ISDIR(mode):
            return
        found = "something that is no folder"
    raise EngineError(
        str(engines),
        found=found,
        expected="the folder that engines were built into",
        remedy="Check the path; without --engines it is MAMMOCLIP_ENGINES, or the user's own "
        "cache.",
        code="engine_missing",
    )


def _read(paths: list[Path] | None) -> tuple[Bundle, ...]:
    from mammoclip_sdk.bundle import read_bundle

    return tuple(read_bundle(path) for path in paths or ())


def _plain(status: Status) -> dict[str, Any]:
    from mammoclip_sdk.strict_json import to_plain

    engine = status.entry.engine
    return {
        "path": str(status.entry.path),
        "usable": not status.misfits,
        "active": status.active,
        "misfits": [misfit.text for misfit in status.misfits],
        "sidecar": None if engine is None else to_plain(engine.sidecar),
    }


def _lines(status: Status) -> Iterator[Text]:
    engine = status.entry.engine
    yield Text(str(status.entry.path), "bold")
    if engine is not None:
        known = engine.sidecar
        yield Text(
            f"  {known.flavour} {known.version}, {known.precision}, target {known.target}, "
            f"up to {known.max_batch} exams a run, {known.plan_bytes / 1e6:.1f} MB"
        )
        yield Text(f"  of {known.bundle}, built {known.built} in {known.build_seconds:.1f} s")
        yield Text(f"  parity: {known.parity}")
        for one in known.golden:
            worst = one.worst_difference
            found = "an answer that is no embedding"
            if worst is not None:
                found = f"worst logit difference {worst:.3g}, at most {one.tolerance:.3g}"
            yield Text(
                f"    {one.gpu.name}, driver {one.gpu.driver}: {one.exams} golden exams, {found}"
            )
    if status.misfits:
        yield Text(f"  not usable: {'; '.join(misfit.text for misfit in status.misfits)}")
    elif status.active:
        yield Text("  active: the golden exams agreed on this GPU and driver")
    elif status.parity is None:
        yield Text("  usable, not active: the golden exams run when it is first loaded")
    else:
        yield Text("  not active: the golden exams failed on this GPU and driver")
