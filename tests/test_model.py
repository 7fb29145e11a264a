"""Mammo-CLIP against open_clip itself, and what its configuration keys promise."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP, resize_pos_embed
from safetensors.torch import load_file, save_file

from mammoclip_sdk.bundle import Calibration, Interval, Measurement, OperatingPoint
from mammoclip_sdk.exam import VIEWS, View
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding, base_sha256
from training.clip import build, interpolate_positions, tokenizer_of
from training.errors import CheckpointError
from training.model import MammoClip, ModelConfig, freeze_all_but_adapters
from training.saved_model import load_checkpoint, save_checkpoint

ADAPTER = AdapterConfig(
    rank=None, activation="gelu", placement="mlp", connection="serial", scale=1.0
)
DEPTH = 4
SIZE = (64, 32)
PROMPTS = ["a mammogram without malignancy", "a mammogram with malignancy"]
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"layers": DEPTH, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
VARIANTS = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "layer_scale": {"vision_cfg": {"ls_init_value": 0.3}, "text_cfg": {"ls_init_value": 0.2}},
    "custom_text": {"custom_text": True},
    "bidirectional_text": {
        "custom_text": True,
        "text_cfg": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "eos_pooling": {"text_cfg": {"pool_type": "eos", "eos_id": 49407}},
    "extra_norms": {
        "vision_cfg": {"qk_norm": True, "scale_attn": True, "scale_fc": True},
        "text_cfg": {"scale_attn_inner": True, "scale_heads": True},
    },
    "no_ln_pre": {"vision_cfg": {"no_ln_pre": True, "final_ln_after_pool": True}},
}


def merged(changes):
    architecture = json.loads(json.dumps(TINY))
    for key, value in changes.items():
        if isinstance(value, dict):
            architecture[key] |= value
        else:
            architecture[key] = value
    return architecture


def tiny_config(folder, changes=None, **keys):
    path = folder / "tiny.json"
    path.write_text(json.dumps(merged(changes or {})))
    defaults = {
        "open_clip_model": str(path),
        "pretrained": None,
        "image_size": SIZE,
        "n_local": 2,
        "image_adapter": ADAPTER,
        "text_adapter": ADAPTER,
    }
    return ModelConfig(**(defaults | keys))


def tiny(folder, changes=None, *, trained=True, **keys):
    torch.manual_seed(0)
    model = MammoClip(tiny_config(folder, changes, **keys)).double().eval()
    if trained:
        train_at_random(model)
    return model


def train_at_random(model, seed=1):
    """Give the adapters weights as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_adapter." in name or name == "image.view_embedding":
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def exams(count=2, views=4, *, channels=1, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, views, channels, *size, generator=generator, dtype=dtype)


def difference(a, b):
    return (a - b).abs().max().item()


# Parity with open_clip


@pytest.fixture(
    scope="module",
    params=[
        "ViT-B-32",
        "ViT-B-16",
        "ViT-B-32-quickgelu",
        pytest.param("ViT-L-14", marks=pytest.mark.slow),
    ],
)
def published(request):
    """open_clip's own model and ours, both random, from the same seed."""
    torch.manual_seed(0)
    reference = open_clip.create_model(request.param).eval()
    torch.manual_seed(0)
    depth = reference.visual.transformer.layers
    config = ModelConfig(
        open_clip_model=request.param,
        pretrained=None,
        image_size=(224, 224),
        n_local=depth,
        image_adapter=ADAPTER,
        text_adapter=ADAPTER,
    )
    return reference, MammoClip(config).eval()


