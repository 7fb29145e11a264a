"""The gate before a bundle: labelled phantoms, PyTorch's answers, a certificate or no bundle."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conftest import tiny_files, tiny_graph, tiny_manifest
from onnx import numpy_helper
from rich.console import Console
from small_checkpoint import PREPROCESSING
from tiny_graphs import exams as tiny_exams
from tiny_graphs import many_bundle

from export import build_engine
from export import verify as gate
from export.exams import COUNT, RANGE_EXAMS, extremes, parity_exams, phantoms
from export.int8 import CALIBRATION_EXAMS
from export.settings import ExportConfig
from export.stages import Stages
from export.verify import ParityError, answered, verify
from mammoclip_sdk.errors import RuntimeNotInstalledError
from mammoclip_sdk.parity.comparison import Answers, compare
from mammoclip_sdk.sessions import open_session
from training.phantom import PhantomSettings, make_exam

SIZE = (48, 32)


@pytest.fixture(scope="module")
def made():
    return parity_exams(PREPROCESSING, seed=5)


def test_exams_are_labelled_phantoms_and_one_of_extremes(made):
    views, labels = made
    assert views.shape == (COUNT + 1, 4, 1, *SIZE)
    assert (views.dtype, labels.dtype) == (np.uint8, np.int8)
    assert labels.tolist() == [1, 0] * (COUNT // 2) + [-1]
    for index in (0, 1, 6, 7):
        settings = PhantomSettings(
            seed=5,
            rows=128,
            columns=104,
            malignant_share=float(index % 2 == 0),
            contrast=(0.3, 0.6),
        )
        assert make_exam(settings, index).malignant == (labels[index] == 1)


def test_phantoms_have_air_tissue_and_no_repetition(made):
    views = made[0][:-1]
    assert ((views == 0).mean(axis=(1, 2, 3, 4)) > 0.2).all()
    assert (views.max(axis=(1, 2, 3, 4)) > 128).all()
    assert len({view.tobytes() for view in views.reshape(-1, *SIZE)}) == 4 * COUNT


def test_the_last_exam_is_as_extreme_as_an_input_can_be(made):
    black, white, halves, checkerboard = made[0][-1, :, 0]
    assert (black == 0).all()
    assert (white == 255).all()
    for view in (halves, checkerboard):
        assert set(np.unique(view)) == {0, 255}
        assert (view == 255).mean() == 0.5


def test_the_same_seed_gives_the_same_exams_and_another_one_others(made):
    again = parity_exams(PREPROCESSING, seed=5)
    assert np.array_equal(again[0], made[0])
    other = parity_exams(PREPROCESSING, seed=6)[0]
    assert not np.array_equal(other[0], made[0][0])
    assert np.array_equal(other[-1], made[0][-1])


def test_phantoms_alone_are_the_first_of_the_parity_exams(made):
    views, labels = phantoms(PREPROCESSING, seed=5, count=3)
    assert np.array_equal(views, made[0][:3])
    assert labels.tolist() == [1, 0, 1]
    assert np.array_equal(extremes(PREPROCESSING), made[0][-1:])


def test_int8_is_calibrated_on_no_view_that_the_certificate_judges(monkeypatch):
    """Nor is any of them among the exams that its graph is given, behind that of extremes."""
    config = ExportConfig(checkpoint="c", out="o", precisions=("fp32", "fp16", "int8"), seed=5)
    answers = SimpleNamespace(record=SimpleNamespace(preprocessing=PREPROCESSING), findings=())
    given = {}
    stages = Stages(Console(quiet=True))
    for name in ("require_runtimes", "check_place", "check_description", "reference_graph"):
        monkeypatch.setattr(build_engine, name, lambda *_: None)
    monkeypatch.setattr(build_engine, "ask", lambda *_: (answers, None))
    monkeypatch.setattr(build_engine, "with_half", lambda _, e, exams, *__: given.update(h=exams))
    monkeypatch.setattr(build_engine, "with_int8", lambda _, exams, *__: given.update(i=exams))
    monkeypatch.setattr(build_engine, "certified", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_engine.main(config, stages)
    judged = {view.tobytes() for view in parity_exams(PREPROCESSING, seed=5)[0].reshape(-1, *SIZE)}
    calibrated = np.round(given["i"] * 255).astype(np.uint8)
    assert calibrated.shape == (CALIBRATION_EXAMS, 4, 1, *SIZE)
    assert judged.isdisjoint(view.tobytes() for view in calibrated.reshape(-1, *SIZE))
    assert np.array_equal(given["h"][0], extremes(PREPROCESSING)[0] / np.float32(255))
    assert np.array_equal(given["h"][1:], given["i"][:RANGE_EXAMS])


def test_a_certificate_over_too_few_exams_is_not_made():
    with pytest.raises(ValueError, match="found 63 parity exams; expected 64 or more"):
        parity_exams(PREPROCESSING, seed=5, count=63)


class Model:
    """Answers as a training model does: tensors in, tensors of length 1 out, one exam at a time."""

    def __init__(self, spoil=None):
        self.spoil, self.seen = spoil, []

    def encode_exam(self, images):
        assert not torch.is_grad_enabled()
        self.seen.append(images)
        rows = torch.stack([images.mean(dim=(1, 2, 3, 4)) + 0.1, *images.std(dim=(2, 3, 4)).T], 1)
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
        if self.spoil == len(self.seen) - 1:
            rows[0, 2] = torch.nan
        return rows / rows.norm(dim=1, keepdim=True)


FINDINGS = tiny_manifest(tiny_files()).findings


def test_the_reference_is_the_models_own_answer_exam_by_exam():
    views = np.random.default_rng(0).integers(0, 256, (3, 4, 1, 8, 8), np.uint8)
    model = Model()
    found = answered(model, FINDINGS, views, np.array([1, 0, -1], np.int8))
    assert [tuple(images.shape) for images in model.seen] == [(1, 4, 1, 8, 8)] * 3
    assert all(images.dtype == torch.float32 for images in model.seen)
    assert np.array_equal(model.seen[2][0].numpy(), views[2] / np.float32(255))
    with torch.no_grad():
        expected = [Model().encode_exam(images)[0].numpy() for images in model.seen]
    assert np.array_equal(found.embedding, np.stack(expected))
    scale = FINDINGS[0].logit_scale
    assert np.allclose(found.logits[:, 0], scale * found.embedding[:, :2], atol=1e-6)
    assert found.reference == f"PyTorch {torch.__version__}, float32, not folded"
    assert found.labels.tolist() == [1, 0, -1]


def test_a_model_that_answers_with_nan_is_no_reference():
    views = np.zeros((3, 4, 1, 8, 8), np.uint8)
    with pytest.raises(ParityError, match=r"NaN or infinity in its answer to exam 1 \(1 of 3"):
        answered(Model(spoil=1), FINDINGS, views, np.zeros(3, np.int8))


@pytest.mark.parametrize(("factor", "length"), [(0.0, "0"), (1e30, "1e\\+30"), (1.01, "1.01")])
def test_a_model_whose_answers_have_another_length_is_no_reference(factor, length):
    class Stretched(Model):
        def encode_exam(self, images):
            return factor * super().encode_exam(images)

    views = np.zeros((2, 4, 1, 8, 8), np.uint8)
    match = rf"found the length {length} in its answer to exam 0 \(2 of 2"
    with pytest.raises(ParityError, match=match):
        answered(Stretched(), FINDINGS, views, np.zeros(2, np.int8))


def test_a_bundle_that_agrees_gets_its_certificate():
    certificate = verify(many_bundle(fp32=tiny_graph()))
    assert certificate.passed
    assert "onnxruntime" in {one.runtime.split()[0] for one in certificate.comparisons}
    assert certificate.issued_at is None


def nudged():
    """The tiny graph with one of its weights off by one part in a thousand."""
    model = onnx.load_from_string(tiny_graph())
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    values = numpy_helper.to_array(weights).copy()
    values[0, 1] *= 1.001
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    return model.SerializeToString()


def test_a_graph_that_is_wrong_by_a_little_is_refused_with_its_worst_case():
    with pytest.raises(ParityError, match="the graphs: found o") as caught:
        verify(many_bundle(fp32=nudged()))
    message = str(caught.value)
    assert "fp32: difference of a logit, at scale 100: " in message
    assert ", at most 0.001 (exam " in message
    assert "NumPy, float32" in message
    certificate = caught.value.certificate
    assert not certificate.passed
    (cpu,) = [one for one in certificate.comparisons if one.device == "cpu"]
    assert {found.quantity for found in cpu.failed} == {"logit", "golden_logit"}
    assert cpu.agreement.logit.value < 0.05  # a difference that no eye would see in a probability


def test_the_worst_case_it_names_is_the_worst():
    bundle = many_bundle(fp32=nudged())
    with pytest.raises(ParityError) as caught:
        verify(bundle)
    exams = tiny_exams()
    (cpu,) = [one for one in caught.value.certificate.comparisons if one.device == "cpu"]
    found = open_session(bundle, "cpu").run({"views": exams.views / np.float32(255)})
    answers = Answers(embedding=found, batches=(found[:8],))
    expected = compare(bundle.manifest.findings, exams.embedding, answers, exams.labels)
    assert cpu.agreement.logit.where.split(":")[0] == expected.logit.where.split(":")[0]
    assert cpu.agreement.logit.value == pytest.approx(expected.logit.value, rel=1e-3)


def test_a_runtime_that_cannot_load_a_graph_is_no_parity():
    with pytest.raises(ParityError, match="does not load"):
        verify(many_bundle(fp32=tiny_graph()[:-100]))


def test_no_runtime_is_no_parity(monkeypatch):
    def certify(bundle, progress=None):
        raise RuntimeNotInstalledError("onnxruntime", found="none", expected="one", remedy="")

    monkeypatch.setattr(gate, "certify", certify)
    with pytest.raises(ParityError, match="onnxruntime: found none"):
        verify(many_bundle())
