"""Non-maximum suppression: of boxes that overlap, the one of the highest score stays."""

import torch
from torch import Tensor

from autoseg.networks.boxes import compute_overlaps

CHUNK = 500  # boxes that are compared with each other at a time


def suppress(boxes: Tensor, scores: Tensor, threshold: float, classes: Tensor | None = None) -> Tensor:
    """Indices of the boxes (box, 2·axis) that stay, by falling score; the first of equal scores goes first.

    A box goes where its overlap with one that stays, of a higher score and the same of `classes` (box,), is above the threshold: the greedy
    rule, box by box, but found for a chunk at once.
    """
    order = scores.argsort(descending=True, stable=True)
    if classes is None:
        return order[_find_kept(boxes[order], threshold)]
    kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    own = classes[order]
    for number in own.unique():
        places = (own == number).nonzero()[:, 0]
        kept[places] = _find_kept(boxes[order[places]], threshold)
    return order[kept]


def _find_kept(boxes: Tensor, threshold: float) -> Tensor:
    """Which of the boxes, by falling score, stay (box,)."""
    kept: list[Tensor] = []
    flags: list[Tensor] = []
    for chunk in boxes.split(CHUNK):
        free = torch.ones(len(chunk), dtype=torch.bool, device=boxes.device)
        for before in kept:
            free &= ~(compute_overlaps(before, chunk) > threshold).any(0)
        rivals = (compute_overlaps(chunk, chunk) > threshold).triu_(1) & free[:, None]
        flag = _settle(rivals, free)
        kept.append(chunk[flag])
        flags.append(flag)
    return torch.cat(flags) if flags else torch.zeros(0, dtype=torch.bool, device=boxes.device)


def _settle(rivals: Tensor, free: Tensor) -> Tensor:
    """Which boxes stay, where row i of `rivals` (box, box) marks those that i removes if it stays itself: all after i.

    The first box is right from the start and every round makes at least the next one right, so that the state that no round changes is
    that of the greedy rule. Few rounds lead there, as chains of boxes are short.
    """
    flags = free
    while True:
        after = free & ~(rivals & flags[:, None]).any(0)
        if torch.equal(after, flags):
            return flags
        flags = after
