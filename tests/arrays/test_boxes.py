"""Pairs of boxes and their suppression, against loops over all pairs."""

import numpy as np
import pytest

from autoseg.arrays.boxes import compute_pair_overlaps, drop_weaker, find_pairs, order_by_score, suppress_boxes


def draw_boxes(count, dimension, seed, largest=30.0):
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, 100, (count, dimension))
    return np.concatenate([low, low + generator.uniform(1, largest, (count, dimension))], axis=1).astype(np.float32)


def overlap(a, b):
    half = len(a) // 2
    sides = np.minimum(a[half:], b[half:]).astype(float) - np.maximum(a[:half], b[:half])
    common = sides.prod() if (sides > 0).all() else 0.0
    return common / ((a[half:] - a[:half]).astype(float).prod() + (b[half:] - b[:half]).astype(float).prod() - common)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 150])
def test_pairs_are_those_that_share_volume(count, dimension, monkeypatch):
    monkeypatch.setattr("autoseg.arrays.boxes.ROWS", 40)
    boxes = draw_boxes(count, dimension, count + dimension)
    pairs = find_pairs(boxes)
    expected = {(i, j): overlap(boxes[i], boxes[j]) for i in range(count) for j in range(i + 1, count)}
    expected = {pair: value for pair, value in expected.items() if value > 0}
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    np.testing.assert_allclose(compute_pair_overlaps(boxes, pairs), [expected[tuple(pair)] for pair in pairs.tolist()], rtol=1e-5)


def test_boxes_that_touch_share_nothing():
    assert find_pairs(np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]])).tolist() == []


def suppress_slowly(boxes, scores, classes, threshold):
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], *boxes[i]))
    kept = []
    for i in order:
        if all(classes[i] != classes[j] or overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_suppression_is_the_greedy_one_with_ties_and_classes(dimension, threshold):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        boxes = draw_boxes(40, dimension, seed)
        boxes = np.concatenate([boxes, boxes + generator.normal(0, 1, boxes.shape).astype(np.float32), boxes])
        scores, classes = generator.integers(1, 6, 120) / 5, generator.integers(1, 3, 120)
        kept = suppress_boxes(boxes, scores, classes, threshold)
        assert np.flatnonzero(kept).tolist() == suppress_slowly(boxes, scores, classes, threshold)


def test_the_order_of_the_boxes_does_not_matter():
    boxes, generator = draw_boxes(100, 2, 0, 60), np.random.default_rng(0)
    scores, classes = generator.integers(1, 4, 100) / 4, np.ones(100)
    first = {tuple(box) for box in boxes[suppress_boxes(boxes, scores, classes, 0.3)]}
    for _ in range(3):
        mixed = generator.permutation(100)
        assert {tuple(box) for box in boxes[mixed][suppress_boxes(boxes[mixed], scores[mixed], classes, 0.3)]} == first


def test_one_that_goes_takes_none_with_it():
    order = order_by_score(np.array([0.7, 0.9, 0.8]), np.zeros((3, 4)))
    assert order.tolist() == [1, 2, 0]
    assert drop_weaker(np.array([[1, 2], [0, 2]]), order).tolist() == [True, True, False]
