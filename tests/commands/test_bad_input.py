"""What goes wrong at users' desks: bad folders and files, a full disk, processes that are killed. Nothing is lost, all is named."""

import json
import subprocess

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import (
    PLAN_WORDS,
    STORE,
    draw_case,
    kill,
    list_partials,
    read_array,
    start_slowly,
    wait_until,
    write_cases,
    write_scan,
)

from autoseg.io.files import load_record
from autoseg.io.run_folder import RunFolder
from autoseg.records.prepared import PreparedCase


@pytest.fixture
def folder(tmp_path):
    """Five good cases that a test may spoil."""
    return write_cases(tmp_path / "in", ["a", "b", "c", "d", "e"], (8, 10, 10))


@pytest.fixture
def plan_it(autoseg, tmp_path):
    return lambda folder, *words: autoseg("plan", folder, "-o", tmp_path / "run", *PLAN_WORDS, *words)


def test_no_pairs_found_tells_what_was_seen_and_what_to_type(plan_it, tmp_path):
    image, label = draw_case(0)
    write_scan(tmp_path / "in" / "patient1_T2w.nii.gz", image)
    write_scan(tmp_path / "in" / "patient1_contour.nii.gz", label)
    answer = plan_it(tmp_path / "in")
    assert answer.code == 2
    assert "No pair of image and label" in answer.err
    assert "2 scans" in answer.err
    assert "patient1_T2w.nii.gz  ↔  patient1_contour.nii.gz" in answer.err or "Closest" in answer.err
    assert "--images" in answer.err
    assert "--labels" in answer.err
    assert not (tmp_path / "run").exists()


def test_patterns_that_fit_nothing_tell_how_many_files_fit_each(plan_it, folder):
    answer = plan_it(folder, "--images", "scan/{case}.nii.gz", "--labels", "labels/{case}.nii.gz")
    assert answer.code == 2
    assert "0 for scan/{case}.nii.gz" in answer.err
    assert "5 for the label" in answer.err


def test_a_folder_without_scans_is_named(plan_it, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing here")
    answer = plan_it(tmp_path / "in")
    assert answer.code == 2
    assert "No scan was found" in answer.err
    assert "1 files" in answer.err


def test_shapes_that_differ_are_told_with_both_numbers(plan_it, folder):
    write_scan(folder / "labels" / "b.nii.gz", draw_case(1, (8, 10, 9))[1])
    answer = plan_it(folder)
    assert answer.code == 2
    assert "b " in answer.err
    assert "8x10x9" in answer.err
    assert "8x10x10" in answer.err


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_nan_intensities_are_counted(plan_it, folder, ending):
    image = read_array(folder / "images" / "c.nii.gz")
    image[0, :2, :3] = np.nan
    image[1, 0, 0] = np.inf
    (folder / "images" / "c.nii.gz").unlink()
    write_scan(folder / "images" / f"c{ending}", image)
    answer = plan_it(folder)
    assert answer.code == 2
    assert f"c{ending}" in answer.err
    assert "7 NaN or infinite values" in answer.err


def test_a_label_without_an_image_is_named(plan_it, folder):
    (folder / "images" / "d.nii.gz").unlink()
    answer = plan_it(folder)
    assert answer.code == 2
    assert "labels/d.nii.gz has no image" in answer.err


def test_an_image_without_a_label_is_left_out_with_a_warning(plan_it, folder, tmp_path):
    (folder / "labels" / "d.nii.gz").unlink()
    answer = plan_it(folder)
    assert answer.code == 0
    assert "1 images have no label" in answer.out
    assert len(RunFolder(tmp_path / "run").load_dataset().cases) == 4


def test_label_values_that_were_never_declared_are_named(plan_it, folder):
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    (folder / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "lump"}}))
    label = read_array(folder / "labelsTr" / "e.nii.gz")
    label[0, 0, 0] = 7
    write_scan(folder / "labelsTr" / "e.nii.gz", label)
    answer = plan_it(folder)
    assert answer.code == 2
    assert "e " in answer.err
    assert "[7]" in answer.err
    assert "dataset.json" in answer.err


def test_labels_of_fractions_are_refused(plan_it, folder):
    write_scan(folder / "labels" / "a.nii.gz", read_array(folder / "labels" / "a.nii.gz").astype(np.float32) * 0.5)
    answer = plan_it(folder)
    assert answer.code == 2
    assert "a.nii.gz" in answer.err


