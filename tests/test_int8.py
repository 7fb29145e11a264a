"""The graph in eight bits: how far it moves probabilities, that it is in eight bits, and why."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from encoders import model
from onnx import TensorProto, helper
from sklearn.metrics import roc_auc_score

from export import int8
from export.exams import parity_exams
from export.fold import fold
from export.int8 import CalibrationError, QuantizationError, quantize
from export.products import equalise, observe, rewritten, take_products
from export.to_onnx import to_onnx
from training.data import PREPROCESSING

SIZE = (48, 32)
ARCHITECTURE = {
    "embed_dim": 64,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
GATE, AUC_GATE = 0.02, 0.005
PRODUCTS = 13
"""Four for each of three blocks, and the last block's queries of their own."""
THIN = 6
"""Up-projections of the adapters."""


def graph_of(reference):
    return to_onnx(fold(reference.float()), "fp32")


@pytest.fixture(scope="module")
def fp32():
    return graph_of(model(architecture=ARCHITECTURE, size=SIZE))


@pytest.fixture(scope="module")
def calibration():
    return phantoms(seed=5)[0][:32]


@pytest.fixture(scope="module")
def judged():
    return phantoms(seed=6)


def phantoms(seed):
    preprocessing = PREPROCESSING.__class__(
        **{**vars(PREPROCESSING), "height": SIZE[0], "width": SIZE[1]}
    )
    views, labels = parity_exams(preprocessing, seed=seed)
    phantom = labels >= 0
    return views[phantom] / np.float32(255), labels[phantom]


@pytest.fixture(scope="module")
def contrasts(fp32, calibration):
    """So steep that probabilities are all over their range, along what the exams differ most in."""
    embeddings = run(fp32, calibration)
    direction = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)[2][:1]
    return (16 * direction).astype(np.float32)


@pytest.fixture(scope="module")
def eight_bits(fp32, calibration, contrasts):
    return quantize(fp32, calibration, contrasts)


def run(graph, views, batch=8):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    parts = [views[start : start + batch] for start in range(0, len(views), batch)]
    return np.concatenate([session.run(None, {"views": part})[0] for part in parts])


def facts(graph):
    return {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}


def probabilities(logits):
    return 1 / (1 + np.exp(-logits))


# The gates


def test_probabilities_and_auc_stay_within_the_certificates_gates(
    fp32, eight_bits, judged, contrasts
):
    views, labels = judged
    expected, found = (run(graph, views) @ contrasts[0] for graph in (fp32, eight_bits))
    centre = np.median(expected)  # probabilities around one half, where they move most
    expected, found = probabilities(expected - centre), probabilities(found - centre)
    assert len(views) >= 64
    assert expected.std() > 2 * GATE
    assert 0 < np.abs(found - expected).max() <= GATE
    assert abs(roc_auc_score(labels, found) - roc_auc_score(labels, expected)) <= AUC_GATE