@torch.no_grad()
def test_fresh_adapters_late_fusion_and_one_view_are_open_clip(published):
    reference, model = published
    images = exams(1, 1, channels=3, size=(224, 224), dtype=torch.float32)
    tokens = open_clip.get_tokenizer("ViT-B-32")(PROMPTS)
    assert torch.equal(model.tokenize(PROMPTS), tokens)
    expected_image = reference.encode_image(images[:, 0], normalize=True)
    expected_text = reference.encode_text(tokens, normalize=True)
    assert difference(model.encode_exam(images, (View.LCC,)), expected_image) < 1e-5
    assert difference(model.encode_view(images[:, 0]), expected_image) < 1e-5
    assert difference(model.encode_text(tokens), expected_text) < 1e-5
    train_at_random(model)
    assert difference(model.encode_view(images[:, 0]), expected_image) > 1e-3
    assert difference(model.encode_text(tokens), expected_text) > 1e-3
    assert torch.equal(reference.encode_text(tokens, normalize=True), expected_text)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_parity_in_double_precision(tmp_path, variant):
    architecture = merged(VARIANTS[variant])
    torch.manual_seed(0)
    reference = build(architecture, SIZE).double().eval()
    assert isinstance(reference, CustomTextCLIP if "custom_text" in VARIANTS[variant] else CLIP)
    model = tiny(tmp_path, VARIANTS[variant], trained=False, n_local=DEPTH)
    images = exams(3, 1, channels=3)
    tokens = model.tokenize(PROMPTS)
    expected_image = reference.encode_image(images[:, 0], normalize=True)
    expected_text = reference.encode_text(tokens, normalize=True)
    assert difference(model.encode_exam(images, (View.LCC,)), expected_image) < 1e-10
    assert difference(model.encode_text(tokens), expected_text) < 1e-10
    train_at_random(model)
    assert difference(model.encode_exam(images, (View.LCC,)), expected_image) > 1e-3
    assert difference(model.encode_text(tokens), expected_text) > 1e-3


@torch.no_grad()
def test_parity_of_vit_b_in_double_precision():
    torch.manual_seed(0)
    reference = open_clip.create_model("ViT-B-32").double().eval()
    torch.manual_seed(0)
    model = MammoClip(
        ModelConfig(
            open_clip_model="ViT-B-32",
            pretrained=None,
            image_size=(224, 224),
            n_local=12,
            image_adapter=ADAPTER,
            text_adapter=ADAPTER,
        )
    )
    model = model.double().eval()
    images = exams(1, 1, channels=3, size=(224, 224))
    tokens = model.tokenize(PROMPTS)
    expected = reference.encode_image(images[:, 0], normalize=True)
    assert difference(model.encode_exam(images, (View.LCC,)), expected) < 1e-10
    expected = reference.encode_text(tokens, normalize=True)
    assert difference(model.encode_text(tokens), expected) < 1e-10


@pytest.mark.parametrize("n_local", range(DEPTH + 1))
@torch.no_grad()
def test_local_blocks_see_one_view_and_global_blocks_all_tokens_of_all_views(tmp_path, n_local):
    torch.manual_seed(0)
    visual = build(TINY, SIZE).double().eval().visual
    model = tiny(tmp_path, trained=False, n_local=n_local)
    images = exams(2, 4, channels=3)
    tokens = [visual._embeds(images[:, i]) for i in range(4)]
    for block in visual.transformer.resblocks[:n_local]:
        tokens = [block(view) for view in tokens]
    length = tokens[0].shape[1]
    sequence = torch.cat(tokens, dim=1)
    for block in visual.transformer.resblocks[n_local:]:
        sequence = block(sequence)
    pooled = torch.stack([sequence[:, i * length] for i in range(4)]).mean(dim=0)
    expected = torch.nn.functional.normalize(visual.ln_post(pooled) @ visual.proj, dim=-1)
    assert difference(model.encode_exam(images), expected) < 1e-10


# Views, pooling, input


@torch.no_grad()
def test_mean_cls_without_view_embedding_ignores_the_order_of_the_views(tmp_path):
    images, order = exams(), [2, 0, 3, 1]
    shuffled = tuple(VIEWS[i] for i in order)
    model = tiny(tmp_path)
    expected = model.encode_exam(images)
    assert difference(model.encode_exam(images[:, order], shuffled), expected) < 1e-10
    assert difference(model.encode_exam(images[:, order]), expected) < 1e-10


