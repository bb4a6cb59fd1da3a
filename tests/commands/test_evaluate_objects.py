"""`autoseg evaluate` on objects: recognised by the manifest, by folders of masks, by their numbers, or because it was asked for."""

import csv
import json

import numpy as np
import pytest
from whole_way import write_scan

from autoseg.commands.evaluate import Wanted, evaluate
from autoseg.commands.evaluate_objects import read_reference
from autoseg.errors import InputError
from autoseg.io.files import save_record
from autoseg.records.dataset import ClassLabel
from autoseg.records.predictions import PredictedCase, Predictions
from autoseg.records.scores import InstanceScores, decode_scores

BLOCKS = ((0, 0), (0, 8), (8, 0), (8, 8))  # corners of four squares of 4 by 4


def draw(*places, first=1, sides=None):
    """Squares with the numbers first, first + 1, …, in an image of 16 by 16."""
    ids = np.zeros((16, 16), np.uint16)
    for number, (y, x) in enumerate(places, first):
        side = (sides or {}).get(number, 4)
        ids[y : y + 4, x : x + side] = number
    return ids


def list_objects(path, **classes):
    """CASE_objects.json with a class per id and falling scores."""
    objects = [{"id": int(key[1:]), "class": name, "score": 0.9 - 0.1 * n, "area": 16} for n, (key, name) in enumerate(classes.items())]
    path.write_text(json.dumps({"objects": objects}))


@pytest.fixture
def folders(tmp_path):
    """Case a: 3 of 4 objects and one that is none; b: all right; c: empty on both sides. References in one file per object."""
    masks = {"a": draw(*BLOCKS[:3], (12, 12), first=5), "b": draw(*BLOCKS[:2]), "c": draw()}
    references = {"a": BLOCKS, "b": BLOCKS[:2], "c": ()}
    for case, ids in masks.items():
        write_scan(tmp_path / "out" / f"{case}.png", ids)
        folder = tmp_path / "truth" / case / "masks"
        folder.mkdir(parents=True)
        write_scan(tmp_path / "truth" / case / "images" / f"{case}.png", draw().astype(np.uint8))
        for number, place in enumerate(references[case]):
            write_scan(folder / f"{number}.png", (draw(place) * 255).astype(np.uint8))
    return tmp_path / "out", tmp_path / "truth"


def test_folders_of_masks_are_objects(autoseg, folders):
    answer = autoseg("evaluate", *folders)
    assert answer.code == 0, answer.err
    scores = decode_scores((folders[0] / "scores.json").read_bytes(), "scores.json")
    assert isinstance(scores, InstanceScores)
    by_case = {row.case: row for row in scores.cases}
    assert (by_case["a"].ap_cell_50, by_case["b"].ap_cell_50, by_case["c"].ap_cell_50) == (3 / 5, 1, 1)
    assert (by_case["a"].objects_reference, by_case["a"].objects_predicted, by_case["c"].f1_50) == (4, 4, None)
    assert scores.classes["object"]["ap_cell_50"].mean == pytest.approx((0.6 + 1 + 1) / 3)
    assert scores.pooled["object"]["ap_cell_50"] == pytest.approx(5 / 7)
    assert scores.mean["coco_ap"] is None
    for words in (
        "AP_cell@.5 *",
        "not the area under a curve",
        "pooled",
        "mask and reference of 1 cases",
        "6 in the references",
        "no COCO AP",
    ):
        assert words in answer.out
    rows = list(csv.DictReader((folders[0] / "scores.csv").open()))
    assert [(row["case"], row["ap_cell_50"], row["f1_50"], row["objects_reference"]) for row in rows][2] == ("c", "1", "", "0")


def test_a_pattern_of_masks_means_their_folder(folders):
    first = evaluate(*folders, workers=1)
    assert first == evaluate(folders[0], folders[1] / "{case}" / "masks" / "*.png", workers=1)
    assert first == evaluate(folders[0], folders[1] / "{case}" / "masks", workers=1)


def test_scores_of_objects_give_an_average_precision(folders):
    for case, count in (("a", range(5, 9)), ("b", range(1, 3)), ("c", ())):
        list_objects(folders[0] / f"{case}_objects.json", **{f"n{number}": "nucleus" for number in count})
    scores = evaluate(*folders, workers=1)
    # by score: a .9 b .9 a .8 b .8 a .7 right, a .6 wrong; 5 of 6 found: recall to .83
    assert scores.classes["nucleus"]["coco_ap"].mean == scores.pooled["nucleus"]["coco_ap"] == pytest.approx(84 / 101)


def test_classes_come_from_lists_and_objects_of_another_class_do_not_match(tmp_path):
    for folder in ("out", "truth"):
        write_scan(tmp_path / folder / "a.png", draw(*BLOCKS))
    list_objects(tmp_path / "out" / "a_objects.json", n1="round", n2="flat", n3="flat", n4="flat")
    (tmp_path / "truth" / "a.json").write_text(json.dumps({"instances": {"1": "round", "2": "round", "3": "flat", "4": 0}}))
    scores = evaluate(tmp_path / "out", tmp_path / "truth", workers=1, wanted=Wanted("instance"))
    assert list(scores.classes) == ["flat", "round"]
    assert {row.class_name: (row.ap_cell_50, row.objects_reference) for row in scores.cases} == {"flat": (2 / 3, 2), "round": (1 / 2, 2)}
    (tmp_path / "truth" / "a.json").write_text(json.dumps({"instances": {"1": "round", "2": "square", "3": "flat", "4": 0}}))
    with pytest.raises(InputError, match="square"):
        evaluate(tmp_path / "out", tmp_path / "truth", workers=1, wanted=Wanted("instance"))


