"""Weights from elsewhere: files in open_clip's layout, and position embeddings of another grid."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file
from tiny_clip import ADAPTER, DEPTH, TINY, difference, exams, tiny, tiny_config

from training.clip import build, interpolate_positions
from training.errors import CheckpointError, UnusableInputError
from training.model import MammoClip, ModelConfig
from training.saved_model import save_checkpoint


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


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_of_anything_but_tensors_is_refused(tmp_path, capsys):
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt is not a plain file of tensors"):
        MammoClip(tiny_config(tmp_path, pretrained=str(tmp_path / "trap.pt")))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("named", "source"),
    [
        ("laion2b_s34b_b79k", "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("openai", "hf download timm/vit_base_patch32_clip_224.openai"),
        ("no/such/weights.pt", "hf download REPOSITORY"),
    ],
)
def test_what_is_no_file_is_refused_without_a_look_at_a_network(named, source, monkeypatch):
    def connect(*_):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    keys = {"image_size": (224, 224), "n_local": 2, "image_adapter": None, "text_adapter": None}
    with pytest.raises(UnusableInputError) as caught:
        MammoClip(ModelConfig(open_clip_model="ViT-B-32", pretrained=named, **keys))
    assert caught.value.found == f"no file {named}"
    assert caught.value.expected.startswith("the pretrained weights as a file on disk")
    assert f"{source} open_clip_model.safetensors" in caught.value.remedy
    assert ("with or without -quickgelu" in caught.value.remedy) == (named == "openai")


def test_the_hub_is_off_line_before_open_clip_is_imported():
    code = "import training.clip, huggingface_hub; print(huggingface_hub.constants.HF_HUB_OFFLINE)"
    for said, offline in ((None, "True"), ("0", "False")):
        environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | ({} if said is None else {"HF_HUB_OFFLINE": said}),
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == offline


def test_training_goes_on_with_adapters_of_their_own_kind_alone(tmp_path):
    folder = tmp_path / "checkpoint"
    trained = tiny(tmp_path, view_embedding="learned").float()
    save_checkpoint(folder, trained, settings={}, report={})
    keys = {"pretrained": str(folder), "view_embedding": "learned"}
    start = MammoClip(tiny_config(tmp_path, **keys)).state_dict()
    assert all(torch.equal(start[name], value) for name, value in trained.state_dict().items())
    for changes in (
        {"image_adapter": replace(ADAPTER, activation="relu")},
        {"text_adapter": None},
        {"view_embedding": "none"},
    ):
        (key,) = changes
        with pytest.raises(CheckpointError, match=f"found {key} .*; expected {key} "):
            MammoClip(tiny_config(tmp_path, **(keys | changes)))
