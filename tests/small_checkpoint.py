"""A checkpoint small enough to be exported in seconds, and the exporter's command, run here."""

import functools

import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from export import build_engine
from export.golden import structured_exams
from export.runtimes import incomparable
from export.settings import PRECISIONS, ExportConfig
from export.stages import Stages
from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    Calibration,
    Interval,
    Measurement,
    ModelCard,
    Preprocessing,
)
from mammoclip_sdk.exam import Acceptance, Device
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding
from training.model import MammoClip, ModelConfig
from training.saved_model import save_checkpoint

app = typer.Typer()
app.command()(build_engine.command)
SIZE = (48, 32)
ARCHITECTURE = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESSING = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=SIZE[0],
    width=SIZE[1],
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)
FINDINGS = (
    TrainedFinding(
        name="malignancy",
        negative_prompt="mammogram without malignancy",
        positive_prompt="mammogram with malignancy",
        calibration=Calibration(slope=1.5, intercept=-0.25, fitted_on="validation exams"),
    ),
    TrainedFinding(
        name="density", negative_prompt="breast of fat", positive_prompt="breast of dense tissue"
    ),
)
MEASUREMENT = Measurement(
    name="AUC",
    finding="malignancy",
    value=Interval(estimate=0.88, lower=0.84, upper=0.91, level=0.95, method="delong"),
    exams=400,
    data="unseen exams",
)
ACCEPTANCE = Acceptance(
    implants=True, synthetic_2d=False, devices=(Device(manufacturer="ACME", model="Mammo 3"),)
)
MODEL_CARD = ModelCard(
    training_data="None.", limitations=("It knows nothing.",), licence="Apache-2.0"
)
COMPLETE = {
    "settings": {"epochs": 2},
    "report": {"loss": 0.5},
    "provenance": Provenance(git_commit="0" * 40, seed=3, command="make model"),
    "preprocessing": PREPROCESSING,
    "acceptance": ACCEPTANCE,
    "findings": FINDINGS,
    "measurements": (MEASUREMENT,),
    "intended_use": "Tests.",
    "model_card": MODEL_CARD,
}


HERE = tuple(one for one in PRECISIONS if one not in incomparable())
"""The precisions that this machine can export in."""


def write_checkpoint(folder, **changes):
    torch.manual_seed(0)
    adapter = AdapterConfig(
        rank=4, activation="gelu", placement="both", connection="serial", scale=0.3
    )
    config = ModelConfig(
        open_clip_model="/somewhere/tiny.json",
        pretrained=None,
        image_size=SIZE,
        n_local=1,
        view_embedding="learned",
        image_adapter=adapter,
        text_adapter=adapter,
    )
    model = MammoClip(config, architecture=ARCHITECTURE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_adapter." in name or name == "image.view_embedding":
                parameter.normal_(std=0.3)
    save_checkpoint(folder, model, **(COMPLETE | changes))
    return folder


def invoke(*arguments):
    """Run the exporter's command; return its exit code and what it says of it in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.stderr.split())


def bytes_below(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@functools.cache
def everything(base):
    """One export in every precision, made once for all tests: its result, settings and stages."""
    folder = base / "exported"
    golden = torch.from_numpy(structured_exams(*SIZE, count=2, seed=7))
    config = ExportConfig(
        checkpoint=write_checkpoint(folder / "checkpoint", golden_views=golden),
        out=folder / "bundle",
        name="test",
        version="1.2",
        release=3,
        precisions=HERE,
    )
    stages = Stages(Console(quiet=True))
    return build_engine.main(config, stages), config, stages
