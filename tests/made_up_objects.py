"""Made-up objects, and a detector that reads their numbers off the image and answers perfectly: what follows it is tested alone."""

import numpy as np
import torch
from scipy import ndimage

from autoseg.networks.boxes import REFINED, encode_boxes
from autoseg.networks.detector import Dense, Features
from autoseg.records.detection import DetectionSpec


def draw_ellipsoids(shape, count, radii, generator, ids=None):
    """A map of ids: ellipsoids that do not touch, of radii between two numbers per object."""
    ids = np.zeros(shape, np.int32) if ids is None else ids
    grid = np.stack(np.meshgrid(*[np.arange(size) + 0.5 for size in shape], indexing="ij"))
    number = int(ids.max())
    for _ in range(count):
        centre = np.array([generator.uniform(0, size) for size in shape])
        axes = generator.uniform(*radii, len(shape))
        distance = (((grid - centre.reshape(-1, *(1,) * len(shape))) / axes.reshape(-1, *(1,) * len(shape))) ** 2).sum(axis=0)
        inside = distance <= 1
        if inside.sum() >= 12 and not ids[distance <= 1.5].any():
            number += 1
            ids[inside] = number
    return ids


def make_detection(dimension: int = 2, anchor: float = 16.0, **changes: object) -> DetectionSpec:
    """A small Mask R-CNN of two levels."""
    numbers = {
        "levels": (0, 1),
        "pyramid_features": 8,
        "anchors": (((anchor / 2,) * dimension,), ((anchor,) * dimension,)),
        "anchor_positive": 0.5,
        "anchor_negative": 0.35,
        "anchor_samples": 16,
        "proposals_per_level": (100, 100),
        "proposals": (100, 100),
        "proposal_nms": 0.7,
        "box_positive": 0.5,
        "box_negative": 0.5,
        "box_samples": 16,
        "box_bins": (7,) * dimension,
        "box_features": 16,
        "mask_samples": 8,
        "mask_bins": (14,) * dimension,
        "mask_features": 8,
        "mask_convolutions": 1,
        "detections": 1000,
    }
    return DetectionSpec(**(numbers | changes))


class Seer(torch.nn.Module):
    """Channel 0 of its images holds numbers of objects; number n is of class `classes[n]`. Answers as networks/detector.py does.

    Boxes are proposed off by `jitter` voxels and refined to the truth; objects that show fewer than `least` voxels are not seen. Scores
    fall with the number.
    """

    def __init__(self, classes: dict[int, int], outputs: int, mask_size: tuple[int, ...], jitter: float = 1.0, least: int = 10):
        super().__init__()
        self.classes, self.outputs, self.mask_size, self.jitter, self.least = classes, outputs, mask_size, jitter, least

    def forward(self, images):
        inside = torch.where(images[:, :1] > 0, 8.0, -8.0)
        boundary = torch.cat([-inside, inside, torch.full_like(inside, -8.0)], dim=1)
        return Dense(Features([images], [(1,) * (images.ndim - 2)], images), [], [], boundary)

    def _list_objects(self, image):
        """Numbers and boxes (n, 2D) of the objects that a map of numbers shows."""
        numbers, boxes = [], []
        ids = image.numpy().astype(np.int64)
        voxels = np.bincount(ids.ravel())
        for number, place in enumerate(ndimage.find_objects(ids), 1):
            if place is not None and voxels[number] >= self.least:
                numbers.append(number)
                boxes.append([*(part.start for part in place), *(part.stop for part in place)])
        return numbers, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 2 * image.ndim)

    def propose(self, dense, shape, times=1.0):
        found = [self._list_objects(image[0])[1] for image in dense.features.fine]
        return [(boxes + self.jitter, torch.ones(len(boxes))) for boxes in found]

    def _find_nearest(self, features, boxes, images):
        """For each box the number of the object of its image whose box is nearest, and that box."""
        seen = [self._list_objects(image[0]) for image in features.fine]
        nearest = [int((seen[image][1] - box).abs().sum(1).argmin()) for box, image in zip(boxes, images.tolist())]
        numbers = [seen[image][0][place] for image, place in zip(images.tolist(), nearest)]
        targets = [seen[image][1][place] for image, place in zip(images.tolist(), nearest)]
        return numbers, torch.stack(targets) if targets else boxes

    def classify(self, features, boxes, images):
        numbers, targets = self._find_nearest(features, boxes, images)
        logits = torch.zeros(len(boxes), self.outputs)
        for place, number in enumerate(numbers):
            logits[place, self.classes[number]] = 6 + 2 / number
        return logits, encode_boxes(targets, boxes, REFINED)

    def draw_masks(self, features, boxes, images):
        numbers, _ = self._find_nearest(features, boxes, images)
        logits = torch.full((len(boxes), self.outputs - 1, *self.mask_size), -8.0)
        for place, (box, number, image) in enumerate(zip(boxes, numbers, images.tolist())):
            mask = (features.fine[image][0] == number).float()
            logits[place, self.classes[number] - 1] = 16 * _sample(mask, box, self.mask_size) - 8
        return logits


def _sample(mask, box, bins):
    """The share of a mask at the bins of a box, linearly between voxel centres."""
    half, values = len(box) // 2, mask
    for axis, count in enumerate(bins):
        low, high = box[axis], box[half + axis]
        place = (low + (torch.arange(count) + 0.5) * (high - low) / count - 0.5).clamp(0, mask.shape[axis] - 1)
        floor = place.long().clamp(max=mask.shape[axis] - 2)
        weight = (place - floor).view(-1, *(1,) * (mask.ndim - axis - 1))
        values = values.index_select(axis, floor) * (1 - weight) + values.index_select(axis, floor + 1) * weight
    return values