@pytest.mark.parametrize("keys", [{"pooling": "first_cls"}, {"view_embedding": "learned"}])
@torch.no_grad()
def test_first_cls_and_a_learned_view_embedding_depend_on_the_order(tmp_path, keys):
    images, order = exams(), [2, 0, 3, 1]
    model = tiny(tmp_path, **keys)
    assert difference(model.encode_exam(images[:, order]), model.encode_exam(images)) > 1e-3


@torch.no_grad()
def test_the_view_embedding_starts_at_zero_and_follows_the_view_not_its_place(tmp_path):
    images = exams()
    plain = tiny(tmp_path, trained=False).encode_exam(images)
    model = tiny(tmp_path, trained=False, view_embedding="learned")
    assert difference(model.encode_exam(images), plain) < 1e-12
    model.image.view_embedding[3] = torch.randn(32)
    assert difference(model.encode_exam(images), plain) > 1e-3
    mlo, both = (View.RMLO,), (View.RMLO, View.LMLO)
    assert difference(model.encode_exam(images[:, 3:], mlo), model.encode_view(images[:, 3])) > 1e-3
    assert torch.equal(
        model.encode_exam(images[:, :1], (View.LCC,)), model.encode_view(images[:, 0])
    )
    swapped = model.encode_exam(images[:, [2, 3]], both[::-1])
    assert difference(model.encode_exam(images[:, [3, 2]], both), swapped) < 1e-12


@torch.no_grad()
def test_late_fusion_keeps_views_apart_and_one_global_block_joins_them(tmp_path):
    images = exams()
    changed = images.clone()
    changed[:, 1] = 1 - changed[:, 1]
    late = tiny(tmp_path, n_local=DEPTH, pooling="first_cls")
    assert difference(late.encode_exam(images), late.encode_exam(changed)) < 1e-12
    early = tiny(tmp_path, n_local=DEPTH - 1, pooling="first_cls")
    assert difference(early.encode_exam(images), early.encode_exam(changed)) > 1e-4


@torch.no_grad()
def test_any_subset_of_the_views(tmp_path):
    model, images = tiny(tmp_path), exams()
    for views in ((View.LCC,), (View.LCC, View.LMLO), VIEWS[1:]):
        chosen = [VIEWS.index(view) for view in views]
        embedding = model.encode_exam(images[:, chosen], views)
        assert embedding.shape == (2, 24)
        assert difference(embedding.norm(dim=-1), torch.ones(2)) < 1e-6
        assert difference(embedding, model.encode_exam(images)) > 1e-4


def test_images_that_do_not_match_the_views_or_the_size_are_refused(tmp_path):
    model = tiny(tmp_path)
    for images, views in [
        (exams(1, 3), VIEWS),
        (exams(1, 2), (View.LCC, View.LCC)),
        (exams(1, 4)[0], VIEWS),
    ]:
        with pytest.raises(ValueError, match="each view once"):
            model.encode_exam(images, views)
    with pytest.raises(ValueError, match=r"\(32, 32\) pixels; expected 1 or 3 of \(64, 32\)"):
        model.encode_exam(exams(1, 4, size=(32, 32)))


