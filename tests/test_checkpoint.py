"""Checkpoints: written whole, and read as they were written or refused by name."""

import hashlib
import json
import resource
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_clip import PROMPTS, exams, tiny, tiny_config, train_at_random

from mammoclip_sdk.bundle import Calibration, Interval, Measurement, OperatingPoint
from training.checkpoint import Provenance, TrainedFinding, base_sha256, trained_sha256
from training.errors import CheckpointError
from training.model import MammoClip
from training.saved_model import load_checkpoint, save_checkpoint

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
    assert names == ["config.json", "config.sha256", "golden.safetensors", "model.safetensors"]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["checkpoint"]


def test_a_checkpoint_is_replaced_when_asked_for_and_nothing_else_ever(tmp_path):
    model = tiny(tmp_path).float()
    save(tmp_path / "checkpoint", model, golden_views=exams())
    train_at_random(model, seed=9)
    with pytest.raises(CheckpointError, match=r"found a finished checkpoint; .*--overwrite"):
        save(tmp_path / "checkpoint", model)
    assert load_checkpoint(tmp_path / "checkpoint").golden_views is not None
    save(tmp_path / "checkpoint", model, overwrite=True)
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.golden_views is None
    assert torch.equal(
        loaded.model.encode_view(exams(dtype=torch.float32)[:, 0]),
        model.encode_view(exams(dtype=torch.float32)[:, 0]),
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    with pytest.raises(CheckpointError, match="found something that is no checkpoint"):
        save(tmp_path / "notes", model, overwrite=True)
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
            save(tmp_path / "checkpoint", model, overwrite=True)
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


@pytest.mark.parametrize("name", ["image.blocks.1.mlp_adapter.down.weight", "image.view_embedding"])
def test_other_adapters_than_those_that_were_trained_are_refused(saved, name):
    folder, tensors = saved
    tensors[name][0, 0] += 1e-6
    save_file(tensors, folder / "model.safetensors")
    error = refusal(folder)
    recorded = json.loads((folder / "config.json").read_text())["trained_sha256"]
    assert error.subject == str(folder / "model.safetensors")
    assert error.found.startswith("adapters and view embedding of SHA-256 ")
    assert error.expected == f"{recorded}, those that were trained"
    with pytest.raises(CheckpointError, match="those that were trained"):
        MammoClip(tiny_config(folder, pretrained=str(folder), view_embedding="learned"))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("image.blocks.{}.mlp_adapter.up.weight", "adapters and view embedding"),
        ("image.blocks.{}.block.attn.out_proj.weight", "base weights"),
    ],
)
def test_two_tensors_of_one_shape_that_were_swapped_are_refused(saved, pair, found):
    folder, tensors = saved
    first, second = pair.format(0), pair.format(1)
    tensors[first], tensors[second] = tensors[second], tensors[first]
    save_file(tensors, folder / "model.safetensors")
    assert refusal(folder).found.startswith(f"{found} of SHA-256")


def test_the_order_of_tensors_in_the_file_counts_for_nothing(saved):
    folder, tensors = saved
    assert trained_sha256(dict(reversed(tensors.items()))) == trained_sha256(tensors)
    path = folder / "model.safetensors"
    stored = path.read_bytes()
    header, data, offset = {}, b"", 0
    for name in sorted(tensors, reverse=True):
        values = tensors[name].numpy().tobytes()
        span, shape = [offset, offset := offset + len(values)], list(tensors[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": span}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert path.read_bytes() != stored
    assert load_checkpoint(folder).model.state_dict().keys() == tensors.keys()


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """Every file of a checkpoint with golden exams, and every tensor of it: file, start, end."""
    folder = tmp_path_factory.mktemp("whole")
    model = tiny(folder, view_embedding="learned").float()
    save(folder / "checkpoint", model, findings=[FINDING], golden_views=exams(1))
    load_checkpoint(folder / "checkpoint")
    found = {}
    for path in (folder / "checkpoint").iterdir():
        stored = path.read_bytes()
        found[path.name] = (path, 0, len(stored))
        if path.suffix == ".safetensors":
            start = 8 + struct.unpack_from("<Q", stored)[0]
            found[f"header of {path.name}"] = (path, 0, start)
            for name, entry in json.loads(stored[8:start]).items():
                found[name] = (path, *(start + offset for offset in entry["data_offsets"]))
    assert len(found) == 4 + 2 + 1 + len(model.state_dict())
    return found


@given(drawn=st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_anywhere_is_refused(regions, drawn):
    path, start, end = regions[drawn.draw(st.sampled_from(sorted(regions)))]
    bit = drawn.draw(st.integers(start * 8, end * 8 - 1))
    stored = path.read_bytes()
    data = bytearray(stored)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    try:
        refusal(path.parent)
    finally:
        path.write_bytes(stored)


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


def test_golden_exams_too_many_or_too_few_are_refused(saved, tmp_path):
    folder, _ = saved
    save(tmp_path / "with", tiny(tmp_path).float(), golden_views=exams())
    golden = tmp_path / "with" / "golden.safetensors"
    (folder / "golden.safetensors").write_bytes(golden.read_bytes())
    assert refusal(folder).expected == "no golden exams"
    golden.unlink()
    assert refusal(tmp_path / "with").subject == str(golden)


def put_config(folder, data):
    """Write a configuration and its checksum, as ``sha256sum config.json`` prints it."""
    (folder / "config.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (folder / "config.sha256").write_text(f"{digest}  config.json\n")


def changed_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    put_config(folder, json.dumps(config).encode())


def test_a_configuration_of_other_keys_is_refused_with_all_of_them(saved):
    folder, _ = saved
    changed_config(folder, lambda config: (config.pop("report"), config.update(colour="red")))
    assert refusal(folder).found == "2 problems: colour: unknown key; report: missing"


@pytest.mark.parametrize("found", [3, 5, None])
def test_a_checkpoint_of_another_format_is_refused_before_its_keys_are(saved, found):
    folder, _ = saved
    changed_config(folder, lambda config: (config.pop("report"), config.update(format=found)))
    (folder / "config.sha256").unlink()  # format 3 had none
    error = refusal(folder)
    assert (error.found, error.expected) == (f"format {found}", "format 4")
    assert error.remedy.startswith("Export it with the version that wrote it")


@pytest.mark.parametrize("text", ["{", "[]", '"\ud800"', "null"])
def test_what_is_no_configuration_is_refused(saved, text):
    folder, _ = saved
    put_config(folder, text.encode(errors="surrogatepass"))
    error = refusal(folder)
    assert error.subject == str(folder / "config.json")
    assert " problem" in error.found


@pytest.mark.parametrize(
    ("checksum", "found"),
    [(None, "no config.sha256"), (b"", "other bytes than config.sha256 names")],
)
def test_a_configuration_without_its_checksum_is_refused(saved, checksum, found):
    folder, _ = saved
    (folder / "config.sha256").unlink()
    if checksum is not None:
        (folder / "config.sha256").write_bytes(checksum)
    error = refusal(folder)
    assert error.subject == str(folder / "config.json")
    assert error.found == found
    assert error.expected == "the SHA-256 that config.sha256 holds"


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
