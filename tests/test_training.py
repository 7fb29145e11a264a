"""Training: only what may change changes, runs repeat, and augmentation keeps what matters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from mammoclip_sdk.exam import VIEWS, View
from training import data
from training.adapters import AdapterConfig
from training.data import ExamSet, augment, phantom_set, swap_sides
from training.errors import TrainingError, UnusableInputError
from training.evaluation import ScoredSet, fit_calibration, measured_auc
from training.model import MammoClip, ModelConfig
from training.phantom import PhantomSettings
from training.pretrain import PretrainSettings, PretrainStage, make_optimizer, pretrain
from training.provenance import git_commit
from training.train import TrainSettings, malignancy_logits, train_adapters

ADAPTER = AdapterConfig(rank=4, activation="gelu", placement="both", connection="serial", scale=1.0)
CONFIG = ModelConfig(
    open_clip_model="phantom-clip",
    pretrained=None,
    image_size=(48, 32),
    n_local=3,
    view_embedding="learned",
    image_adapter=ADAPTER,
    text_adapter=ADAPTER,
)
SETTINGS = TrainSettings(
    seed=1,
    negative_prompt="benign",
    positive_prompt="malignant",
    epochs=6,
    batch_size=8,
    learning_rate=3e-3,
)
PREPROCESSING = replace(data.PREPROCESSING, height=48, width=32)


def bright_exams(count=32):
    """Exams whose label is the brightness of the left breast's views."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 100, (count, 4, 1, 48, 32), generator=generator, dtype=torch.uint8)
    malignant = torch.arange(count) % 2 == 0
    views[malignant, ::2] += 120
    captions = tuple(
        tuple("bright" if bool(label) and number % 2 == 0 else "dark" for number in range(4))
        for label in malignant
    )
    return ExamSet(
        views=views, malignant=malignant, categories=("x",) * count, view_captions=captions
    )


def fresh(seed=0):
    torch.manual_seed(seed)
    return MammoClip(CONFIG)


def test_adapter_training_learns_and_leaves_every_other_weight_bit_equal():
    model, exams, losses = fresh(), bright_exams(), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_adapters(model, SETTINGS, exams, report=lambda _, loss: losses.append(loss))
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(model.trainable_parameters())
    assert all("adapter" in name or name == "image.view_embedding" for name in changed)
    assert len(losses) == SETTINGS.epochs
    logits = malignancy_logits(model, SETTINGS, exams)
    assert logits[exams.malignant.numpy()].min() > logits[~exams.malignant.numpy()].max()


def test_the_same_seed_gives_the_same_weights():
    first, second = fresh(), fresh()
    short = replace(SETTINGS, epochs=1)
    for model in (first, second):
        train_adapters(model, short, bright_exams(), report=lambda *_: None)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


class StopError(Exception):
    """The power failed."""


def interrupted(file, epochs):
    """Train until so many epochs are over."""
    losses = []

    def report(_, loss):
        losses.append(loss)
        if len(losses) == epochs:
            raise StopError

    with pytest.raises(StopError):
        train_adapters(fresh(), SETTINGS, bright_exams(), report=report, unfinished=file)
    return losses


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    whole, expected = fresh(), []
    train_adapters(whole, SETTINGS, bright_exams(), report=lambda _, x: expected.append(x))
    interrupted(tmp_path / "state", 2)
    interrupted(tmp_path / "state", 4)
    model, losses = fresh(), []
    torch.manual_seed(99)
    file = tmp_path / "state"
    train_adapters(
        model, SETTINGS, bright_exams(), report=lambda _, x: losses.append(x), unfinished=file
    )
    assert losses == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_training_goes_on_with_its_own_state_alone(tmp_path):
    file = tmp_path / "state"
    interrupted(file, 1)
    other_exams = bright_exams()
    other_exams.views[3, 2, 0, 4, 4] += 1
    for model, changed, exams in (
        (fresh(seed=5), SETTINGS, bright_exams()),
        (fresh(), replace(SETTINGS, learning_rate=1e-3), bright_exams()),
        (fresh(), SETTINGS, other_exams),
    ):
        with pytest.raises(TrainingError, match="a run with other settings, weights or exams"):
            train_adapters(model, changed, exams, report=pytest.fail, unfinished=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="no state that can be read"):
        train_adapters(fresh(), SETTINGS, bright_exams(), report=pytest.fail, unfinished=file)


def test_a_loss_that_is_no_number_ends_the_training():
    steep = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"a loss of nan; .* Lower the learning rate"):
        train_adapters(fresh(), steep, bright_exams(), report=lambda *_: None)


def test_exams_that_do_not_fill_a_batch_are_refused():
    with pytest.raises(TrainingError, match="found 7 examples for batches of 8"):
        train_adapters(fresh(), SETTINGS, bright_exams(7), report=pytest.fail)


