"""Seeded watershed: touching objects come apart where the inside is lowest, foreground without a seed is no object."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.inference.watershed import find_seeds, grow_seeds, separate_objects
from autoseg.records.detection import Thresholds


def draw_balls(shape, centres, radii):
    """Insides of overlapping balls, 1 at their centres and 0 at their faces; which of them a voxel is of; and where any is."""
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"))
    distances = np.stack([np.sqrt(((grid - np.array(c).reshape(-1, *(1,) * len(shape))) ** 2).sum(0)) / r for c, r in zip(centres, radii)])
    return np.clip(1 - distances.min(0), 0, 1), distances.argmin(0) + 1, distances.min(0) < 1


@pytest.mark.parametrize(
    ("shape", "centres", "radii"),
    [((40, 60), [(20, 16), (20, 33), (20, 47)], (14, 6, 11)), ((18, 30, 44), [(9, 15, 14), (9, 15, 30)], (12, 6))],
)
def test_touching_balls_part_at_the_valley(shape, centres, radii):
    """Not halfway between the seeds: the balls are of different sizes."""
    inside, nearest, foreground = draw_balls(shape, centres, radii)
    seeds = find_seeds(inside, foreground, 0.8)
    assert seeds.max() == len(centres)
    ids = grow_seeds(inside, foreground, seeds)
    assert ((ids > 0) == foreground).all()
    names = np.array([0, *(nearest[tuple(np.argwhere(seeds == number)[0])] for number in range(1, len(centres) + 1))])
    assert np.mean(names[ids[foreground]] == nearest[foreground]) > 0.99


def test_a_plateau_is_shared_by_nearness():
    """Ties: where the inside says nothing, seeds grow at the same pace."""
    inside, foreground, seeds = np.full((11, 40), 0.6), np.ones((11, 40), bool), np.zeros((11, 40), np.int32)
    seeds[5, 5], seeds[5, 34] = 1, 2
    ids = grow_seeds(inside, foreground, seeds)
    counts = np.bincount(ids.ravel())
    assert counts[0] == 0
    assert abs(counts[1] - counts[2]) <= 22


def test_no_object_reaches_another_through_the_background():
    foreground = np.zeros((9, 30), bool)
    foreground[2:7, 2:10] = foreground[2:7, 12:28] = True
    seeds = np.zeros((9, 30), np.int32)
    seeds[4, 4], seeds[4, 25] = 1, 2
    ids = grow_seeds(foreground * 0.9, foreground, seeds)
    assert (ids[2:7, 2:10] == 1).all()
    assert (ids[2:7, 12:28] == 2).all()
    assert (ids[~foreground] == 0).all()


def test_foreground_without_a_seed_is_none():
    foreground = np.zeros((9, 30), bool)
    foreground[2:7, 2:10] = foreground[2:7, 12:28] = True
    seeds = np.zeros((9, 30), np.int32)
    seeds[4, 4] = 1
    assert set(np.unique(grow_seeds(foreground * 0.9, foreground, seeds)[:, 12:])) == {0}


def test_specks_are_no_seeds():
    inside = np.zeros((9, 9))
    inside[1, 1], inside[4:6, 4:6] = 0.9, 0.9
    seeds = find_seeds(inside, np.ones((9, 9), bool), 0.5)
    assert seeds.max() == 1
    assert seeds[1, 1] == 0
    assert (seeds[4:6, 4:6] == 1).all()


def make_probabilities(shape=(30, 40), classes=2):
    values = np.zeros((classes + 2, *shape), np.float32)
    values[0] = 1
    return values


def paint(values, place, number, inside, boundary):
    values[(slice(None), *place)] = 0
    values[(number, *place)] = inside
    values[(-1, *place)] = boundary
    values[(0, *place)] = 1 - inside - boundary


def test_class_and_score_are_those_of_the_voxels():
    values = make_probabilities()
    paint(values, (slice(4, 10), slice(4, 10)), 1, 0.6, 0.2)
    paint(values, (slice(15, 25), slice(20, 30)), 2, 0.7, 0.3)
    first, second = sorted(separate_objects(values, Thresholds()), key=lambda found: found.class_number)
    assert (first.class_number, second.class_number) == (1, 2)
    assert first.score == pytest.approx(0.8)
    assert second.score == pytest.approx(1.0)
    assert first.box == ((4, 10), (4, 10))
    assert second.select(0.9).all()


def test_small_and_weak_ones_are_left_out():
    values = make_probabilities()
    paint(values, (slice(4, 6), slice(4, 6)), 1, 0.6, 0.2)
    paint(values, (slice(15, 25), slice(20, 30)), 1, 0.6, 0.0)
    assert len(separate_objects(values, Thresholds())) == 2
    assert len(separate_objects(values, Thresholds(smallest=5))) == 1
    assert len(separate_objects(values, Thresholds(score=0.7))) == 1
    assert separate_objects(make_probabilities(), Thresholds()) == []


def test_random_seeds_grow_into_as_many_connected_objects():
    generator = np.random.default_rng(0)
    inside = ndimage.gaussian_filter(generator.random((80, 90)), 4)
    inside = (inside - inside.min()) / np.ptp(inside)
    foreground = inside > 0.3
    seeds = find_seeds(inside, foreground, 0.7)
    ids = grow_seeds(inside, foreground, seeds)
    assert ids.max() == seeds.max() > 3
    for number in range(1, ids.max() + 1):
        assert ndimage.label(ids == number)[1] == 1
        assert (ids[seeds == number] == number).all()
