"""A whole predict, in a process of its own, leaves torch and open_clip unimported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import exams

PREDICT = """
import json, sys
import mammoclip_sdk
from mammoclip_sdk.report import write_report
bundle, exam, page = sys.argv[1:]
predictor = mammoclip_sdk.Predictor(bundle, device="cpu")
examination = predictor.examine(exam)
write_report(examination, page)
(again,) = predictor.predict_many([exam])
banned = {"torch", "torchvision", "open_clip", "timm", "training", "export", "benchmarks"}
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({
    "status": [examination.prediction.status, again.status],
    "used": sorted(loaded & {"onnxruntime", "pydicom", "numpy"}),
    "banned": sorted(loaded & banned),
}))
"""


def test_a_predict_never_imports_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    exams.write_exam(tmp_path / "exam", exams.PLAIN)
    paths = [str(tiny_bundle), str(tmp_path / "exam"), str(tmp_path / "page.html")]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *paths], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "status": ["scored", "scored"],
        "used": ["numpy", "onnxruntime", "pydicom"],
        "banned": [],
    }
