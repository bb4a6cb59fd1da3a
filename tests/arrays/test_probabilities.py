"""Bytes for probabilities, and votes, against what is obvious."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from autoseg.arrays.labels import make_membership
from autoseg.arrays.probabilities import pack_probabilities, unpack_probabilities, vote, vote_regions
from autoseg.records.dataset import ClassLabel


def draw_classes(classes: int, sharpness: float) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, sharpness, (classes, 6, 7, 8))
    weights = np.exp(logits - logits.max(axis=0))
    return (weights / weights.sum(axis=0)).astype(np.float32)


@pytest.mark.parametrize("regions", [False, True])
def test_what_is_unpacked_is_what_was_packed_to_half_a_step(regions):
    probabilities = draw_classes(4, 2.0)
    packed = pack_probabilities(probabilities, regions)
    assert packed.dtype == np.uint8
    assert packed.shape == (4 if regions else 3, 6, 7, 8)
    restored = unpack_probabilities(packed, regions)
    assert restored.shape == probabilities.shape
    own = slice(None) if regions else slice(1, None)
    assert np.abs(restored[own] - probabilities[own]).max() < 0.5 / 255 + 1e-3
    if not regions:
        assert np.abs(restored[0] - probabilities[0]).max() < 1.5 / 255 + 1e-3
        np.testing.assert_allclose(restored.sum(axis=0, dtype=np.float32), 1, atol=1.6 / 255)  # where thirds are rounded up


def test_the_background_is_never_below_zero():
    packed = np.full((3, 2), 86, np.uint8)  # thirds of 255 that were rounded up
    assert unpack_probabilities(packed, regions=False)[0].tolist() == [0, 0]


def test_packing_twice_changes_nothing():
    packed = pack_probabilities(draw_classes(3, 3.0), regions=False)
    assert np.array_equal(pack_probabilities(unpack_probabilities(packed, False).astype(np.float32), False), packed)


def count_by_hand(said: tuple[int, ...]) -> int:
    """The most frequent; among equals the one that is said first."""
    counts = Counter(said)
    return next(value for value in said if counts[value] == max(counts.values()))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_votes_are_those_counted_by_hand(members):
    every = np.array(list(product(range(4), repeat=members)))
    expected = [count_by_hand(tuple(said)) for said in every.tolist()]
    assert vote(list(every.T)).tolist() == expected


def test_regions_are_voted_one_by_one():
    classes = (ClassLabel(name="whole", values=(1, 2, 3)), ClassLabel(name="core", values=(3, 2)), ClassLabel(name="rim", values=(2,)))
    membership = make_membership(classes)
    for members in (2, 3, 4):
        every = np.array(list(product(range(4), repeat=members)))
        expected = []
        for said in every:
            shares = [[bool(own[number]) for number in said] for own in membership]
            inside = [sum(own) * 2 > members or (sum(own) * 2 == members and own[0]) for own in shares]
            expected.append(max((number for number, own in enumerate(inside, 1) if own), default=0))
        assert vote_regions(list(every.T), membership).tolist() == expected
