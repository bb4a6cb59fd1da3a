"""The loss by its name in the plan, over all resolutions of the decoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.records.plan import LossSpec
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.loss_terms import (
    compute_boundary,
    compute_dice_ce,
    compute_dice_focal,
    compute_focal,
    compute_topk_ce,
    compute_tversky,
    compute_unified_focal,
    compute_weighted_ce,
    gather_classes,
    gather_regions,
)

LOSSES = {
    "dice_ce": compute_dice_ce,
    "weighted_ce": compute_weighted_ce,
    "topk_ce": compute_topk_ce,
    "focal": compute_focal,
    "dice_focal": compute_dice_focal,
    "tversky": compute_tversky,
    "unified_focal": compute_unified_focal,
    "boundary": compute_dice_ce,  # and the term of distances, at full resolution alone
}


def compute_loss(
    logits: list[Tensor],
    target: Tensor,
    spec: LossSpec,
    batch_dice: bool,
    regions: Tensor | None = None,
    distribution: Distribution = ALONE,
) -> Tensor:
    """The loss over all resolutions, finest first, weighted as the spec says (deep supervision, Lee 2015, arXiv 1409.5185).

    logits (sample, class, …) per resolution; integer target (sample, …) at full resolution, -1 to be ignored; coarser ones come from it
    by nearest neighbour. With `regions` (region, label number), bool, the channels of the logits are these regions, which may overlap and
    have no background: the loss is the mean over regions of that of two classes, so that cross-entropy is binary. With a `distribution` the
    loss is that of the joined batch of all its processes.
    """
    target = target.long()
    total = torch.zeros((), device=target.device)
    for weight, head in zip(spec.weigh_heads(len(logits)), logits):
        if weight:
            part = _shrink(target, head.shape[2:])
            found = (
                list(gather_regions(head, part, regions, distribution))
                if regions is not None
                else [gather_classes(head, part, distribution)]
            )
            total = total + weight * torch.stack([LOSSES[spec.name](evidence, spec, batch_dice) for evidence in found]).mean()
    if spec.name == "boundary":
        total = total + spec.boundary_weight * compute_boundary(logits[0], target, regions, distribution)
    return total


def _shrink(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    return F.interpolate(target[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
