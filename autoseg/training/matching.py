"""Which anchor and which proposal shall answer for which object, and which of them are trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.networks.boxes import compute_box_sizes, compute_overlaps
from autoseg.training.targets import Objects

NEGATIVE = -1
IGNORED = -2
BLOCK = 2**21  # pairs of an anchor or proposal and an object that are compared at a time
POOL = 20  # times as many of the highest scores as there shall be hard negatives, from which these are drawn (Baumgartner 2021)


@dataclass(frozen=True)
class Grid:
    """The anchors of one level, (cells · shapes, 2·D): cells of a map of `size` row by row, `stride` voxels apart, the shapes fastest."""

    anchors: Tensor
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def shapes(self) -> int:
        """Anchors of a cell."""
        return len(self.anchors) // math.prod(self.size)


@dataclass(frozen=True)
class Pairs:
    """Anchors and objects (their places) that may belong together, their IoU and the squared distance of their middles: (pair,) each."""

    anchors: Tensor
    objects: Tensor
    overlaps: Tensor
    distances: Tensor

    def select(self, chosen: Tensor) -> "Pairs":
        """Those chosen, (pair,) bool."""
        return Pairs(self.anchors[chosen], self.objects[chosen], self.overlaps[chosen], self.distances[chosen])


def match_anchors(grids: Sequence[Grid], objects: Objects, count: int, positive: float, negative: float) -> Tensor:
    """Which object each anchor of `count` images stands for, (image, anchor) int64: its place in `objects`, -1 (none) or -2 (not trained).

    The object that it overlaps most, where the IoU is `positive` at least; none below `negative`. An object has its best anchors all the
    same, of equal ones the nearest, ties too, unless these fit another (Ren 2015, arXiv 1506.01497, section 3.1.2). Only anchors around an
    object's middle that can reach `negative` at all are compared with it: the answer is that of comparing all.
    """
    total = sum(len(grid.anchors) for grid in grids)
    answer = torch.full((count * total,), NEGATIVE, device=objects.boxes.device)
    if not len(objects):
        return answer.view(count, total)
    pairs = _collect_pairs(grids, objects, negative)
    top, first = _choose(pairs, count * total, len(objects))
    answer = torch.where(top >= positive, first, torch.where(top >= negative, IGNORED, answer))
    best = _find_best(pairs, len(objects))
    taken, owner = _choose(best.select(top[best.anchors] < positive), count * total, len(objects))
    return torch.where(taken > 0, owner, answer).view(count, total)


def _find_best(pairs: Pairs, objects: int) -> Pairs:
    """Of every object those of the highest overlap, and of these the nearest."""
    best = pairs.overlaps.new_zeros(objects).scatter_reduce_(0, pairs.objects, pairs.overlaps, "amax")
    pairs = pairs.select(pairs.overlaps == best[pairs.objects])
    nearest = pairs.distances.new_full((objects,), math.inf).scatter_reduce_(0, pairs.objects, pairs.distances, "amin")
    return pairs.select(pairs.distances == nearest[pairs.objects])


def _choose(pairs: Pairs, anchors: int, objects: int) -> tuple[Tensor, Tensor]:
    """Each anchor's highest overlap (0 where it has no pair) and the object it is with, the first of equal ones: (anchor,) each."""
    top = torch.zeros(anchors, device=pairs.overlaps.device).scatter_reduce_(0, pairs.anchors, pairs.overlaps, "amax")
    equal = pairs.select(pairs.overlaps == top[pairs.anchors])
    first = torch.full((anchors,), objects, device=top.device).scatter_reduce_(0, equal.anchors, equal.objects, "amin")
    return top, first


