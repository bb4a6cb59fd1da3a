"""Suppression equals the greedy rule, box by box."""

import numpy as np
import pytest
import torch

from autoseg.networks import suppression
from autoseg.networks.boxes import compute_overlaps
from autoseg.networks.suppression import suppress


def suppress_greedily(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, classes: torch.Tensor) -> list[int]:
    """The best box that is left stays and removes what overlaps with it, until none is left."""
    left = np.array(sorted(range(len(boxes)), key=lambda place: (-scores[place].item(), place)), dtype=int)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlaps = compute_overlaps(boxes[best][None], boxes[left])[0].numpy()
        left = left[~((overlaps > threshold) & (classes[left] == classes[best]).numpy())]
    return kept


def draw_problem(count: int, dimension: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes in heaps, with a few scores shared by many of them, and three classes."""
    generator = torch.Generator().manual_seed(seed)
    heaps = torch.rand(max(1, count // 8), 2 * dimension, generator=generator) * 6 * count ** (1 / dimension)
    chosen = heaps[torch.randint(len(heaps), (count,), generator=generator)]
    middle, side = chosen[:, :dimension], 4 + chosen[:, dimension:] % 20
    boxes = torch.cat([middle - side / 2, middle + side / 2], dim=1) + torch.randn(count, 2 * dimension, generator=generator)
    scores = torch.randint(0, max(2, count // 3), (count,), generator=generator) / count
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("chunk", [7, 500])
def test_the_greedy_rule_with_ties_and_classes(dimension, threshold, chunk, monkeypatch):
    monkeypatch.setattr(suppression, "CHUNK", chunk)
    for count in (1, 2, 10, 150):
        boxes, scores, classes = draw_problem(count, dimension, count)
        assert suppress(boxes, scores, threshold, classes).tolist() == suppress_greedily(boxes, scores, threshold, classes)
        one = torch.zeros_like(classes)
        assert suppress(boxes, scores, threshold).tolist() == suppress_greedily(boxes, scores, threshold, one)


@pytest.mark.parametrize(("dimension", "count"), [(2, 20_000), (3, 5000)])
def test_the_greedy_rule_for_many_boxes(dimension, count):
    boxes, scores, _ = draw_problem(count, dimension, 5)
    kept = suppress(boxes, scores, 0.4)
    assert count / 10 < len(kept) < count * 3 / 4
    _check_greedy(boxes, scores, kept, 0.4)


def _check_greedy(boxes: torch.Tensor, scores: torch.Tensor, kept: torch.Tensor, threshold: float) -> None:
    """What makes an answer the greedy one: none that stays overlaps another; all else overlaps one that stays and goes before it."""
    rank = torch.empty(len(boxes), dtype=torch.long)
    rank[scores.argsort(descending=True, stable=True)] = torch.arange(len(boxes))
    assert (rank[kept].diff() > 0).all()
    stays = torch.zeros(len(boxes), dtype=torch.bool)
    stays[kept] = True
    for places in torch.arange(len(boxes)).split(1000):
        rivals = (compute_overlaps(boxes[kept], boxes[places]) > threshold) & (rank[kept][:, None] < rank[places][None])
        assert torch.equal(rivals.any(0), ~stays[places])


def test_a_chain_falls_like_dominoes():
    low = torch.arange(12.0) * 4
    boxes = torch.stack(
        [low, torch.zeros(12), low + 10, torch.full((12,), 10.0)], dim=1
    )  # overlaps: .43 with the next, .11 with the one after
    scores = torch.linspace(1, 0.1, 12)
    assert suppress(boxes, scores, 0.4).tolist() == [0, 2, 4, 6, 8, 10]


def test_equal_scores_keep_the_first_whatever_the_order():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(5, 1)
    assert suppress(boxes, torch.full((5,), 0.5), 0.5).tolist() == [0]
    assert suppress(boxes, torch.full((5,), 0.5), 0.5, torch.tensor([1, 2, 1, 2, 3])).tolist() == [0, 1, 4]


def test_no_boxes_empty_boxes_and_far_boxes():
    assert suppress(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert suppress(torch.zeros(0, 6), torch.zeros(0), 0.5, torch.zeros(0, dtype=torch.long)).tolist() == []
    assert suppress(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]
    far = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [6, 0, 16, 10]]) + 100_000  # float32 still tells them apart
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert suppress(far, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]