@torch.no_grad()
def test_a_grey_view_is_normalised_as_clip_normalises_its_three_equal_channels(tmp_path):
    model, grey = tiny(tmp_path), exams()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float32)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float32)
    rgb = (grey.expand(-1, -1, 3, -1, -1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert difference(model.encode_exam(grey), model.encode_exam(rgb)) < 1e-12


@torch.no_grad()
def test_logits_are_the_scaled_cosines_of_exam_and_prompts(tmp_path):
    model, images = tiny(tmp_path), exams()
    tokens = model.tokenize(PROMPTS)
    exam, text = model.encode_exam(images), model.encode_text(tokens)
    cosine = torch.nn.functional.cosine_similarity(exam[:, None], text[None], dim=-1)
    expected = cosine * model.logit_scale.exp()
    assert model.logits(images, tokens).shape == (2, 2)
    assert difference(model.logits(images, tokens), expected) < 1e-12


def test_a_prompt_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="more than 14 tokens"):
        tiny(tmp_path).tokenize(["malignancy " * 20])


class WordTokenizer:
    """Stands for open_clip's tokenizer from the Hugging Face hub, which cuts long texts short."""

    def __init__(self, name, context_length, **keys):
        self.context_length = context_length
        self.tokenizer = SimpleNamespace(encode=self.encode)

    def encode(self, sentence, *, add_special_tokens):
        marks = [0, 0] if add_special_tokens else []
        return [len(word) for word in sentence.split()] + marks

    def __call__(self, texts):
        ids = [self.encode(sentence, add_special_tokens=True) for sentence in texts]
        padded = [line[: self.context_length] + [0] * self.context_length for line in ids]
        return torch.tensor([line[: self.context_length] for line in padded])


def test_a_tokenizer_from_the_hub_refuses_what_does_not_fit_too(monkeypatch):
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", WordTokenizer)
    tokenize = tokenizer_of({"text_cfg": {"hf_tokenizer_name": "words", "context_length": 6}})
    assert tokenize(["one two three four"]).tolist() == [[3, 3, 5, 4, 0, 0]]
    with pytest.raises(ValueError, match="more than 4 tokens: 'one two three four five'"):
        tokenize(["fine", "one two three four five"])


# What is trained


@pytest.mark.parametrize("placement", ["mlp", "both"])
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_default_adapters_are_about_one_percent_of_the_parameters(name, placement):
    adapter = AdapterConfig(
        rank=None, activation="gelu", placement=placement, connection="serial", scale=1.0
    )
    with torch.device("meta"):  # shapes only
        model = MammoClip(
            ModelConfig(
                open_clip_model=name,
                pretrained=None,
                image_size=(224, 224),
                n_local=2,
                image_adapter=adapter,
                text_adapter=adapter,
            )
        )
    freeze_all_but_adapters(model)
    assert 0.009 <= model.trained_share() <= 0.011


def test_after_a_step_only_adapters_and_the_view_embedding_differ(tmp_path):
    model = tiny(tmp_path, view_embedding="learned")
    freeze_all_but_adapters(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trainable_parameters().values(), lr=1e-2)
    logits = model.logits(exams(), model.tokenize(PROMPTS))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    adapters = {n for n in before if "_adapter." in n}
    assert len(adapters) == (DEPTH + 2) * 4
    assert changed == adapters | {"image.view_embedding"}


def test_one_encoder_can_do_without_adapters(tmp_path):
    model = tiny(tmp_path, text_adapter=None)
    freeze_all_but_adapters(model)
    assert all(name.startswith("image.") for name in model.trainable_parameters())
    assert len(model.trainable_parameters()) == DEPTH * 4


# Image sizes and weights from elsewhere


def test_interpolated_positions_keep_constants_and_leave_an_equal_grid_alone():
    embedding = torch.randn(1 + 49, 8)
    assert torch.equal(interpolate_positions(embedding, (7, 7), (7, 7)), embedding)
    constant = torch.full((1 + 49, 8), 0.7)
    resized = interpolate_positions(constant, (7, 7), (10, 5))
    assert resized.shape == (51, 8)
    assert difference(resized, torch.full((51, 8), 0.7)) < 1e-6
    ramp = torch.cat([torch.zeros(1, 1), torch.arange(7.0).repeat_interleave(7)[:, None]])
    rows = interpolate_positions(ramp, (7, 7), (14, 7))[1:].reshape(14, 7)
    assert (rows.diff(dim=0) > 0).all()
    assert difference(rows, rows[:, :1].expand(-1, 7)) < 1e-5
    with pytest.raises(ValueError, match="expected 1 \\+ 5 \\* 5"):
        interpolate_positions(embedding, (5, 5), (7, 7))


@pytest.mark.parametrize("new", [(10, 5), (14, 14), (3, 8)])
def test_positions_are_interpolated_as_open_clip_does(new):
    embedding = torch.randn(1 + 49, 8, generator=torch.Generator().manual_seed(4))
    state = {"visual.positional_embedding": embedding.clone()}
    visual = SimpleNamespace(grid_size=new)
    resize_pos_embed(state, SimpleNamespace(visual=visual))
    expected = state["visual.positional_embedding"]
    assert expected.shape == (1 + new[0] * new[1], 8)
    assert difference(interpolate_positions(embedding, (7, 7), new), expected) < 1e-6


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@torch.no_grad()
def test_weights_saved_by_open_clip_on_a_square_grid_load_at_another_size(tmp_path, suffix):
    torch.manual_seed(5)
    reference = build(TINY, (64, 64)).eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        state = {f"module.{name}": t for name, t in reference.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        save_file(reference.state_dict(), path)
    same = MammoClip(
        tiny_config(tmp_path, pretrained=str(path), image_size=(64, 64), n_local=DEPTH)
    )
    images = exams(2, 1, channels=3, size=(64, 64), dtype=torch.float32)
    expected = reference.encode_image(images[:, 0], normalize=True)
    assert difference(same.eval().encode_view(images[:, 0]), expected) < 1e-5
    other = MammoClip(tiny_config(tmp_path, pretrained=str(path), image_size=(96, 48)))
    assert other.image.positional_embedding.shape == (1 + 6 * 3, 32)
    assert torch.equal(
        other.image.positional_embedding[0], reference.visual.positional_embedding[0]
    )
    assert torch.equal(other.image.conv1.weight, reference.visual.conv1.weight)
    assert other.encode_exam(exams(1, 4, size=(96, 48), dtype=torch.float32)).shape == (1, 24)


def test_base_weights_that_are_no_numbers_are_refused(tmp_path):
    state = build(TINY, (64, 64)).state_dict()
    state["visual.proj"][0, 0] = torch.nan
    save_file(state, tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in visual\.proj"):
        MammoClip(tiny_config(tmp_path, pretrained=path, image_size=(64, 64)))


def test_a_weights_file_with_missing_or_foreign_tensors_is_refused(tmp_path):
    state = build(TINY, (64, 64)).state_dict()
    del state["visual.proj"]
    save_file(state | {"stranger": torch.ones(1)}, tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"(?s)visual\.proj.*stranger"):
        MammoClip(tiny_config(tmp_path, pretrained=path, image_size=(64, 64)))
    (tmp_path / "weights.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(ValueError, match=r"weights\.safetensors is no whole safetensors file"):
        MammoClip(tiny_config(tmp_path, pretrained=path, image_size=(64, 64)))
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.pt"):
        MammoClip(tiny_config(tmp_path, pretrained=str(tmp_path / "absent.pt")))


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_of_anything_but_tensors_is_refused(tmp_path, capsys):
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt is not a plain file of tensors"):
        MammoClip(tiny_config(tmp_path, pretrained=str(tmp_path / "trap.pt")))
    assert capsys.readouterr().out == ""


def test_a_tag_that_cannot_be_fetched_names_the_tag_the_reason_and_the_remedy(tmp_path):
    code = (
        "from training.model import MammoClip, ModelConfig\n"
        "try:\n"
        "    MammoClip(ModelConfig(open_clip_model='ViT-B-32', pretrained='laion2b_s34b_b79k',\n"
        "        image_size=(224, 224), n_local=2, image_adapter=None, text_adapter=None))\n"
        "except ConnectionError as exc:\n"
        "    print(exc)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tag 'laion2b_s34b_b79k' of 'ViT-B-32' cannot be fetched" in done.stdout
    assert "give the path of the .safetensors or .pt file" in done.stdout


def test_a_tag_unknown_or_trained_with_another_activation_is_refused():
    keys = {"image_size": (224, 224), "n_local": 2, "image_adapter": None, "text_adapter": None}
    with pytest.raises(ValueError, match=r"no open_clip tag of 'ViT-B-32'.*laion2b_s34b_b79k"):
        MammoClip(ModelConfig(open_clip_model="ViT-B-32", pretrained="openia", **keys))
    with pytest.raises(ValueError, match="with or without -quickgelu"):
        MammoClip(ModelConfig(open_clip_model="ViT-B-32", pretrained="openai", **keys))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "a ResNet image encoder"),
        ("ViT-B-16-SigLIP", "an image encoder from timm"),
        ("coca_ViT-B-32", "attentional pooling"),
        ("roberta-ViT-B-32", "a Hugging Face text encoder"),
        ("ViT-Z-99", "no such name"),
    ],
)
def test_an_unsupported_encoder_is_refused_by_name(name, reason):
    with pytest.raises(ValueError, match=f"{name}.*{reason}"):
        MammoClip(
            ModelConfig(
                open_clip_model=name,
                pretrained=None,
                image_size=(224, 224),
                n_local=2,
                image_adapter=None,
                text_adapter=None,
            )
        )


def test_configurations_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"pooling is 'max'.*view_embedding is 'fixed'"):
        tiny_config(tmp_path, pooling="max", view_embedding="fixed")
    with pytest.raises(ValueError, match="n_local is 5; expected 0 to 4"):
        tiny(tmp_path, n_local=5)
    with pytest.raises(ValueError, match="multiples of the patch size, 16 x 16"):
        tiny(tmp_path, image_size=(64, 40))


# Checkpoints


FINDING = TrainedFinding(
    name="malignancy",
    negative_prompt=PROMPTS[0],
    positive_prompt=PROMPTS[1],
    calibration=Calibration(slope=1.5, intercept=-0.25, fitted_on="validation exams"),
    operating_points=(
        OperatingPoint(
            name="screening",
            threshold=0.25,
            sensitivity=Interval(estimate=0.9, lower=0.8, upper=0.95, level=0.95, method="wilson"),
            specificity=Interval(estimate=0.8, lower=0.7, upper=0.85, level=0.95, method="wilson"),
        ),
    ),
)
MEASUREMENT = Measurement(
    name="auc",
    finding="malignancy",
    value=Interval(estimate=0.88, lower=0.84, upper=0.91, level=0.95, method="delong"),
    exams=400,
    data="unseen exams",
)


def save(folder, model, **keys):
    save_checkpoint(folder, model, settings={"seed": 3, "views": ("LCC",)}, report={}, **keys)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    model = tiny(tmp_path, view_embedding="learned").float()
    (tmp_path / "tiny.json").unlink()  # the checkpoint holds the architecture itself
    golden = exams(dtype=torch.float32)
    provenance = Provenance(git_commit="0" * 40, seed=3, command="python training/train.py")
    save(
        tmp_path / "made" / "checkpoint",
        model,
        provenance=provenance,
        findings=[FINDING],
        measurements=[MEASUREMENT],
        golden_views=golden,
    )
    loaded = load_checkpoint(tmp_path / "made" / "checkpoint")
    assert loaded.model.config == model.config
    assert loaded.record.settings == {"seed": 3, "views": ["LCC"]}
    assert loaded.record.provenance == provenance
    assert loaded.record.findings == (FINDING,)
    assert loaded.record.measurements == (MEASUREMENT,)
    assert torch.equal(loaded.golden_views, golden)
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    assert torch.equal(loaded.model.encode_exam(golden), model.encode_exam(golden))
    names = sorted(p.name for p in (tmp_path / "made" / "checkpoint").iterdir())
    assert names == ["config.json", "golden.safetensors", "model.safetensors"]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["checkpoint"]


def test_saving_again_replaces_a_checkpoint_and_nothing_else(tmp_path):
    model = tiny(tmp_path).float()
    save(tmp_path / "checkpoint", model, golden_views=exams())
    train_at_random(model, seed=9)
    save(tmp_path / "checkpoint", model)
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.golden_views is None
    assert torch.equal(
        loaded.model.encode_view(exams(dtype=torch.float32)[:, 0]),
        model.encode_view(exams(dtype=torch.float32)[:, 0]),
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    with pytest.raises(FileExistsError, match="is no checkpoint"):
        save(tmp_path / "notes", model)
    assert (tmp_path / "notes" / "text").read_text() == "mine"


def test_a_checkpoint_that_fails_half_way_leaves_nothing_behind(tmp_path):
    model = tiny(tmp_path).float()
    before = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path / "checkpoint", model, intended_use=float("nan"))
    assert {p.name for p in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    model = tiny(tmp_path).float()
    save(tmp_path / "checkpoint", model)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path / "checkpoint", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.fixture
def saved(tmp_path):
    """A checkpoint, and its tensors by name."""
    save(tmp_path / "checkpoint", tiny(tmp_path, view_embedding="learned").float())
    return tmp_path / "checkpoint", load_file(tmp_path / "checkpoint" / "model.safetensors")


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert caught.value.remedy.endswith(".")
    return caught.value


def test_missing_left_over_and_unlike_tensors_are_refused_together(saved):
    folder, tensors = saved
    del tensors["image.blocks.0.mlp_adapter.up.weight"]
    tensors["stranger"] = torch.ones(3)
    tensors["image.proj"] = tensors["image.proj"].T.contiguous()
    tensors["text.ln_final.bias"] = tensors["text.ln_final.bias"].half()
    tensors["image.view_embedding"][1, 2:4] = torch.tensor([torch.nan, torch.inf])
    save_file(tensors, folder / "model.safetensors")
    found = refusal(folder).found
    assert sorted(found.split("; ")) == [
        "image.proj float32 (24, 32) instead of float32 (32, 24)",
        "image.view_embedding with 2 values that are NaN or infinite",
        "no image.blocks.0.mlp_adapter.up.weight float32 (32, 2)",
        "stranger float32 (3,) too many",
        "text.ln_final.bias float16 (16,) instead of float32 (16,)",
    ]


def test_of_very_many_tensors_the_first_are_named_and_the_others_counted(saved):
    folder, tensors = saved
    save_file({"image.proj": tensors["image.proj"]}, folder / "model.safetensors")
    found = refusal(folder).found
    assert found.count("no ") == 12
    assert found.endswith(f"; and {len(tensors) - 13} more")


@pytest.mark.parametrize("name", ["image.proj", "pixel_std", "logit_scale"])
def test_adapters_on_other_base_weights_than_their_own_are_refused(saved, name):
    folder, tensors = saved
    tensors[name] += 1e-6
    save_file(tensors, folder / "model.safetensors")
    error = refusal(folder)
    recorded = json.loads((folder / "config.json").read_text())["base_sha256"]
    assert recorded in error.expected
    assert recorded not in error.found
    assert "base weights of SHA-256" in error.found


def test_adapters_and_the_view_embedding_are_no_base_weights(tmp_path):
    model = tiny(tmp_path, view_embedding="learned").float()
    before = base_sha256(model.state_dict())
    train_at_random(model, seed=8)
    assert base_sha256(model.state_dict()) == before
    plain = tiny(tmp_path, image_adapter=None, text_adapter=None).float()
    assert base_sha256(plain.state_dict()) == before


def test_training_that_moved_a_base_weight_is_not_saved(tmp_path):
    model = tiny(tmp_path).float()
    before = base_sha256(model.state_dict())
    with torch.no_grad():
        model.text.token_embedding.weight[5, 5] += 1
    with pytest.raises(CheckpointError, match="base weights"):
        save(tmp_path / "checkpoint", model, started_from=before)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_damaged_file_of_tensors_is_refused(saved, name, damage):
    folder, _ = saved
    save_file({"views": exams(dtype=torch.float32)}, folder / "golden.safetensors")
    path = folder / name
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-9], "header": b"\xff" * 8 + data[8:], "empty": b""}[damage])
    error = refusal(folder)
    assert error.subject == str(path)
    assert error.expected == "a whole safetensors file"


