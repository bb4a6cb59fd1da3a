"""`autoseg demo`: the whole way on made-up scans, here smaller and shorter than a user's."""

import csv
import functools
import json

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import MODEL, SHAPE, read_array

from autoseg.arrays.phantoms import Balls
from autoseg.commands import demo as demo_module
from autoseg.commands.demo import demo, make_scans
from autoseg.errors import InputError
from autoseg.io.run_folder import RunFolder


@pytest.fixture(scope="module")
def _small():
    """Few small scans and cells, and seconds of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "make_scans", functools.partial(make_scans, cases=6, shape=SHAPE))
        patch.setattr(demo_module, "IMAGES", 6)
        patch.setattr(demo_module, "IMAGE_SHAPE", (64, 72))
        patch.setattr(demo_module, "CELLS", Balls((5, 8), (5.0, 10.0)))
        patch.setattr(demo_module, "MINUTES", 0.15)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _small):
    """The folder of a demo that went the whole way on six small scans."""
    folder = tmp_path_factory.mktemp("demo")
    demo(folder)
    return folder


@pytest.fixture(scope="module")
def finished_cells(tmp_path_factory, _small):
    """The folder of a demo that went the whole way on six small images of cells."""
    folder = tmp_path_factory.mktemp("demo_instance")
    demo(folder, "instance")
    return folder


def test_the_whole_way_leaves_scans_run_masks_scores_and_a_picture(finished):
    validated = RunFolder(finished / "run").load_splits().folds[0].validation
    assert len(list((finished / "scans" / "images").iterdir())) == 6
    assert (finished / "run" / MODEL / "model.json").is_file()
    assert {path.name for path in (finished / "masks").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in validated}
    assert (finished / "masks" / "scores.json").is_file()
    assert sitk.ReadImage(str(finished / "result.png")).GetSize()[0] > 100


def test_a_few_seconds_of_training_find_more_than_nothing(finished):
    (case, *_) = RunFolder(finished / "run").load_splits().folds[0].validation
    mask, label = (read_array(finished / part / f"{case}.nii.gz") for part in ("masks", "scans/labels"))
    overlap = 2 * np.sum((mask > 0) & (label > 0)) / (np.sum(mask > 0) + np.sum(label > 0))
    assert overlap > 0.3


def test_the_whole_way_of_cells_leaves_maps_lists_previews_scores_and_a_picture(finished_cells):
    run, masks = RunFolder(finished_cells / "run"), finished_cells / "masks"
    validated = run.load_splits().folds[0].validation
    assert (run.load_dataset().task, len(run.load_dataset().cases)) == ("instance", 6)
    assert (finished_cells / "run" / "models" / "instance_2d" / "fold_0" / "model.json").is_file()
    for case in validated:
        listed = json.loads((masks / f"{case}_objects.json").read_text())["objects"]
        painted = {int(number) for number in np.unique(read_array(masks / f"{case}.png"))} - {0}
        assert {one["id"] for one in listed if not one.get("rle")} <= painted <= {one["id"] for one in listed}
        assert {one["class"] for one in listed} <= {"cell"}
        assert sitk.ReadImage(str(masks / f"{case}_preview.png")).GetSize()[0] > 100
    assert {row["case"] for row in csv.DictReader((masks / "objects.csv").open())} <= set(validated)
    scores = json.loads((masks / "scores.json").read_text())
    assert (scores["task"], {row["case"] for row in scores["cases"]}) == ("instance", set(validated))
    assert sum(row["objects_reference"] for row in scores["cases"]) >= 5
    width, height = sitk.ReadImage(str(finished_cells / "result.png")).GetSize()
    assert width > 1.5 * height


@pytest.mark.parametrize(("folder", "task"), [("finished", "semantic"), ("finished_cells", "instance")])
def test_the_demo_repeated_does_nothing_twice(folder, task, request):
    finished = request.getfixturevalue(folder)
    files = [path for path in finished.rglob("*") if path.suffix in (".gz", ".png", ".safetensors", ".b2nd") and path.name != "result.png"]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert demo(finished, task) == finished / "result.png"
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_made_up_scans_are_the_same_every_time_and_hold_both_structures(tmp_path, scans):
    make_scans(tmp_path, cases=2, shape=SHAPE)
    for path in sorted(tmp_path.rglob("*.nii.gz")):
        assert (read_array(path) == read_array(scans / path.parent.name / path.name)).all()
    assert set(np.unique(read_array(tmp_path / "labels" / "case_00.nii.gz"))) == {0, 1, 2}


def test_the_made_up_scans_lie_on_oblique_mirrored_and_uneven_grids(scans):
    directions = {sitk.ReadImage(str(path)).GetDirection() for path in (scans / "images").iterdir()}
    assert len(directions) == 6
    assert {direction[0] > 0 for direction in directions} == {True, False}
    assert any(abs(direction[1]) > 0.05 for direction in directions)
    assert all(sitk.ReadImage(str(path)).GetSpacing()[2] > 1.4 for path in (scans / "images").iterdir())


def test_the_folder_of_the_other_demo_is_left_alone(finished):
    with pytest.raises(InputError, match="demo of the task semantic") as caught:
        demo(finished, "instance")
    assert "-o ANOTHER_FOLDER" in caught.value.todo
    assert not (finished / "cells").exists()


def test_a_task_without_a_demo_is_refused_with_those_that_have_one(tmp_path):
    with pytest.raises(InputError, match="'panoptic'") as caught:
        demo(tmp_path, "panoptic")
    assert "semantic, instance" in caught.value.why


def test_each_task_has_a_folder_of_its_own(autoseg, monkeypatch):
    asked = []
    monkeypatch.setattr(demo_module, "_refuse_other_task", lambda run, task: asked.append((str(run.parent), task)) or 1 / 0)
    for words in ((), ("--task", "instance"), ("--task", "instance", "-o", "mine")):
        assert autoseg("demo", *words).code == 1
    assert asked == [("autoseg_demo", "semantic"), ("autoseg_demo_instance", "instance"), ("mine", "instance")]
