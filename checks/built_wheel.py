"""Build the wheel from a clean copy of the checkout, judge its content, and score an exam with it.

The copy holds what git tracks or would add, so a file that lies about in the checkout cannot hide
that the wheel needs it; the trial runs in a fresh environment and in another folder, so the
checkout cannot stand in for what the wheel lacks.

Usage: python -m checks.built_wheel, with the build tools installed, in the checkout
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from checks import checkout

ROOT = Path(__file__).resolve().parent.parent
DEMO_BUNDLE = "mammoclip_sdk/demo/bundle/"
DEMO_BUNDLE_BYTES = 10 * 10**6  # a wheel is downloaded by everyone, with a bundle of one's own too


def copy_checkout(folder: Path) -> list[str]:
    """Copy what git tracks or would add into `folder`; return the names, relative to it."""
    names = checkout.files(ROOT)
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return names


def problems(wheel: Path, sources: list[str]) -> list[str]:
    """Return what the wheel holds too much or too little, a sentence each.

    `sources` are the checkout's files: those below mammoclip_sdk/ belong into the wheel, besides
    them the one compiled module and the metadata, and nothing else.
    """
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
    metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    native = [name for name in sizes if re.fullmatch(r"mammoclip_sdk/_native[^/]*\.(so|pyd)", name)]
    wanted = {name for name in sources if name.startswith("mammoclip_sdk/")}
    extra = {name for name in sizes if not name.startswith(metadata)} - wanted - set(native)
    found = [f"{wheel.name} holds {name}, which does not belong there" for name in sorted(extra)]
    found += [f"{wheel.name} lacks {name}" for name in sorted(wanted - set(sizes))]
    if len(native) != 1:
        found.append(f"{wheel.name} holds {len(native)} compiled modules _native, expected one")
    bundle = sum(size for name, size in sizes.items() if name.startswith(DEMO_BUNDLE))
    if not 0 < bundle <= DEMO_BUNDLE_BYTES:
        found.append(f"{DEMO_BUNDLE} takes {bundle} bytes, expected 1 to {DEMO_BUNDLE_BYTES}")
    return found


def try_out(wheel: Path, folder: Path) -> None:
    """Install the wheel as a user would, at the locked versions, and score the example exam."""
    constraints = folder / "constraints.txt"
    pins = re.findall(r"^[\w.-]+==\S+", (ROOT / "requirements/demo.lock").read_text("utf-8"), re.M)
    constraints.write_text("\n".join(pins) + "\n", "utf-8")
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
    install = ["-m", "pip", "install", "-qq", "--constraint", f"{constraints}", f"{wheel}[cpu]"]
    subprocess.run([f"{binaries / 'python'}", *install], cwd=folder, check=True)
    report = folder / "report.html"
    demo = [f"{binaries / 'mammoclip-sdk'}", "demo", "--report", f"{report}"]
    subprocess.run(demo, cwd=folder, check=True)
    if not report.is_file():
        sys.exit(f"{wheel.name}: the demo wrote no report")


def main() -> None:
    """Build, judge, try; leave the wheel in dist/ only when all is well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = copy_checkout(folder / "checkout")
        build = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
        built = ["--wheel-dir", f"{folder / 'dist'}", f"{folder / 'checkout'}"]
        subprocess.run([*build, *built], check=True)
        [wheel] = (folder / "dist").glob("*.whl")
        if found := problems(wheel, sources):
            sys.exit("\n".join(found))
        try_out(wheel, folder)
        (ROOT / "dist").mkdir(exist_ok=True)
        shutil.copyfile(wheel, ROOT / "dist" / wheel.name)
        sys.stdout.write(f"dist/{wheel.name} holds what it should and scores the example exam\n")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed with exit status {error.returncode}")
