"""Scores of objects by class and over cases."""

import numpy as np
import pytest

from autoseg.evaluation.objects import LabelledObjects, count_objects, make_row, summarise_objects
from autoseg.records.base import encode
from autoseg.records.scores import GLAS_METRICS, INSTANCE_METRICS, InstanceScores, decode_scores

NAMES = ("cell", "debris")
REFERENCE = np.array([1, 1, 0, 2, 2, 0, 3, 3])
RIGHT = LabelledObjects(REFERENCE, {1: 1, 2: 1, 3: 2}, {1: 0.9, 2: 0.8, 3: 0.7})


def count(ids, classes, scores=None, with_glas=False):
    return count_objects(LabelledObjects(np.array(ids), classes, scores), RIGHT, NAMES, with_glas)


def test_objects_are_matched_within_their_class_only():
    rows = [make_row("a", counts) for counts in count([4, 4, 0, 5, 5, 0, 6, 6], {4: 1, 5: 2, 6: 2})]
    assert [(row.class_name, row.objects_reference, row.objects_predicted) for row in rows] == [("cell", 2, 1), ("debris", 1, 2)]
    assert [row.ap_cell_50 for row in rows] == [0.5, 0.5]
    assert [row.count_bias for row in rows] == [-1, 1]


def test_means_are_over_cases_and_pooled_values_over_objects():
    nothing = LabelledObjects(np.zeros(8, int), {})
    cases = {"a": count([4, 4, 0, 0, 0, 0, 6, 6], {4: 1, 6: 2}), "b": count(REFERENCE, {1: 1, 2: 1, 3: 2})}
    cases["c"] = count_objects(nothing, nothing, NAMES)
    scores = summarise_objects(cases)
    cell = scores.classes["cell"]
    assert [(row.case, row.class_name) for row in scores.cases][:3] == [("a", "cell"), ("a", "debris"), ("b", "cell")]
    assert cell["ap_cell_50"].mean == pytest.approx((0.5 + 1 + 1) / 3)
    assert (cell["f1_50"].n, cell["f1_50"].mean) == (2, pytest.approx((2 / 3 + 1) / 2))  # undefined where nothing is
    assert scores.pooled["cell"]["ap_cell_50"] == pytest.approx(3 / 4)
    assert scores.pooled["cell"]["f1_50"] == pytest.approx(6 / 7)
    assert (cell["count_error"].mean, cell["count_bias"].mean) == (pytest.approx(1 / 3), pytest.approx(-1 / 3))
    assert scores.mean["ap_cell_50"] == pytest.approx((5 / 6 + 1) / 2)
    assert scores.mean["coco_ap"] is None
    assert set(scores.mean) == set(cell) == {*INSTANCE_METRICS, "coco_ap"}
    assert scores == summarise_objects(cases)


def test_average_precision_needs_scores_of_every_case():
    known = count_objects(RIGHT, RIGHT, NAMES)
    scores = summarise_objects({"a": known, "b": known})
    assert scores.mean["coco_ap"] == scores.pooled["cell"]["coco_ap"] == scores.classes["debris"]["coco_ap"].mean == 1
    assert summarise_objects({"a": known, "b": count(REFERENCE, {1: 1, 2: 1, 3: 2})}).mean["coco_ap"] is None


def test_the_glas_measures_are_there_where_they_were_asked_for():
    scores = summarise_objects({"a": count(REFERENCE, {1: 1, 2: 1, 3: 2}, with_glas=True)})
    assert [scores.mean[metric] for metric in GLAS_METRICS] == [1, 1, 0]
    assert [scores.pooled["cell"][metric] for metric in GLAS_METRICS] == [1, 1, 0]


def test_identical_objects_score_one_and_come_back_from_json():
    scores = summarise_objects({"a": count_objects(RIGHT, RIGHT, NAMES)})
    ones = set(INSTANCE_METRICS) - {"count_error", "count_bias"}
    assert {scores.mean[metric] for metric in ones} == {1}
    back = decode_scores(encode(scores), "scores.json")
    assert isinstance(back, InstanceScores)
    assert back == scores
