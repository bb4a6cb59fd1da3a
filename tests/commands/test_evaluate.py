"""`autoseg evaluate`: masks and references are paired by case; what has no partner is named; what is absent is not counted."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
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
    assert "dice, 95 % interval over cases: label_1 0.6667 … 1.0000, label_2 1.0000 … 1.0000" in answer.out


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


def test_a_grid_of_the_same_shape_elsewhere_is_told(autoseg, folders):
    answer = autoseg("evaluate", *folders)
    assert "geometry" not in answer.out + answer.err
    for name, spacing, origin in (("a", (1.0, 1.0, 2.0), (0, 0, 5.0)), ("b", (1.0, 1.0, 2.5), (0, 0, 0))):
        image = sitk.ReadImage(str(folders[0] / f"{name}.nii.gz"))
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        sitk.WriteImage(image, str(folders[0] / f"{name}.nii.gz"))
    answer = autoseg("evaluate", *folders)
    assert answer.code == 0
    told = "2 of 3 masks have the shape of their reference but another geometry in the header (first: a, centres 5 mm apart)"
    assert told in answer.out + answer.err
    turned = sitk.DICOMOrient(sitk.ReadImage(str(folders[1] / "a.nii.gz")), "RAS")
    sitk.WriteImage(turned, str(folders[0] / "a.nii.gz"))
    answer = autoseg("evaluate", *folders)
    assert "1 of 3 masks" in answer.out + answer.err
    assert "(first: b, spacing 2.5x1x1 and 2x1x1)" in answer.out + answer.err


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


def test_references_without_any_class_are_a_mistake(autoseg, folders):
    for name in "abc":
        write_scan(folders[1] / f"{name}.nii.gz", draw())
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "Every reference is empty (only 0)" in answer.err


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


def place_cube(start, size=3, number=1):
    """A cube in a volume of 4 x 12 x 12."""
    label = np.zeros((4, 12, 12), np.uint8)
    label[:, start : start + size, 4:7] = number
    return label


def get_row(scores, case, name="label_1"):
    return next(row for row in scores.cases if (row.case, row.class_name) == (case, name))


@pytest.fixture
def moved(tmp_path):
    """Cubes of which the masks lie two voxels of 1.5 mm off; c has none in the mask."""
    for name, start in (("a", 2), ("b", 4)):
        write_scan(tmp_path / "masks" / f"{name}.nii.gz", place_cube(start + 2), (2.0, 1.5, 1.0))
        write_scan(tmp_path / "references" / f"{name}.nii.gz", place_cube(start), (2.0, 1.5, 1.0))
    write_scan(tmp_path / "masks" / "c.nii.gz", place_cube(0, 0), (2.0, 1.5, 1.0))
    write_scan(tmp_path / "references" / "c.nii.gz", place_cube(3), (2.0, 1.5, 1.0))
    return tmp_path / "masks", tmp_path / "references"


def test_distances_are_in_mm_and_have_a_tolerance(moved):
    scores = evaluate(*moved, workers=1, wanted=Wanted(tolerance=2.5))
    row = get_row(scores, "a")
    assert (row.hausdorff_mm, row.hd95_mm) == (3.0, 3.0)
    assert 0 < row.assd_mm < 3
    assert 0 < row.nsd < get_row(evaluate(*moved, workers=1, wanted=Wanted(tolerance=3.0)), "a").nsd == 1
    assert (scores.unit, scores.nsd_tolerance) == ("mm", 2.5)
    assert (row.lesions_reference, row.lesions_found, row.lesions_predicted, row.lesions_false) == (1, 1, 1, 0)
    assert row.volume_difference_ml == 0


def test_the_size_of_voxels_follows_the_axes_of_a_turned_file(moved, tmp_path):
    image = sitk.ReadImage(str(moved[1] / "a.nii.gz"))
    turned = sitk.PermuteAxes(image, (1, 2, 0))
    sitk.WriteImage(turned, str(moved[1] / "a.nii.gz"))
    assert turned.GetSpacing() == (1.5, 2.0, 1.0)
    assert get_row(evaluate(*moved, workers=1), "a").hausdorff_mm == 3.0


def test_a_class_on_one_side_only_has_no_distance_and_is_counted(autoseg, moved):
    answer = autoseg("evaluate", *moved)
    assert answer.code == 0
    scores = json.loads((moved[0] / "scores.json").read_text())
    row = next(row for row in scores["cases"] if row["case"] == "c")
    assert (row["hausdorff_mm"], row["hd95_mm"], row["assd_mm"], row["nsd"]) == (None, None, None, 0)
    assert (scores["classes"]["label_1"]["hd95_mm"]["n"], scores["classes"]["label_1"]["nsd"]["n"]) == (2, 3)
    assert "label_1 is in mask or reference alone of 1 cases" in answer.out
    assert "hd95 (mm)" in answer.out
    assert "nsd 1 mm" in answer.out
    rows = list(csv.DictReader((moved[0] / "scores.csv").open()))
    assert [row["hd95_mm"] for row in rows] == ["3", "3", ""]
    assert [row["lesions_found"] for row in rows] == ["1", "1", "0"]


def test_only_overlap_is_scored_where_that_is_asked_for(autoseg, moved):
    answer = autoseg("evaluate", *moved, "--metrics", "overlap")
    assert answer.code == 0
    assert "hd95" not in answer.out
    rows = list(csv.DictReader((moved[0] / "scores.csv").open()))
    assert {row["nsd"] + row["hd95_mm"] + row["lesions_reference"] for row in rows} == {""}
    assert all(row["dice"] for row in rows)


def test_pictures_are_scored_in_pixels(autoseg, tmp_path):
    for folder, start in (("masks", 4), ("references", 2)):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(place_cube(start)[0]), str(tmp_path / folder / "a.png"))
    assert autoseg("evaluate", tmp_path / "masks", tmp_path / "references").code == 0
    scores = json.loads((tmp_path / "masks" / "scores.json").read_text())
    assert (scores["unit"], scores["nsd_tolerance"], scores["cases"][0]["hd95_mm"], scores["cases"][0]["nsd"]) == ("px", 2, 2, 1)
    assert scores["lesion_recall"]["label_1"] == [{"low_ml": 0, "high_ml": 100, "lesions": 1, "found": 1}]


def test_scattered_lesions_are_told_by_size(autoseg, tmp_path):
    reference, mask = np.zeros((2, 4, 40, 40), np.uint8)
    reference[1, 2:4, 2:4] = reference[1, 8:30, 8:30] = mask[1, 10:20, 10:20] = mask[1, 36, 36] = 1
    write_scan(tmp_path / "references" / "a.nii.gz", reference)
    write_scan(tmp_path / "masks" / "a.nii.gz", mask)
    answer = autoseg("evaluate", tmp_path / "masks", tmp_path / "references")
    told = "label_1: 1 of 2 lesions found (0 to 0.1 ml 0 of 1, 0.1 to 1 ml 1 of 1); 1 of 2 predicted are false"
    assert told in answer.out


@pytest.mark.parametrize("words", [("--metrics", "overlap"), ("--tolerance", "2")])
def test_what_is_about_classes_does_not_go_with_objects(autoseg, folders, words):
    answer = autoseg("evaluate", *folders, "--task", "instance", *words)
    assert answer.code == 2
    assert f"{words[0]}" in answer.err
    assert "--task semantic" in answer.err
