"""The rooms of the house: every import, also inside functions, goes the allowed way."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "autoseg"
FILES = sorted(PACKAGE.rglob("*.py"))
BOTTOM = {"autoseg", "errors"}
LOW = BOTTOM | {"records"}
MIDDLE = LOW | {"arrays", "progress", "parallel"}
MAY_IMPORT = {
    "autoseg": set(),
    "errors": set(),
    "progress": set(),
    "parallel": {"errors"},
    "arguments": set(),
    "records": BOTTOM,
    "arrays": LOW,
    "planning": MIDDLE,
    "io": MIDDLE | {"profiles"},
    "evaluation": MIDDLE,
    "networks": MIDDLE,
    "training": MIDDLE | {"networks", "io"},
    "inference": MIDDLE | {"networks", "io"},
    "report": MIDDLE,
    "commands": MIDDLE | {"planning", "io", "evaluation", "networks", "training", "inference", "report"},
    "cli": BOTTOM | {"arguments", "commands"},
    "__main__": {"cli"},
}
TORCH_ROOMS = {"networks", "training", "inference", "commands"}
MOST_LINES = 400


def get_room(path):
    """The folder below autoseg, or the file where it lies in autoseg itself; autoseg/__init__.py is the room "autoseg"."""
    first = path.relative_to(PACKAGE).parts[0]
    return "autoseg" if first == "__init__.py" else first.removesuffix(".py")


def list_imports(path):
    """Full names of all modules that a file imports, wherever in it; `from autoseg import x` counts as autoseg.x where that is a room."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names += [node.module if node.module != "autoseg" else _name_part(alias.name) for alias in node.names]
    return sorted(set(names))


def _name_part(name):
    return f"autoseg.{name}" if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() or name == "profiles" else "autoseg"


def list_rooms(path):
    return {name.split(".")[1] if "." in name else "autoseg" for name in list_imports(path) if name.split(".")[0] == "autoseg"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_every_room_is_in_the_table():
    assert {get_room(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_rooms_below_it(path):
    room = get_room(path)
    assert list_rooms(path) - {room} <= MAY_IMPORT[room], f"{room} may import {sorted(MAY_IMPORT[room])}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_torch_lives_in_its_rooms(path):
    heavy = {name for name in list_imports(path) if name.split(".")[0] == "torch"}
    assert not heavy or get_room(path) in TORCH_ROOMS


def test_records_hold_no_arrays():
    heavy = {"numpy", "scipy", "torch", "SimpleITK"}
    assert not {(name_of(path), name) for path in FILES if get_room(path) == "records" for name in list_imports(path) if name in heavy}


def test_print_and_the_environment_are_for_the_command_line():
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            if (prints or reads) and get_room(path) != "cli":
                found.append(f"{name_of(path)}:{node.lineno}")
    assert not found


def test_no_file_is_longer_than_a_reader_bears():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_list_of_packages_is_the_list_of_folders():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = settings["options"]["packages"].split()
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert listed == sorted(folders | {"autoseg.profiles"})
