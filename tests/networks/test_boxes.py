"""Boxes in edge coordinates: sides, overlaps, clipping, growing, and the differences that networks learn."""

import math

import pytest
import torch

from autoseg.networks.boxes import (
    LARGEST_STEP,
    REFINED,
    clip_boxes,
    compute_box_sizes,
    compute_overlaps,
    compute_paired_overlaps,
    decode_boxes,
    encode_boxes,
    grow_boxes,
)


def draw_boxes(count: int, dimension: int, seed: int = 0, edge: float = 20.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, dimension, generator=generator) * edge
    return torch.cat([low, low + torch.rand(count, dimension, generator=generator) * edge / 2 + 1], dim=1)


@pytest.mark.parametrize("dimension", [2, 3])
def test_overlaps_are_counted_voxels(dimension):
    a, b = draw_boxes(9, dimension, 1).round(), draw_boxes(7, dimension, 2).round()

    def fill(box):
        image = torch.zeros((40,) * dimension, dtype=torch.bool)
        image[tuple(slice(int(low), int(high)) for low, high in zip(box[:dimension], box[dimension:]))] = True
        return image

    expected = [[(fill(one) & fill(other)).sum() / (fill(one) | fill(other)).sum() for other in b] for one in a]
    torch.testing.assert_close(compute_overlaps(a, b), torch.tensor(expected))
    assert (compute_overlaps(a, b) > 0).any()
    torch.testing.assert_close(compute_paired_overlaps(a[:7], b), compute_overlaps(a, b).diagonal())


def test_empty_boxes_overlap_with_nothing():
    boxes = torch.tensor([[3.0, 3, 3, 3], [5, 5, 4, 4], [0, 0, 8, 8]])
    assert compute_overlaps(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert compute_box_sizes(boxes)[1].tolist() == [0, 0]
    assert compute_overlaps(torch.zeros(0, 6), torch.zeros(3, 6)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_large_boxes_right(dtype):
    with torch.autocast("cpu", dtype=dtype):
        cubes = torch.tensor([[0.0, 0, 0, 64, 64, 64], [32, 0, 0, 96, 64, 64]])  # 64³ = 262,144 is beyond 16 bits
        torch.testing.assert_close(compute_overlaps(cubes, cubes), torch.tensor([[1, 1 / 3], [1 / 3, 1]]))
        far = torch.tensor([[100_000.0, 100_000, 100_010, 100_010], [100_005, 100_000, 100_015, 100_010]])
        torch.testing.assert_close(compute_overlaps(far, far), torch.tensor([[1, 1 / 3], [1 / 3, 1]]))
        anchors = far + torch.tensor([1.0, -2, 3, 2])
        torch.testing.assert_close(decode_boxes(encode_boxes(far, anchors), anchors), far, rtol=0, atol=0.02)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("scale", [(1.0, 1.0), REFINED])
def test_decoding_undoes_encoding(dimension, scale):
    boxes, anchors = draw_boxes(50, dimension, 1), draw_boxes(50, dimension, 2)
    deltas = encode_boxes(boxes, anchors, scale)
    torch.testing.assert_close(decode_boxes(deltas, anchors, scale), boxes, rtol=1e-5, atol=1e-4)


def test_deltas_are_shift_in_sides_then_log_ratio():
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, 5, 21, 15]])
    expected = torch.tensor([[0.6, 0.0, math.log(2), math.log(0.5)]])  # middles (5, 10) → (11, 10), sides (10, 20) → (20, 10)
    torch.testing.assert_close(encode_boxes(box, anchor), expected)
    torch.testing.assert_close(encode_boxes(box, anchor, (0.1, 0.2)), expected / torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_wild_answers_stay_finite_and_empty_boxes_can_be_encoded():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    side = compute_box_sizes(decode_boxes(torch.full((1, 4), 1e4), anchors))
    torch.testing.assert_close(side, torch.full((1, 2), 10 * math.exp(LARGEST_STEP)), rtol=0, atol=0.1)
    assert encode_boxes(torch.tensor([[4.0, 4, 4, 4]]), anchors).isfinite().all()
    assert encode_boxes(anchors, torch.zeros(1, 4)).isfinite().all()


def test_clipping_keeps_what_is_inside_and_growing_the_middle():
    boxes = torch.tensor([[-3.0, 2, 1, 5, 9, 30], [20, 0, 0, 25, 4, 4]])
    assert clip_boxes(boxes, (10, 8, 12)).tolist() == [[0, 2, 1, 5, 8, 12], [10, 0, 0, 10, 4, 4]]
    assert grow_boxes(torch.tensor([[0.0, 10, 10, 30]]), 1.2).tolist() == [[-1, 8, 11, 32]]