def _collect_pairs(grids: Sequence[Grid], objects: Objects, least: float) -> Pairs:
    """All pairs of an IoU of at least `least`, and each object's best at every level."""
    reaches = torch.stack([_measure_reach(grid, objects.boxes, least) for grid in grids]).tolist()
    total, first = sum(len(grid.anchors) for grid in grids), 0
    found = []
    for grid, reach in zip(grids, reaches):
        window = math.prod(2 * cells + 1 for cells in reach) * grid.shapes
        for part in torch.arange(len(objects), device=objects.boxes.device).split(max(1, BLOCK // window)):
            anchors, overlaps = _compare(grid, objects.boxes[part], reach)
            wanted = (overlaps >= least) | (overlaps == overlaps.amax(dim=1, keepdim=True))
            row, column = (wanted & (overlaps > 0)).nonzero().unbind(1)
            chosen = anchors[row, column]
            middles = (grid.anchors[chosen] - objects.boxes[part][row]).unflatten(1, (2, -1)).sum(dim=1) / 2
            place = objects.images[part][row] * total + first + chosen
            found.append((place, part[row], overlaps[row, column], middles.square().sum(dim=1)))
        first += len(grid.anchors)
    return Pairs(*(torch.cat(column) for column in zip(*found)))


def _measure_reach(grid: Grid, boxes: Tensor, least: float) -> Tensor:
    """How many cells from an object's own an anchor may lie, per axis (D,) int64, at most over objects and shapes; 1 for ties at least.

    With intersection I, volumes A and B and an IoU of t: I ≥ t / (1 + t) · (A + B), and the part of I along one axis is at least that over
    the shorter sides along all others.
    """
    sides = compute_box_sizes(boxes)[:, None]
    shapes = compute_box_sizes(grid.anchors[: grid.shapes])[None]
    shorter = torch.minimum(sides, shapes)
    common = least / (1 + least) * (sides.prod(2) + shapes.prod(2))
    needed = common[..., None] / (shorter.prod(2, keepdim=True) / shorter)
    distance = torch.where(needed <= shorter, (sides + shapes) / 2 - needed, 0)
    cells = distance.amax(dim=(0, 1)) / torch.tensor(grid.stride, device=boxes.device) + 0.5
    return torch.minimum(cells.floor().long().clamp(min=1), torch.tensor(grid.size, device=boxes.device))


def _compare(grid: Grid, boxes: Tensor, reach: list[int]) -> tuple[Tensor, Tensor]:
    """Anchors in the window around each box's middle, (box, anchor in the window), and their IoU; 0 where the map ends before."""
    dimension = len(reach)
    cells, valid = boxes.new_zeros(len(boxes), 1, dtype=torch.long), boxes.new_ones(len(boxes), 1, dtype=torch.bool)
    for axis, (cell_count, step) in enumerate(zip(grid.size, grid.stride)):
        middle = (boxes[:, axis] + boxes[:, dimension + axis]) / 2
        own = (middle / step).floor().long().clamp(0, cell_count - 1)
        along = own[:, None] + torch.arange(-reach[axis], reach[axis] + 1, device=boxes.device)
        inside = (along >= 0) & (along < cell_count)
        cells = (cells[:, :, None] * cell_count + along.clamp(0, cell_count - 1)[:, None]).flatten(1)
        valid = (valid[:, :, None] & inside[:, None]).flatten(1)
    anchors = (cells[:, :, None] * grid.shapes + torch.arange(grid.shapes, device=boxes.device)).flatten(1)
    overlaps = measure_overlaps(grid.anchors[anchors], boxes[:, None])
    return anchors, overlaps * valid.repeat_interleave(grid.shapes, dim=1)


def measure_overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU of boxes (…, 2·D) with those in the same place."""
    (low, high), (start, end) = one.chunk(2, dim=-1), other.chunk(2, dim=-1)
    common = (torch.minimum(high, end) - torch.maximum(low, start)).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (end - start).prod(-1) - common
    return common / union.clamp(min=torch.finfo(torch.float32).tiny)


def match_proposals(boxes: Tensor, images: Tensor, objects: Objects, positive: float, negative: float) -> Tensor:
    """The same for proposals (K, 2·D) in images (K,), none of which is forced: (K,) int64."""
    answer = torch.full((len(boxes),), NEGATIVE, device=boxes.device)
    if not len(objects):
        return answer
    for image in objects.images.unique().tolist():
        own = (objects.images == image).nonzero()[:, 0]
        for part in (images == image).nonzero()[:, 0].split(max(1, BLOCK // len(own))):
            top, place = compute_overlaps(boxes[part], objects.boxes[own]).max(dim=1)
            answer[part] = torch.where(top >= positive, own[place], torch.where(top >= negative, IGNORED, NEGATIVE))
    return answer


def draw_places(candidates: Tensor, count: int) -> Tensor:
    """`count` of the places where candidates (K,) is true, or all of them; from torch's own generator, which every step seeds anew."""
    places = candidates.nonzero()[:, 0]
    return places[torch.randperm(len(places), device=places.device)[:count]]


def draw_examples(matches: Tensor, count: int, share: float, scores: Tensor | None = None) -> Tensor:
    """Places of `count` of one image's anchors or proposals, at most `share` of them positive: (≤ count,) int64, the positive ones first.

    matches (K,). With scores (K,), half of the negatives are hard, drawn from the highest scores; the others from all that is left.
    """
    positive = draw_places(matches >= 0, int(count * share))
    wanted = count - len(positive)
    free = matches == NEGATIVE
    hard = free.new_empty(0, dtype=torch.long)
    if scores is not None:
        places = free.nonzero()[:, 0]
        pool = places[scores[places].topk(min(POOL * (wanted // 2), len(places))).indices]
        hard = pool[torch.randperm(len(pool), device=pool.device)[: wanted // 2]]
        free = free.index_fill(0, hard, False)
    return torch.cat([positive, hard, draw_places(free, wanted - len(hard))])
