"""`autoseg compare`: masks or finished scores, paired by case; what cannot be compared is named."""

import json

import numpy as np
import pytest
from whole_way import write_scan

from autoseg.commands.compare import compare
from autoseg.commands.evaluate import evaluate
from autoseg.errors import CasesFailed, InputError

CASES = [f"c{number}" for number in range(7)]


def draw(columns, rows=8):
    """A block of class 1, `columns` wide, and one of class 2 that is always the same."""
    label = np.zeros((4, 12, 20), np.uint8)
    label[:, :rows, :columns] = 1
    label[:, 10:] = 2
    return label


@pytest.fixture
def sides(tmp_path):
    """References of 10 columns; A finds 5 to 8 of them, B one more in each case."""
    for number, case in enumerate(CASES):
        for name, columns in (("A", 5 + number % 3), ("B", 7 + number % 3), ("R", 10)):
            write_scan(tmp_path / name / f"{case}.nii.gz", draw(columns))
    return tmp_path / "A", tmp_path / "B", tmp_path / "R"


def test_the_table_names_differences_noise_and_cases(autoseg, sides, tmp_path):
    answer = autoseg("compare", sides[0], sides[1], "--reference", sides[2], "-o", tmp_path / "comparison.json", "-q")
    assert answer.code == 0
    assert "B is better, by more than noise" in answer.out
    assert "not for that of metrics" in answer.out
    assert "dice better in B: c0" in answer.out
    saved = json.loads((tmp_path / "comparison.json").read_text())
    row = next(row for row in saved["differences"] if row["class_name"] == "label_1" and row["metric"] == "dice")
    dice = [[2 * n / (n + 10) for n in (5 + k % 3 + shift for k in range(7))] for shift in (0, 2)]
    assert row["difference"]["mean"] == pytest.approx(np.mean(dice[1]) - np.mean(dice[0]))
    assert (row["difference"]["n"], row["p_holm"]) == (7, pytest.approx(min(1, 2 * row["p"])))
    same = next(row for row in saved["differences"] if row["class_name"] == "label_2" and row["metric"] == "dice")
    assert (same["p"], same["judgement"], same["best"]) == (1, "noise", [])


def test_finished_scores_are_compared_without_references(sides):
    for side in sides[:2]:
        evaluate(side, sides[2], workers=1)
    scored = compare(*sides, output=None)
    assert compare(*sides[:2]).differences == scored.differences
    assert compare(sides[0] / "scores.json", sides[1], sides[2]).differences == scored.differences


def test_cases_of_one_side_alone_are_named_after_the_table(autoseg, sides):
    (sides[0] / "c1.nii.gz").unlink()
    (sides[1] / "c2.nii.gz").unlink()
    answer = autoseg("compare", *sides[:2], "--reference", sides[2])
    assert answer.code == 3
    assert "A: c2; B: c1" in answer.err
    assert "Only in A, left out: c2" in answer.out
    assert autoseg("compare", *sides[:2], "--reference", sides[2], "--common").code == 0
    with pytest.raises(CasesFailed):
        compare(*sides)


def test_a_mask_without_reference_and_a_folder_without_anything_are_mistakes(autoseg, sides, tmp_path):
    (sides[2] / "c1.nii.gz").unlink()
    answer = autoseg("compare", *sides[:2], "--reference", sides[2])
    assert (answer.code, "1 of 7 masks" in answer.err, "c1" in answer.err) == (2, True, True)
    assert "--reference" in autoseg("compare", *sides[:2]).err
    assert "absent does not exist" in autoseg("compare", tmp_path / "absent", sides[0]).err


def test_scores_against_other_references_are_refused(sides, tmp_path):
    evaluate(sides[0], sides[2], workers=1)
    write_scan(sides[2] / "c3.nii.gz", draw(9))
    evaluate(sides[1], sides[2], workers=1)
    with pytest.raises(InputError, match="different references") as caught:
        compare(*sides[:2])
    assert "1 cases: c3" in caught.value.why