def test_calibration_is_scikit_learns_sigmoid_at_any_scale_of_the_logits():
    rng = np.random.default_rng(4)
    positive = np.arange(60) % 3 == 0
    logits = 5 + 0.02 * (rng.normal(size=60) + positive)
    scores = FrozenEstimator(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
    expected = CalibratedClassifierCV(scores, method="sigmoid", ensemble=False)
    sigmoid = expected.fit((logits / 0.02)[:, None], positive).calibrated_classifiers_[0]
    weight, bias = scores.estimator.coef_[0, 0], scores.estimator.intercept_[0]
    a, b = sigmoid.calibrators[0].a_, sigmoid.calibrators[0].b_
    found = fit_calibration(positive, logits, data="drawn")
    assert found.slope == pytest.approx(-a * weight / 0.02, rel=1e-3)
    assert found.intercept == pytest.approx(-a * bias - b, rel=1e-3)


def test_calibration_of_parted_classes_is_finite_and_of_reversed_ones_refused():
    positive, logits = np.array([False, False, True, True]), np.array([-2.0, -1.0, 1.0, 2.0])
    found = fit_calibration(positive, logits, data="four exams")
    # Platt's targets for two of each class: 3/4 and 1/4.
    assert 0.5 < found.slope < 1.5
    assert found.intercept == pytest.approx(0, abs=1e-6)
    with pytest.raises(TrainingError, match="four exams: found a calibration slope of -"):
        fit_calibration(~positive, logits, data="four exams")
    with pytest.raises(TrainingError, match="malignant exams do not score higher"):
        fit_calibration(positive, np.ones(4), data="equal logits")


@pytest.mark.parametrize(
    ("logits", "estimate", "lower", "upper"),
    # Wilson's for 5 of 5, 0 of 5 and 2.5 of 5: z²/(n + z²), and 1/2 ± z/2/sqrt(n + z²).
    [
        (np.arange(25.0), 1.0, 0.565518, 1.0),
        (-np.arange(25.0), 0.0, 0.0, 0.434482),
        (np.zeros(25), 0.5, 0.170424, 0.829576),
    ],
)
def test_a_ranking_without_a_mistake_is_no_proof_of_a_perfect_model(logits, estimate, lower, upper):
    scored = ScoredSet(positive=np.arange(25) >= 20, logits=logits, data="25 exams")
    value = measured_auc("AUC", "malignancy", scored).value
    assert value.method == "wilson"
    assert (value.estimate, value.lower, value.upper) == pytest.approx(
        (estimate, lower, upper), abs=1e-6
    )


def test_a_model_is_not_made_where_its_origin_cannot_be_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnusableInputError, match="Clone it instead"):
        git_commit()


def test_a_model_of_two_views_never_sees_the_other_two():
    settings = replace(SETTINGS, epochs=1, views=(View.RCC, View.RMLO))
    exams, blind = bright_exams(), bright_exams()
    blind.views[:, [VIEWS.index(View.LCC), VIEWS.index(View.LMLO)]] = 0
    losses, logits = [], []
    for shown in (exams, blind):
        model = fresh()
        train_adapters(model, settings, shown, report=lambda _, loss: losses.append(loss))
        logits.append(malignancy_logits(model, settings, shown))
    assert losses[0] == losses[1]
    assert (logits[0] == logits[1]).all()


def test_training_sees_every_view_augmented_anew(monkeypatch):
    seen = []
    model, exams = fresh(), bright_exams(8)
    encode = model.encode_exam
    monkeypatch.setattr(
        model, "encode_exam", lambda images, views: seen.extend(images) or encode(images, views)
    )
    one_side = replace(SETTINGS, epochs=3, views=(View.LCC, View.LMLO))  # nothing can be swapped
    train_adapters(model, one_side, exams, report=lambda *_: None)
    shown = {image.numpy().tobytes() for image in torch.cat(seen)}
    assert len(seen) == 3 * 8
    assert len(shown) == 3 * 8 * 2


def test_training_sees_exams_with_either_side_first(monkeypatch):
    seen = []
    model, exams = fresh(), bright_exams(8)
    encode = model.encode_exam
    monkeypatch.setattr(
        model, "encode_exam", lambda images, views: seen.append(images) or encode(images, views)
    )
    train_adapters(model, replace(SETTINGS, epochs=8), exams, report=lambda *_: None)
    batches = torch.stack(seen)  # every batch holds all eight exams
    left, right = batches[:, :, 0].mean(dim=(2, 3, 4)), batches[:, :, 1].mean(dim=(2, 3, 4))
    bright = torch.maximum(left, right) > 1.5 * torch.minimum(left, right)
    assert 0.2 < (left > right)[bright].float().mean() < 0.8


