"""Boxes (box, 2·axis) as [lo…, hi…] in voxel edge coordinates, half-open: sizes, overlaps, and the differences that networks learn.

All in float32, with or without autocast: the area of a box of 64³ voxels is beyond what 16 bits hold.
"""

import math

import torch
from torch import Tensor

REFINED = (
    0.1,
    0.2,
)  # standard deviations of shift and log size that the box head's answers are counted in (Girshick 2015, arXiv 1504.08083)
UNIT = (1.0, 1.0)  # those of the region proposals
LARGEST_STEP = math.log(1000 / 16)  # of a side's logarithm, before it is raised
SMALLEST = 1e-3  # voxels: a side of which a ratio can be taken
MASK_MARGIN = 1.2  # by which a box grows before its mask is drawn


def compute_box_sizes(boxes: Tensor) -> Tensor:
    """Sides (box, axis), 0 at least."""
    low, high = boxes.float().chunk(2, dim=-1)
    return (high - low).clamp(min=0)


def compute_overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of a with every box of b: (len(a), len(b)); 0 where both are empty."""
    return compute_paired_overlaps(a[:, None], b[None])


def compute_paired_overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes a (…, 2·axis) with b, of the same shape or one that broadcasts to it: (…,)."""
    a, b = a.float(), b.float()
    axes = a.shape[-1] // 2
    common = torch.ones((), device=a.device)
    for axis in range(axes):  # axis by axis, as the table of all pairs is the largest thing here
        high = torch.minimum(a[..., axes + axis], b[..., axes + axis])
        common = (high - torch.maximum(a[..., axis], b[..., axis])).clamp_(min=0).mul_(common)
    union = compute_box_sizes(a).prod(-1) + compute_box_sizes(b).prod(-1) - common
    return common / union.clamp_(min=torch.finfo(torch.float32).tiny)


def clip_boxes(boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What of the boxes lies inside an image of the shape in voxels."""
    limit = torch.tensor(shape * 2, dtype=torch.float32, device=boxes.device)
    return torch.minimum(boxes.float().clamp(min=0), limit)


def grow_boxes(boxes: Tensor, factor: float = MASK_MARGIN) -> Tensor:
    """Every side longer by the factor around the same middle; a box may reach out of the image then."""
    low, high = boxes.float().chunk(2, dim=-1)
    margin = (high - low) * ((factor - 1) / 2)
    return torch.cat([low - margin, high + margin], dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor, scale: tuple[float, float] = UNIT) -> Tensor:
    """(box, 2·axis): shift of the middle in sides of the anchor, then logarithm of the sides' ratio (Girshick 2014, arXiv 1311.2524, C).

    Both divided by their entry of `scale`.
    """
    middle, side = _split(boxes)
    start, unit = _split(anchors)
    return torch.cat([(middle - start) / unit / scale[0], (side / unit).log() / scale[1]], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor, scale: tuple[float, float] = UNIT) -> Tensor:
    """The boxes that encode_boxes has made into deltas; a side grows to 62.5 times the anchor's at most."""
    start, unit = _split(anchors)
    shift, step = deltas.float().chunk(2, dim=-1)
    middle = start + shift * scale[0] * unit
    half = (step * scale[1]).clamp(max=LARGEST_STEP).exp() * unit / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def _split(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Middles and sides."""
    low, high = boxes.float().chunk(2, dim=-1)
    return (low + high) / 2, (high - low).clamp(min=SMALLEST)
