"""Mammo-CLIP against open_clip itself, and what its configuration keys promise."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from tiny_clip import (
    ADAPTER,
    DEPTH,
    PROMPTS,
    SIZE,
    TINY,
    difference,
    exams,
    merged,
    tiny,
    tiny_config,
    train_at_random,
)

from mammoclip_sdk.exam import VIEWS, View
from training.adapters import AdapterConfig
from training.clip import build, tokenizer_of
from training.model import MammoClip, ModelConfig, freeze_all_but_adapters

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


# What is refused


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