def test_golden_exams_that_are_none_are_refused(saved):
    folder, _ = saved
    save_file({"views": torch.ones(2, 3, 1, 8, 8)}, folder / "golden.safetensors")
    assert refusal(folder).found == "views float32 (2, 3, 1, 8, 8)"
    save_file({"images": torch.ones(1)}, folder / "golden.safetensors")
    assert refusal(folder).found == "images float32 (1,)"


def changed_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_configuration_of_other_keys_is_refused_with_all_of_them(saved):
    folder, _ = saved
    changed_config(folder, lambda config: (config.pop("report"), config.update(colour="red")))
    assert refusal(folder).found == "2 problems: colour: unknown key; report: missing"


@pytest.mark.parametrize("found", [2, 4, None])
def test_a_checkpoint_of_another_format_is_refused_before_its_keys_are(saved, found):
    folder, _ = saved
    changed_config(folder, lambda config: (config.pop("report"), config.update(format=found)))
    error = refusal(folder)
    assert (error.found, error.expected) == (f"format {found}", "format 3")


@pytest.mark.parametrize("text", ["{", "[]", '"\ud800"', "null"])
def test_a_damaged_configuration_is_refused(saved, text):
    folder, _ = saved
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    assert refusal(folder).subject == str(folder / "config.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["architecture"]["vision_cfg"].update(timm_model_name="x"), "from timm"),
        (lambda c: c["architecture"].pop("text_cfg"), "no vision_cfg and text_cfg"),
        (lambda c: c["architecture"]["vision_cfg"].update(wide=3), "TypeError"),
        (lambda c: c["architecture"].pop("embed_dim"), "TypeError"),
        (lambda c: c["architecture"]["text_cfg"].update(heads=3), "AssertionError"),
        (lambda c: c["model"].update(n_local=9), "n_local is 9"),
    ],
)
def test_a_backbone_that_cannot_be_built_is_refused(saved, change, reason):
    folder, _ = saved
    changed_config(folder, change)
    error = refusal(folder)
    assert error.subject == str(folder / "config.json")
    assert error.found.startswith("an architecture that cannot be built (")
    assert reason in error.found


