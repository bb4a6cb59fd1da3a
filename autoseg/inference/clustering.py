"""The answers of several networks and mirrored views about one tile joined by weighted box clustering.

Jaeger 2020 (Retina U-Net, PMLR 116), as nnDetection uses it: a box that only some members see loses score.
"""

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.arrays.boxes import compute_pair_overlaps, find_pairs, order_by_score
from autoseg.arrays.masks import resample_masks
from autoseg.networks.boxes import grow_boxes

AGREEMENT = 0.5  # IoU from which two members speak of the same object


@dataclass(frozen=True)
class Detections:
    """Objects that a network sees in one tile: boxes (K, 2D) float32 in voxel edges of the tile, scores (K,), class numbers (K,) from 1 on,

    and masks (K, *bins), float16 probabilities that fill the boxes grown by the margin of masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def frames(self) -> np.ndarray:
        """What the masks fill (K, 2D)."""
        return grow_boxes(torch.from_numpy(self.boxes)).numpy()

    def select(self, chosen: np.ndarray) -> "Detections":
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], self.masks[chosen])


def cluster_detections(members: list[Detections]) -> Detections:
    """One set of detections of a tile from those of several members.

    The strongest box left gathers, of every other member, the box of its class that overlaps it most, from AGREEMENT on. With the weights
    w = IoU with the strongest and scores s the box is Σwsc/Σws, the score Σws/(Σw + missing · mean w), `missing` the members without such
    a box. The mask is the mean of the members' masks, each resampled to the new box.
    """
    if len(members) == 1:
        return members[0]
    boxes, scores, classes = (np.concatenate([getattr(m, name) for m in members]) for name in ("boxes", "scores", "classes"))
    masks = np.concatenate([m.masks for m in members])
    owners = np.repeat(np.arange(len(members)), [len(m) for m in members])
    order = order_by_score(scores, boxes)
    clusters = _gather(_list_partners(boxes, classes, owners), order, owners)
    made = [_fuse(cluster, weights, (boxes, scores), len(members)) for cluster, weights in clusters]
    fused = np.array([box for box, _ in made], dtype=np.float32).reshape(-1, boxes.shape[1])
    sources = np.concatenate([cluster for cluster, _ in clusters]) if clusters else np.zeros(0, dtype=np.int64)
    targets = np.repeat(np.arange(len(clusters)), [len(cluster) for cluster, _ in clusters])
    strongest = np.array([cluster[0] for cluster, _ in clusters], dtype=np.int64)
    one = Detections(fused, np.array([score for _, score in made], dtype=np.float32), classes[strongest], masks[strongest])
    every = Detections(boxes, scores, classes, masks).select(sources)
    views = resample_masks(every.masks, every.frames, one.frames[targets])
    total = np.zeros((len(one), *masks.shape[1:]), dtype=np.float32)
    np.add.at(total, targets, views)
    counts = np.bincount(targets, minlength=len(one)).reshape(-1, *(1,) * (masks.ndim - 1))
    joined = Detections(one.boxes, one.scores, one.classes, (total / np.maximum(counts, 1)).astype(np.float16))
    return joined.select(order_by_score(joined.scores, joined.boxes))


def _list_partners(boxes: np.ndarray, classes: np.ndarray, owners: np.ndarray) -> list[list[tuple[int, float]]]:
    """Per box the boxes of other members and the same class that agree with it, and their IoU."""
    pairs = find_pairs(boxes)
    i, j = pairs.T
    pairs = pairs[(classes[i] == classes[j]) & (owners[i] != owners[j])]
    partners: list[list[tuple[int, float]]] = [[] for _ in boxes]
    for (a, b), overlap in zip(pairs.tolist(), compute_pair_overlaps(boxes, pairs).tolist()):
        if overlap >= AGREEMENT:
            partners[a].append((b, overlap))
            partners[b].append((a, overlap))
    return partners


def _gather(partners: list[list[tuple[int, float]]], order: np.ndarray, owners: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clusters as indices, the strongest first, and their IoU with it."""
    free, clusters = np.ones(len(order), dtype=bool), []
    for top in order.tolist():
        if not free[top]:
            continue
        best: dict[int, tuple[int, float]] = {}
        for index, overlap in partners[top]:
            owner = int(owners[index])
            if free[index] and (owner not in best or overlap > best[owner][1]):
                best[owner] = (index, overlap)
        cluster = np.array([top, *(index for index, _ in best.values())])
        free[cluster] = False
        clusters.append((cluster, np.array([1.0, *(overlap for _, overlap in best.values())])))
    return clusters


def _fuse(cluster: np.ndarray, weights: np.ndarray, values: tuple[np.ndarray, np.ndarray], members: int) -> tuple[np.ndarray, float]:
    """Box (2D,) and score of a cluster; `values` are all boxes and scores."""
    boxes, scores = values[0][cluster], values[1][cluster]
    strength = weights * scores
    missing = members - len(cluster)
    return (strength @ boxes) / strength.sum(), float(strength.sum() / (weights.sum() + missing * weights.mean()))
