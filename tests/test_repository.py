"""What the repository promises about itself: versions, locks, extras, documents and the wheel."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pydicom
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from checks import built_wheel, hosts, version
from mammoclip_sdk.prediction import Prediction, ViewRecord
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.scoring import FindingScore

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]
BASE = PYPROJECT["project"]["dependencies"]
LOCKED = {
    "demo": BASE + EXTRAS["cpu"] + GROUPS["build"],
    "test": [*BASE, *EXTRAS["cpu"], *EXTRAS["train"], *itertools.chain(*GROUPS.values())],
}

# Loads every module given as an argument while each import of these packages fails.
IMPORT_WITHOUT_TORCH = """
import importlib, sys
BLOCKED = {"torch", "torchvision", "open_clip", "timm", "training", "export", "benchmarks"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is refused here")
sys.meta_path.insert(0, Refuse())
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""


def _lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")


def _pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", _lock(name), re.MULTILINE)
    return {canonicalize_name(package): pinned for package, pinned in found}


# -- version --------------------------------------------------------------------------------------


def test_installed_version_changelog_and_pyproject_agree():
    assert importlib.metadata.version("mammoclip-sdk") == PYPROJECT["project"]["version"]
    assert version.problems(ROOT) == []


@pytest.mark.parametrize(
    ("changelog", "complaint"),
    [
        ("## [0.2.0] - 2026-11-24\n", "does not begin with a section '## [Unreleased]'"),
        ("## [Unreleased]\n", "has no release"),
        ("## [Unreleased]\n## [0.1.0] - 2026-11-24\n", "ends at 0.1.0"),
        ("## [Unreleased]\n## [0.2.0]\n", "without its date"),
        ("## [Unreleased]\n## [0.2.0] - 24.11.2026\n", "without its date"),
        ("## [Unreleased]\n## [0.2.0] - 2026-01-01\n## [0.1.0] - 2026-02-01\n", "newest first"),
    ],
)
def test_changelog_that_disagrees_with_the_version_is_refused(tmp_path, changelog, complaint):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n', "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(changelog, "utf-8")
    [problem] = version.problems(tmp_path)
    assert complaint in problem


# -- locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "test"])
def test_every_locked_distribution_has_an_exact_version_and_a_hash(name):
    # An entry is one line that begins at the margin and the indented lines that belong to it.
    entries = re.split(r"^(?=[^\s#])", _lock(name), flags=re.MULTILINE)[1:]
    assert len(entries) == len(_pins(name)) > 20
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+( ; .+)? \\\n    --hash=sha256:[0-9a-f]{64}\b", entry)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_lock_names_its_command_and_no_place_to_download_from(name):
    text = _lock(name)
    assert "make lock" in text[:200]
    assert "://" not in text
    assert not re.search(r"^\s*-(-|i\b|f\b|e\b)(?!-?hash=)", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_lock_satisfies_what_pyproject_asks_for(name):
    pins = _pins(name)
    for requirement in map(Requirement, LOCKED[name]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_demo_and_test_environments_run_the_same_versions():
    demo, test = _pins("demo"), _pins("test")
    assert demo == {package: test[package] for package in demo}
    assert "torch" not in demo


def test_environment_under_test_is_the_locked_one():
    pins = _pins("test")
    named = (
        "numpy",
        "onnxruntime",
        "openvino",
        "torch",
        "torchvision",
        "open-clip-torch",
        "pydicom",
    )
    for package in (*named, "pydicom"):
        assert importlib.metadata.version(package).partition("+")[0] == pins[package]


# -- extras ---------------------------------------------------------------------------------------


def test_each_extra_brings_exactly_its_runtime():
    brought = {extra: {Requirement(line).name for line in lines} for extra, lines in EXTRAS.items()}
    assert {"torch", "open_clip_torch", "onnx", "accelerate"} <= brought.pop("train")
    assert brought == {
        "cpu": {"onnxruntime"},
        "cuda": {"onnxruntime-gpu"},
        "tensorrt-rtx": {"tensorrt-rtx", "cuda-bindings"},
        "gpu": {"mammoclip-sdk"},
        "tensorrt": {"tensorrt", "cuda-bindings"},
        "openvino": {"openvino"},
        "signing": {"cryptography"},
    }
    assert Requirement(EXTRAS["gpu"][0]).extras == {"cuda", "tensorrt-rtx"}


def test_base_brings_no_runtime_and_no_torch():
    assert {Requirement(line).name for line in BASE} == {
        "numpy",
        "pydicom",
        "imagecodecs",
        "typer",
        "rich",
    }


def test_readme_lists_every_extra_and_says_that_cpu_and_cuda_exclude_one_another():
    assert set(re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE)) == set(EXTRAS)
    assert "**`cpu` and `cuda` exclude one another.**" in README


def test_the_pythons_named_are_those_that_ci_runs():
    classified = re.findall(r":: Python :: (3\.\d+)", str(PYPROJECT["project"]["classifiers"]))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    matrices = re.findall(r"python: \[(.+)\]", workflow)
    assert len(matrices) == 2
    assert all(re.findall(r"3\.\d+", matrix) == classified for matrix in matrices)
    assert f"Python {classified[0]} to {classified[-1]} " in README
    assert PYPROJECT["project"]["requires-python"] == f">={classified[0]}"


# -- documents ------------------------------------------------------------------------------------


def test_commands_in_documents_are_make_targets():
    names = [ROOT / ".ci/run", ROOT / ".github/workflows/ci.yml", *DOCUMENTS]
    text = "\n".join(name.read_text("utf-8") for name in names)
    targets = set(re.findall(r"(?:`|^ {4}|^|run: )make ([a-z-]+)", text, re.MULTILINE))
    assert targets >= {"demo", "test", "check", "bench", "demo-model", "wheel", "lock", "clean"}
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_make_clean_removes_what_git_ignores_and_nothing_that_it_tracks():
    done = subprocess.run(
        ["make", "--dry-run", "clean"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    removed = set(done.stdout.replace("\\\n", " ").split())
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {line.strip("/") for line in ignored} <= removed
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {name.partition("/")[0] for name in tracked} & removed


def test_command_lines_in_documents_are_known_to_the_program():
    text = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)
    lines = re.findall(r"^ {4}mammoclip-sdk (.+)$", text, re.MULTILINE)
    assert len(lines) >= 9
    for line in lines:
        words = line.split()
        commands = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        options = [word for word in words if word.startswith("--")]
        help_text = _program(*commands, "--help")
        assert all(option in help_text for option in options), line


def test_every_key_of_a_prediction_is_explained_in_the_order_it_has():
    page = (ROOT / "docs" / "json.md").read_text("utf-8")
    tables = re.split(r"\n\n(?=\| key)", page)[1:]
    explained = [
        [key for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
         for key in re.findall(r"`(\w+)`", cell)]
        for table in tables
    ]  # fmt: skip
    said = (Prediction, FindingScore, Reason, ViewRecord)
    assert explained == [[field.name for field in dataclasses.fields(kind)] for kind in said]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    assert all((path.parent / link).exists() for link in links), links


def test_readme_examples_score_the_example_exam(tmp_path):
    examples = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    folder = ROOT / "mammoclip_sdk" / "demo" / "exam"
    study = pydicom.dcmread(folder / "IM0001.dcm", stop_before_pixels=True).StudyInstanceUID
    expected = [r"malignancy 0\.\d+", "scored", rf"{re.escape(study)} 0\.\d+"]
    for example, answer in zip(examples, expected, strict=True):
        code, replaced = re.subn('"path/to/(exam|archive)"', lambda _: repr(str(folder)), example)
        assert replaced == 1
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(answer, done.stdout.strip())
    assert study in (tmp_path / "report.html").read_text("utf-8")


def _program(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mammoclip_sdk", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


# -- text -----------------------------------------------------------------------------------------


def test_no_text_names_a_registry_host():
    assert hosts.hits(ROOT) == []


def test_registry_host_is_found_with_file_and_line(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    host = ".".join(["files", "pythonhosted", "org"])
    (tmp_path / "install.md").write_text(f"first\nfrom {host}/simple\n", "utf-8")
    (tmp_path / "weights.bin").write_bytes(b"\0" + host.encode())
    (tmp_path / "fine.md").write_text("PyPI, conda and NVIDIA's own index\n", "utf-8")
    assert hosts.hits(tmp_path) == [f"install.md:2: names {host}"]


# -- the package ----------------------------------------------------------------------------------


def test_every_module_of_the_sdk_imports_without_torch():
    sources = sorted((ROOT / "mammoclip_sdk").rglob("*.py"))
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources
    ]
    assert "mammoclip_sdk.predictor" in names
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_TORCH, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_wheel_is_configured_to_hold_one_package():
    assert PYPROJECT["tool"]["scikit-build"]["wheel"] == {
        "packages": ["mammoclip_sdk"],
        "install-dir": "mammoclip_sdk",
    }


SOURCES = ["mammoclip_sdk/__init__.py", "mammoclip_sdk/demo/bundle/manifest.json", "cpp/x.cpp"]
GOOD_WHEEL = [*SOURCES[:2], "mammoclip_sdk/_native.cpython-311-x86_64-linux-gnu.so"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (GOOD_WHEEL, None),
        ([*GOOD_WHEEL, "training/__init__.py"], "holds training/__init__.py, which does not"),
        ([*GOOD_WHEEL, "mammoclip_sdk/stray.onnx"], "holds mammoclip_sdk/stray.onnx, which does"),
        (GOOD_WHEEL[1:], "lacks mammoclip_sdk/__init__.py"),
        (GOOD_WHEEL[:2], "holds 0 compiled modules _native"),
    ],
)
def test_wheel_with_too_much_or_too_little_is_refused(tmp_path, content, complaint):
    wheel = tmp_path / "mammoclip_sdk-0.1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*content, "mammoclip_sdk-0.1.0.dist-info/METADATA"]:
            archive.writestr(name, "x")
    found = built_wheel.problems(wheel, SOURCES)
    if complaint is None:
        assert found == []
    else:
        [problem] = found
        assert complaint in problem


def test_wheel_with_a_bundle_beyond_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(built_wheel, "DEMO_BUNDLE_BYTES", 3)
    wheel = tmp_path / "mammoclip_sdk-0.1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in GOOD_WHEEL:
            archive.writestr(name, "four")
    [problem] = built_wheel.problems(wheel, SOURCES)
    assert problem == "mammoclip_sdk/demo/bundle/ takes 4 bytes, expected 1 to 3"


def test_python_that_is_too_old_is_refused_in_words(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "cpp").mkdir()
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n", "utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
