"""Weighted box clustering, by its formulas."""

import numpy as np
import pytest

from autoseg.inference.clustering import Detections, cluster_detections


def make(*rows, dimension=2, masks=None):
    """Detections of rows (box, score, class)."""
    count = len(rows)
    boxes = np.array([row[0] for row in rows], np.float32).reshape(count, 2 * dimension)
    drawn = np.ones((count, *(6,) * dimension), np.float16) if masks is None else np.stack(masks).astype(np.float16)
    return Detections(boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64), drawn)


def test_one_member_is_left_as_it_is():
    one = make(((0, 0, 9, 9), 0.9, 1), ((0, 0, 9, 8), 0.8, 1))
    assert cluster_detections([one]) is one


def test_box_and_score_are_weighted_means():
    first, second, third = ((0, 0, 10, 10), 0.8, 1), ((0, 0, 10, 8), 0.5, 1), ((50, 50, 60, 60), 0.9, 1)
    joined = cluster_detections([make(first, third), make(second), make()])
    assert joined.classes.tolist() == [1, 1]
    w = np.array([1.0, 0.8])
    s = np.array([0.8, 0.5])
    order = np.argsort(-joined.scores)
    high = (w[0] * s[0] * 10 + w[1] * s[1] * 8) / (w * s).sum()
    np.testing.assert_allclose(joined.boxes[order[0]], [0, 0, 10, high], rtol=1e-5)
    expected = [(w * s).sum() / (w.sum() + 1 * w.mean()), 0.9 / (1 + 2 * 1)]
    np.testing.assert_allclose(joined.scores[order], expected, rtol=1e-5)


def test_members_that_agree_change_nothing():
    one = make(((1, 2, 12, 9), 0.7, 2), ((30, 3, 40, 20), 0.6, 1))
    joined = cluster_detections([one, one, one])
    order = np.argsort(-joined.scores)
    np.testing.assert_allclose(joined.boxes[order], one.boxes, atol=1e-4)
    np.testing.assert_allclose(joined.scores[order], one.scores, rtol=1e-5)
    np.testing.assert_allclose(joined.masks[order], one.masks, atol=1e-3)
    assert joined.classes[order].tolist() == [2, 1]


def test_classes_and_distant_boxes_are_not_joined():
    first = make(((0, 0, 10, 10), 0.8, 1))
    assert len(cluster_detections([first, make(((0, 0, 10, 10), 0.7, 2))])) == 2
    assert len(cluster_detections([first, make(((0, 6, 10, 16), 0.7, 1))])) == 2


def test_neighbours_of_one_member_stay_apart():
    """Two bars whose boxes overlap by more than one half, seen by two members: each finds its like."""
    bars = (((0, 0, 20, 20), 0.9, 1), ((3, 3, 23, 23), 0.8, 1))
    other = (((0, 1, 20, 21), 0.85, 1), ((3, 4, 23, 24), 0.75, 1))
    joined = cluster_detections([make(*bars), make(*other)])
    assert len(joined) == 2
    np.testing.assert_allclose(np.sort(joined.boxes[:, 0]), [0, 3], atol=0.01)
    assert joined.scores.min() > 0.7


def test_masks_are_averaged_on_the_new_box():
    left, right = np.zeros((6, 6)), np.zeros((6, 6))
    left[:, :3], right[:, 3:] = 1, 1
    joined = cluster_detections([make(((0, 0, 12, 12), 0.8, 1), masks=[left]), make(((0, 0, 12, 12), 0.8, 1), masks=[right])])
    np.testing.assert_allclose(joined.masks[0], 0.5)


def view(frame):
    """A smooth function of the image, seen through a frame."""
    y, x = (frame[axis] + (np.arange(6) + 0.5) / 6 * (frame[2 + axis] - frame[axis]) for axis in (0, 1))
    return 0.02 * y[:, None] + 0.03 * x[None]


def test_masks_of_shifted_boxes_meet_where_they_show_the_same():
    boxes = [(2, 2, 14, 14), (2, 5, 14, 17)]
    members = [make((box, 0.8, 1)) for box in boxes]
    members = [make((box, 0.8, 1), masks=[view(member.frames[0])]) for box, member in zip(boxes, members)]
    joined = cluster_detections(members)
    assert len(joined) == 1
    assert 2 < joined.boxes[0, 1] < 5
    np.testing.assert_allclose(joined.masks[0][1:-1, 2:-2], view(joined.frames[0])[1:-1, 2:-2], atol=2e-3)


@pytest.mark.parametrize("dimension", [2, 3])
def test_nothing_from_nobody(dimension):
    joined = cluster_detections([make(dimension=dimension)] * 3)
    assert len(joined) == 0
    assert joined.boxes.shape == (0, 2 * dimension)
    assert joined.masks.shape == (0, *(6,) * dimension)


def test_all_of_three_dimensions():
    a, b = ((0, 0, 0, 10, 10, 10), 0.8, 1), ((0, 0, 0, 10, 10, 9), 0.6, 1)
    joined = cluster_detections([make(a, dimension=3), make(b, dimension=3)])
    assert len(joined) == 1
    assert 9 < joined.boxes[0, 5] < 10
