"""COCO's AP against a walk through the detections one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.detections import Detections, compute_average_precision, judge_detections
from autoseg.evaluation.instances import AP_PERCENTS, count_overlaps


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def judge_slowly(prediction, reference, scores, percent):
    """(score, right) of every prediction: by falling score each takes the free reference of largest IoU, if that is enough."""
    free = [number for number in np.unique(reference) if number > 0]
    judged = []
    for number in sorted(scores, key=lambda key: -scores[key]):
        mask = prediction == number
        best = max(free, key=lambda other, mask=mask: iou(mask, reference == other), default=None)
        right = best is not None and 100 * iou(mask, reference == best) >= percent
        if right:
            free.remove(best)
        judged.append((scores[number], right))
    return judged


def average_slowly(judged, references):
    """Mean over recall 0, .01 … 1 of the best precision at that recall or beyond."""
    curve, hits = [], 0
    for count, (_, right) in enumerate(sorted(judged, key=lambda item: -item[0]), 1):
        hits += right
        curve.append((hits, hits / count))
    return np.mean([max((precision for hits, precision in curve if 100 * hits >= recall * references), default=0) for recall in range(101)])


def draw_map(generator, objects):
    ids = np.zeros((9, 9), int)
    for number in range(1, objects + 1):
        y, x = generator.integers(0, 7, 2)
        ids[y : y + generator.integers(2, 6), x : x + generator.integers(2, 6)] = number
    return ids


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 9999))
def test_it_is_that_of_detections_walked_through_one_by_one(seed):
    generator = np.random.default_rng(seed)
    cases, slow = [], {percent: [] for percent in AP_PERCENTS}
    total = 0
    for _ in range(3):
        reference = draw_map(generator, generator.integers(0, 5))
        prediction = np.where(generator.random((9, 9)) < 0.9, np.roll(reference, generator.integers(0, 2), 0), 0)
        prediction[:2, :2] = 9
        found = count_overlaps(prediction, reference)
        scores = dict(
            zip(found.predicted_ids.tolist(), generator.permutation(1000)[: found.predicted_ids.size] / 1000 + generator.random() / 1e6)
        )
        cases.append(judge_detections(found, np.array(list(scores.values()))))
        total += found.reference_ids.size
        for percent in AP_PERCENTS:
            slow[percent] += judge_slowly(prediction, reference, scores, percent)
    interval = compute_average_precision(cases)
    if total == 0:
        assert (interval.mean, interval.n) == (None, 0)
    else:
        assert interval.mean == pytest.approx(np.mean([average_slowly(judged, total) for judged in slow.values()]))


def make_case(right, scores, references):
    table = np.tile(np.array(right, bool)[:, None], (1, len(AP_PERCENTS)))
    return Detections(np.array(scores, float), table, references)


def test_a_curve_counted_by_hand():
    case = make_case([True, False, True], [0.9, 0.8, 0.7], 4)
    assert compute_average_precision([case]).mean == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)  # recall to .25, then to .5, then none


def test_detections_of_all_cases_are_put_in_one_order():
    sure, unsure = make_case([True], [0.9], 1), make_case([False], [0.1], 1)
    assert compute_average_precision([sure, unsure]).mean == pytest.approx(51 / 101)
    assert compute_average_precision([sure, make_case([False], [0.95], 1)]).mean == pytest.approx(51 / 2 / 101)


def test_a_prediction_of_a_higher_score_is_served_first():
    found = count_overlaps(np.array([4, 4, 5, 5]), np.array([1, 1, 1, 1]))
    assert judge_detections(found, np.array([0.1, 0.9])).right[:, 0].tolist() == [False, True]


def test_more_than_a_hundred_detections_count():
    assert compute_average_precision([make_case([True] * 500, np.linspace(1, 0.5, 500), 500)]).mean == 1


def test_the_interval_is_the_same_every_time_and_surrounds_the_mean():
    generator = np.random.default_rng(1)
    cases = [make_case(generator.random(20) < 0.7, generator.random(20), 18) for _ in range(30)]
    interval = compute_average_precision(cases)
    assert interval == compute_average_precision(cases)
    assert interval.low < interval.mean < interval.high
    assert interval.n == 30


def test_without_references_or_cases_it_is_undefined():
    for cases in ([], [make_case([], [], 0)], [make_case([False], [0.5], 0)]):
        assert compute_average_precision(cases).mean is None
    assert compute_average_precision([make_case([], [], 3)]).mean == 0
