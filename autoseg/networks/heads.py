"""What Mask R-CNN (He 2017, arXiv 1703.06870) asks of its maps: where objects may be, what a box holds, and which of its voxels."""

import math

import torch
from torch import Tensor, nn

from autoseg.networks.blocks import CONVOLUTIONS, TRANSPOSED, make_group_block
from autoseg.records.detection import DetectionSpec

BOX_CONVOLUTIONS = 2
ANSWER_DEVIATION = 0.01  # of the last layers' weights at the start, so that all answers start near 0


class ProposalHead(nn.Module):
    """One head for all levels: per anchor, whether it holds an object, and how it differs from it; a factor per level for the latter."""

    def __init__(self, detection: DetectionSpec, dimension: int) -> None:
        super().__init__()
        features, shapes = detection.pyramid_features, len(detection.anchors[0])
        self.block = make_group_block(features, features, (3,) * dimension)
        self.objectness = CONVOLUTIONS[dimension](features, shapes, 1)
        self.deltas = CONVOLUTIONS[dimension](features, shapes * 2 * dimension, 1)
        self.scales = nn.Parameter(torch.ones(len(detection.levels)))

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (sample, features, …) → logits (sample, cells · shapes) and deltas (sample, cells · shapes, 2 · axis), in float32."""
        logits, deltas = [], []
        for level, x in enumerate(maps):
            x = self.block(x)
            samples, dimension = len(x), x.ndim - 2
            logits.append(self.objectness(x).float().movedim(1, -1).reshape(samples, -1))
            moved = self.deltas(x).float().movedim(1, -1)
            deltas.append(moved.reshape(samples, -1, 2 * dimension) * self.scales[level])
        return logits, deltas

    def list_answers(self) -> list[nn.Module]:
        """The last layers."""
        return [self.objectness, self.deltas]


class BoxHead(nn.Module):
    """What a box holds, as a class, and how the object's box differs from it, whatever the class."""

    def __init__(self, detection: DetectionSpec, classes: int) -> None:
        super().__init__()
        features, dimension = detection.pyramid_features, len(detection.box_bins)
        self.blocks = nn.Sequential(*(make_group_block(features, features, (3,) * dimension) for _ in range(BOX_CONVOLUTIONS)))
        self.hidden = nn.Linear(features * math.prod(detection.box_bins), detection.box_features)
        self.classes = nn.Linear(detection.box_features, classes)
        self.deltas = nn.Linear(detection.box_features, 2 * dimension)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """crops (box, features, *bins) → logits (box, class) with the background first and deltas (box, 2 · axis), in float32."""
        x = self.blocks(crops)
        x = self.hidden(x.reshape(len(x), self.hidden.in_features)).relu()
        return self.classes(x).float(), self.deltas(x).float()

    def list_answers(self) -> list[nn.Module]:
        return [self.classes, self.deltas]


class MaskHead(nn.Module):
    """Which voxels of a box belong to its object, for every class on its own: classes do not compete."""

    def __init__(self, detection: DetectionSpec, classes: int) -> None:
        super().__init__()
        dimension, inputs, outputs = len(detection.mask_bins), detection.pyramid_features, detection.mask_features
        parts: list[nn.Module] = []
        for place in range(detection.mask_convolutions):
            parts.append(make_group_block(outputs if place else inputs, outputs, (3,) * dimension))
        for place in range(detection.mask_upsampling):
            first = not place and not detection.mask_convolutions
            parts += [TRANSPOSED[dimension](inputs if first else outputs, outputs, 2, 2), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*parts)
        self.masks = CONVOLUTIONS[dimension](outputs if parts else inputs, classes - 1, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """crops (box, features, *bins) → logits (box, class without background, *bins · 2^upsampling), in float32."""
        return self.masks(self.blocks(crops)).float()

    def list_answers(self) -> list[nn.Module]:
        return [self.masks]


def start_heads(network: nn.Module) -> None:
    """The heads' linear layers as Kaiming has it (He 2015, arXiv 1502.01852) and their answers near 0."""
    parts = list(network.modules())
    for part in parts:
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)
    for part in parts:
        if isinstance(part, (ProposalHead, BoxHead, MaskHead)):
            for answer in part.list_answers():
                nn.init.normal_(answer.weight, std=ANSWER_DEVIATION)  # type: ignore[arg-type]
                nn.init.zeros_(answer.bias)  # type: ignore[arg-type]
