"""Mask R-CNN (He 2017, arXiv 1703.06870) in 2 and 3 dimensions on the encoder of any U-Net, with a head for boundaries beside it."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from autoseg.networks.anchors import choose_levels, make_anchors
from autoseg.networks.blocks import CONVOLUTIONS
from autoseg.networks.boxes import SMALLEST, clip_boxes, compute_box_sizes, decode_boxes
from autoseg.networks.heads import BoxHead, MaskHead, ProposalHead
from autoseg.networks.pyramid import FineDecoder, Pyramid, list_strides
from autoseg.networks.roi_align import FlatMaps, Regions, align_rois, flatten_maps
from autoseg.networks.suppression import suppress
from autoseg.networks.unet import build_encoder
from autoseg.records.detection import DetectionSpec
from autoseg.records.plan import NetworkSpec

SAMPLES = {2: 2, 3: 1}  # of RoIAlign per bin and axis, by dimension
BOUNDARY_CLASSES = 3  # background, inside, boundary


@dataclass(frozen=True)
class Features:
    """Maps (sample, channel, …) of the detection's levels, finest first, with their strides, and one of full resolution."""

    maps: list[Tensor]
    strides: list[tuple[int, ...]]
    fine: Tensor

    @cached_property
    def flat(self) -> FlatMaps:
        """The levels as one table, in float32."""
        with torch.set_grad_enabled(self.maps[0].requires_grad):  # also where it is first asked for without gradients
            return flatten_maps(self.maps, self.strides)


@dataclass(frozen=True)
class Dense:
    """Answers for every place of an image, in float32.

    Per level `objectness`, logits (sample, anchor), and `deltas` (sample, anchor, 2·axis) from the anchors; `boundary`, logits (sample, 3,
    …) of background, inside of an object, and its boundary.
    """

    features: Features
    objectness: list[Tensor]
    deltas: list[Tensor]
    boundary: Tensor


class Detector(nn.Module):
    """Proposes boxes everywhere, then tells for given boxes the class, a better box, and the mask."""

    def __init__(self, spec: NetworkSpec, detection: DetectionSpec, channels: int, classes: int) -> None:
        """`classes` counts the background."""
        super().__init__()
        self.detection = detection
        dimension, features = len(spec.strides[0]), detection.pyramid_features
        self.encoder, widths = build_encoder(spec, channels)
        self.strides = [list_strides(spec)[stage] for stage in detection.levels]
        self.pyramid = Pyramid(spec, widths, detection.levels, features)
        self.fine = FineDecoder(spec, widths, detection.levels[0], features)
        self.boundary = CONVOLUTIONS[dimension](self.fine.features, BOUNDARY_CLASSES, 1)
        self.proposal_head = ProposalHead(detection, dimension)
        self.box_head = BoxHead(detection, classes)
        self.mask_head = MaskHead(detection, classes)
        self.samples = SAMPLES[dimension]
        self._anchors: dict[tuple[object, ...], list[Tensor]] = {}

    def forward(self, images: Tensor) -> Dense:
        """images (sample, channel, …) of any size."""
        x, skips = images, []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        maps = self.pyramid(skips)
        fine = self.fine(maps[0], skips)
        objectness, deltas = self.proposal_head(maps)
        return Dense(Features(maps, self.strides, fine), objectness, deltas, self.boundary(fine).float())

    def list_anchors(self, dense: Dense) -> list[Tensor]:
        """Per level (anchor, 2·axis), kept for the next images of the same size."""
        maps = dense.features.maps
        key = (maps[0].device, *(tuple(level.shape[2:]) for level in maps))
        if key not in self._anchors:
            levels = zip(maps, self.strides, self.detection.anchors)
            self._anchors = {key: [make_anchors(tuple(x.shape[2:]), stride, shapes).to(x.device) for x, stride, shapes in levels]}
        return self._anchors[key]

    @torch.no_grad()
    def propose(self, dense: Dense, shape: tuple[int, ...], times: float = 1.0) -> list[tuple[Tensor, Tensor]]:
        """Per image of the shape in voxels the best boxes (box, 2·axis) with their scores (box,), by falling score; there may be none.

        In training and in prediction `times` as many as the detection says; of each level on its own the overlapping ones are dropped.
        """
        place = 0 if self.training else 1
        before, after = (math.ceil(times * count[place]) for count in (self.detection.proposals_per_level, self.detection.proposals))
        boxes, scores, levels = [], [], []
        for level, anchors in enumerate(self.list_anchors(dense)):
            best, chosen = dense.objectness[level].topk(min(before, len(anchors)), dim=1)
            deltas = dense.deltas[level].gather(1, chosen[..., None].expand(-1, -1, anchors.shape[1]))
            boxes.append(clip_boxes(decode_boxes(deltas, anchors[chosen]), shape))
            scores.append(best.sigmoid())
            levels.append(torch.full_like(chosen, level))
        images = zip(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels, dim=1))
        return [self._keep_best(*found, count=after) for found in images]

    def _keep_best(self, boxes: Tensor, scores: Tensor, levels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        sound = (compute_box_sizes(boxes) >= SMALLEST).all(1)
        boxes, scores = boxes[sound], scores[sound]
        kept = suppress(boxes, scores, self.detection.proposal_nms, levels[sound])[:count]
        return boxes[kept], scores[kept]

    def classify(self, features: Features, boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (box, class) and deltas (box, 2·axis; of scale REFINED) of boxes (box, 2·axis) on their images (box,)."""
        return self.box_head(self._crop(features, boxes, images, self.detection.box_bins))

    def draw_masks(self, features: Features, boxes: Tensor, images: Tensor) -> Tensor:
        """Logits (box, class without background, *mask size) of boxes (box, 2·axis), as large as they are given, on their images (box,)."""
        return self.mask_head(self._crop(features, boxes, images, self.detection.mask_bins))

    def _crop(self, features: Features, boxes: Tensor, images: Tensor, bins: tuple[int, ...]) -> Tensor:
        """(box, channel, *bins): from the level whose cells are about as fine as the bins of a mask."""
        regions = Regions(boxes, images, choose_levels(boxes, self.strides))
        return align_rois(features.flat, regions, bins, self.samples)
