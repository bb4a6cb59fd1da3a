"""What a training step makes small: the loss of a batch, by what the network shall give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.networks.boxes import grow_boxes
from autoseg.networks.detector import Dense, Detector
from autoseg.networks.devices import Compute
from autoseg.records.detection import DetectionSpec
from autoseg.records.plan import Configuration, LossSpec, Product
from autoseg.training.detection_losses import compute_box_loss, compute_mask_loss, compute_proposal_loss
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.examples import MOST_IGNORED, Examples, draw_box_examples
from autoseg.training.loader import Batch
from autoseg.training.losses import compute_loss
from autoseg.training.matching import Grid, draw_examples, match_anchors
from autoseg.training.targets import Objects, Tables, find_boxes, make_boundary_labels, measure_ignored, sample_mask_targets

POSITIVE_SHARE = 0.5  # of the anchors, at most
BOUNDARY_LOSS = LossSpec(name="dice_ce", dice_weight=0.5, cross_entropy_weight=0.5, deep_supervision=False)


@dataclass(frozen=True)
class Step:
    """What a loss is made from: the network and its answer to a batch."""

    network: nn.Module
    answer: Any
    batch: Batch
    configuration: Configuration
    compute: Compute
    distribution: Distribution = ALONE


def compute_objective(step: Step) -> Tensor:
    """The loss of a batch, with its graph."""
    return OBJECTIVES[step.configuration.product](step)


def _compute_classes(step: Step) -> Tensor:
    batch, configuration = step.batch, step.configuration
    return compute_loss(step.answer, batch.labels, configuration.loss, configuration.batch_dice, batch.regions, step.distribution)


def _compute_boundaries(step: Step) -> Tensor:
    logits, batch, configuration = step.answer, step.batch, step.configuration
    labels = make_boundary_labels(batch.labels, _get_tables(batch), logits[0].shape[1] - 2)
    return compute_loss(logits, labels, configuration.loss, configuration.batch_dice, None, step.distribution)


def _compute_objects(step: Step) -> Tensor:
    """The four losses of a Mask R-CNN and its boundary head, all of weight 1."""
    network, dense, batch, detection = step.network, step.answer, step.batch, step.configuration.detection
    assert isinstance(network, Detector)
    assert detection is not None
    objects, ids = find_boxes(batch.labels, _get_tables(batch), batch.object_voxels)
    proposals = [boxes for boxes, _ in network.propose(dense, step.configuration.patch_size)]
    examples = draw_box_examples(proposals, objects, ids, detection)
    masked = examples.list_positive(detection.mask_samples, len(ids))
    grown = grow_boxes(masked.boxes)
    with step.compute.autocast():
        logits, deltas = network.classify(dense.features, examples.boxes, examples.images)
        masks = network.draw_masks(dense.features, grown, masked.images)
    targets = sample_mask_targets(ids, grown, masked.images, objects.ids[masked.matches], tuple(masks.shape[2:]))
    return (
        _compute_anchors(network, dense, objects, ids, detection)
        + _compute_boxes(logits, deltas, examples, objects)
        + compute_mask_loss(masks, objects.classes[masked.matches], targets)
        + _compute_boundary_head(dense.boundary, batch)
    )


def _compute_anchors(network: Detector, dense: Dense, objects: Objects, ids: Tensor, detection: DetectionSpec) -> Tensor:
    """The loss of the anchors that are drawn from each image."""
    levels = network.list_anchors(dense)
    grids = [Grid(a, tuple(x.shape[2:]), stride) for a, x, stride in zip(levels, dense.features.maps, dense.features.strides)]
    matches = match_anchors(grids, objects, len(ids), detection.anchor_positive, detection.anchor_negative)
    scores, deltas, anchors = torch.cat(dense.objectness, dim=1), torch.cat(dense.deltas, dim=1), torch.cat(levels)
    pairs = zip(matches, scores.detach())
    drawn = [draw_examples(own, detection.anchor_samples, POSITIVE_SHARE, found) for own, found in pairs]
    images = torch.cat([torch.full_like(places, image) for image, places in enumerate(drawn)])
    places = torch.cat(drawn)
    counted = (matches[images, places] >= 0) | (measure_ignored(ids, anchors[places], images) <= MOST_IGNORED)
    images, places = images[counted], places[counted]
    return compute_proposal_loss(scores[images, places], deltas[images, places], anchors[places], matches[images, places], objects.boxes)


def _compute_boxes(logits: Tensor, deltas: Tensor, examples: Examples, objects: Objects) -> Tensor:
    positive = examples.matches >= 0
    own = examples.matches[positive]
    classes = torch.zeros_like(examples.matches).masked_scatter(positive, objects.classes[own])
    return compute_box_loss(logits, deltas, examples.boxes, classes, objects.boxes[own])


def _compute_boundary_head(logits: Tensor, batch: Batch) -> Tensor:
    """Of background, inside of any class, and boundary."""
    anything = tuple(table.clamp(max=1) for table in _get_tables(batch))
    return compute_loss([logits], make_boundary_labels(batch.labels, anything, 1), BOUNDARY_LOSS, batch_dice=True)


def _get_tables(batch: Batch) -> Tables:
    assert batch.object_classes is not None  # the loader gives them to every product but classes
    return batch.object_classes


OBJECTIVES: dict[Product, Callable[[Step], Tensor]] = {
    "classes": _compute_classes,
    "boundaries": _compute_boundaries,
    "objects": _compute_objects,
}
