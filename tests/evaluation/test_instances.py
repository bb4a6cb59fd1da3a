"""Every metric of objects against masks compared one by one, in two and three dimensions."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.instances import PERCENTS, count_matches, count_overlaps, match_one_to_one, score_tally, tally

ZERO_WITH_ONE_SIDE = ("ap_cell_50", "ap_cell_50_95", "f1_50", "f1_30", "f1_10", "pq", "dq", "aji", "aji_plus")
EMPTY = np.zeros((4, 4), int)
ONE = np.array([[3, 3, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@st.composite
def pairs(draw):
    """Prediction and reference with up to four blocks each, some voxels to be ignored; ids with gaps."""
    shape = draw(st.lists(st.integers(2, 6), min_size=2, max_size=3).map(tuple))
    generator = np.random.default_rng(draw(st.integers(0, 9999)))
    maps = []
    for _ in range(2):
        ids = np.zeros(shape, np.int32)
        for number in generator.permutation([2, 3, 7, 40])[: draw(st.integers(0, 4))]:
            low = [generator.integers(0, size) for size in shape]
            ids[tuple(slice(start, start + generator.integers(1, 5)) for start in low)] = number
        maps.append(ids)
    if draw(st.booleans()):
        maps[1][generator.random(shape) < 0.2] = -1
    return maps[0], maps[1]


def list_masks(prediction, reference):
    """Bool masks of the references and of the predictions that count, without the voxels to be ignored."""
    counted = reference != -1
    references = [reference == number for number in np.unique(reference) if number > 0]
    predictions = [prediction == number for number in np.unique(prediction) if number > 0]
    return references, [mask & counted for mask in predictions if 2 * (mask & ~counted).sum() < mask.sum()]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def list_assignments(references, predictions, value):
    """Every way to pair the shorter list one to one with the longer: the sum of `value`, and the pairs."""
    short, long = sorted((references, predictions), key=len)
    swapped = short is not references
    for order in permutations(range(len(long)), len(short)):
        chosen = [(references[j], predictions[i]) if swapped else (references[i], predictions[j]) for i, j in enumerate(order)]
        yield sum(value(a, b) for a, b in chosen), chosen


def most(references, predictions, value):
    return max(total for total, _ in list_assignments(references, predictions, value))


def divide(part, whole):
    return pytest.approx(part / whole) if whole else None


@settings(deadline=None, derandomize=True, max_examples=60)
@given(pairs())
def test_counts_and_ratios_are_those_of_masks_compared_one_by_one(pair):
    references, predictions = list_masks(*pair)
    row = score_tally("a", "cell", tally(count_overlaps(*pair)))
    n, m = len(references), len(predictions)
    hits = {t: most(references, predictions, lambda a, b, t=t: int(100 * (a & b).sum() >= t * (a | b).sum())) for t in PERCENTS}
    cells = [hits[t] / (n + m - hits[t]) if n + m else 1 for t in range(50, 100, 5)]
    assert (row.case, row.class_name, row.objects_reference, row.objects_predicted) == ("a", "cell", n, m)
    assert row.ap_cell_50 == pytest.approx(cells[0])
    assert row.ap_cell_50_95 == pytest.approx(np.mean(cells))
    assert (row.f1_50, row.f1_30, row.f1_10) == tuple(divide(2 * hits[t], n + m) for t in (50, 30, 10))
    assert (row.precision_50, row.recall_50) == (divide(hits[50], m), divide(hits[50], n))
    good = [iou(a, b) for a in references for b in predictions if iou(a, b) > 0.5]
    assert row.sq == divide(sum(good), len(good))
    assert row.dq == divide(len(good), (n + m) / 2)
    assert row.pq == divide(sum(good), (n + m) / 2)
    assert (row.count_error, row.count_bias) == (abs(m - n), m - n)
    covered = [max([iou(a, b) for b in predictions if 2 * (a & b).sum() > a.sum()], default=0) for a in references]
    assert row.seg == divide(sum(covered), n)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(pairs())
def test_aggregated_jaccard_is_that_of_every_reference_with_its_best_prediction(pair):
    references, predictions = list_masks(*pair)
    shared = united = 0
    used = set()
    for mask in references:
        value, size, best = max(((iou(mask, b), (mask & b).sum(), -j) for j, b in enumerate(predictions)), default=(0, 0, 0))
        if value == 0:
            united += mask.sum()
            continue
        ties = [b for b in predictions if (iou(mask, b), (mask & b).sum()) == (value, size)]
        if len(ties) > 1:
            return  # which of them is used is told by where they lie: see the test of permutations
        used.add(-best)
        shared, united = shared + size, united + (mask | predictions[-best]).sum()
    united += sum(mask.sum() for j, mask in enumerate(predictions) if j not in used)
    assert score_tally("", "", tally(count_overlaps(*pair))).aji == divide(shared, united)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(pairs())
def test_the_one_to_one_matching_has_the_largest_total_overlap(pair):
    references, predictions = list_masks(*pair)
    found = count_overlaps(*pair)
    chosen = match_one_to_one(found.rows, found.columns, found.iou)
    assert len(set(found.rows[chosen].tolist())) == len(set(found.columns[chosen].tolist())) == chosen.size
    ways = list(list_assignments(references, predictions, iou))
    best = max(total for total, _ in ways)
    assert found.iou[chosen].sum() == pytest.approx(best)
    voxels = sum(mask.sum() for mask in (*references, *predictions))
    shares = [sum((a & b).sum() for a, b in way) for total, way in ways if total > best - 1e-9]
    assert tally(found).aji_plus.tolist() in [[shared, voxels - shared] for shared in shares]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(pairs(), st.permutations(range(1, 41)))
def test_other_ids_for_the_same_objects_change_nothing(pair, order):
    table = np.array([0, *order, -1])  # the last for -1
    renamed = [table[ids] for ids in pair]
    assert score_tally("", "", tally(count_overlaps(*renamed))) == score_tally("", "", tally(count_overlaps(*pair)))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(pairs())
def test_identical_maps_score_one(pair):
    ids = np.maximum(pair[0], 0)
    row = score_tally("", "", tally(count_overlaps(ids, ids)))
    if ids.any():
        ones = (*ZERO_WITH_ONE_SIDE, "sq", "seg", "precision_50", "recall_50")
        assert {getattr(row, name) for name in ones} == {1.0}
        assert (row.count_error, row.count_bias) == (0, 0)


@pytest.mark.parametrize(("prediction", "reference"), [(EMPTY, ONE), (ONE, EMPTY)])
def test_objects_on_one_side_only_score_zero(prediction, reference):
    row = score_tally("", "", tally(count_overlaps(prediction, reference)))
    assert {getattr(row, name) for name in ZERO_WITH_ONE_SIDE} == {0.0}
    assert row.sq is None
    assert (row.precision_50, row.recall_50, row.seg) == ((0, None, None) if prediction.any() else (None, 0, 0))
    assert (row.count_error, row.count_bias) == (1, 1 if prediction.any() else -1)


def test_nothing_found_where_nothing_is_counts_as_right_for_ap_cell_alone():
    row = score_tally("", "", tally(count_overlaps(EMPTY, EMPTY)))
    assert (row.ap_cell_50, row.ap_cell_50_95, row.count_error) == (1, 1, 0)
    undefined = ("f1_50", "f1_30", "f1_10", "precision_50", "recall_50", "pq", "sq", "dq", "aji", "aji_plus", "seg")
    assert {getattr(row, name) for name in undefined} == {None}


def test_a_case_counted_by_hand():
    reference = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    prediction = np.array([5, 5, 5, 0, 6, 6, 0, 7, 7, 0])
    row = score_tally("", "", tally(count_overlaps(prediction, reference)))
    # 1 and 5: IoU 3/4; 2 and 6: 2/4; 2 and 7: 1/5
    assert row.ap_cell_50 == pytest.approx(2 / 3)
    assert row.ap_cell_50_95 == pytest.approx((2 / 3 + 5 * 1 / 4) / 10)  # at .5 both match, from .55 to .75 only the first
    assert (row.precision_50, row.recall_50, row.f1_50) == (pytest.approx(2 / 3), 1, pytest.approx(4 / 5))
    assert (row.sq, row.dq, row.pq) == (0.75, pytest.approx(2 / 5), pytest.approx(0.3))  # above .5
    assert row.aji == row.aji_plus == pytest.approx((3 + 2) / (4 + 4 + 2))
    assert row.seg == pytest.approx(0.75 / 2)  # 6 covers just half of 2


def test_one_prediction_may_serve_twice_for_aji_but_not_for_aji_plus():
    reference, prediction = np.array([1, 1, 1, 2, 2, 0]), np.array([4, 4, 4, 4, 4, 0])
    row = score_tally("", "", tally(count_overlaps(prediction, reference)))
    assert row.aji == pytest.approx((3 + 2) / (5 + 5))
    assert row.aji_plus == pytest.approx(3 / (5 + 2))


def test_a_good_pair_is_not_given_up_for_two_poor_ones():
    assert match_one_to_one(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.8, 0.05, 0.05])).tolist() == [0]


@pytest.mark.parametrize("ids", [(1, 2), (2, 1)])
def test_of_two_equally_good_predictions_the_first_in_the_map_serves_whatever_its_id(ids):
    reference, prediction = np.array([1, 1, 1, 1, 2, 2, 2, 0, 0]), np.array([*ids[:1] * 2, *ids[1:] * 2, *ids[:1] * 2, 0, *ids[1:] * 2])
    assert score_tally("", "", tally(count_overlaps(prediction, reference))).aji == pytest.approx((2 + 2) / (6 + 5 + 4))


def test_below_a_half_each_object_still_matches_once():
    reference, prediction = np.array([1, 1, 1, 1, 1]), np.array([4, 4, 5, 5, 0])
    row = score_tally("", "", tally(count_overlaps(prediction, reference)))
    assert (row.f1_50, row.f1_30) == (0, pytest.approx(2 / 3))


def test_two_halves_of_an_object_are_one_match_at_an_overlap_of_a_half():
    row = score_tally("", "", tally(count_overlaps(np.array([4, 4, 5, 5]), np.array([1, 1, 1, 1]))))
    assert (row.recall_50, row.precision_50) == (1, 0.5)


def test_the_most_pairs_are_matched_where_taking_the_best_first_would_lose_one():
    assert count_matches(np.array([0, 0, 1]), np.array([0, 1, 0])) == 2
    assert count_matches(np.zeros(0, int), np.zeros(0, int)) == 0


def test_a_prediction_that_lies_half_in_what_is_to_be_ignored_does_not_count():
    reference = np.array([-1, -1, -1, 0, 0, 1, 1, 1])
    prediction = np.array([3, 3, 0, 3, 3, 4, 4, 4])
    assert score_tally("", "", tally(count_overlaps(prediction, reference))).ap_cell_50 == 1
    prediction[0] = 0
    assert score_tally("", "", tally(count_overlaps(prediction, reference))).ap_cell_50 == 0.5


def test_ids_as_large_as_int32_holds_and_ten_thousand_objects():
    reference = np.repeat(np.arange(1, 10_001, dtype=np.int32), 3).reshape(100, 300)
    row = score_tally("", "", tally(count_overlaps(np.iinfo(np.int32).max - reference, reference)))
    assert (row.objects_reference, row.objects_predicted, row.pq) == (10_000, 10_000, 1)


def test_sums_over_cases_are_the_counts_of_one_map_of_all():
    generator = np.random.default_rng(3)
    cases = [(generator.integers(0, 4, (5, 6)), generator.integers(0, 4, (5, 6))) for _ in range(2)]
    apart = tally(count_overlaps(*cases[0])) + tally(count_overlaps(*cases[1]))
    joined = [np.concatenate((cases[0][side], np.where(cases[1][side] > 0, cases[1][side] + 10, 0))) for side in (0, 1)]
    assert score_tally("", "", apart) == score_tally("", "", tally(count_overlaps(*joined)))
