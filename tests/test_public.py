"""The public names, and what they do not import."""

import json
import subprocess
import sys

import pytest

import autoseg

PUBLIC = [
    "AutosegError",
    "__version__",
    "change",
    "compare",
    "demo",
    "ensemble",
    "evaluate",
    "explain",
    "load",
    "plan",
    "predict",
    "prepare",
    "run",
    "select",
    "status",
    "stop",
    "train",
    "update",
]
CHILD = """
import json, sys
from autoseg.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = ("numpy", "torch", "scipy", "SimpleITK", "matplotlib", "sklearn", "rich")
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""


def list_heavy(*words):
    """Exit code of a command in a fresh process, and which heavy packages it imported."""
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, words)], capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(names)


def test_the_public_names_are_these():
    assert autoseg.__all__ == PUBLIC
    assert dir(autoseg) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_had(name):
    assert getattr(autoseg, name) is not None


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'fit'.*evaluate, explain, load"):
        autoseg.fit  # noqa: B018


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["plan"]])
def test_help_and_mistakes_import_nothing_heavy(words):
    code, heavy = list_heavy(*words)
    assert code == (2 if words == ["plan"] else 0)
    assert heavy == set()


def test_importing_autoseg_imports_nothing_heavy():
    script = "import sys, autoseg; print(sorted({'numpy', 'torch', 'autoseg.commands'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_planning_never_imports_torch(scans, tmp_path):
    code, heavy = list_heavy("plan", scans, "-o", tmp_path / "run", "--workers", "1", "--device", "cpu", "-q")
    assert code == 0
    assert "numpy" in heavy
    assert "torch" not in heavy
