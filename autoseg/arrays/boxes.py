"""Boxes in numpy: (K, 2D) `[lo…, hi…]` in half-open voxel edges, array order; which of them meet, and which give way."""

import numpy as np

ROWS = 2000  # boxes whose neighbours are looked for at once


def find_pairs(boxes: np.ndarray) -> np.ndarray:
    """Indices (P, 2), i < j, of all boxes that share some volume: a sweep along the axis on which they are spread most.

    >>> find_pairs(np.array([[0, 0, 4, 4], [9, 9, 12, 12], [3, 3, 5, 5], [4, 0, 6, 4]])).tolist()
    [[0, 2], [2, 3]]
    """
    if len(boxes) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    low, high = np.split(boxes, 2, axis=1)
    axis = int(np.argmax(np.ptp(low, axis=0)))
    order = np.argsort(low[:, axis], kind="stable")
    ends = np.searchsorted(low[order, axis], high[order, axis], side="left")
    found = []
    for start in range(0, len(boxes), ROWS):
        rows = np.arange(start, min(start + ROWS, len(boxes)))
        counts = np.maximum(ends[rows] - rows - 1, 0)
        first = np.repeat(rows, counts)
        second = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first + 1
        a, b = order[first], order[second]
        meet = (np.minimum(high[a], high[b]) > np.maximum(low[a], low[b])).all(axis=1)
        found.append(np.stack([np.minimum(a, b)[meet], np.maximum(a, b)[meet]], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def compute_pair_overlaps(boxes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Intersection over union (P,) of pairs (P, 2) of boxes, float64.

    >>> compute_pair_overlaps(np.array([[0.0, 4.0], [2.0, 6.0]]), np.array([[0, 1]])).round(3).tolist()
    [0.333]
    """
    low, high = np.split(boxes.astype(np.float64), 2, axis=1)
    a, b = pairs.T
    sides = np.minimum(high[a], high[b]) - np.maximum(low[a], low[b])
    common = np.prod(np.maximum(sides, 0), axis=1)
    volumes = np.prod(high - low, axis=1)
    return common / np.maximum(volumes[a] + volumes[b] - common, 1e-12)


def order_by_score(scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Indices by falling score; ties by the boxes' edges, so that the order in which objects came does not matter."""
    return np.lexsort((*boxes.T[::-1], -scores))


def drop_weaker(pairs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Greedy suppression: bool (K,), False for the later in `order` of each pair (P, 2) that is in conflict, if the earlier one is kept.

    >>> drop_weaker(np.array([[0, 1], [1, 2]]), np.array([0, 1, 2])).tolist()
    [True, False, True]
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    swapped = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    stronger, weaker = np.where(swapped, pairs[:, 1], pairs[:, 0]), np.where(swapped, pairs[:, 0], pairs[:, 1])
    kept = np.ones(len(order), dtype=bool)
    for place in np.argsort(rank[stronger], kind="stable"):
        if kept[stronger[place]]:
            kept[weaker[place]] = False
    return kept


def suppress_boxes(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy NMS within each class: bool (K,), what is kept. Boxes (K, 2D), scores (K,), classes (K,)."""
    pairs = find_pairs(boxes)
    pairs = pairs[classes[pairs[:, 0]] == classes[pairs[:, 1]]]
    return drop_weaker(pairs[compute_pair_overlaps(boxes, pairs) > threshold], order_by_score(scores, boxes))
