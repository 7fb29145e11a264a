"""Training: only what may change changes, runs repeat, and augmentation never swaps sides."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip_sdk.bundle import PREPROCESSING_VERSION, Preprocessing
from mammoclip_sdk.exam import VIEWS, View
from training.adapters import AdapterConfig
from training.data import ExamSet, augment, phantom_set
from training.model import MammoClip, ModelConfig
from training.phantom import PhantomSettings
from training.pretrain import PretrainSettings, PretrainStage, make_optimizer, pretrain
from training.train import TrainSettings, malignancy_logits, train_adapters

ADAPTER = AdapterConfig(rank=4, activation="gelu", placement="both", connection="serial", scale=1.0)
CONFIG = ModelConfig(
    open_clip_model="phantom-clip",
    pretrained=None,
    image_size=(48, 24),
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
PREPROCESSING = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=48,
    width=24,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)


def bright_exams(count=32):
    """Exams whose label is the brightness of the left breast's views."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 100, (count, 4, 1, 48, 24), generator=generator, dtype=torch.uint8)
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


def test_a_model_of_two_views_never_sees_the_other_two():
    model, exams = fresh(), bright_exams()
    settings = replace(SETTINGS, views=(View.RCC, View.RMLO))
    before = malignancy_logits(model, settings, exams)
    exams.views[:, [VIEWS.index(View.LCC), VIEWS.index(View.LMLO)]] = 0
    assert (malignancy_logits(model, settings, exams) == before).all()


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


def test_phantom_sets_are_cached_only_for_the_settings_they_were_made_from(tmp_path):
    cache = tmp_path / "set.safetensors"
    phantom = PhantomSettings(seed=5, rows=128, columns=104)
    made = phantom_set(phantom, 3, PREPROCESSING, cache=cache, workers=1)
    again = phantom_set(phantom, 3, PREPROCESSING, cache=cache, workers=1)
    assert torch.equal(made.views, again.views)
    assert made.view_captions == again.view_captions
    assert made.views.shape == (3, 4, 1, 48, 24)
    assert made.views.amax(dim=(2, 3, 4)).min() > 60, "every view shows a breast"
    with pytest.raises(ValueError, match="made from other settings"):
        phantom_set(replace(phantom, seed=6), 3, PREPROCESSING, cache=cache, workers=1)
