"""Non-maximum suppression: of boxes that overlap, the one of the highest score stays."""

import torch
from torch import Tensor

from autoseg.networks.boxes import SMALLEST, compute_box_sizes, compute_overlaps, compute_paired_overlaps

CHUNK = 500  # boxes that are compared with each other at a time


def suppress(boxes: Tensor, scores: Tensor, threshold: float, classes: Tensor | None = None) -> Tensor:
    """Indices of the boxes (box, 2·axis) that stay, by falling score; the first of equal scores goes first.

    A box goes where its overlap with one that stays, of a higher score and the same of `classes` (box,), is above the threshold (0 or
    more): the greedy rule, box by box, but found for a chunk at once.
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
    flags = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    axis = _choose_axis(boxes) if len(boxes) > CHUNK else 0
    for first in range(0, len(boxes), CHUNK):
        chunk, free = boxes[first : first + CHUNK], flags[first : first + CHUNK]  # views
        if first:
            free[_find_beaten(boxes[:first][flags[:first]], chunk, axis, threshold)] = False
        left = free.nonzero()[:, 0]
        rivals = compute_overlaps(chunk[left], chunk[left]) > threshold
        free[left] = _settle(rivals.triu_(1))
    return flags


def _find_beaten(kept: Tensor, chunk: Tensor, axis: int, threshold: float) -> Tensor:
    """Indices into the chunk of boxes that overlap with kept ones; only those are compared that meet along the axis."""
    begun, around = _pair_up(kept, chunk, axis)
    beginning, begins = _pair_up(chunk, kept, axis)
    ours, theirs = torch.cat([begun, begins]), torch.cat([around, beginning])
    return theirs[compute_paired_overlaps(kept[ours], chunk[theirs]) > threshold]


def _choose_axis(boxes: Tensor) -> int:
    """The axis along which the fewest boxes lie beside one another."""
    low, _ = boxes.chunk(2, dim=1)
    extent = low.amax(0) - low.amin(0)
    return int((extent / compute_box_sizes(boxes).mean(0).clamp(min=SMALLEST)).argmax())


def _pair_up(a: Tensor, b: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Indices into a and into b of all pairs where, along the axis, the box of a begins inside that of b."""
    starts, order = a[:, axis].sort()
    first = torch.searchsorted(starts, b[:, axis].contiguous())
    last = torch.searchsorted(starts, b[:, b.shape[1] // 2 + axis].contiguous())
    counts = (last - first).clamp(min=0)
    own = torch.arange(len(b), device=b.device).repeat_interleave(counts)
    places = torch.arange(len(own), device=b.device) + (first - counts.cumsum(0) + counts)[own]
    return order[places], own


def _settle(rivals: Tensor) -> Tensor:
    """Which boxes stay (box,), where row i of `rivals` (box, box) marks those that i removes if it stays itself: all after i.

    The first box is right from the start and every round makes at least the next one right, so that the state that no round changes is
    that of the greedy rule. Few rounds lead there, as chains of boxes are short.
    """
    flags = torch.ones(len(rivals), dtype=torch.bool, device=rivals.device)
    while True:
        after = ~rivals[flags].any(0)
        if torch.equal(after, flags):
            return flags
        flags = after
