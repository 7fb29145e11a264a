"""The matrix products of tokens and weights in a float32 graph: found, observed, rewritten.

Nothing here decides what is rounded, or how; see `export.int8` and `export.rounding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.rounding import Floats, Observed, Range, equalising_factor
from mammoclip_sdk.sessions import ort

_ROWS_OF_AN_EXAM = 128
"""Most tokens of each exam that are kept as a sample of every product's activations."""
_SAMPLE_BYTES = 512 * 2**20
"""Of all samples together: a large model is sampled by fewer tokens of an exam."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product of tokens and constant weights (K, N)."""

    output: str
    """The value it makes; names the product."""
    input: str
    weight_name: str
    weight: Floats
    norm: str | None
    """The value of the norm that it reads, itself or some rows of it."""


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A product in eight bits."""

    input: Range
    weights: NDArray[np.int8]
    scales: Floats


def take_products(data: bytes) -> tuple[onnx.ModelProto, dict[str, Product]]:
    """Return a graph without the weights of its products, and these by the name of what they make.

    A product is one of tokens and constant weights. So every weight is in memory once; `rewritten`
    puts them back.
    """
    model = onnx.load_from_string(data)
    products = {product.output: product for product in _products(model.graph)}
    taken = {product.weight_name for product in products.values()}
    for tensor in model.graph.initializer:
        if tensor.name in taken:
            tensor.ClearField("raw_data")
    # a message keeps the memory of what it held: only another one is small
    return onnx.load_from_string(model.SerializeToString()), products


def observe(
    graph: bytes, products: Mapping[str, Product], exams: NDArray[np.float32]
) -> tuple[Floats, dict[str, Observed]]:
    """Run the float32 graph on exams; return embeddings (N, D) and what each product reads."""
    widths = {product.input: len(product.weight) for product in products.values()}
    names = sorted(widths)
    rows = _SAMPLE_BYTES // (4 * len(exams) * sum(widths.values()))
    seen = {name: _Seen(max(1, min(rows, _ROWS_OF_AN_EXAM))) for name in names}
    more = onnx.ModelProto()
    more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(graph + more.SerializeToString())  # one message after another merges
    embeddings = []
    for number, exam in enumerate(exams):
        embedding, *values = session.run(None, {"views": exam[np.newaxis]})
        embeddings.append(embedding)
        for name, value in zip(names, values, strict=True):
            seen[name].add(value.reshape(-1, value.shape[-1]), number)
        del values, value  # before the next exam's are there
    observed = {name: seen.pop(name).observed() for name in names}
    return np.concatenate(embeddings), {
        name: observed[product.input] for name, product in products.items()
    }


def open_session(graph: bytes) -> Any:
    """Open a graph in ONNX Runtime on the CPU; return its ``InferenceSession``."""
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # failures come as exceptions
    options.enable_cpu_mem_arena = False  # what it keeps for the next run is most of a graph
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def equalise(
    graph: onnx.GraphProto, products: dict[str, Product], observed: dict[str, Observed]
) -> None:
    """Divide what norms hand on, channel by channel, and multiply the weights that read it.

    The graph computes the same as before: a norm's gain takes the one, the products behind it the
    other. All three arguments are changed; the weights reach the graph by `rewritten`.
    """
    for norm in graph.node:
        readers = [product for product in products.values() if product.norm == norm.output[0]]
        if not readers or _read_otherwise(graph, norm.output[0], readers):
            continue
        first = max(readers, key=lambda product: observed[product.output].rows)
        together = np.concatenate([product.weight for product in readers], axis=1)
        factor = equalising_factor(observed[first.output], together)
        for position, kind in enumerate(("gain", "bias")[: len(norm.input) - 1], start=1):
            old = next(t for t in graph.initializer if t.name == norm.input[position])
            norm.input[position] = f"{norm.output[0]}.{kind}"
            values = numpy_helper.to_array(old) / factor
            graph.initializer.append(numpy_helper.from_array(values, norm.input[position]))
        for product in readers:
            name = product.output
            products[name] = replace(product, weight=product.weight * factor[:, np.newaxis])
            observed[name] = observed[name].divided(factor)


def rewritten(
    model: onnx.ModelProto, products: Mapping[str, Product], rounded: Mapping[str, Rounded]
) -> bytes:
    """Return the graph with the products' present weights, in eight bits where they are rounded."""
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        name = node.output[0]
        if name in rounded:
            made, constants = _in_eight_bits(node, products[name], rounded[name])
        elif name in products:
            made, constants = _in_float(node, products[name])
        else:
            made, constants = [node], {}
        nodes += made
        tensors |= {key: numpy_helper.from_array(value, key) for key, value in constants.items()}
    used = dict.fromkeys(name for node in nodes for name in node.input if name in tensors)
    new = helper.make_model(
        helper.make_graph(
            nodes, graph.name, graph.input, graph.output, [tensors[name] for name in used]
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
    facts = {entry.key: entry.value for entry in model.metadata_props}
    kept = [name for name in products if name not in rounded]
    helper.set_model_props(
        new, facts | {"precision": "int8", "float32_products": ", ".join(kept) or "none"}
    )
    return new.SerializeToString(deterministic=True)


def _in_eight_bits(
    node: onnx.NodeProto, product: Product, rounded: Rounded
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Return the nodes of a product in eight bits, and its constants."""
    name = product.output
    scale, zero, weights, scales = (f"{name}.{part}" for part in _PARTS)
    stored, restored, matrix = (f"{name}.{part}" for part in ("stored", "restored", "matrix"))
    nodes = [
        helper.make_node("QuantizeLinear", [product.input, scale, zero], [stored]),
        helper.make_node("DequantizeLinear", [stored, scale, zero], [restored]),
        helper.make_node("DequantizeLinear", [weights, scales], [matrix], axis=1),
        helper.make_node("MatMul", [restored, matrix], [name], name=node.name),
    ]
    for added in nodes[:3]:
        added.name = f"{added.op_type}.{added.output[0]}"
    constants = (rounded.input.scale, rounded.input.zero_point, rounded.weights, rounded.scales)
    return nodes, dict(zip((scale, zero, weights, scales), map(np.asarray, constants), strict=True))


_PARTS = ("scale", "zero_point", "weights", "weight_scales")


def _in_float(
    node: onnx.NodeProto, product: Product
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    weights = f"{product.output}.weights"
    made = helper.make_node("MatMul", [product.input, weights], [product.output], name=node.name)
    return [made], {weights: product.weight}


def _products(graph: onnx.GraphProto) -> Iterator[Product]:
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            made = makers.get(node.input[0])
            if made is not None and made.op_type == "Slice":  # rows of class tokens
                made = makers.get(made.input[0])
            plain = made is not None and made.op_type == "LayerNormalization"
            yield Product(
                output=node.output[0],
                input=node.input[0],
                weight_name=node.input[1],
                weight=numpy_helper.to_array(weights[node.input[1]]),
                norm=made.output[0] if plain else None,
            )


class _Seen:
    """What a product reads, exam by exam."""

    def __init__(self, rows_of_an_exam: int) -> None:
        self.rows_of_an_exam = rows_of_an_exam
        self.samples: list[Floats] = []
        self.lowest: Floats | None = None
        self.highest: Floats | None = None
        self.rows = 0

    def add(self, tokens: Floats, number: int) -> None:
        """Take in one exam's tokens (rows, K); another exam shows other rows."""
        lowest, highest = tokens.min(axis=0), tokens.max(axis=0)
        self.lowest = lowest if self.lowest is None else np.minimum(self.lowest, lowest)
        self.highest = highest if self.highest is None else np.maximum(self.highest, highest)
        self.rows = len(tokens)
        step = max(1, len(tokens) // self.rows_of_an_exam)
        self.samples.append(tokens[number % step :: step][: self.rows_of_an_exam].copy())

    def observed(self) -> Observed:
        """Return all of it."""
        sample = np.concatenate(self.samples)
        return Observed(sample=sample, lowest=self.lowest, highest=self.highest, rows=self.rows)


def _read_otherwise(graph: onnx.GraphProto, value: str, readers: Sequence[Product]) -> bool:
    """Whether anything but these products reads a value, or the rows of it that they read."""
    values = {value} | {product.input for product in readers}
    known = {product.output for product in readers} | values
    return any(values & set(node.input) and node.output[0] not in known for node in graph.node)
