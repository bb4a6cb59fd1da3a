"""The boxes that a Mask R-CNN's heads are trained on: proposals, the objects' own boxes, and jittered copies of these."""

from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.networks.boxes import clip_boxes, compute_box_sizes
from autoseg.records.detection import DetectionSpec
from autoseg.training.matching import IGNORED, NEGATIVE, draw_examples, match_proposals
from autoseg.training.targets import Objects, measure_ignored

COPIES = 2  # of each object's box, so that masks are learnt while proposals are still random
SHIFT = 0.1  # largest of a copy, in sides
STRETCH = 0.2  # largest change of a copy's sides, as a share
POSITIVE_SHARE = 1 / 3  # of the boxes, at most
MOST_IGNORED = 0.5  # share of a box that may be of voxels to be ignored


@dataclass(frozen=True)
class Examples:
    """Boxes (K, 2·D) of images (K,), and for each the place of its object or -1: matches (K,)."""

    boxes: Tensor
    images: Tensor
    matches: Tensor

    def select(self, chosen: Tensor) -> "Examples":
        """Those at the places chosen."""
        return Examples(self.boxes[chosen], self.images[chosen], self.matches[chosen])

    def list_positive(self, most: int, count: int) -> "Examples":
        """Those that have an object, of each of `count` images `most` at most."""
        positive = self.select((self.matches >= 0).nonzero()[:, 0])
        return positive.select(torch.cat([(positive.images == image).nonzero()[:most, 0] for image in range(count)]))


def jitter_boxes(boxes: Tensor) -> Tensor:
    """Boxes (K, 2·D) shifted by up to 10 % of their sides, which grow or shrink by up to 20 %, along each axis by itself."""
    low, high = boxes.chunk(2, dim=1)
    side = high - low
    shift, stretch = torch.rand(2, *side.shape, device=boxes.device) * 2 - 1
    middle, half = (low + high) / 2 + SHIFT * shift * side, (1 + STRETCH * stretch) * side / 2
    return torch.cat([middle - half, middle + half], dim=1)


def draw_box_examples(proposals: list[Tensor], objects: Objects, ids: Tensor, detection: DetectionSpec) -> Examples:
    """`box_samples` boxes per image, from its proposals (P, 2·D), its objects' boxes and two copies of them.

    ids (n, *patch) are the label maps; boxes of which most is to be ignored are left out.
    """
    copies = [clip_boxes(jitter_boxes(objects.boxes), tuple(ids.shape[1:])) for _ in range(COPIES)]
    boxes = torch.cat([*proposals, objects.boxes, *copies])
    own = [torch.full((len(found),), image, device=ids.device) for image, found in enumerate(proposals)]
    images = torch.cat([*own, *[objects.images] * (1 + COPIES)])
    matches = match_proposals(boxes, images, objects, detection.box_positive, detection.box_negative)
    ignored = measure_ignored(ids, boxes, images) > MOST_IGNORED
    matches = torch.where(ignored & (matches == NEGATIVE), IGNORED, matches)
    matches = torch.where((compute_box_sizes(boxes) > 0).all(dim=1), matches, IGNORED)
    chosen = []
    for image in range(len(ids)):
        places = (images == image).nonzero()[:, 0]
        chosen.append(places[draw_examples(matches[places], detection.box_samples, POSITIVE_SHARE)])
    return Examples(boxes, images, matches).select(torch.cat(chosen))
