"""A Mask R-CNN on single tiles: boxes, scores, classes and masks as it gives them, before anything is chosen."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from autoseg.inference.clustering import Detections
from autoseg.networks.boxes import REFINED, clip_boxes, compute_box_sizes, decode_boxes, grow_boxes
from autoseg.networks.detector import Dense, Detector
from autoseg.networks.devices import Compute
from autoseg.networks.suppression import suppress
from autoseg.records.detection import DetectionSpec
from autoseg.records.plan import Configuration

LEAST_SCORE = 0.05  # weaker ones are never worth their time
LEAST_SIDE = 1e-2  # voxels
LEAST_OBJECTNESS = 0.05  # of a proposal: the box head is most of the work, and it finds nothing in the others
LOOSE_NMS = {False: 0.7, True: 0.85}  # by boxes, before the one that counts; where masks decide later, parallel neighbours stay
MASK_BYTES = 256_000_000  # of the maps of all masks drawn at once


@torch.inference_mode()
def detect(
    network: Detector, tiles: Tensor, configuration: Configuration, compute: Compute, flip: tuple[int, ...]
) -> tuple[list[Detections], np.ndarray]:
    """Detections of each of the tiles (tile, channel, …), and probabilities (tile, 3, …) of background, inside and boundary, float32.

    The tiles are seen mirrored along the axes of `flip`, and told as if they were not.
    """
    spec = configuration.detection
    assert spec is not None  # the configuration of a Mask R-CNN
    by_mask = configuration.thresholds is not None and configuration.thresholds.by_mask
    axes, shape = [axis + 2 for axis in flip], tuple(tiles.shape[2:])
    times = max(1.0, math.prod(shape) / math.prod(configuration.patch_size))
    with compute.autocast():
        dense = network(compute.place(tiles.flip(axes) if axes else tiles))
    most = math.ceil(times * spec.detections)
    chosen = [_choose(*answer, most, LOOSE_NMS[by_mask]) for answer in _answer(network, dense, (shape, times), compute)]
    boxes = torch.cat([found[0] for found in chosen])
    counts = [len(found[0]) for found in chosen]
    images = torch.arange(len(chosen), device=boxes.device).repeat_interleave(torch.tensor(counts, device=boxes.device))
    numbers = torch.cat([found[2] for found in chosen])
    masks = _draw(network, dense, (boxes, images, numbers), spec, compute)
    if axes:
        boxes, masks = _mirror(boxes, flip, shape), masks.flip([axis + 1 for axis in flip])
    arrays = [part.cpu().numpy() for part in (boxes, torch.cat([found[1] for found in chosen]), numbers + 1)]
    ends = np.cumsum([0, *counts])
    drawn = masks.cpu().numpy()
    parts = dense.boundary.softmax(dim=1)
    found = [Detections(*(array[low:high] for array in (*arrays, drawn))) for low, high in pairwise(ends)]
    return found, (parts.flip(axes) if axes else parts).cpu().numpy()


def _answer(network: Detector, dense: Dense, size: tuple[tuple[int, ...], float], compute: Compute) -> list[tuple[Tensor, Tensor]]:
    """Per tile the boxes (box, 2D) that its proposals become, and the probabilities (box, class without background).

    `size` is the tiles' shape, and how many patches that is.
    """
    shape, times = size
    proposals = [boxes[scores >= LEAST_OBJECTNESS] for boxes, scores in network.propose(dense, shape, times)]
    boxes, counts = torch.cat(proposals), [len(one) for one in proposals]
    images = torch.arange(len(counts), device=boxes.device).repeat_interleave(torch.tensor(counts, device=boxes.device))
    with compute.autocast():
        logits, deltas = network.classify(dense.features, boxes, images)
    refined = clip_boxes(decode_boxes(deltas.float(), boxes, REFINED), shape)
    probabilities = logits.float().softmax(dim=1)[:, 1:]
    return list(zip(refined.split(counts), probabilities.split(counts)))


def _choose(boxes: Tensor, probabilities: Tensor, most: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Up to `most` boxes (K, 2D), scores and class numbers from 0 on, by falling score: every box may be of every class."""
    sound = (compute_box_sizes(boxes) >= LEAST_SIDE).all(dim=1)
    places, numbers = ((probabilities >= LEAST_SCORE) & sound[:, None]).nonzero(as_tuple=True)
    boxes, scores = boxes[places], probabilities[places, numbers]
    kept = suppress(boxes, scores, threshold, numbers)[:most]
    return boxes[kept], scores[kept], numbers[kept]


def _draw(network: Detector, dense: Dense, found: tuple[Tensor, Tensor, Tensor], spec: DetectionSpec, compute: Compute) -> Tensor:
    """Probabilities (K, *bins), float16, of the masks of boxes (K, 2D) on their images (K,), each of its class (K,)."""
    boxes, images, numbers = found
    scale = 2**spec.mask_upsampling
    bins = tuple(edge * scale for edge in spec.mask_bins)
    largest = max(spec.pyramid_features * int(np.prod(spec.mask_bins)), spec.mask_features * int(np.prod(bins)))
    frames = grow_boxes(boxes)
    drawn = [torch.zeros((0, *bins), dtype=torch.float16, device=boxes.device)]
    for places in torch.arange(len(boxes), device=boxes.device).split(max(1, MASK_BYTES // (4 * largest))):
        with compute.autocast():
            logits = network.draw_masks(dense.features, frames[places], images[places])
        drawn.append(logits[torch.arange(len(places), device=boxes.device), numbers[places]].float().sigmoid().half())
    return torch.cat(drawn)


def _mirror(boxes: Tensor, flip: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Boxes (K, 2D) of an image of `shape` mirrored along some axes: low edges become high ones."""
    mirrored, dimension = boxes.clone(), len(shape)
    for axis in flip:
        mirrored[:, axis], mirrored[:, dimension + axis] = shape[axis] - boxes[:, dimension + axis], shape[axis] - boxes[:, axis]
    return mirrored
