"""Shapes of anchors that fit the objects there are: k-means of their sizes by overlap, then one edge after another."""

import math
from dataclasses import dataclass

import numpy as np

CLIPPED = (0.5, 99.5)  # percentiles per axis beyond which an object's size is not looked at
MOST_OBJECTS = 20_000
SHAPE_COUNTS = (3, 5, 9)  # shapes per level; each costs time, so the next only where objects are met too badly and it gains enough
ENOUGH = {2: 0.75, 3: 0.65}  # mean best IoU, in 2 and in 3 dimensions, at which there are shapes enough
WORTH = 0.02  # gain of the mean best IoU that is worth more shapes
FEWEST = 0.02  # share of the objects that a level needs for shapes of its own
SIDE = 4.0  # strides per side of an object that a level is for (throwaway probes on nuclei, issue 5)
RESTARTS = 10
ROUNDS = 50  # at most, of k-means and of the descent
MOVES = (1.1, 1 / 1.1)  # factors on an edge that the descent tries, beside one voxel more and less
GOOD, POOR = 0.5, 0.35  # IoU below which an object is reported as badly met

Shapes = tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class AnchorChoice:
    """Shapes in voxels (level, shape, axis), finest level first, and how the objects' sizes are met, positions ignored.

    `overlap` is the mean of the objects' best IoU, `below_half` and `below_third` the shares of objects whose best is below .5 and .35,
    `own` which levels have shapes of their own.
    """

    shapes: Shapes
    overlap: float
    below_half: float
    below_third: float
    own: tuple[bool, ...]


def choose_anchors(sizes: np.ndarray, strides: list[tuple[int, ...]], seed: int = 0) -> AnchorChoice:
    """Anchors for objects of `sizes` (n, dimension; voxels) on levels of `strides`, finest first.

    An object belongs to the level whose stride, times SIDE, is nearest to its geometric-mean edge in log scale.
    """
    generator = np.random.default_rng(seed)
    kept = _clip(np.asarray(sizes, dtype=np.float64), generator)
    levels = assign_levels(kept, strides)
    chosen = _choose(kept, levels, len(strides), SHAPE_COUNTS[0], generator)
    for count in SHAPE_COUNTS[1:]:
        if chosen.overlap >= ENOUGH[kept.shape[1]]:
            break
        trial = _choose(kept, levels, len(strides), count, generator)
        if trial.overlap - chosen.overlap <= WORTH:
            break
        chosen = trial
    return chosen


def assign_levels(sizes: np.ndarray, strides: list[tuple[int, ...]]) -> np.ndarray:
    """The level (n,) of objects of `sizes` (n, dimension).

    >>> assign_levels(np.array([[8.0, 8.0], [40.0, 20.0]]), [(2, 2), (4, 4), (8, 8)]).tolist()
    [0, 2]
    """
    levels = np.log(SIDE * np.array([math.prod(stride) ** (1 / len(stride)) for stride in strides]))
    return np.abs(np.log(sizes).mean(axis=1)[:, None] - levels).argmin(axis=1)


def compute_overlaps(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU (n, k) of boxes of `sizes` (n, dimension) and `shapes` (k, dimension) about the same centre.

    >>> compute_overlaps(np.array([[4.0, 4.0]]), np.array([[4.0, 4.0], [2.0, 4.0]])).tolist()
    [[1.0, 0.5]]
    """
    common = np.minimum(sizes[:, None], shapes[None]).prod(axis=2)
    return common / (sizes.prod(axis=1)[:, None] + shapes.prod(axis=1)[None] - common)


def _clip(sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    low, high = np.percentile(sizes, CLIPPED, axis=0)
    kept = sizes[((sizes >= low) & (sizes <= high)).all(axis=1)]
    kept = kept if len(kept) else sizes
    return kept if len(kept) <= MOST_OBJECTS else kept[generator.choice(len(kept), MOST_OBJECTS, replace=False)]


def _choose(sizes: np.ndarray, levels: np.ndarray, count: int, shapes: int, generator: np.random.Generator) -> AnchorChoice:
    """`shapes` anchors on each of `count` levels; a level of few objects takes its neighbour's, twice as large per level up."""
    found: dict[int, np.ndarray] = {}
    for level in range(count):
        own = sizes[levels == level]
        if len(own) >= max(1.0, FEWEST * len(sizes)):
            found[level] = np.round(descend(own, cluster(own, shapes, generator)), 2)
    chosen = []
    for level in range(count):
        near = min(found, key=lambda other: abs(other - level))
        chosen.append(found[near] * 2.0 ** (level - near))
    best = compute_overlaps(sizes, np.concatenate(chosen)).max(axis=1)
    return AnchorChoice(
        shapes=tuple(tuple(tuple(float(edge) for edge in shape) for shape in level) for level in chosen),
        overlap=float(best.mean()),
        below_half=float((best < GOOD).mean()),
        below_third=float((best < POOR).mean()),
        own=tuple(level in found for level in range(count)),
    )


def cluster(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` shapes (count, dimension) by k-means of log sizes with the distance 1 - IoU: the best of RESTARTS, smallest shape first."""
    trials = [_cluster_once(sizes, count, generator) for _ in range(RESTARTS)]
    best = max(trials, key=lambda shapes: _measure(sizes, shapes))
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def _cluster_once(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    shapes = sizes[generator.choice(len(sizes), count, replace=len(sizes) < count)]
    nearest = None
    for _ in range(ROUNDS):
        before, nearest = nearest, compute_overlaps(sizes, shapes).argmax(axis=1)
        if before is not None and (before == nearest).all():
            break
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, np.log(column), minlength=count) for column in sizes.T], axis=1)
        shapes = np.where(members[:, None] > 0, np.exp(sums / np.maximum(members, 1)[:, None]), shapes)
    return shapes


def _measure(sizes: np.ndarray, shapes: np.ndarray) -> float:
    """The mean over objects of the best IoU."""
    return float(compute_overlaps(sizes, shapes).max(axis=1).mean())


def descend(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The shapes after moves of single edges, by a voxel or a tenth, as long as one raises the mean best IoU; no edge below a voxel."""
    shapes = np.maximum(shapes, 1.0)
    overlaps = compute_overlaps(sizes, shapes)
    for _ in range(ROUNDS):
        moved = False
        for index, axis in np.ndindex(*shapes.shape):
            others = np.delete(overlaps, index, axis=1).max(axis=1, initial=0.0)
            own = _move(sizes, shapes[index], axis, others)
            if own is not None:
                shapes[index], moved = own, True
                overlaps[:, index] = compute_overlaps(sizes, own[None])[:, 0]
        if not moved:
            break
    return shapes


def _move(sizes: np.ndarray, shape: np.ndarray, axis: int, others: np.ndarray) -> np.ndarray | None:
    """The shape (dimension,) with a better edge along an axis, or None; `others` (n,) is the best IoU that other shapes give."""
    edge = shape[axis]
    best = float(np.maximum(others, compute_overlaps(sizes, shape[None])[:, 0]).mean())
    found = None
    for trial_edge in (edge + 1, edge - 1, *(edge * factor for factor in MOVES)):
        trial = shape.copy()
        trial[axis] = max(1.0, trial_edge)
        reached = float(np.maximum(others, compute_overlaps(sizes, trial[None])[:, 0]).mean())
        if reached > best:
            best, found = reached, trial
    return found
