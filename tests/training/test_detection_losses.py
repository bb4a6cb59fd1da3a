"""Losses of boxes and masks, against sums over examples."""

import math

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.boxes import decode_boxes, encode_boxes
from autoseg.training.detection_losses import BETA, compute_box_loss, compute_giou, compute_mask_loss, compute_proposal_loss


def draw_boxes(count, dimension, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, dimension, generator=generator) * 20
    return torch.cat([low, low + 1 + torch.rand(count, dimension, generator=generator) * 10], dim=1)


@pytest.mark.parametrize("dimension", [2, 3])
def test_giou_is_that_of_counted_cells(dimension):
    shape = (24,) * dimension
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        low = torch.randint(0, 12, (2, dimension), generator=generator)
        high = low + torch.randint(1, 12, (2, dimension), generator=generator)
        one, other, hull = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        one[tuple(slice(*ends) for ends in zip(low[0], high[0]))] = True
        other[tuple(slice(*ends) for ends in zip(low[1], high[1]))] = True
        hull[tuple(slice(*ends) for ends in zip(low.amin(0), high.amax(0)))] = True
        union = (one | other).sum()
        expected = (one & other).sum() / union - (hull.sum() - union) / hull.sum()
        found = compute_giou(torch.cat([low[:1], high[:1]], dim=1).float(), torch.cat([low[1:], high[1:]], dim=1).float())
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_loss_of_proposals_is_a_mean_over_anchors_and_one_over_positives(dimension):
    anchors, boxes = draw_boxes(6, dimension), draw_boxes(3, dimension, 1)
    logits, matches = torch.tensor([0.3, -2.0, 1.0, 0.0, 4.0, -1.0]), torch.tensor([-1, 2, -1, 0, 2, -1])
    deltas = torch.randn(6, 2 * dimension, generator=torch.Generator().manual_seed(0)) / 4
    entropy = sum(math.log1p(math.exp(-x if m >= 0 else x)) for x, m in zip(logits.tolist(), matches.tolist())) / 6
    giou = [1 - compute_giou(decode_boxes(deltas[[i]], anchors[[i]]), boxes[matches[[i]]]).item() for i in (1, 3, 4)]
    found = compute_proposal_loss(logits, deltas, anchors, matches, boxes)
    assert found.item() == pytest.approx(entropy + sum(giou) / 3, rel=1e-5)
    perfect = encode_boxes(boxes[matches.clamp(min=0)], anchors)
    assert compute_proposal_loss(100 * (matches >= 0) - 50.0, perfect, anchors, matches, boxes).item() == pytest.approx(0, abs=1e-5)
    assert compute_proposal_loss(torch.zeros(6), perfect, anchors, matches, boxes).item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_loss_of_boxes_is_a_mean_over_all_and_one_over_positives(dimension):
    proposals, targets = draw_boxes(4, dimension), draw_boxes(2, dimension, 1)
    classes = torch.tensor([0, 2, 1, 0])
    generator = torch.Generator().manual_seed(0)
    logits, deltas = torch.randn(4, 3, generator=generator), torch.randn(4, 2 * dimension, generator=generator)
    entropy = -sum(logits[i].softmax(0)[c].log().item() for i, c in enumerate(classes)) / 4
    distances = []
    for box, target in ((1, 0), (2, 1)):
        low, high = proposals[box].chunk(2)
        start, end = targets[target].chunk(2)
        wanted = torch.cat([((start + end) - (low + high)) / 2 / (high - low) / 0.1, ((end - start) / (high - low)).log() / 0.2])
        for difference in (deltas[box] - wanted).abs().tolist():
            distances.append(difference**2 / 2 / BETA if difference < BETA else difference - BETA / 2)
    found = compute_box_loss(logits, deltas, proposals, classes, targets)
    assert found.item() == pytest.approx(entropy + sum(distances) / len(distances), rel=1e-4)


@pytest.mark.parametrize("size", [(4, 6), (2, 3, 4)])
def test_the_loss_of_masks_is_a_mean_over_boxes_in_their_own_channel(size):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 2, *size, generator=generator), torch.rand(3, *size, generator=generator)
    classes, total = torch.tensor([2, 1, 2]), 0.0
    for box in range(3):
        own = logits[box, classes[box] - 1]
        p, t = own.sigmoid(), targets[box]
        total += float(-(t * p.log() + (1 - t) * (1 - p).log()).mean()) / 3
    assert compute_mask_loss(logits, classes, targets).item() == pytest.approx(total, rel=1e-5)
    full = (targets > 0.5).float()
    sure = torch.stack([full, full], dim=1) * 100 - 50
    assert compute_mask_loss(sure, classes, full).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_losses_of_nothing_are_0_with_a_gradient(dimension):
    none, places = torch.zeros(0, 2 * dimension), torch.zeros(0, dtype=torch.long)
    anchors = draw_boxes(4, dimension)
    weight = torch.ones(1, requires_grad=True)
    deltas = torch.ones(4, 2 * dimension) * weight
    nothing = torch.full((4,), -1)
    negative = compute_proposal_loss(torch.zeros(4) * weight, deltas, anchors, nothing, none)
    assert negative.item() == pytest.approx(math.log(2))
    assert compute_proposal_loss(torch.zeros(0) * weight, none * weight, none, places, none).item() == 0
    boxes = compute_box_loss(torch.zeros(4, 2) * weight, deltas, anchors, torch.zeros(4, dtype=torch.long), none)
    assert boxes.item() == pytest.approx(math.log(2))
    assert compute_box_loss(torch.zeros(0, 2) * weight, none * weight, none, places, none).item() == 0
    masks = compute_mask_loss(torch.zeros(0, 1, *(4,) * dimension) * weight, places, torch.zeros(0, *(4,) * dimension))
    assert masks.item() == 0
    (gradient,) = torch.autograd.grad(negative + boxes + masks, weight)
    assert gradient.isfinite().all()


def test_binary_cross_entropy_in_half_precision_is_computed_in_single():
    logits = torch.tensor([11.0, -11.0], dtype=torch.bfloat16)
    found = compute_proposal_loss(logits, torch.zeros(2, 4), draw_boxes(2, 2), torch.tensor([-1, -1]), torch.zeros(0, 4))
    assert found.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits.float(), torch.zeros(2)).item())
