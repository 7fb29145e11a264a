"""What an export takes: golden exams, checkpoints, settings; each is refused by its own reason."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from exams import PLAIN, write_exam
from small_checkpoint import FINDINGS, PREPROCESSING, SIZE, bytes_below, invoke, write_checkpoint
from typer.testing import CliRunner

from export import answers, build_engine, random_checkpoint
from export.build_engine import ExportConfig
from export.errors import ExportError
from export.golden import golden_views, structured_exams
from mammoclip_sdk.parity.exams import MAX_BYTES
from training.errors import CheckpointError
from training.saved_model import load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    golden = torch.from_numpy(structured_exams(*SIZE, count=2, seed=7))
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    return write_checkpoint(folder, golden_views=golden)


# What goes in


def test_golden_exams_from_an_npz_or_from_folders_of_dicom_files(checkpoint, tmp_path):
    loaded = load_checkpoint(checkpoint)
    given = structured_exams(*SIZE, count=3, seed=5)
    np.savez(tmp_path / "given.npz", views=given)
    found = golden_views(loaded, PREPROCESSING, tmp_path / "given.npz", seed=0)
    assert np.array_equal(found, given)
    for name in ("exam_1", "exam_2"):
        write_exam(tmp_path / "exams" / name, PLAIN)
    found = golden_views(loaded, PREPROCESSING, tmp_path / "exams", seed=0)
    assert found.shape == (2, 4, 1, *SIZE)
    assert np.array_equal(found[0], found[1])
    assert 0.2 < found.max() <= 1
    single = golden_views(loaded, PREPROCESSING, tmp_path / "exams" / "exam_1", seed=0)
    assert np.array_equal(single, found[:1])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 4, 1, 32, 48), np.float32),
        np.zeros((1, 4, 1, *SIZE), np.float64),
        np.full((1, 4, 1, *SIZE), 1.5, np.float32),
        np.full((1, 4, 1, *SIZE), np.nan, np.float32),
        np.zeros((0, 4, 1, *SIZE), np.float32),
    ],
    ids=["size", "dtype", "range", "nan", "empty"],
)
def test_golden_exams_that_are_no_model_inputs_are_refused(checkpoint, tmp_path, wrong):
    np.savez(tmp_path / "wrong.npz", views=wrong)
    with pytest.raises(ExportError, match=r"expected float32 \(N, 4, 1, 48, 32\), 0 to 1"):
        golden_views(load_checkpoint(checkpoint), PREPROCESSING, tmp_path / "wrong.npz", seed=0)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no zip", b"\x93NUMPY", "unnamed"])
def test_golden_exams_from_a_file_that_is_none_are_refused(checkpoint, tmp_path, content):
    path = tmp_path / "wrong.npz"
    if content == "unnamed":
        np.savez(path, images=np.zeros(1))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError) as caught:
        golden_views(load_checkpoint(checkpoint), PREPROCESSING, path, seed=0)
    assert caught.value.subject == str(path)


def test_a_checkpoint_without_golden_exams_gets_made_ones(tmp_path):
    loaded = load_checkpoint(write_checkpoint(tmp_path / "checkpoint"))
    found = golden_views(loaded, PREPROCESSING, None, seed=8)
    assert np.array_equal(found, structured_exams(*SIZE, count=4, seed=8))
    assert not np.array_equal(found, structured_exams(*SIZE, count=4, seed=9))


def test_made_exams_have_air_tissue_and_extremes():
    exams = structured_exams(64, 32, count=3, seed=1)
    assert exams.dtype == np.float32
    assert (exams.min(), exams.max()) == (0, 1)
    breast = exams[0, 0, 0]
    assert 0.2 < (breast == 0).mean() < 0.9
    assert breast[breast > 0].std() > 0.02
    assert set(np.unique(exams[-1])) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"preprocessing": None, "model_card": None}, "no preprocessing; no model_card;"),
        ({"findings": (), "provenance": None}, "no provenance; no findings;"),
        ({"findings": FINDINGS[:1] * 2}, "2 findings named 'malignancy';"),
        (
            {"findings": (replace(FINDINGS[0], negative_prompt=" "),)},
            "a prompt of 'malignancy' that says nothing;",
        ),
        (
            {"preprocessing": replace(PREPROCESSING, width=64)},
            "views of (48, 64) pixels for a model that takes (48, 32) (height, width);",
        ),
    ],
)
def test_a_checkpoint_that_no_bundle_can_be_made_of_is_refused(tmp_path, changes, reason):
    folder = write_checkpoint(tmp_path / "checkpoint", **changes)
    code, said = invoke("--checkpoint", folder, "--out", tmp_path / "bundle")
    assert code == 2
    assert reason in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-Z-99", "open_clip model 'ViT-Z-99', no such name in open_clip"),
        ("ViT-L-14", "'ViT-L-14' as the name of another architecture than open_clip's"),
    ],
)
def test_a_backbone_by_a_name_that_is_not_its_own_is_refused(checkpoint, tmp_path, name, reason):
    loaded = load_checkpoint(checkpoint)
    model = replace(loaded.model.config, open_clip_model=name)
    config = ExportConfig(checkpoint=checkpoint, out=tmp_path / "bundle")
    with pytest.raises(ExportError) as caught:
        answers.check_complete(loaded.record, model, config)
    assert reason in caught.value.found


def test_more_parity_exams_than_a_bundle_takes_are_refused_first(checkpoint, tmp_path):
    pixels = 4 * SIZE[0] * SIZE[1]
    count = (MAX_BYTES - 2**23) // pixels  # and the exam of extremes
    out = tmp_path / "bundle"
    with pytest.raises(ExportError) as caught:
        build_engine.main(ExportConfig(checkpoint=checkpoint, out=out, parity_exams=count))
    assert f"{count} parity exams of (48, 32) pixels, {(count + 1) * pixels} bytes" in str(
        caught.value
    )
    loaded = load_checkpoint(checkpoint)
    fewer = ExportConfig(checkpoint=checkpoint, out=out, parity_exams=count - 1)
    answers.check_complete(loaded.record, loaded.model.config, fewer)


@pytest.mark.parametrize("other", ["mammogram with malignancy", " Mammogram with  MALIGNANCY"])
def test_prompts_that_are_one_to_the_model_are_refused(tmp_path, other):
    same = replace(FINDINGS[0], negative_prompt=other)
    folder = write_checkpoint(tmp_path / "checkpoint", findings=(same,))
    code, said = invoke("--checkpoint", folder, "--out", tmp_path / "bundle")
    assert code == 2
    assert "finding 'malignancy': found two prompts that are one to the model" in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    code, said = invoke("--checkpoint", folder, "--out", tmp_path / "bundle")
    assert code == 2
    assert f"No bundle was written: {weights}: found" in said
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        build_engine.main(ExportConfig(checkpoint=tmp_path, out=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_another_base_model_than_the_one_that_is_expected_is_refused(checkpoint, tmp_path):
    own = load_checkpoint(checkpoint).record.base_sha256
    config = ExportConfig(checkpoint=checkpoint, out=tmp_path / "bundle", base_sha256="0" * 64)
    with pytest.raises(ExportError) as caught:
        build_engine.main(config)
    assert own in caught.value.found
    assert "0" * 64 in caught.value.expected
    record = load_checkpoint(checkpoint).record
    answers.check_complete(
        record, load_checkpoint(checkpoint).model.config, replace(config, base_sha256=own)
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("--precisions", "fp16,int8"),
            "found precisions without fp32; expected fp32 among them. Correct this option.",
        ),
        (
            ("--precisions", "fp8"),
            "found precisions fp8; expected precisions of fp32, fp16, bf16, int8, fp32 among them. "
            "Correct this option.",
        ),
        (
            ("--parity-exams", 63),
            "found 63 parity exams; expected at least 64 parity exams. Correct this option.",
        ),
        (
            ("--engine", "cudnn"),
            "found engines of cudnn; expected engines of tensorrt, tensorrt_rtx. Correct this ",
        ),
        (
            ("--base-sha256", "ABC"),
            "found base_sha256 'ABC'; expected 64 lower-case hexadecimal digits. Correct this ",
        ),
        (("--name", " "), "found an empty name; expected a name. Correct this option."),
        (
            ("--release", -1, "--seed", -1),
            "found seed -1; release -1; expected a seed that is not negative; a release that is "
            "not negative. Correct these options.",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(tmp_path, options, reason):
    code, said = invoke("--checkpoint", tmp_path, "--out", tmp_path / "bundle", *options)
    assert code == 2
    assert reason in said
    assert list(tmp_path.iterdir()) == []


# A checkpoint of random weights


def random_checkpoint_at(folder, seed):
    command = typer.Typer()
    command.command()(random_checkpoint.main)
    options = ["--model", "phantom-clip", "--height", 64, "--width", 32, "--seed", seed]
    result = CliRunner().invoke(command, [*map(str, options), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return load_checkpoint(folder)


@torch.no_grad()
def test_a_random_checkpoint_is_complete_honest_and_follows_from_its_seed(tmp_path):
    first, again, other = (
        random_checkpoint_at(tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")
    assert first.record.base_sha256 == again.record.base_sha256 != other.record.base_sha256
    answers.check_complete(
        first.record,
        first.model.config,
        ExportConfig(checkpoint=tmp_path / "a", out=tmp_path / "bundle"),
    )
    assert all(finding.calibration is None for finding in first.record.findings)
    assert "drawn at random from seed 3" in first.record.model_card.training_data
    assert "never trained" in first.record.model_card.limitations[0]
    for name, tensor in first.model.named_parameters():
        if "_adapter." in name or name == "image.view_embedding":
            assert tensor.std() > 0.01, name
    exams = torch.from_numpy(structured_exams(64, 32, count=3, seed=1))
    embedding = first.model.encode_exam(exams)
    cosines = embedding @ embedding.T
    assert (cosines[~torch.eye(3, dtype=bool)] < 0.9999).all()


def test_a_random_checkpoint_of_an_unknown_model_is_refused(tmp_path):
    command = typer.Typer()
    command.command()(random_checkpoint.main)
    result = CliRunner().invoke(command, ["--model", "ViT-Z", "--out", str(tmp_path / "c")])
    assert result.exit_code == 2
    assert "No checkpoint was written: open_clip model 'ViT-Z'" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []
