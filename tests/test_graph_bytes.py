"""Graphs as bytes: whole, with their weights inside, and as the manifest describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import altered, tiny_graph, with_file
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from mammoclip_sdk.bundle import Bundle, Tensor, read_bundle
from mammoclip_sdk.bundle.graphs import require_whole
from mammoclip_sdk.errors import BundleFormatError, InferenceError
from mammoclip_sdk.sessions import open_session


def with_graph(path: Path, graph: bytes) -> Bundle:
    return with_file(path, "model.fp32.onnx", graph)


def test_bytes_that_are_no_graph_are_refused(tiny_bundle: Path) -> None:
    for graph in (b"", b"not a graph", tiny_graph()[:-200]):
        with pytest.raises(InferenceError, match="does not load"):
            open_session(with_graph(tiny_bundle, graph), "auto")


def test_weights_outside_the_hashed_bytes_are_not_loaded(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(tiny_graph())
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    set_external_data(weights, "weights.bin", offset=0, length=len(weights.raw_data))
    weights.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InferenceError, match="External data: its weights lie in another file"):
        open_session(with_graph(tiny_bundle, model.SerializeToString()), "cpu")


def outside() -> onnx.TensorProto:
    """A tensor whose values lie in a file."""
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "weights")
    set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return tensor


def in_a_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    branch = helper.make_graph([], "b", [], [], [tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "F", [], ["c"], [node], opset)
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def in_sparse_values(tensor: onnx.TensorProto) -> onnx.ModelProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(tensor, indices, [1])
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
    return helper.make_model(graph)


@pytest.mark.parametrize("place", [in_a_constant, in_a_branch, in_a_function, in_sparse_values])
def test_weights_outside_are_found_wherever_a_tensor_may_lie(
    tiny_bundle: Path, place: Callable[[onnx.TensorProto], onnx.ModelProto]
) -> None:
    inside = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    whole = place(inside).SerializeToString()
    assert require_whole(with_graph(tiny_bundle, whole), graph) == whole
    with pytest.raises(InferenceError, match="External data"):
        require_whole(with_graph(tiny_bundle, place(outside()).SerializeToString()), graph)


def test_a_graph_that_is_cut_off_or_bottomless_is_refused_and_not_followed(
    tiny_bundle: Path,
) -> None:
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    deep = helper.make_graph([], "g", [], [])
    for _ in range(25):
        deep = helper.make_graph([helper.make_node("If", ["x"], [], then_branch=deep)], "g", [], [])
    for data, found in (
        (tiny_graph()[:-200], "bytes too late"),
        (b"\xff" * 12, "a number without end"),
        (b"\x3b", "wire type 3"),
        (b"\x38\x01", "field 7 is no message"),
        (helper.make_model(deep).SerializeToString(), "more than 64 deep"),
    ):
        with pytest.raises(InferenceError, match=found):
            require_whole(with_graph(tiny_bundle, data), graph)


def test_a_graph_must_have_the_inputs_and_outputs_of_its_manifest(tiny_bundle: Path) -> None:
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    shape = graph.inputs[0].shape
    for changed in (
        replace(graph, inputs=(replace(graph.inputs[0], name="image"),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(*shape[:-1], 25)),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(1, *shape[1:])),)),
        replace(graph, inputs=(*graph.inputs, Tensor(name="x", shape=(1,), dtype="float32"))),
        replace(graph, outputs=(replace(graph.outputs[0], dtype="float16"),)),
    ):
        with pytest.raises(BundleFormatError, match=r"model\.fp32\.onnx"):
            open_session(altered(tiny_bundle, graphs=(changed,)), "cpu")