def test_openvino_computes_what_onnx_runtime_computes(fp32, eight_bits, judged, tmp_path):
    openvino = pytest.importorskip("openvino")
    (tmp_path / "model.onnx").write_bytes(eight_bits)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(tmp_path / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    views = judged[0][:8]
    found = compiled({"views": views})[0]
    exact, other = run(fp32, views), run(eight_bits, views)
    assert np.linalg.norm(found - other) < 0.5 * np.linalg.norm(other - exact)
    types = [node.get_rt_info()["runtimePrecision"].astype(str) for node in products_of(compiled)]
    assert sum(kind in ("u8", "i8") for kind in types) >= len(types) / 2


def products_of(compiled):
    return [
        node
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")
    ]


def test_exams_of_a_batch_do_not_see_each_other(eight_bits, judged):
    views = judged[0][:3]
    assert np.abs(run(eight_bits, views, batch=3) - run(eight_bits, views, batch=1)).max() < 1e-5


# In eight bits, in truth


def test_products_are_in_eight_bits_after_onnx_runtime_has_optimised_the_graph(
    eight_bits, tmp_path
):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(eight_bits, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    left = facts(eight_bits)["float32_products"].split(", ")
    in_eight_bits = [node for node in nodes if node.op_type.startswith("MatMulInteger")]
    assert len(in_eight_bits) == PRODUCTS + THIN - len(left) >= PRODUCTS / 2
    assert not [node for node in nodes if node.op_type == "DequantizeLinear"]


def test_weights_are_signed_bytes_without_a_float_copy(fp32, calibration, contrasts, monkeypatch):
    monkeypatch.setattr(int8, "LARGEST_MOVE", np.inf)
    monkeypatch.setattr(int8, "TYPICAL_MOVE", np.inf)
    data = quantize(fp32, calibration, contrasts)
    matrices = {
        kind: sum(
            int(np.prod(tensor.dims))
            for tensor in onnx.load_from_string(data).graph.initializer
            if len(tensor.dims) == 2 and tensor.data_type == kind
        )
        for kind in (TensorProto.INT8, TensorProto.FLOAT)
    }
    sizes = [
        (product.weight.size, product.weight.shape) for product in take_products(fp32)[1].values()
    ]
    thin = sum(size for size, shape in sizes if shape == (4, 64))
    assert matrices[TensorProto.INT8] == sum(size for size, _ in sizes) - thin
    assert matrices[TensorProto.FLOAT] == thin + 64 * 64  # and the projection
    assert len(data) < 0.5 * len(fp32)


def test_interface_and_facts_are_those_of_the_float32_graph(fp32, eight_bits):
    given, made = onnx.load_from_string(fp32), onnx.load_from_string(eight_bits)
    assert list(made.graph.input) == list(given.graph.input)
    assert list(made.graph.output) == list(given.graph.output)
    assert list(made.opset_import) == list(given.opset_import)
    assert made.producer_name == "mammoclip-sdk"
    changed = {"precision": "int8", "float32_products": facts(eight_bits)["float32_products"]}
    assert facts(eight_bits) == facts(fp32) | changed
    onnx.checker.check_model(made)


def test_the_same_arguments_give_the_same_bytes_in_another_process(
    fp32, calibration, contrasts, eight_bits, tmp_path
):
    (tmp_path / "fp32.onnx").write_bytes(fp32)
    np.savez(tmp_path / "given.npz", exams=calibration, contrasts=contrasts)
    program = (
        "import hashlib, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from export.int8 import quantize\n"
        "folder = Path(sys.argv[1])\n"
        "given = np.load(folder / 'given.npz')\n"
        "data = quantize((folder / 'fp32.onnx').read_bytes(), given['exams'], given['contrasts'])\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-1] == hashlib.sha256(eight_bits).hexdigest()


# Steps


def test_equalising_is_exact_and_brings_channels_to_one_range(calibration):
    reference = small_model_with_outlier()
    graph, products = take_products(graph_of(reference))
    expected, observed = observe(graph_of(reference), products, calibration)
    normed = [name for name, product in products.items() if product.norm]
    before = {name: spread(observed[name]) for name in normed}
    equalise(graph.graph, products, observed)
    assert len(normed) == 7
    assert all(spread(observed[name]) < before[name] / 2 for name in normed)
    found = run(rewritten(graph, products, {}), calibration)
    assert np.abs(found - expected).max() < 1e-5


def small_model_with_outlier():
    """Raise one channel of the tokens far above all others, as large vision transformers do."""
    reference = model(architecture=ARCHITECTURE, size=SIZE).float()
    reference.image.ln_pre.weight.data[3] = 40
    return reference


def spread(seen):
    """Return how many times wider than the usual channel the widest is."""
    channels = np.maximum(-seen.lowest, seen.highest)
    return float(channels.max() / np.median(channels))


def test_an_outlying_channel_costs_less_for_being_equalised(calibration, contrasts, monkeypatch):
    graph = graph_of(small_model_with_outlier())
    monkeypatch.setattr(int8, "LARGEST_MOVE", np.inf)
    monkeypatch.setattr(int8, "TYPICAL_MOVE", np.inf)
    expected = run(graph, calibration)
    equalised = np.linalg.norm(run(quantize(graph, calibration, contrasts), calibration) - expected)
    monkeypatch.setattr(int8, "equalise", lambda *_: None)
    plain = np.linalg.norm(run(quantize(graph, calibration, contrasts), calibration) - expected)
    assert equalised < 0.7 * plain


def test_what_harms_most_goes_back_to_float32(fp32, calibration, contrasts, monkeypatch):
    def moves(data):
        return (run(data, calibration) - run(fp32, calibration)) @ contrasts[0]

    monkeypatch.setattr(int8, "LARGEST_MOVE", np.inf)
    monkeypatch.setattr(int8, "TYPICAL_MOVE", np.inf)
    everything = moves(quantize(fp32, calibration, contrasts))
    typical = float(np.sqrt((everything**2).mean()))
    monkeypatch.setattr(int8, "TYPICAL_MOVE", 0.7 * typical)
    data = quantize(fp32, calibration, contrasts)
    assert np.sqrt((moves(data) ** 2).mean()) <= 0.7 * typical
    left = facts(data)["float32_products"].split(", ")
    assert THIN < len(left) < PRODUCTS + THIN


def test_a_graph_that_moves_too_far_in_any_case_is_refused(
    fp32, calibration, contrasts, monkeypatch
):
    monkeypatch.setattr(int8, "LARGEST_MOVE", 1e-6)
    with pytest.raises(QuantizationError, match=r"times too far .* expected 1e-06 or less"):
        quantize(fp32, calibration, contrasts)


# Refusals


def changed(exams, **how):
    exams = exams.copy()
    if "value" in how:
        exams[3, 1, 0, 2, 2] = how["value"]
    if "constant" in how:
        exams[3] = how["constant"]
    return exams


@pytest.mark.parametrize(
    ("alter", "found"),
    [
        (lambda exams: changed(exams, value=np.nan), "not finite"),
        (lambda exams: changed(exams, value=np.inf), "not finite"),
        (lambda exams: changed(exams, value=1.5), r"values from 0 to 1\.5"),
        (lambda exams: changed(exams, constant=0.5), "exam 3 has one value everywhere"),
        (lambda exams: np.repeat(exams[:1], 8, axis=0), "the same exam 8 times"),
        (lambda exams: exams[:7], r"float32 \(7, 4, 1, 48, 32\)"),
        (lambda exams: exams[:, :3], r"float32 \(32, 3, 1, 48, 32\)"),
        (lambda exams: exams[..., :16], r"float32 \(32, 4, 1, 48, 16\)"),
        (lambda exams: exams.astype(np.float64), r"float64 \(32, 4, 1, 48, 32\)"),
    ],
)
def test_exams_that_cannot_be_calibrated_on_are_refused(fp32, calibration, contrasts, alter, found):
    with pytest.raises(CalibrationError, match=rf"found .*{found}.*; expected float32 \(N, 4, 1"):
        quantize(fp32, alter(calibration), contrasts)


@pytest.mark.parametrize(
    "alter",
    [
        lambda contrasts: contrasts[0],
        lambda contrasts: contrasts[:, :-1],
        lambda contrasts: contrasts[:0],
        lambda contrasts: contrasts * np.float32(np.nan),
        lambda contrasts: 0 * contrasts,
        lambda contrasts: contrasts.astype(np.float64),
    ],
)
def test_contrasts_that_mean_nothing_are_refused(fp32, calibration, contrasts, alter):
    with pytest.raises(CalibrationError, match=r"contrasts: found .*expected float32 \(K, 64\)"):
        quantize(fp32, calibration, alter(contrasts))


def test_a_graph_without_products_is_refused(calibration, contrasts):
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["views"], ["embedding"])],
        "g",
        [helper.make_tensor_value_info("views", TensorProto.FLOAT, ["batch", 4, 1, *SIZE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", None])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(QuantizationError, match="found no product"):
        quantize(data.SerializeToString(), calibration, contrasts)
