"""Anchors stand in the middle of the cells; a box goes to the level of its size."""

import itertools

import pytest
import torch

from autoseg.networks.anchors import choose_levels, make_anchors


@pytest.mark.parametrize(("size", "stride"), [((3, 4), (2, 8)), ((2, 3, 4), (1, 4, 4))])
def test_cells_row_by_row_and_shapes_fastest(size, stride):
    shapes = [(4.0, 6.0, 8.0)[: len(size)], (10.0, 2.0, 3.0)[: len(size)]]
    expected = []
    for cell in itertools.product(*map(range, size)):
        for shape in shapes:
            middle = [(place + 0.5) * step for place, step in zip(cell, stride)]
            expected.append([m - s / 2 for m, s in zip(middle, shape)] + [m + s / 2 for m, s in zip(middle, shape)])
    assert make_anchors(size, stride, shapes).tolist() == expected


def test_a_box_is_read_from_the_level_that_shows_it_in_about_14_cells():
    strides = [(2, 2), (4, 4), (8, 8)]
    sides = torch.tensor([[1.0, 1], [28, 28], [39, 39], [40, 40], [56, 56], [28, 112], [79, 79], [80, 80], [500, 500], [0, 0]])
    levels = choose_levels(torch.cat([torch.zeros_like(sides), sides], dim=1), strides)
    assert levels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 0]  # borders at 14 · √(2·4) = 39.6 and 14 · √(4·8) = 79.2
    assert choose_levels(torch.tensor([[0.0, 0, 0, 5, 28, 28], [0, 0, 0, 28, 112, 112]]), [(1, 2, 2), (2, 4, 4)]).tolist() == [0, 1]
    assert choose_levels(torch.zeros(0, 4), strides).shape == (0,)