def test_a_model_configuration_that_means_nothing_is_refused(saved):
    folder, _ = saved
    changed_config(folder, lambda config: config["model"].update(pooling="max"))
    assert "pooling is 'max'" in refusal(folder).found
    changed_config(folder, lambda config: config["model"].update(pool="mean"))
    assert "model.pool: unknown key" in refusal(folder).found


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no checkpoint: found no config\.json"):
        load_checkpoint(tmp_path)


@torch.no_grad()
def test_a_checkpoint_can_start_a_model_with_adapters_at_another_size(tmp_path):
    base = tiny(tmp_path, image_adapter=None, text_adapter=None).float()
    save(tmp_path / "base", base)
    start = MammoClip(tiny_config(tmp_path, pretrained=str(tmp_path / "base"))).eval()
    images = exams(dtype=torch.float32)
    assert torch.equal(start.encode_exam(images), base.encode_exam(images))
    taller = MammoClip(
        tiny_config(tmp_path, pretrained=str(tmp_path / "base"), image_size=(96, 48))
    )
    assert taller.image.positional_embedding.shape == (1 + 6 * 3, 32)
    assert torch.equal(taller.image.proj, base.image.proj)
    state = load_file(tmp_path / "base" / "model.safetensors")
    del state["image.positional_embedding"]
    save_file(state, tmp_path / "base" / "model.safetensors")
    changed_config(tmp_path / "base", lambda c: c.update(base_sha256=base_sha256(state)))
    with pytest.raises(CheckpointError, match=r"found no image\.positional_embedding"):
        MammoClip(tiny_config(tmp_path, pretrained=str(tmp_path / "base")))