@pytest.mark.parametrize(
    ("order", "swaps"),
    [(VIEWS, True), ((View.LCC, View.RCC), True), ((View.LCC, View.LMLO), False)],
)
def test_swapping_sides_exchanges_whole_breasts(order, swaps):
    views = torch.arange(len(order)).float().reshape(1, -1, 1, 1, 1).repeat(64, 1, 1, 1, 1)
    swapped = swap_sides(views, order, torch.Generator().manual_seed(0)).flatten(1).tolist()
    as_is = [float(number) for number in range(len(order))]
    other = {4: [1.0, 0.0, 3.0, 2.0], 2: [1.0, 0.0]}[len(order)]
    assert as_is in swapped
    assert (other in swapped) == swaps
    assert all(row in (as_is, other) for row in swapped)


def test_the_pretraining_loss_is_open_clips_and_every_stage_is_visited():
    exams, losses = bright_exams(), []
    stage = PretrainStage(contrast=(0.2, 0.3), exams=32, epochs=1)
    plan = PretrainSettings(
        seed=3, stages=(stage, stage), batch_size=128, learning_rate=0.0, bfloat16=False
    )
    model = fresh()
    pretrain(model, plan, [exams, exams], report=lambda *item: losses.append(item))
    assert [name for name, _ in losses] == ["stage 1", "stage 2"]
    # Nothing was learned at a rate of 0: the last batch's loss can be computed again.
    captions = [caption for captions in exams.view_captions for caption in captions]
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        order = torch.randperm(128, generator=generator)
        images = augment(exams.views.flatten(0, 1)[order].float() / 255, generator)
    with torch.no_grad():
        texts = model.encode_text(model.tokenize([captions[number] for number in order]))
        expected = ClipLoss()(model.encode_view(images), texts, model.logit_scale.exp())
    assert losses[-1][1] == pytest.approx(expected.item(), abs=1e-4)


def test_pretraining_never_scales_logits_by_more_than_100():
    model, exams = fresh(), bright_exams()
    stage = PretrainStage(contrast=(0.2, 0.3), exams=32, epochs=1)
    plan = PretrainSettings(seed=3, stages=(stage,), batch_size=64, learning_rate=0.0)
    with torch.no_grad():
        model.logit_scale.fill_(5.0)  # exp(5) is 148
    pretrain(model, plan, [exams], report=lambda *_: None)
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_pretraining_pulls_views_to_their_captions():
    model, losses = fresh(), []
    plan = PretrainSettings(
        seed=3,
        stages=(PretrainStage(contrast=(0.2, 0.3), exams=32, epochs=5),),
        batch_size=32,
    )
    exams = bright_exams()
    pretrain(model, plan, [exams], report=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0]
    with torch.inference_mode():
        texts = model.encode_text(model.tokenize(["bright", "dark"]))
        similarity = model.encode_view(exams.views.flatten(0, 1).float() / 255) @ texts.T
    bright = torch.tensor([c == "bright" for captions in exams.view_captions for c in captions])
    assert ((similarity[:, 0] > similarity[:, 1]) == bright).float().mean() > 0.9


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_augmentation_keeps_air_range_and_side(seed):
    generator = torch.Generator().manual_seed(seed)
    views = torch.zeros(3, 4, 1, 40, 20)
    views[..., 10:30, :6] = torch.rand(3, 4, 1, 20, 6)
    moved = augment(views, generator)
    assert moved.shape == views.shape
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert moved[..., 8:].max() < 1e-2, "the chest wall stays at the left"


def test_learning_rate_rises_then_falls_to_zero():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer, schedule = make_optimizer(
        [weight], learning_rate=1.0, weight_decay=0.1, warmup=0.1, steps=100
    )
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_weight_decay_shrinks_matrices_and_leaves_gains_and_biases():
    matrix, gain = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,)))
    optimizer, _ = make_optimizer(
        [matrix, gain], learning_rate=1.0, weight_decay=0.1, warmup=0.0, steps=10
    )
    for parameter in (matrix, gain):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (matrix < 1).all()
    assert (gain == 1).all()


def test_phantom_sets_are_cached_only_for_the_settings_they_were_made_from(tmp_path):
    cache = tmp_path / "set.safetensors"
    phantom = PhantomSettings(seed=5, rows=128, columns=104)
    made = phantom_set(phantom, 3, PREPROCESSING, cache=cache, workers=1)
    again = phantom_set(phantom, 3, PREPROCESSING, cache=cache, workers=1)
    assert torch.equal(made.views, again.views)
    assert made.view_captions == again.view_captions
    assert made.views.shape == (3, 4, 1, 48, 32)
    assert made.views.amax(dim=(2, 3, 4)).min() > 60, "every view shows a breast"
    with pytest.raises(ValueError, match="made from other settings"):
        phantom_set(replace(phantom, seed=6), 3, PREPROCESSING, cache=cache, workers=1)