def test_all_problems_of_a_folder_stand_in_one_table_and_exclude_goes_on(plan_it, folder, tmp_path):
    whole = (folder / "images" / "a.nii.gz").read_bytes()
    (folder / "images" / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    write_scan(folder / "labels" / "b.nii.gz", draw_case(1, (8, 10, 9))[1])
    (folder / "images" / "d.nii.gz").unlink()
    answer = plan_it(folder)
    assert answer.code == 2
    assert "3 problems" in answer.err
    assert f"a.nii.gz cannot be read ({len(whole) // 2} bytes)" in answer.err
    assert "8x10x9" in answer.err
    assert "has no image" in answer.err
    assert "--exclude a,b,d" in answer.err
    assert not (tmp_path / "run").exists()
    assert plan_it(folder, "--exclude", "a,b,d").code == 0
    assert [case.id for case in RunFolder(tmp_path / "run").load_dataset().cases] == ["c", "e"]


def test_one_case_only_is_planned_without_validation(plan_it, tmp_path):
    assert plan_it(write_cases(tmp_path / "in", ["a"])).code == 0
    (fold,) = RunFolder(tmp_path / "run").load_splits().folds
    assert (fold.training, fold.validation) == (("a",), ())


def test_labels_that_are_all_empty_leave_nothing_to_learn(plan_it, folder):
    for path in (folder / "labels").iterdir():
        sitk.WriteImage(sitk.ReadImage(str(path)) * 0, str(path))
    answer = plan_it(folder)
    assert answer.code == 2
    assert "nothing to learn" in answer.err


@pytest.fixture
def small_disk(planned_copy):
    """A disk of 96 kB where the prepared arrays go."""
    store = planned_copy / STORE
    store.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", store], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield store
    subprocess.run(["umount", store], check=True)


def test_a_full_disk_while_preparing_is_named_and_the_same_command_goes_on(autoseg, planned_copy, small_disk):
    words = ("prepare", planned_copy, "--workers", "1")
    answer = autoseg(*words)
    assert answer.code == 3
    assert "no space left" in answer.err
    assert str(small_disk) in answer.err
    assert "MB are free" in answer.err
    assert "repeat the same command" in answer.err
    done = {path: path.stat().st_mtime_ns for path in small_disk.glob("*.json")}
    assert 0 < len(done) < 6
    assert not list_partials(planned_copy)
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert autoseg(*words).code == 0
    assert len(list(small_disk.glob("*.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in done} == done


def is_prepared(run):
    """Every record can be read and has its arrays."""
    for case in RunFolder(run).load_dataset().cases:
        load_record(PreparedCase, run / STORE / f"{case.id}.json")
    return len(list((run / STORE).glob("*.b2nd"))) == 12


def test_preparing_that_was_killed_goes_on(autoseg, planned_copy):
    words = ("prepare", planned_copy, "--workers", "1")
    process = start_slowly(*words)
    wait_until(lambda: list((planned_copy / STORE).glob("case_*.json")) and list_partials(planned_copy), process)
    kill(process)
    done = {path: path.stat().st_mtime_ns for path in (planned_copy / STORE).glob("case_*.json")}
    assert 0 < len(done) < 6
    assert list_partials(planned_copy)
    assert autoseg(*words).code == 0
    assert is_prepared(planned_copy)
    assert not list_partials(planned_copy)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_predicting_that_was_killed_goes_on(autoseg, trained, scans, tmp_path):
    out = tmp_path / "out"
    process = start_slowly("predict", trained, scans / "images", "-o", out, "--device", "cpu")
    wait_until(lambda: (out / "predictions.json").is_file() and list_partials(out), process)
    kill(process)
    assert list_partials(out)
    listed = json.loads((out / "predictions.json").read_text())["cases"]
    before = {case["mask"]: (out / case["mask"]).stat().st_mtime_ns for case in listed}
    assert 0 < len(before) < 6
    assert autoseg("predict", trained, scans / "images", "-o", out, "--device", "cpu").code == 0
    assert not list_partials(out)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert autoseg("predict", trained, scans / "images", "-o", tmp_path / "whole", "--device", "cpu").code == 0
    assert len(list(out.glob("*.nii.gz"))) == 6
    for path in out.glob("*.nii.gz"):
        assert (read_array(path) == read_array(tmp_path / "whole" / path.name)).all()
