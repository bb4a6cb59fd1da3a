"""Made-up cells: numbered without gaps, apart, of the size and number asked for, and the same every time."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.arrays.phantoms import Balls, draw_balls

CASES = {"2D": ((96, 96), (1.0, 1.0), Balls((8, 12), (4.0, 9.0))), "3D": ((24, 64, 64), (3.0, 1.0, 1.0), Balls((8, 12), (6.0, 9.0)))}


@pytest.mark.parametrize("name", CASES)
def test_balls_are_numbered_from_one_each_in_one_piece(name):
    shape, spacing, balls = CASES[name]
    image, ids = draw_balls(np.random.default_rng(1), shape, spacing, balls)
    assert image.shape == ids.shape == shape
    assert balls.count[0] <= ids.max() <= balls.count[1]
    for number in range(1, ids.max() + 1):
        assert ndimage.label(ids == number)[1] == 1


@pytest.mark.parametrize("name", CASES)
def test_a_ball_is_as_wide_in_mm_along_every_axis_as_its_radius_says(name):
    shape, spacing, balls = CASES[name]
    _, ids = draw_balls(np.random.default_rng(2), shape, spacing, balls)
    whole = 0
    for slices in ndimage.find_objects(ids):
        if all(part.start > 0 and part.stop < size for part, size in zip(slices, shape)):
            widths = [(part.stop - part.start) * step for part, step in zip(slices, spacing)]
            assert max(widths) - min(widths) <= 2 * max(spacing)
            assert 2 * balls.radius[0] - max(spacing) <= max(widths) <= 2 * balls.radius[1] + max(spacing)
            whole += 1
    assert whole > 2


def test_some_balls_touch_and_every_ball_is_brighter_than_the_ground():
    image, ids = draw_balls(np.random.default_rng(3), (128, 128), (1.0, 1.0), Balls((20, 20), (5.0, 10.0)))
    pairs = [(ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])]
    assert any(((a != b) & (a > 0) & (b > 0)).any() for a, b in pairs)
    means = ndimage.mean(image, ids, range(ids.max() + 1))
    assert min(means[1:]) > means[0] + 0.2


def test_the_same_generator_gives_the_same_picture():
    first, second = (draw_balls(np.random.default_rng(4), (64, 64), (1.0, 1.0)) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_a_place_too_full_leaves_balls_out():
    _, ids = draw_balls(np.random.default_rng(5), (32, 32), (1.0, 1.0), Balls((50, 50), (6.0, 6.0)))
    assert 0 < ids.max() < 50
