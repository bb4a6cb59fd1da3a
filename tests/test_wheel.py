"""The package as users install it: built, installed elsewhere, and planning from there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from whole_way import write_cases

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests", "shared", "venv")
WHERE = "import autoseg, autoseg.profiles; print(autoseg.__file__); print(autoseg.profiles.__file__)"


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built from a copy of the tree, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder / "tree")
    (wheel,) = (folder / "dist").glob("autoseg_scans-*.whl")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder / "site", wheel)
    shutil.rmtree(folder / "tree")
    return folder / "site"


def test_the_wheel_holds_every_file_of_the_package(installed):
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "autoseg").rglob("*.py")}
    profiles = {f"autoseg/profiles/{path.name}" for path in (ROOT / "plans").iterdir() if path.suffix in (".json", ".py")}
    there = {path.relative_to(installed).as_posix() for path in (installed / "autoseg").rglob("*") if path.suffix in (".json", ".py")}
    assert there == package | profiles


def test_it_plans_from_the_wheel_with_the_profiles_inside_it(installed, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    surroundings = {**os.environ, "PYTHONPATH": str(installed)}
    files = run(sys.executable, "-c", WHERE, cwd=elsewhere, env=surroundings).split()
    assert [Path(file).parent for file in files] == [installed / "autoseg", installed / "autoseg" / "profiles"]
    scans = write_cases(tmp_path / "scans", ["a", "b", "c"])
    words = ("-m", "autoseg", "plan", scans, "-o", "run", "--workers", "1", "--device", "cpu")
    text = run(sys.executable, *words, cwd=elsewhere, env=surroundings)
    assert "autoseg-cpu" in text
    assert (elsewhere / "run" / "plan.json").is_file()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["run"]
