"""Folds of a new run: by a table's columns, of one's own, and with near-duplicates."""

import json
import shutil

import pytest
from whole_way import PLAN_WORDS, write_cases

from autoseg.io.run_folder import RunFolder

NAMES = [f"c{number}" for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small cases and a table of them; not to be changed."""
    folder = tmp_path_factory.mktemp("folds")
    write_cases(folder / "in", NAMES, (8, 10, 10))
    rows = [f"{name},p{place // 2},{'north' if place < 2 else 'south'}" for place, name in enumerate(NAMES)]
    (folder / "t.csv").write_text("\n".join(["case,patient,site", *rows]))
    return folder


def test_patients_and_sites_of_a_table(folder, autoseg, tmp_path):
    words = ("--groups", f"{folder / 't.csv'}:patient", "--stratify", f"{folder / 't.csv'}:site", "--folds", "2")
    answer = autoseg("plan", folder / "in", "-o", tmp_path / "run", *PLAN_WORDS, *words)
    run = RunFolder(tmp_path / "run")
    assert answer.code == 0
    assert [case.group for case in run.load_dataset().cases] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert sorted(len(fold.validation) for fold in run.load_splits().folds) == [2, 4]
    assert "fold 1 validates" in answer.out
    assert run.load_request().stratify == f"{folder / 't.csv'}:site"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"training": ["c0"], "validaton": ["c1"]}, ["fold 0", "validaton"]),
        ({"train": ["c0"], "validation": ["c1"]}, ["fold 0", "validation"]),
        ({"fold:": 0}, ["fold 0", "training"]),
        ("c0", ["fold 0"]),
    ],
)
def test_a_key_mistyped_in_ones_own_splits_is_told(folder, autoseg, tmp_path, row, words):
    (tmp_path / "splits.json").write_text(json.dumps([row]))
    answer = autoseg("plan", folder / "in", "-o", tmp_path / "run", *PLAN_WORDS, "--splits", tmp_path / "splits.json")
    assert answer.code == 2
    assert all(word in answer.err for word in [*words, "splits.json"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"train": ["c0", "c9"], "val": ["c1"]}, ["Fold 0", "not in the data set: c9", "c0, c1, c2"]),
        ({"train": ["c0", "c1"], "val": ["c1"]}, ["Fold 0", "trains and validates on the same cases: c1"]),
    ],
)
def test_unknown_cases_and_cases_on_both_sides_are_refused_with_the_file(folder, autoseg, tmp_path, row, words):
    (tmp_path / "own.json").write_text(json.dumps([row]))
    answer = autoseg("plan", folder / "in", "-o", tmp_path / "run", *PLAN_WORDS, "--splits", tmp_path / "own.json")
    assert answer.code == 2
    assert all(word in answer.err for word in [*words, "own.json"])
    assert not (tmp_path / "run").exists()


def test_a_class_that_no_case_has_is_told(folder, autoseg, tmp_path):
    answer = autoseg("plan", folder / "in", "-o", tmp_path / "run", *PLAN_WORDS, "--classes", "block=1,tumour=7")
    assert answer.code == 0
    assert "No case has tumour: it can be neither learned nor scored." in answer.out + answer.err


def test_words_that_contradict_each_other_are_refused(folder, autoseg, tmp_path):
    for words in (("--folds", "1"), ("--folds", "3", "--splits", tmp_path / "s.json")):
        answer = autoseg("plan", folder / "in", "-o", tmp_path / "run", *PLAN_WORDS, *words)
        assert answer.code == 2
        assert "--folds" in answer.err


def test_near_duplicates_stay_together_or_are_warned_of(folder, autoseg, tmp_path):
    shutil.copytree(folder / "in", tmp_path / "in")
    for part in ("images", "labels"):
        shutil.copy(tmp_path / "in" / part / "c2.nii.gz", tmp_path / "in" / part / "again.nii.gz")
    own = [{"training": [*NAMES], "validation": ["again"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(own))
    answer = autoseg("plan", tmp_path / "in", "-o", tmp_path / "run", *PLAN_WORDS)
    assert "2 images are near-duplicates of others, in 1 groups (first: again, c2)" in answer.out
    for fold in RunFolder(tmp_path / "run").load_splits().folds:
        assert ("again" in fold.validation) == ("c2" in fold.validation)
    answer = autoseg("plan", tmp_path / "in", "-o", tmp_path / "own", *PLAN_WORDS, "--splits", tmp_path / "splits_final.json")
    assert "fold 0 trains on c2 and validates on again" in answer.out + answer.err
