"""`autoseg evaluate`: masks and references are paired by case; what has no partner is named; what is absent is not counted."""

import csv
import json

import numpy as np
import pytest
from whole_way import write_scan

from autoseg.commands.evaluate import Wanted, evaluate
from autoseg.errors import CasesFailed, InputError
from autoseg.io.files import save_record
from autoseg.records.dataset import ClassLabel
from autoseg.records.predictions import PredictedCase, Predictions

SHAPE = (4, 8, 8)


def draw(*slices):
    """A label map with class 1, 2, … on the given rows."""
    label = np.zeros(SHAPE, np.uint8)
    for number, rows in enumerate(slices, 1):
        label[:, rows] = number
    return label


@pytest.fixture
def folders(tmp_path):
    """Masks and references of three cases: a is right, b is half right, c has no class 2 on either side."""
    pairs = {
        "a": (draw(slice(0, 2), slice(2, 4)), draw(slice(0, 2), slice(2, 4))),
        "b": (draw(slice(0, 1), slice(2, 4)), draw(slice(0, 2), slice(2, 4))),
        "c": (draw(slice(0, 2)), draw(slice(0, 2))),
    }
    for name, (mask, reference) in pairs.items():
        write_scan(tmp_path / "masks" / f"{name}.nii.gz", mask, (2.0, 1.0, 1.0))
        write_scan(tmp_path / "references" / f"{name}.nii.gz", reference, (2.0, 1.0, 1.0))
    return tmp_path / "masks", tmp_path / "references"


def test_scores_are_those_counted_by_hand(folders):
    scores = evaluate(*folders, workers=1)
    dice = {(row.case, row.class_name): row.dice for row in scores.cases}
    assert dice[("a", "label_1")] == 1
    assert dice[("b", "label_1")] == pytest.approx(2 / 3)  # 32 of 64 voxels found, none wrong: 2·32 / (64 + 32)
    assert scores.classes["label_1"]["dice"].mean == pytest.approx((1 + 2 / 3 + 1) / 3)
    row = next(row for row in scores.cases if row.case == "b" and row.class_name == "label_1")
    assert (row.precision, row.sensitivity, row.specificity) == (1, 0.5, 1)
    assert row.volume_reference_ml == pytest.approx(64 * 2 / 1000)


def test_an_absent_class_is_left_out_of_the_means_and_counted(autoseg, folders):
    answer = autoseg("evaluate", *folders)
    scores = json.loads((folders[0] / "scores.json").read_text())
    assert answer.code == 0
    assert scores["classes"]["label_2"]["dice"]["n"] == 2
    assert scores["classes"]["label_2"]["dice"]["mean"] == 1
    assert next(row for row in scores["cases"] if row["case"] == "c" and row["class"] == "label_2")["dice"] is None
    assert "label_2 is absent from mask and reference of 1 cases: n/a" in answer.out


def test_a_class_missed_altogether_scores_zero(folders):
    write_scan(folders[0] / "a.nii.gz", draw(slice(0, 2)), (2.0, 1.0, 1.0))
    scores = evaluate(*folders, workers=1)
    assert next(row.dice for row in scores.cases if row.case == "a" and row.class_name == "label_2") == 0


def test_scores_are_written_as_json_and_as_a_table(autoseg, folders, tmp_path):
    assert autoseg("evaluate", *folders, "-o", tmp_path / "deep" / "result.json").code == 0
    rows = list(csv.DictReader((tmp_path / "deep" / "result.csv").open()))
    assert len(rows) == 6
    assert next(row for row in rows if row["case"] == "c" and row["class"] == "label_2")["dice"] == ""
    assert json.loads((tmp_path / "deep" / "result.json").read_text())["mean"]["dice"] == pytest.approx((8 / 9 + 1) / 2)
    assert not (folders[0] / "scores.json").exists()


def test_a_mask_without_reference_is_a_mistake(autoseg, folders):
    write_scan(folders[0] / "stranger.nii.gz", draw(slice(0, 2)))
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "stranger" in answer.err
    assert "1 of 4" in answer.err
    assert not (folders[0] / "scores.json").exists()