def test_many_values_of_one_object_each_are_numbers_of_objects(autoseg, tmp_path):
    ids = np.kron(np.arange(1, 37, dtype=np.uint16).reshape(6, 6), np.ones((3, 3), np.uint16))
    for folder in ("out", "truth"):
        write_scan(tmp_path / folder / "a.png", ids)
    words = ("evaluate", tmp_path / "out", tmp_path / "truth")
    assert autoseg(*words).code == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["pooled"]["object"]["pq"] == 1
    assert autoseg(*words, "--task", "semantic").code == 0
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())["classes"]) == 36
    ids[0, 17] = 1  # now in two parts
    write_scan(tmp_path / "truth" / "a.png", ids)
    assert "task" not in json.loads((tmp_path / "out" / "scores.json").read_text())
    assert autoseg(*words).code == 0
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())["classes"]) == 36


def save_manifest(folder, label_pattern, ignore=None):
    """predictions.json that knows case a alone."""
    case = PredictedCase(case="a", scan="a.png", mask="a.png", scan_digest="", mask_digest="", state="done")
    manifest = Predictions(
        task="instance",
        model_digest="",
        folds=(0,),
        configuration="instance_2d",
        classes=(ClassLabel(name="nucleus", values=(1,)),),
        background_value=0,
        ignore_value=ignore,
        unit="px",
        label_pattern=label_pattern,
        cases=(case,),
    )
    save_record(folder / "predictions.json", manifest)


@pytest.mark.parametrize("pattern", ["{case}/masks/*.png", "{case}/masks"])
def test_the_manifest_says_what_was_predicted(folders, pattern):
    save_manifest(folders[0], pattern)
    scores = evaluate(*folders, wanted=Wanted(only_predicted=True), workers=1)
    assert scores.classes["nucleus"]["ap_cell_50"].mean == pytest.approx(3 / 5)


def test_what_is_to_be_ignored_is_neither_found_nor_missed(folders, tmp_path):
    save_manifest(folders[0], "ids/{case}{ext}", ignore=99)
    reference = draw(*BLOCKS[:3])
    write_scan(tmp_path / "ids" / "a.png", reference)
    assert evaluate(folders[0], tmp_path, workers=1).classes["nucleus"]["ap_cell_50"].mean == 3 / 4
    reference[12:, 12:] = 99  # where the mask holds an object too many
    write_scan(tmp_path / "ids" / "a.png", reference)
    assert evaluate(folders[0], tmp_path, workers=1).classes["nucleus"]["ap_cell_50"].mean == 1


def test_the_glas_measures_are_asked_for(autoseg, folders):
    assert autoseg("evaluate", *folders, "--metrics", "glas").code == 0
    scores = json.loads((folders[0] / "scores.json").read_text())
    # a: the wrong square overlaps no reference by half; 3 hits, 1 false, 1 missed
    assert next(row for row in scores["cases"] if row["case"] == "a")["object_f1"] == pytest.approx(0.75)
    answer = autoseg("evaluate", *folders, "--metrics", "glas", "--task", "semantic")
    assert answer.code == 2
    assert "--task instance" in answer.err


def test_other_shapes_are_named_case_by_case(autoseg, folders):
    write_scan(folders[0] / "b.png", draw()[:12])
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert all(word in answer.err for word in ("1 of 3 pairs", "b ", "(12, 16)", "(16, 16)"))


def test_an_object_that_its_list_lacks_is_named(autoseg, folders):
    list_objects(folders[0] / "a_objects.json", n5="x", n6="x", n7="x")
    for case, ids in (("b", ("n1", "n2")), ("c", ())):
        list_objects(folders[0] / f"{case}_objects.json", **dict.fromkeys(ids, "x"))
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "a_objects.json does not list: [8]" in answer.err


def test_a_list_that_is_none_is_named(autoseg, folders):
    for case in "abc":
        (folders[0] / f"{case}_objects.json").write_text('{"objects": [{"id": "one"}]}')
    answer = autoseg("evaluate", *folders)
    assert answer.code == 2
    assert "a_objects.json is no list of objects" in answer.err


def test_processes_give_the_same_scores_as_one(tmp_path):
    for number in range(9):
        write_scan(tmp_path / "out" / f"n{number}.nii.gz", np.stack([draw(*BLOCKS[: 1 + number % 3])] * 2))
        write_scan(tmp_path / "truth" / f"n{number}.nii.gz", np.stack([draw(*BLOCKS[1:])] * 2))
    wanted = Wanted("instance", "glas")
    results = [evaluate(tmp_path / "out", tmp_path / "truth", workers=workers, wanted=wanted) for workers in (1, 2)]
    assert results[0] == results[1]


@pytest.mark.scans
def test_the_nuclei_against_themselves_are_right(real_scans, tmp_path):
    nuclei = real_scans / "nuclei"
    for folder in sorted(nuclei.iterdir())[:3]:
        ids = read_reference(folder / "masks", (ClassLabel(name="nucleus", values=(1,)),), ()).ids
        write_scan(tmp_path / f"{folder.name}.png", ids.astype(np.uint16))
    scores = evaluate(tmp_path, nuclei, wanted=Wanted(only_predicted=True), workers=1)
    assert {scores.mean[name] for name in ("ap_cell_50_95", "f1_50", "pq", "aji", "aji_plus", "seg")} == {1}
    assert len(scores.cases) == 3
