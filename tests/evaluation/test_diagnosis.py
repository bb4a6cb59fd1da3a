"""Each finding is made where its fault is made up, and not where the same scores are sound."""

import msgspec
import pytest
from made_up_scores import make_scores

from autoseg.evaluation.diagnosis import Background, diagnose
from autoseg.evaluation.training_course import Course, Point
from autoseg.records.scores import SizeRecall

SOUND = [{}] * 12


def names(scores, known=Background()):
    return [finding.name for finding in diagnose(scores, known)]


def find(name, scores, known=Background()):
    (found,) = [finding for finding in diagnose(scores, known) if finding.name == name]
    return found


def test_sound_scores_have_no_finding():
    known = Background(folds=(("c00", "c01"), ("c02", "c03")))
    assert names(make_scores(kidney_left=SOUND, kidney_right=SOUND), known) == []


def test_a_class_left_to_the_background():
    empty = {"dice": 0.05, "specificity": 1.0, "voxels_predicted": 20, "sensitivity": 0.02}
    found = find("background", make_scores(liver=[empty] * 11 + [empty | {"voxels_predicted": 0, "dice": 0.0}]))
    assert "liver" in found.what
    assert "empty in 1 of 12" in found.evidence
    assert "foreground_probability" in found.cure
    assert "background" not in names(make_scores(liver=[empty | {"voxels_predicted": 600}] * 12))
    assert "background" not in names(make_scores(liver=[empty | {"dice": 0.6}] * 12))


def test_too_much_marked():
    excess = {"dice": 0.6, "precision": 0.45, "voxels_predicted": 2100}
    found = find("excess", make_scores(liver=[excess] * 11 + [excess | {"voxels_reference": 0}]))
    assert "2.29 times" in found.evidence
    assert "c11" in found.evidence
    assert "excess" not in names(make_scores(liver=[excess | {"precision": 0.8}] * 12))
    assert "excess" not in names(make_scores(liver=[excess | {"voxels_predicted": 1400}] * 12))


@pytest.mark.parametrize(("dice", "nsd", "blurred"), [(0.85, 0.6, True), (0.85, 0.7, False), (0.79, 0.6, False), (0.85, None, False)])
def test_borders_are_blurred_where_dice_is_good_and_surface_dice_poor(dice, nsd, blurred):
    assert ("borders" in names(make_scores(liver=[{"dice": dice, "nsd": nsd}] * 12))) is blurred


def test_small_targets_are_found_worse():
    cases = [{"voxels_reference": 100 * (k + 1), "voxels_predicted": 100 * (k + 1), "dice": 0.6 if k < 6 else 0.9} for k in range(12)]
    found = find("small targets", make_scores(tumour=cases))
    assert "0.600 in the 6 cases with up to 600 voxels, 0.900" in found.evidence
    even = [case | {"dice": 0.6 if k % 2 else 0.9} for k, case in enumerate(cases)]
    assert "small targets" not in names(make_scores(tumour=even))


def test_small_lesions_are_missed():
    sizes = (
        SizeRecall(low_ml=0.0, high_ml=0.1, lesions=4, found=0),  # too few to count
        SizeRecall(low_ml=0.1, high_ml=1.0, lesions=20, found=5),
        SizeRecall(low_ml=1.0, high_ml=None, lesions=10, found=9),
    )
    scores = msgspec.structs.replace(make_scores(lesion=SOUND), lesion_recall={"lesion": sizes})
    assert "5 of 20 below 1 ml, 9 of 10 from 1 ml" in find("small lesions", scores).evidence
    even = (sizes[1], msgspec.structs.replace(sizes[2], found=4))
    assert names(msgspec.structs.replace(scores, lesion_recall={"lesion": even})) == []


def test_a_few_outliers_are_named():
    cases = [{"dice": 0.9 + 0.001 * k} for k in range(11)] + [{"dice": 0.3}]
    found = find("outliers", make_scores(liver=cases))
    assert "c11 (0.300)" in found.evidence
    assert "1 of 12" in found.what
    spread = [{"dice": 0.08 * k} for k in range(12)]
    assert "outliers" not in names(make_scores(liver=spread))


def test_sides_are_mixed_up_where_volumes_fit_and_both_dice_are_low():
    mixed = [{"dice": 0.1}] * 3 + [{}] * 9
    found = find("sides", make_scores(kidney_left=mixed, kidney_right=mixed))
    assert found.what == "kidney_left and kidney_right are mixed up in 3 of 12 cases."
    assert "c00, c01, c02" in found.evidence
    assert "sides" not in names(make_scores(kidney_left=mixed, kidney_right=SOUND))
    assert "sides" not in names(make_scores(kidney=mixed, spleen=mixed))
    other = [{"dice": 0.1, "voxels_predicted": 300}] * 3 + [{}] * 9
    assert "sides" not in names(make_scores(kidney_left=mixed, kidney_right=other))


def test_a_class_that_occurs_nowhere():
    scores = make_scores(liver=[{"voxels_reference": 0, "voxels_predicted": 0, "dice": None}] * 12)
    assert names(scores, Background(folds=(("c00",), ("c01",)))) == ["absent"]


def test_a_class_absent_from_a_fold_and_one_that_only_a_fold_has():
    rare = [{} if k < 2 else {"voxels_reference": 0, "voxels_predicted": 0, "dice": None} for k in range(12)]
    folds = tuple(tuple(f"c{k:02d}" for k in part) for part in (range(0, 6), range(6, 12)))
    found = diagnose(make_scores(cyst=rare), Background(folds=folds))
    assert [finding.name for finding in found] == ["absent from a fold"] * 2
    assert found[0].what == "The model of fold 0 has never seen cyst."
    assert found[1].what == "No validation case of fold 1 has cyst."
    assert "--stratify" in found[0].cure


def test_a_gap_is_told_where_only_the_loss_gets_better():
    losses = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3]
    flat = Course("2d, fold 0", tuple(Point(10 * k, loss, 0.7) for k, loss in enumerate(losses, 1)))
    rising = Course("2d, fold 1", tuple(Point(10 * k, loss, 0.7 + 0.02 * k) for k, loss in enumerate(losses, 1)))
    done = Course("2d, fold 2", tuple(Point(10 * k, max(loss, 0.6), 0.7) for k, loss in enumerate(losses, 1)))
    found = find("gap", make_scores(liver=SOUND), Background(courses=(flat, rising, done, Course("empty", ()))))
    assert found.what.startswith("1 of 4 trainings")
    assert "2d, fold 0: from step 30 to 60 the loss fell from 0.600 to 0.300" in found.evidence


def test_few_cases_are_told():
    assert names(make_scores(liver=[{}] * 9)) == ["few cases"]
    assert names(make_scores(liver=[{}] * 10)) == []