def test_a_reference_without_mask_is_named_after_the_others_are_scored(autoseg, folders):
    (folders[0] / "b.nii.gz").unlink()
    answer = autoseg("evaluate", *folders)
    assert answer.code == 3
    assert "1 references have no mask: b" in answer.err
    assert "--only-predicted" in answer.err
    assert {row["case"] for row in json.loads((folders[0] / "scores.json").read_text())["cases"]} == {"a", "c"}
    with pytest.raises(CasesFailed):
        evaluate(*folders, workers=1)


def test_references_without_mask_are_fine_where_only_predicted_counts(autoseg, folders):
    (folders[0] / "b.nii.gz").unlink()
    assert autoseg("evaluate", *folders, "--only-predicted").code == 0


def test_another_grid_is_refused_with_both_sizes(autoseg, folders):
    write_scan(folders[0] / "a.nii.gz", draw(slice(0, 2))[:3])
    write_scan(folders[0] / "c.nii.gz", draw(slice(0, 2))[:, :6])
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "2 of 3 pairs" in answer.err
    assert all(word in answer.err for word in ("(3, 8, 8)", "(4, 6, 8)", "(4, 8, 8)"))


def test_an_unreadable_mask_is_named(autoseg, folders):
    (folders[0] / "b.nii.gz").write_bytes(b"nothing")
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "b.nii.gz cannot be read (7 bytes)" in answer.err


def test_values_that_no_reference_has_are_named(folders):
    mask = draw(slice(0, 2))
    mask[0, 0, 0] = 77
    write_scan(folders[0] / "a.nii.gz", mask, (2.0, 1.0, 1.0))
    with pytest.raises(InputError, match="77"):
        evaluate(*folders, workers=1)


def test_references_are_found_by_a_pattern_and_by_usual_suffixes(folders, tmp_path):
    for name in "abc":
        write_scan(tmp_path / "by_case" / name / "truth.nii.gz", draw(slice(0, 2), slice(2, 4)))
        write_scan(tmp_path / "suffix" / f"{name}_seg.nii.gz", draw(slice(0, 2), slice(2, 4)))
    first = evaluate(folders[0], tmp_path / "by_case" / "{case}" / "truth.nii.gz", workers=1)
    assert first == evaluate(folders[0], tmp_path / "suffix", workers=1)
    assert {row.case for row in first.cases} == set("abc")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_folder_that_is_not_there_is_named(autoseg, folders, missing):
    words = list(folders)
    words[missing] = words[missing].with_name("absent")
    answer = autoseg("evaluate", *words)
    assert answer.code == 2
    assert "absent" in answer.err


def test_processes_give_the_same_scores_as_one(tmp_path):
    for number in range(9):
        for folder, rows in (("masks", slice(0, 1 + number % 3)), ("references", slice(0, 2))):
            write_scan(tmp_path / folder / f"n{number}.nii.gz", draw(rows))
    assert evaluate(tmp_path / "masks", tmp_path / "references", workers=2) == evaluate(
        tmp_path / "masks", tmp_path / "references", workers=1
    )


def test_voxels_to_be_ignored_in_the_references_are_not_counted(folders):
    masks, references = folders
    reference = draw(slice(0, 2), slice(2, 4))
    reference[:, 0] = 9  # the mask says class 1 here
    write_scan(references / "a.nii.gz", reference, (2.0, 1.0, 1.0))
    classes = (ClassLabel(name="one", values=(1,)), ClassLabel(name="two", values=(2,)))
    case = PredictedCase(case="a", scan="a.nii.gz", mask="a.nii.gz", scan_digest="", mask_digest="", state="done")
    manifest = Predictions(
        model_digest="",
        folds=(0,),
        configuration="3d_fullres",
        classes=classes,
        background_value=0,
        ignore_value=9,
        unit="mm",
        label_pattern="",
        cases=(case,),
    )
    save_record(masks / "predictions.json", manifest)
    scores = evaluate(masks, references, wanted=Wanted(only_predicted=True), workers=1)
    assert scores.classes["one"]["dice"].mean == 1
    assert next(row for row in scores.cases if row.class_name == "one").voxels_predicted == 32
