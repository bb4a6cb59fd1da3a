"""Non-maximum suppression: of boxes that overlap, the one of the highest score stays."""

import torch
from torch import Tensor

from autoseg.networks.boxes import SMALLEST, compute_box_sizes, compute_paired_overlaps

CHUNK = 2000  # boxes that are compared with each other at a time


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
    flags = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    if not len(boxes):
        return flags
    axis = _choose_axis(boxes)
    for first in range(0, len(boxes), CHUNK):
        chunk, free = boxes[first : first + CHUNK], flags[first : first + CHUNK]  # views
        before = boxes[:first][flags[:first]]
        inside, around = _pair_up(before, chunk, axis)
        reached, beginning = _pair_up(chunk, before, axis)
        pairs = torch.cat([inside, beginning]), torch.cat([around, reached])
        free[_select_overlapping((before, chunk), pairs, threshold)[1]] = False
        one, other = _pair_up(chunk, chunk, axis)
        two = one != other  # not a box with itself
        rivals = torch.minimum(one, other)[two], torch.maximum(one, other)[two]  # the first has the higher score
        free &= _settle(_select_overlapping((chunk, chunk), rivals, threshold), free)
    return flags


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


def _select_overlapping(boxes: tuple[Tensor, Tensor], pairs: tuple[Tensor, Tensor], threshold: float) -> tuple[Tensor, Tensor]:
    """Those of the pairs whose overlap is above the threshold."""
    overlap = compute_paired_overlaps(boxes[0][pairs[0]], boxes[1][pairs[1]]) > threshold
    return pairs[0][overlap], pairs[1][overlap]


def _settle(rivals: tuple[Tensor, Tensor], free: Tensor) -> Tensor:
    """Which boxes stay (box,), where every one of `rivals` that stays itself removes the one that the pair names second, which is after it.

    The first box is right from the start and every round makes at least the next one right, so that the state that no round changes is
    that of the greedy rule. Few rounds lead there, as chains of boxes are short.
    """
    flags = free
    while True:
        after = free.clone()
        after[rivals[1][flags[rivals[0]]]] = False
        if torch.equal(after, flags):
            return flags
        flags = after
