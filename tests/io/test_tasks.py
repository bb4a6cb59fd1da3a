"""What a folder is for: as asked, or as its labels show; and how the classes of objects are called."""

import json
from pathlib import Path

import pytest

from autoseg.errors import InputError
from autoseg.io.discovery import discover
from autoseg.io.tasks import settle_task
from autoseg.records.dataset import ClassLabel

FILES = ("{case}/images/{case}.png", "{case}/masks/1.png", "{case}/masks/2.png")
PAIRS = ("images/{case}.tif", "labels/{case}.tif")


def make(root: Path, names: tuple[str, ...], maps: dict[str, dict] | None = None, declaration: dict | None = None) -> Path:
    for case in "AB":
        for name in names:
            path = root / name.format(case=case)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for case, instances in (maps or {}).items():
        folder = root / ("labels" if names is PAIRS else case)
        (folder / f"{case}.json").write_text(json.dumps({"instances": instances}))
    if declaration:
        (root / "dataset.json").write_text(json.dumps(declaration))
    return root


def number(*names: str) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(name=name, values=(place,)) for place, name in enumerate(names, 1))


def test_a_file_for_each_object_makes_an_instance_task(tmp_path):
    found, names = settle_task(discover(make(tmp_path, FILES)), "", ())
    assert (found.task, found.label_form, found.classes, names) == ("instance", "files", number("object"), ())
    assert "every object has a file of its own, in {case}/masks" in found.shown


def test_class_maps_make_an_instance_task(tmp_path):
    found, _ = settle_task(discover(make(tmp_path, PAIRS, {"A": {"1": "b"}, "B": {"4": "a", "5": "b"}})), "", ())
    assert (found.task, found.label_form, found.classes) == ("instance", "ids", number("a", "b"))
    assert [case.object_classes for case in found.cases] == ["labels/A.json", "labels/B.json"]


def test_plain_pairs_are_semantic_unless_asked_otherwise(tmp_path):
    found = discover(make(tmp_path, PAIRS))
    assert settle_task(found, "", ()) == (found, ())
    asked, _ = settle_task(found, "instance", ("nucleus",))
    assert (asked.task, asked.label_form, asked.classes) == ("instance", "ids", number("nucleus"))


def test_what_is_asked_for_wins(tmp_path):
    found, names = settle_task(discover(make(tmp_path / "f", FILES)), "semantic", ())
    assert (found.task, found.label_form, found.classes, names) == ("semantic", "files", None, ())
    maps, names = settle_task(discover(make(tmp_path / "m", PAIRS, {"A": {"1": "b"}})), "semantic", ("x",))
    assert (maps.task, maps.label_form, maps.classes, names) == ("semantic", "values", None, ("x",))
    assert [case.object_classes for case in maps.cases] == [None, None]


def test_a_stray_json_file_is_no_class_map(tmp_path):
    root = make(tmp_path, PAIRS)
    (root / "labels" / "A.json").write_text('{"EchoTime": 0.03}')
    assert settle_task(discover(root), "", ())[0].task == "semantic"


def test_numbers_in_class_maps_count_from_0_and_take_their_names_from_dataset_json(tmp_path):
    maps = {"A": {"1": 0}, "B": {"4": 2}}
    found, _ = settle_task(discover(make(tmp_path / "a", PAIRS, maps)), "", ())
    assert found.classes == number("class_0", "class_1", "class_2")
    declared = {"labels": {"0": "node", "1": "cyst", "2": "bone"}}
    assert settle_task(discover(make(tmp_path / "b", PAIRS, maps, declared)), "", ())[0].classes == number("node", "cyst", "bone")
    typed, _ = settle_task(discover(tmp_path / "a"), "", ("x", "y", "z"))
    assert typed.classes == number("x", "y", "z")


def test_typed_names_set_the_order_of_classes(tmp_path):
    found = discover(make(tmp_path, PAIRS, {"A": {"1": "b"}, "B": {"4": "a"}}))
    assert settle_task(found, "", ("b", "c", "a"))[0].classes == number("b", "c", "a")
    with pytest.raises(InputError, match="--classes leaves out a"):
        settle_task(found, "", ("b",))


def test_the_only_class_that_dataset_json_declares_names_the_objects(tmp_path):
    found = discover(make(tmp_path, PAIRS, declaration={"labels": {"background": 0, "gland": 1}}))
    assert settle_task(found, "instance", ())[0].classes == number("gland")


def test_classes_that_make_no_sense_for_objects_are_refused(tmp_path):
    found = discover(make(tmp_path / "f", FILES))
    with pytest.raises(InputError, match="names 2 classes of objects, but nothing says which"):
        settle_task(found, "", ("a", "b"))
    with pytest.raises(InputError, match="gives values, but in an instance task"):
        settle_task(found, "", ("a=1",))
    with pytest.raises(InputError, match=r"by number \(0\) and by name \(b\)"):
        settle_task(discover(make(tmp_path / "m", PAIRS, {"A": {"1": 0, "2": "b"}})), "", ())
    with pytest.raises(InputError, match="negative class number"):
        settle_task(discover(make(tmp_path / "n", PAIRS, {"A": {"1": -2}})), "", ())


def test_what_is_to_be_ignored_can_be_typed(tmp_path):
    found, _ = settle_task(discover(make(tmp_path, PAIRS)), "instance", ("cell", "ignore=65535"))
    assert (found.classes, found.ignore_value) == (number("cell"), 65535)
