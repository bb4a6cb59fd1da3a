"""`autoseg demo`: the whole way on made-up scans, here smaller and shorter than a user's."""

import functools

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import MODEL, SHAPE, read_array

from autoseg.commands import demo as demo_module
from autoseg.commands.demo import demo, make_scans
from autoseg.errors import InputError
from autoseg.io.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a demo that went the whole way on six small scans."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "make_scans", functools.partial(make_scans, cases=6, shape=SHAPE))
        patch.setattr(demo_module, "MINUTES", 0.15)
        demo(folder)
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


def test_the_demo_repeated_does_nothing_twice(finished, monkeypatch):
    monkeypatch.setattr(demo_module, "make_scans", functools.partial(make_scans, cases=6, shape=SHAPE))
    files = [path for path in finished.rglob("*") if path.suffix in (".gz", ".safetensors", ".b2nd")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert demo(finished) == finished / "result.png"
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


def test_the_demo_of_instances_is_refused_until_it_is_built(tmp_path):
    with pytest.raises(InputError, match="instances"):
        demo(tmp_path, "instance")
