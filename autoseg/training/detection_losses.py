"""The losses of a Mask R-CNN (He 2017, arXiv 1703.06870): of its proposals, its boxes and its masks, in float32.

Each is a sum over a number of examples that may be none: then it is 0, with a gradient of 0 for every weight.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.boxes import REFINED, decode_boxes, encode_boxes

BETA = 0.1  # of the smooth L1, in standard deviations


def compute_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of boxes (K, 2·D) with the others in the same place (Rezatofighi 2019, arXiv 1902.09630), (K,), -1 … 1."""
    (low, high), (start, end) = boxes.chunk(2, dim=1), others.chunk(2, dim=1)
    common = (torch.minimum(high, end) - torch.maximum(low, start)).clamp(min=0).prod(dim=1)
    union = (high - low).prod(dim=1) + (end - start).prod(dim=1) - common
    hull = (torch.maximum(high, end) - torch.minimum(low, start)).prod(dim=1)
    return common / union - (hull - union) / hull


def compute_proposal_loss(logits: Tensor, deltas: Tensor, anchors: Tensor, matches: Tensor, boxes: Tensor) -> Tensor:
    """Of anchors (K, 2·D): binary cross-entropy of their logits (K,), and 1 - GIoU of those that have one of the objects' boxes (M, 2·D).

    Means over the anchors, and over those with an object; deltas (K, 2·D), matches (K,) places of objects or -1.
    """
    positive = matches >= 0
    entropy = F.binary_cross_entropy_with_logits(logits.float(), positive.float(), reduction="sum") / max(1, len(matches))
    giou = compute_giou(decode_boxes(deltas[positive], anchors[positive]), boxes[matches[positive]])
    return entropy + (1 - giou).sum() / positive.sum().clamp(min=1)


def compute_box_loss(logits: Tensor, deltas: Tensor, proposals: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    """Of proposals (K, 2·D): cross-entropy of their logits (K, class), and the smooth L1 (Girshick 2015, arXiv 1504.08083) of deltas.

    Means over the proposals, and over axes and the proposals of an object; classes (K,), 0 for none; targets (positive, 2·D) are the
    boxes of the objects of the others, in their order.
    """
    positive = classes > 0
    entropy = F.cross_entropy(logits.float(), classes, reduction="sum") / max(1, len(classes))
    wanted = encode_boxes(targets, proposals[positive], REFINED)
    distance = F.smooth_l1_loss(deltas[positive].float(), wanted, beta=BETA, reduction="sum")
    return entropy + distance / max(1, wanted.numel())


def compute_mask_loss(logits: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each box (K,) in the channel of its class (K,) 1 … N alone (He 2017, section 3), mean over cells and boxes.

    logits (K, N, *size), targets (K, *size) shares of each cell.
    """
    own = logits.float()[torch.arange(len(classes), device=classes.device), classes - 1].flatten(1)
    entropy = F.binary_cross_entropy_with_logits(own, targets.flatten(1), reduction="none").mean(dim=1)
    return entropy.sum() / max(1, len(classes))
