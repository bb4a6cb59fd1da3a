"""Probabilities in a byte each, and what several label maps agree on."""

from collections.abc import Sequence

import numpy as np

FULL = 255  # stands for certainty


def pack_probabilities(probabilities: np.ndarray, regions: bool) -> np.ndarray:
    """(background and classes, …), or (region, …) → uint8 of 255 without the background, which is what the others leave; error 1/510.

    >>> pack_probabilities(np.array([[0.2], [0.8]]), regions=False).tolist()
    [[204]]
    """
    kept = probabilities if regions else probabilities[1:]
    packed = np.empty(kept.shape, dtype=np.uint8)
    for source, target in zip(kept, packed):  # class by class: one more float array of all would double the memory
        target[...] = np.rint(source * FULL)
    return packed


def unpack_probabilities(packed: np.ndarray, regions: bool) -> np.ndarray:
    """Inverse of pack_probabilities, float16; the background takes the rest, at least 0, so the sum is 1 but for rounding of many classes.

    >>> unpack_probabilities(np.array([[204]], dtype=np.uint8), regions=False).astype(float).round(2).tolist()
    [[0.2], [0.8]]
    """
    values = np.empty((len(packed) + (not regions), *packed.shape[1:]), dtype=np.float16)
    values[0 if regions else 1 :] = packed
    if not regions:
        values[0] = np.maximum(FULL - packed.sum(axis=0, dtype=np.int32), 0)
    values /= FULL
    return values


def vote(maps: Sequence[np.ndarray]) -> np.ndarray:
    """What most of the maps say, voxel by voxel; among equals what the first of the maps that say one of them says.

    >>> vote([np.array([1, 1, 2]), np.array([2, 1, 3]), np.array([2, 3, 4])]).tolist()
    [2, 1, 2]
    """
    best, chosen = np.zeros(maps[0].shape, dtype=np.int16), np.zeros_like(maps[0])
    for own in maps:
        agreeing = sum((other == own).astype(np.int16) for other in maps)
        wins = agreeing > best
        chosen[wins], best[wins] = own[wins], agreeing[wins]
    return chosen


def vote_regions(maps: Sequence[np.ndarray], membership: np.ndarray) -> np.ndarray:
    """Votes region by region on maps of label numbers; gives class numbers: the last region that a voxel is voted into, 0 for none.

    `membership` (region, label number) is that of arrays/labels.py, make_membership.
    """
    chosen = np.zeros(maps[0].shape, dtype=np.int16)
    for number, own in enumerate(membership, 1):
        chosen[vote([own[labels] for labels in maps])] = number
    return chosen
