"""What every runtime asks of a graph: the right one, with its weights in it, and as described.

Some runtimes take weights that a graph keeps in another file from the current folder, where nobody
hashed them. Such a graph is refused here, before any runtime sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle, Graph, Tensor
from mammoclip_sdk.errors import BundleFormatError, DeviceError, InferenceError

_GRAPH_OF = {"bf16": "fp32"}
"""A precision that a runtime makes of another one's graph."""


def has_graph(bundle: Bundle, precision: str) -> bool:
    """Whether the bundle may be run in the precision: it has the graph, and a tolerance for it."""
    wanted = _GRAPH_OF.get(precision, precision)
    held = any(graph.precision == wanted for graph in bundle.manifest.graphs)
    return held and precision in bundle.manifest.golden.tolerance


def graph_of(bundle: Bundle, precision: str) -> Graph:
    """Return the graph that is run in the precision: bf16 is the fp32 graph, rounded as it runs.

    Raises
    ------
    DeviceError
        The bundle has none, or no tolerance for the precision; the message says which it has.
    """
    wanted = _GRAPH_OF.get(precision, precision)
    for graph in bundle.manifest.graphs:
        if graph.precision == wanted and has_graph(bundle, precision):
            return graph
    present = [graph.precision for graph in bundle.manifest.graphs]
    certified = f", certified for {precision}" if wanted in present else ""
    raise DeviceError(
        f"{bundle.path}: precision {precision!r}",
        found=f"graphs in {', '.join(present)}",
        expected=f"one in {wanted}{certified}",
        remedy="Ask for a precision that the bundle has, or export the bundle with this one.",
    )


def require_whole(bundle: Bundle, graph: Graph) -> bytes:
    """Return the graph's verified bytes.

    Raises
    ------
    InferenceError
        They are no ONNX model, or its weights lie in another file.
    """
    data = bundle.files[graph.file]
    try:
        outside = any(_tensors_outside(memoryview(data), _MODEL))
    except (IndexError, ValueError) as error:
        raise load_error(bundle, graph, f"no ONNX model: {error}") from error
    if outside:
        raise load_error(bundle, graph, "External data: its weights lie in another file")
    return data


def load_error(bundle: Bundle, graph: Graph, reason: str, runtime: str = "") -> InferenceError:
    """Say that a graph does not load, for the runtime's own reason."""
    what = f"{runtime} does not load" if runtime else "does not load"
    return InferenceError(
        f"{bundle.path}: {graph.file}",
        found=f"a graph that {what} ({reason})",
        expected=f"a graph of opset {graph.opset} that it knows",
        remedy="Update the runtime, or export the bundle for an older opset.",
    )


def check_signature(
    bundle: Bundle, graph: Graph, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Compare what a runtime loaded with what the manifest promises; free sizes need no name.

    Raises
    ------
    BundleFormatError
        They differ.
    """
    pairs = (("inputs", graph.inputs, inputs), ("outputs", graph.outputs, outputs))
    for what, promised, loaded in pairs:
        if [_described(tensor) for tensor in promised] != [_described(other) for other in loaded]:
            raise BundleFormatError(
                f"{bundle.path}: {graph.file}",
                found=f"{what} {[(o.name, o.shape, o.dtype) for o in loaded]}",
                expected=f"those of the manifest, {[(t.name, t.shape, t.dtype) for t in promised]}",
                remedy="Make the bundle again with the exporter of this version.",
            )


def check_inputs(graph: Graph, runtime: str, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse arrays that are not the graph's inputs, before a runtime converts or crops them.

    Raises
    ------
    InferenceError
        Other names, types or sizes, or arrays of different numbers of exams.
    """
    wanted = {tensor.name: tensor for tensor in graph.inputs}
    found = {name: (value.dtype.name, value.shape) for name, value in tensors.items()}
    sizes = {value.shape[:1] for value in tensors.values()}
    fits = found.keys() == wanted.keys() and all(
        dtype == wanted[name].dtype and _fits(shape, wanted[name].shape)
        for name, (dtype, shape) in found.items()
    )
    if not fits or len(sizes) != 1:
        raise InferenceError(
            f"{graph.file} on {runtime}",
            found=f"inputs {found}",
            expected=f"{ {t.name: (t.dtype, t.shape) for t in graph.inputs} }",
            remedy="Build them with tensor.build.",
        )


def run_error(graph: Graph, runtime: str, error: Exception) -> InferenceError:
    """Say that a runtime failed while it ran."""
    return InferenceError(
        f"{graph.file} on {runtime}",
        found=f"a failure inside the runtime ({error})",
        expected="an embedding",
        remedy="Check free memory.",
    )


def closed_error(graph: Graph, runtime: str) -> InferenceError:
    """Say that a session was closed."""
    return InferenceError(
        f"{graph.file} on {runtime}",
        found="a closed session",
        expected="an open one",
        remedy="Open another session.",
    )


def _described(tensor: Tensor) -> tuple[object, ...]:
    free = [size if isinstance(size, int) else None for size in tensor.shape]
    return tensor.name, tensor.dtype, free


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(size, str) or size == found for found, size in zip(shape, wanted, strict=True)
    )


# The messages of onnx.proto that a tensor may lie in: field number -> message, by message.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _SPARSE, _TENSOR, _FUNCTION = range(7)
_FIELDS: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DEEPEST = 64


def _tensors_outside(message: memoryview, kind: int, depth: int = 0) -> Iterator[bool]:
    """Yield True for every mark of a tensor whose values lie in another file."""
    if depth > _DEEPEST:
        raise ValueError(f"graphs within graphs, more than {_DEEPEST} deep")
    for field, value in _fields(message):
        if kind == _TENSOR:
            yield field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)
        elif field in _FIELDS[kind]:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {field} is no message")
            yield from _tensors_outside(value, _FIELDS[kind][field], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk one protobuf message: the fields' numbers, with an integer or with bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        field, wire = key >> 3, key & 7
        if wire == 0:
            number, place = _varint(message, place)
            yield field, number
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + length > len(message):
            raise ValueError(f"field {field} ends {place + length - len(message)} bytes too late")
        yield field, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 64, 7):
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError(f"a number without end before byte {place}")
