"""The loss: soft Dice and cross-entropy at every resolution of the decoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.records.plan import LossSpec
from autoseg.training.distribution import ALONE, Distribution

SMOOTH = 1e-5
IGNORE = -1


def compute_soft_dice(logits: Tensor, target: Tensor, batch_dice: bool, distribution: Distribution = ALONE) -> Tensor:
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
        sums = torch.stack([intersection, reference, predicted]).sum(dim=1, keepdim=True)
        intersection, reference, predicted = distribution.sum(sums)
    dice = (2 * intersection + SMOOTH) / (predicted + reference + SMOOTH)
    return dice[:, 1:].mean() if batch_dice else compute_mean(dice[:, 1:].sum(), dice[:, 1:].numel(), distribution)


def compute_mean(total: Tensor, count: Tensor | int, distribution: Distribution) -> Tensor:
    """Mean over all ranks of what this one has `count` of, adding up to `total`; 0 of nothing."""
    sums = distribution.sum(torch.stack([total, torch.as_tensor(count, dtype=total.dtype, device=total.device)]))
    return sums[0] / sums[1].clamp(min=1)


def compute_dice_cross_entropy(
    logits: Tensor, target: Tensor, spec: LossSpec, batch_dice: bool, distribution: Distribution = ALONE
) -> Tensor:
    """Weighted sum of (1 - soft Dice) and cross-entropy at one resolution; shapes as in compute_soft_dice.

    Cross-entropy is the mean over the valid voxels of all ranks. Without any the loss is 0.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum")
    cross_entropy = compute_mean(total, (target != IGNORE).sum(), distribution)
    dice = compute_soft_dice(logits, target, batch_dice, distribution)
    return spec.dice_weight * (1 - dice) + spec.cross_entropy_weight * cross_entropy


LOSSES = {"dice_ce": compute_dice_cross_entropy}


def compute_loss(logits: list[Tensor], target: Tensor, spec: LossSpec, batch_dice: bool, distribution: Distribution = ALONE) -> Tensor:
    """The loss over all resolutions, finest first, weights 1, 1/2, 1/4, … normalised to 1 (deep supervision, Lee 2015, arXiv 1409.5185).

    target (sample, …) int64 at full resolution; coarser ones are taken from it by nearest neighbour.
    """
    heads = logits if spec.deep_supervision else logits[:1]
    weights = [0.5**level for level in range(len(heads))]
    total = torch.zeros((), device=target.device)
    for weight, head in zip(weights, heads):
        total = total + weight * LOSSES[spec.name](head, _shrink(target, head.shape[2:]), spec, batch_dice, distribution)
    return total / sum(weights)


def _shrink(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    return F.interpolate(target[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
