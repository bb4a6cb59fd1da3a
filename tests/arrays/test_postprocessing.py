"""Rules on label maps, against a flood fill that looks at one voxel after the other."""

from itertools import product

import numpy as np
import pytest

from autoseg.arrays.postprocessing import apply_rules, find_holes, keep_large, keep_largest
from autoseg.errors import InputError
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel

CLASSES = (ClassLabel(name="liver", values=(1,)), ClassLabel(name="tumour", values=(2,)))
REGIONS = (ClassLabel(name="whole", values=(1, 2)), ClassLabel(name="core", values=(2,)))
ALL = Rule(kind="largest_component")


def flood(mask, corners):
    """Components as sets of positions; neighbours share a face or, with `corners`, at least a corner."""
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if any(step) and (corners or sum(map(abs, step)) == 1)]
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        component, front = set(), [left.pop()]
        while front:
            place = front.pop()
            component.add(place)
            near = {tuple(a + b for a, b in zip(place, step)) for step in steps} & left
            left -= near
            front += near
        found.append(component)
    return found


def paint(shape, components):
    mask = np.zeros(shape, bool)
    for place in set().union(*components):
        mask[place] = True
    return mask


@pytest.mark.parametrize("seed", range(30))
def test_components_are_those_of_a_flood_fill(seed):
    generator = np.random.default_rng(seed)
    shape = ((7, 8), (4, 6, 5))[seed % 2]
    mask = generator.random(shape) < (0.1, 0.2, 0.5)[seed % 3]
    components = flood(mask, corners=True)
    largest = max(map(len, components), default=0)
    assert np.array_equal(keep_largest(mask), paint(shape, [one for one in components if len(one) == largest]))
    assert np.array_equal(keep_large(mask, 3), paint(shape, [one for one in components if len(one) >= 3]))


@pytest.mark.parametrize("seed", range(30))
def test_holes_are_those_of_a_flood_fill(seed):
    generator = np.random.default_rng(seed)
    shape = ((9, 10), (6, 7, 6))[seed % 2]
    labels = generator.choice(3, shape, p=(0.2, 0.7, 0.1))
    holes = [
        one
        for one in flood(labels != 1, corners=False)
        if not any(labels[place] for place in one) and not any(i in (0, n - 1) for place in one for i, n in zip(place, shape))
    ]
    assert np.array_equal(find_holes(labels == 1, labels == 0), paint(shape, holes))


def test_rules_follow_each_other_and_leave_other_classes_alone():
    labels = np.array([[1, 1, 0, 0, 2], [0, 0, 0, 0, 0], [1, 0, -1, 2, 2]])
    kept = labels.copy()
    done = apply_rules(labels, (Rule(kind="largest_component", class_name="liver"),), CLASSES, (1.0, 1.0))
    assert done.tolist() == [[1, 1, 0, 0, 2], [0, 0, 0, 0, 0], [0, 0, -1, 2, 2]]
    both = (Rule(kind="largest_component", class_name="tumour"), Rule(kind="minimum_volume", class_name="tumour", volume=2.5))
    assert (apply_rules(labels, both[:1], CLASSES, (1.0, 1.0)) == 2).sum() == 2
    assert (apply_rules(labels, both, CLASSES, (1.0, 1.0)) == 2).sum() == 0
    assert np.array_equal(labels, kept)


def test_the_largest_component_of_all_joins_classes_and_keeps_equals():
    assert apply_rules(np.array([1, 2, 0, 2, 2, 0, 1]), (ALL,), CLASSES, (1.0,)).tolist() == [1, 2, 0, 2, 2, 0, 0]
    assert apply_rules(np.zeros((2, 3), int), (ALL,), CLASSES, (1.0, 1.0)).tolist() == [[0] * 3] * 2


def test_the_minimum_is_a_volume_in_mm():
    labels = np.array([[[1, 1, 0, 1]]])
    rule = Rule(kind="minimum_volume", class_name="liver", volume=5.0)
    assert apply_rules(labels, (rule,), CLASSES, (3.0, 1.0, 1.0)).ravel().tolist() == [1, 1, 0, 0]
    assert apply_rules(labels, (rule,), CLASSES, (5.0, 1.0, 1.0)).ravel().tolist() == [1, 1, 0, 1]


def test_a_hole_is_filled_in_a_single_slice_but_not_where_another_class_lies_in_it():
    ring = np.ones((5, 5), int)
    ring[1:4, 1:4] = 0
    rule = Rule(kind="fill_holes", class_name="liver")
    assert (apply_rules(ring[None], (rule,), CLASSES, (2.0, 1.0, 1.0)) == 1).all()
    assert np.array_equal(apply_rules(np.stack([ring, ring]), (rule,), CLASSES, (2.0, 1.0, 1.0)), np.stack([ring, ring]))
    ring[2, 2] = 2
    assert np.array_equal(apply_rules(ring, (rule,), CLASSES, (1.0, 1.0)), ring)


def test_rules_that_cannot_be_applied_are_refused():
    labels = np.ones((2, 2), int)
    for rule, classes, words in (
        (Rule(kind="fill_holes"), CLASSES, "no class"),
        (Rule(kind="largest_component", class_name="spleen"), CLASSES, "'spleen', which is none of liver, tumour"),
        (Rule(kind="largest_component", class_name="core"), REGIONS, "regions overlap"),
    ):
        with pytest.raises(InputError, match=words):
            apply_rules(labels, (rule,), classes, (1.0, 1.0))
    assert apply_rules(labels, (ALL,), REGIONS, (1.0, 1.0)).all()
