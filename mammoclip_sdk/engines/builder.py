"""A verified ONNX graph to a plan, in either flavour.

The graph's own types decide the precision (TensorRT 11 knows no other way), so what is float32 in
the graph stays float32: TF32, which TensorRT allows itself unless told otherwise, is off.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mammoclip_sdk.bundle import Bundle, Graph, Tensor
from mammoclip_sdk.bundle.graphs import check_signature, require_whole
from mammoclip_sdk.engines.flavour import RTX, Flavour
from mammoclip_sdk.engines.sidecar import Profile
from mammoclip_sdk.errors import DeviceError

PRECISIONS = ("fp16", "fp32")
"""Of the graphs that engines are built of."""
LEVELS = range(6)
"""Of the builder's optimisation; TensorRT clamps any other without a word."""
ANY, CURRENT = "any", "current"
_LOG_LINES = 40
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "DOUBLE": "float64"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked of the builder."""

    max_batch: int = 32
    """Most exams in one run; a session cuts larger batches into runs of that size."""
    optimum_batch: int = 1
    """Exams in a run that the engine is tuned for."""
    level: int = 3
    """0 (quickest to build) to 5 (quickest to run, perhaps)."""
    target: str | None = None
    """TensorRT for RTX: ``any`` (the default) for every GPU since compute capability 8.0,
    ``current``, or one compute capability such as ``sm75``. TensorRT: ``current`` alone."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the builder made, and of what."""

    data: bytes
    flags: tuple[str, ...]
    profiles: tuple[Profile, ...]
    target: str
    seconds: float
    log: tuple[str, ...]
    timing: bytes | None
    """TensorRT's timing cache, for the next build; None in the flavour that times nothing."""


def build_plan(
    flavour: Flavour, bundle: Bundle, graph: Graph, settings: Settings, *, timing: bytes | None
) -> Plan:
    """Build a plan; full TensorRT needs the GPU for it, TensorRT for RTX none.

    Parameters
    ----------
    timing
        What an earlier build left in `Plan.timing`; None without one.

    Raises
    ------
    DeviceError
        Settings that contradict one another, or that the flavour does not know.
    BundleFormatError
        The graph's inputs or outputs are not those of the manifest.
    InferenceError
        The graph keeps weights in another file, where nobody hashed them.
    EngineError
        TensorRT failed; with its log.
    """
    _check(settings)
    start, began = flavour.log.position, time.perf_counter()
    trt, call = flavour.module, flavour.call
    builder = call("make a builder", trt.Builder, flavour.logger)
    network = call("make a network", builder.create_network, _network_flags(trt))
    parser = call("make a parser", trt.OnnxParser, network, flavour.logger)
    call("parse the graph", parser.parse, require_whole(bundle, graph))
    inputs = [_described(network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [_described(network.get_output(i)) for i in range(network.num_outputs)]
    check_signature(bundle, graph, inputs, outputs)
    config = call("make a configuration", builder.create_builder_config)
    config.builder_optimization_level = settings.level
    config.clear_flag(trt.BuilderFlag.TF32)
    decomposed = _decompose_float32_attention(trt, network)
    target = _set_target(flavour, config, settings.target)
    profiles = tuple(_profile(tensor, settings) for tensor in graph.inputs)
    _add_profiles(flavour, builder, config, profiles)
    if flavour.name != RTX:
        cache = call("make a timing cache", config.create_timing_cache, timing or b"")
        call("take the timing cache", config.set_timing_cache, cache, False)
    memory = call("build the engine", builder.build_serialized_network, network, config)
    return Plan(
        data=bytes(memory),
        flags=("strongly typed", "TF32 off", f"float32 attention decomposed: {decomposed}"),
        profiles=profiles,
        target=target,
        seconds=round(time.perf_counter() - began, 3),
        log=flavour.log.since(start)[-_LOG_LINES:],
        timing=None if flavour.name == RTX else _timing(flavour, config),
    )


def _timing(flavour: Flavour, config: Any) -> bytes:
    cache = flavour.call("give its timing cache", config.get_timing_cache)
    return bytes(flavour.call("write its timing cache", cache.serialize))


def _check(settings: Settings) -> None:
    wrong = []
    if not 1 <= settings.optimum_batch <= settings.max_batch:
        wrong.append(f"batches of 1, {settings.optimum_batch} and {settings.max_batch}")
    if settings.level not in LEVELS:
        wrong.append(f"level {settings.level}")
    if wrong:
        raise DeviceError(
            "engine settings",
            found=", ".join(wrong),
            expected=f"1 <= optimum <= maximum, and a level of {LEVELS[0]} to {LEVELS[-1]}",
            remedy="Ask for others.",
        )


def _network_flags(trt: Any) -> int:
    """TensorRT 10 types a network strongly only when asked; 11 always does, and still knows it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _described(tensor: Any) -> Tensor:
    free = tuple(f"free{place}" if size < 0 else size for place, size in enumerate(tensor.shape))
    dtype = tensor.dtype.name
    return Tensor(name=tensor.name, shape=free, dtype=_DTYPES.get(dtype, dtype))


def _decompose_float32_attention(trt: Any, network: Any) -> int:
    """Let TensorRT make float32 attention of other operators: it has no kernel of its own for it.

    Without this, its build of such a graph fails. Returns how many there are.
    """
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = [
        layer
        for layer in layers
        if layer.type == kind and layer.get_input(0).dtype == trt.DataType.FLOAT
    ]
    for layer in found:
        layer.__class__ = trt.IAttentionInputLayer  # get_layer gives all layers their base class
        layer.attention.decomposable = True
    return len(found)


def _set_target(flavour: Flavour, config: Any, target: str | None) -> str:
    if flavour.name != RTX:
        if target not in (None, CURRENT):
            raise _no_target(flavour, target, (CURRENT,))
        return CURRENT
    if target in (None, ANY):
        return ANY
    known = flavour.module.ComputeCapability.__members__
    if target.upper() not in known or target.upper() == "NONE":
        raise _no_target(flavour, target, (ANY, *(k.lower() for k in known if k != "NONE")))
    config.num_compute_capabilities = 1
    flavour.call(
        f"take the target {target}", config.set_compute_capability, known[target.upper()], 0
    )
    return target.lower()


def _no_target(flavour: Flavour, target: str, known: tuple[str, ...]) -> DeviceError:
    return DeviceError(
        f"target {target!r}",
        found=f"no target of {flavour.runtime}",
        expected=f"one of {', '.join(known)}",
        remedy="Name one of them, or leave it out.",
    )


def _profile(tensor: Tensor, settings: Settings) -> Profile:
    """Only the number of exams is free in a bundle's graph."""
    rest = tuple(int(size) for size in tensor.shape[1:])
    return Profile(
        name=tensor.name,
        minimum=(1, *rest),
        optimum=(settings.optimum_batch, *rest),
        maximum=(settings.max_batch, *rest),
    )


def _add_profiles(
    flavour: Flavour, builder: Any, config: Any, profiles: tuple[Profile, ...]
) -> None:
    added = flavour.call("make a profile", builder.create_optimization_profile)
    for profile in profiles:
        shapes = profile.minimum, profile.optimum, profile.maximum
        flavour.run(f"take batches of up to {shapes[2][0]}", added.set_shape, profile.name, *shapes)
    flavour.call("take the profile", config.add_optimization_profile, added)
