"""The loss: soft Dice and cross-entropy at every resolution of the decoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.records.plan import LossSpec

SMOOTH = 1e-5
IGNORE = -1


def compute_soft_dice(logits: Tensor, target: Tensor, batch_dice: bool) -> Tensor:
    """Mean soft Dice over foreground classes (Milletari 2016, arXiv 1606.04797; with nnU-Net's sums over a batch).

    logits (sample, class, …), target (sample, …) int64 with -1 to be ignored. The sums per class are gathered by index in float32, no
    one-hot map is made: intersection I, prediction P, reference G, Dice (2 I + s) / (P + G + s).
    """
    samples, classes = logits.shape[:2]
    probabilities = logits.float().softmax(dim=1).flatten(2)  # (sample, class, voxel)
    flat = target.flatten(1)  # (sample, voxel)
    valid = flat != IGNORE
    index = flat.clamp(min=0)
    own = probabilities.gather(1, index[:, None])[:, 0] * valid  # probability of the true class
    zeros = torch.zeros(samples, classes, dtype=torch.float32, device=logits.device)
    intersection = zeros.scatter_add(1, index, own)
    reference = zeros.scatter_add(1, index, valid.float())
    predicted = (probabilities * valid[:, None]).sum(dim=2)
    if batch_dice:
        intersection, reference, predicted = (sums.sum(dim=0, keepdim=True) for sums in (intersection, reference, predicted))
    dice = (2 * intersection + SMOOTH) / (predicted + reference + SMOOTH)
    return dice[:, 1:].mean()


def compute_dice_cross_entropy(logits: Tensor, target: Tensor, spec: LossSpec, batch_dice: bool) -> Tensor:
    """Weighted sum of (1 - soft Dice) and cross-entropy at one resolution; shapes as in compute_soft_dice."""
    if not (target != IGNORE).any():
        return logits.float().sum() * 0
    cross_entropy = F.cross_entropy(logits.float(), target, ignore_index=IGNORE)
    return spec.dice_weight * (1 - compute_soft_dice(logits, target, batch_dice)) + spec.cross_entropy_weight * cross_entropy


# REGIONS, MINIMAL: replaced by the branch `losses`, which agreed on compute_loss(logits, target, spec, batch_dice, regions).


def compute_region_loss(logits: Tensor, target: Tensor, spec: LossSpec, batch_dice: bool, regions: Tensor) -> Tensor:
    """Weighted sum of (1 - soft Dice) and binary cross-entropy (means over regions, and over voxels not ignored) at one resolution.

    logits (sample, region, …), target (sample, …) int64 label numbers with -1 to be ignored, regions bool (region, number).
    """
    valid = (target != IGNORE)[:, None]
    if not valid.any():
        return logits.float().sum() * 0
    logits, truth = logits.float(), regions[:, target.clamp(min=0)].movedim(0, 1).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * valid
    entropy = entropy.sum() / (valid.sum() * logits.shape[1])
    axes = ([0] if batch_dice else []) + list(range(2, logits.ndim))
    probabilities = logits.sigmoid() * valid
    intersection = (probabilities * truth).sum(axes)
    dice = (2 * intersection + SMOOTH) / (probabilities.sum(axes) + (truth * valid).sum(axes) + SMOOTH)
    return spec.dice_weight * (1 - dice.mean()) + spec.cross_entropy_weight * entropy


LOSSES = {"dice_ce": compute_dice_cross_entropy}


def compute_loss(logits: list[Tensor], target: Tensor, spec: LossSpec, batch_dice: bool, regions: Tensor | None = None) -> Tensor:
    """The loss over all resolutions, finest first, weights 1, 1/2, 1/4, … normalised to 1 (deep supervision, Lee 2015, arXiv 1409.5185).

    target (sample, …) int64 at full resolution; coarser ones are taken from it by nearest neighbour. `regions` is bool (region, number).
    """
    heads = logits if spec.deep_supervision else logits[:1]
    weights = [0.5**level for level in range(len(heads))]
    total = torch.zeros((), device=target.device)
    for weight, head in zip(weights, heads):
        shrunk = _shrink(target, head.shape[2:])
        if regions is None:
            total = total + weight * LOSSES[spec.name](head, shrunk, spec, batch_dice)
        else:
            total = total + weight * compute_region_loss(head, shrunk, spec, batch_dice, regions)
    return total / sum(weights)


def _shrink(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    return F.interpolate(target[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
