"""The terms that losses are made of, from two things only: every voxel's probability of its own class, and sums per class."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.records.plan import LossSpec
from autoseg.training.distribution import ALONE, Distribution

SMOOTH = 1e-5
IGNORE = -1
LEAST_MISS = 1e-7  # of a Tversky index, below which its root has no finite slope


class SoftmaxSums(torch.autograd.Function):
    """From logits (sample, class, voxel) the log probability of every voxel's own class, and each class's sum of probabilities.

    With p the softmax, a gradient g of the first answer (sample, voxel) and h of the second (sample, class), the gradient of the logits is
    p h - p (sum over classes of p h + g), and g more for a voxel's own class. So one map of probabilities is all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Also given: each voxel's own class and 1, or 0 where it is to be ignored (sample, voxel)."""
        probabilities = logits.log_softmax(dim=1)
        own_log = probabilities.gather(1, index[:, None])[:, 0].mul_(counted)
        probabilities.exp_().mul_(counted[:, None])
        ctx.save_for_backward(probabilities, index, counted)
        return own_log, probabilities.sum(dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        probabilities, index, counted = ctx.saved_tensors
        own = gradients[0] * counted
        gradient = probabilities * gradients[1][:, :, None]
        total = gradient.sum(dim=1).add_(own)
        gradient.addcmul_(probabilities, total[:, None], value=-1)
        return gradient.scatter_add_(1, index[:, None], own[:, None]), None, None


@dataclass(frozen=True)
class Evidence:
    """What the terms are computed from, at one resolution and in float32; class 0 is the background.

    own_log (sample, voxel): log probability of the voxel's own class, 0 where it is to be ignored; index (sample, voxel): that class;
    counted (sample, voxel): 1, or 0 where it is to be ignored; predicted (sample, class): each class's sum of probabilities. All
    are of this process's samples; sums are made over all processes of the `distribution`.
    """

    own_log: Tensor
    index: Tensor
    counted: Tensor
    predicted: Tensor
    distribution: Distribution

    @property
    def count(self) -> Tensor:
        """Voxels that count, 1 where none does."""
        return self.add_up(self.counted).clamp(min=1)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of values over all processes."""
        return self.distribution.sum(values.sum())

    def average(self, scores: Tensor, batch_dice: bool) -> Tensor:
        """Mean of scores (sample, class) over all processes' samples, or of those of the whole batch (1, class)."""
        if batch_dice:
            return scores.mean()
        return self.add_up(scores) / self.add_up(torch.full_like(scores, 1.0))

    def sum_by_class(self, values: Tensor) -> Tensor:
        """values (sample, voxel), 0 where ignored, summed per class by index; no one-hot map is made. (sample, class)."""
        return torch.zeros_like(self.predicted).scatter_add(1, self.index, values)

    def sum_overlaps(self, batch_dice: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Intersection, prediction and reference per sample and class, or of the whole batch per class: (1, class)."""
        sums = torch.stack([self.sum_by_class(self.own_log.exp() * self.counted), self.predicted, self.sum_by_class(self.counted)])
        intersection, predicted, reference = self.distribution.sum(sums.sum(dim=1, keepdim=True)) if batch_dice else sums
        return intersection, predicted, reference


def gather_classes(logits: Tensor, target: Tensor, distribution: Distribution = ALONE) -> Evidence:
    """Classes that exclude each other: logits (sample, class, …), target (sample, …) int64 with -1 to be ignored."""
    index, counted = _flatten(target, logits)
    own_log, predicted = SoftmaxSums.apply(_widen(logits).flatten(2), index, counted)
    return Evidence(own_log, index, counted, predicted, distribution)


def gather_regions(logits: Tensor, target: Tensor, regions: Tensor, distribution: Distribution = ALONE) -> Iterator[Evidence]:
    """Regions that may overlap, each a problem of two classes with a sigmoid, one after the other: logits (sample, region, …).

    regions (region, label number), bool, says which numbers of the target belong to a region.
    """
    index, counted = _flatten(target, logits)
    for logit, members in zip(logits.flatten(2).unbind(1), regions):
        wide, inside = _widen(logit), members[index]
        own_log = F.logsigmoid(torch.where(inside, wide, -wide)) * counted
        predicted = (wide.sigmoid() * counted).sum(dim=1)
        sums = torch.stack([counted.sum(dim=1) - predicted, predicted], dim=1)
        yield Evidence(own_log, inside.long(), counted, sums, distribution)


def _widen(values: Tensor) -> Tensor:
    """At least float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _flatten(target: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    flat = target.flatten(1)
    return flat.clamp(min=0), (flat != IGNORE).to(torch.promote_types(logits.dtype, torch.float32))


def compute_soft_dice(evidence: Evidence, batch_dice: bool) -> Tensor:
    """Mean soft Dice over foreground classes (Milletari 2016, arXiv 1606.04797; with nnU-Net's sums over a batch).

    Of intersection I, prediction P, reference G: (2 I + s) / (P + G + s).
    """
    intersection, predicted, reference = evidence.sum_overlaps(batch_dice)
    dice = (2 * intersection + SMOOTH) / (predicted + reference + SMOOTH)
    return evidence.average(dice[:, 1:], batch_dice)


def compute_cross_entropy(evidence: Evidence) -> Tensor:
    """Mean over the voxels that count."""
    return -evidence.add_up(evidence.own_log) / evidence.count


def compute_dice_ce(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Weighted sum of (1 - soft Dice) and cross-entropy."""
    dice = compute_soft_dice(evidence, batch_dice)
    return spec.dice_weight * (1 - dice) + spec.cross_entropy_weight * compute_cross_entropy(evidence)


def compute_weighted_ce(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Cross-entropy as a mean weighted by `class_weights` (background first): no weights are all 1."""
    if not spec.class_weights:
        return compute_cross_entropy(evidence)
    weights = evidence.own_log.new_tensor(spec.class_weights)[evidence.index] * evidence.counted
    total = evidence.add_up(weights)
    return -evidence.add_up(weights * evidence.own_log) / torch.where(total > 0, total, 1)


def compute_topk_ce(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Mean cross-entropy of the hardest `topk_share` of the batch's voxels that count, at least one (Wu 2016, arXiv 1605.06885).

    As many are sorted out as if all counted, and those beyond the share left out, so that no number has to be known off the device. Each of
    several processes takes the hardest of its own part.
    """
    errors = torch.where(evidence.counted > 0, -evidence.own_log, -1.0).flatten()
    hardest = errors.topk(math.ceil(spec.topk_share * errors.numel())).values
    wanted = (evidence.counted.sum() * spec.topk_share).round().clamp(min=1)
    taken = torch.arange(len(hardest), device=hardest.device) < wanted
    return evidence.add_up(hardest.clamp(min=0) * taken) / evidence.add_up(wanted)


def compute_focal(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Mean of (1 - p)^gamma times cross-entropy, p the probability of the own class (Lin 2017, arXiv 1708.02002, equation 4)."""
    return -evidence.add_up(_measure_miss(evidence) ** spec.focal_gamma * evidence.own_log) / evidence.count


def _measure_miss(evidence: Evidence) -> Tensor:
    """1 - p of the own class (sample, voxel)."""
    return (-evidence.own_log.expm1()).clamp(min=LEAST_MISS)


def compute_dice_focal(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Weighted sum of (1 - soft Dice) and focal loss; the latter has the weight of cross-entropy."""
    dice = compute_soft_dice(evidence, batch_dice)
    return spec.dice_weight * (1 - dice) + spec.cross_entropy_weight * compute_focal(evidence, spec, batch_dice)


def compute_tversky(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """1 - mean Tversky index of the foreground classes (Salehi 2017, arXiv 1706.05721): I / (I + alpha FP + beta FN); 1/2, 1/2 is Dice."""
    index = _measure_tversky(evidence, (spec.tversky_alpha, spec.tversky_beta), batch_dice)
    return 1 - evidence.average(index[:, 1:], batch_dice)


def _measure_tversky(evidence: Evidence, weights: tuple[float, float], batch_dice: bool) -> Tensor:
    """The index per class, false positives and false negatives weighted; smoothed as Dice is."""
    hit, predicted, reference = evidence.sum_overlaps(batch_dice)
    missed = weights[0] * (predicted - hit) + weights[1] * (reference - hit)
    return (2 * hit + SMOOTH) / (2 * hit + 2 * missed + SMOOTH)


def compute_unified_focal(evidence: Evidence, spec: LossSpec, batch_dice: bool) -> Tensor:
    """The asymmetric unified focal loss (Yeung 2022, arXiv 2102.04525, section 3.3): lambda x focal + (1 - lambda) x focal Tversky.

    Focal: delta x cross-entropy in the foreground, (1 - delta)(1 - p)^gamma x cross-entropy in the background. Focal Tversky: the mean over
    classes of 1 - T, to the power 1 - gamma in the foreground, where T weights false negatives by delta and false positives by 1 - delta.
    """
    delta, gamma = spec.unified_delta, spec.unified_gamma
    weights = torch.where(evidence.index > 0, delta, (1 - delta) * _measure_miss(evidence) ** gamma)
    focal = -evidence.add_up(weights * evidence.own_log) / evidence.count
    miss = (1 - _measure_tversky(evidence, (1 - delta, delta), batch_dice)).clamp(min=LEAST_MISS)
    tversky = evidence.average(torch.cat([miss[:, :1], miss[:, 1:] ** (1 - gamma)], dim=1), batch_dice)
    return spec.unified_lambda * focal + (1 - spec.unified_lambda) * tversky * (evidence.add_up(evidence.counted) > 0)


def compute_boundary(logits: Tensor, target: Tensor, regions: Tensor | None, distribution: Distribution = ALONE) -> Tensor:
    """Mean over voxels and foreground classes of probability x signed distance from the reference (Kervadec 2019, arXiv 1812.07032).

    Shapes as in gather_classes and gather_regions. Slow: the distances are computed on the CPU, for every patch and class present in it.
    """
    wide = _widen(logits)
    maps = list((wide.softmax(dim=1) if regions is None else wide.sigmoid()).unbind(1))
    index, counted = target.clamp(min=0), target != IGNORE
    inside = (index == number for number in range(1, len(maps))) if regions is None else (members[index] for members in regions)
    wanted = maps[1:] if regions is None else maps
    total = sum(((share * _measure_distances(mask & counted) * counted).sum() for share, mask in zip(wanted, inside)), wide.new_zeros(()))
    return distribution.sum(total) / (distribution.sum(counted.sum()).clamp(min=1) * len(wanted))


def _measure_distances(masks: Tensor) -> Tensor:
    """Signed distances of masks (sample, …), in voxels."""
    found = np.stack([measure_signed_distance(mask) for mask in masks.cpu().numpy()])
    return torch.from_numpy(found).to(masks.device)


def measure_signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance (voxels, float32) to the nearest voxel of the other side, negative inside the mask; 0 everywhere where there is one side.

    >>> measure_signed_distance(np.array([False, False, True, True])).tolist()
    [2.0, 1.0, -1.0, -2.0]
    """
    from scipy import ndimage  # .3 s, which only this loss needs to spend

    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    return (ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)).astype(np.float32)
