"""Anchors stand in the middle of the cells; a box goes to the level of its size."""

import itertools

import msgspec
import pytest
import torch
from builders import make_detection_spec

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


def test_the_level_nearest_in_log_scale():
    detection = msgspec.structs.replace(make_detection_spec(2, (1, 2, 3)), anchors=(((8.0, 8.0),), ((4.0, 64.0),), ((32.0, 32.0),)))
    sides = torch.tensor([[1.0, 1], [8, 8], [11, 11], [11.5, 11.5], [16, 16], [4, 90], [22, 22], [23, 23], [500, 500], [0, 0]])
    levels = choose_levels(torch.cat([torch.zeros_like(sides), sides], dim=1), detection)
    assert levels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 0]  # borders at √(8·16) = 11.3 and √(16·32) = 22.6
    assert choose_levels(torch.zeros(0, 4), detection).shape == (0,)
