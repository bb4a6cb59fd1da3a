"""What a Mask R-CNN costs in operations, weights and bytes: arithmetic on its description, as cost.py and memory.py for a U-Net.

The convolutions are those of autoseg/networks/detector.py; the bytes are a sum over their maps, not the exact walk that memory.py is.
"""

import math
from dataclasses import dataclass

from autoseg.arrays.tiles import TILE_PATCHES
from autoseg.planning.cost import ENCODERS, Convolution, count_stage_voxels
from autoseg.planning.memory import BOOL, FLOAT, LONG, MOMENTS
from autoseg.records.detection import DetectionSpec
from autoseg.records.machine import PrecisionName
from autoseg.records.plan import NetworkSpec

BOX_CONVOLUTIONS = 2
BOUNDARY_CLASSES = 3  # background, inside, boundary
SAMPLES = {2: 2, 3: 1}  # of RoIAlign per bin and axis
KEPT = 2.0  # values per output of a convolution that wait for the backward pass: what the norm takes in and what the activation gives
GRADIENTS = 3  # of the largest maps there are at once on the way back
WORKSPACE = (
    1.15  # what the library of convolutions takes besides; on a CPU .66, .95 and 1.27 GB were measured where .57, .80, 1.28 were counted
)
LOSS_MAPS = 4  # of all boundary classes at full resolution, in 32 bits: probabilities, their gradient, labels and sums
PAIRED = 2000  # boxes of which all pairs' overlaps are there at once
OBJECTS = 64  # that a crowd of anchors is compared with at once
OVERHEAD = 1.35  # of a step's time beyond its operations: proposals, matching, sampling, pasting


@dataclass(frozen=True)
class Detector:
    """A Mask R-CNN in numbers: `patch` in voxels, `classes` with the background."""

    network: NetworkSpec
    detection: DetectionSpec
    patch: tuple[int, ...]
    channels: int
    classes: int

    @property
    def dimension(self) -> int:
        return len(self.patch)


@dataclass(frozen=True)
class Regions:
    """How many boxes of a patch the box head and the mask head see."""

    boxes: int
    masks: int


def count_training_regions(detection: DetectionSpec) -> Regions:
    return Regions(detection.box_samples, detection.mask_samples)


def count_prediction_regions(detection: DetectionSpec) -> Regions:
    return Regions(detection.proposals[1], detection.detections)


def list_detector_convolutions(detector: Detector, regions: Regions) -> list[Convolution]:
    """All convolutions and linear layers of one forward pass over one patch; a head's weights stand at its first map alone."""
    network = detector.network
    voxels = count_stage_voxels(network, detector.patch)
    found, inputs = [], detector.channels
    for stage, features in enumerate(network.features):
        found += ENCODERS[network.kind](network, stage, inputs, voxels[stage])
        inputs = features
    return [*found, *_list_dense(detector, voxels), *_list_decoder(detector, voxels), *_list_heads(detector, regions)]


def _make_layer(kernel: int, inputs: int, outputs: int, voxels: int) -> Convolution:
    """With a bias and no norm."""
    return Convolution(kernel, inputs, outputs, voxels, kernel * inputs * outputs + outputs)


def _make_block(kernel: int, inputs: int, outputs: int, voxels: int) -> Convolution:
    """Without bias, and with a norm."""
    return Convolution(kernel, inputs, outputs, voxels, kernel * inputs * outputs + 2 * outputs)


def _list_dense(detector: Detector, voxels: list[int]) -> list[Convolution]:
    """The pyramid's lateral and output convolutions, and what proposes boxes on every level."""
    network, detection, dimension = detector.network, detector.detection, detector.dimension
    width, shapes = detection.pyramid_features, len(detection.anchors[0])
    found = []
    for place, stage in enumerate(detection.levels):
        kernel = math.prod(network.kernel_sizes[stage])
        found.append(_make_layer(1, network.features[stage], width, voxels[stage]))
        found.append(_make_block(kernel, width, width, voxels[stage]))
        head = [_make_block(3**dimension, width, width, voxels[stage])]
        head += [_make_layer(1, width, shapes * answers, voxels[stage]) for answers in (1, 2 * dimension)]
        found += head if place == 0 else [_share(layer) for layer in head]
    return [*found, Convolution(0, 0, 0, 0, len(detection.levels))]  # a factor per level


def _share(layer: Convolution) -> Convolution:
    """The same layer once more, on another map."""
    return Convolution(layer.kernel, layer.inputs, layer.outputs, layer.voxels, 0)


def _list_decoder(detector: Detector, voxels: list[int]) -> list[Convolution]:
    """From the pyramid's finest map to full resolution, and the answer there."""
    network, width = detector.network, detector.detection.pyramid_features
    found, inputs = [], width
    for stage in reversed(range(detector.detection.levels[0])):
        fine, kernel = network.features[stage], math.prod(network.kernel_sizes[stage])
        stride = math.prod(network.strides[stage + 1])
        found.append(Convolution(1, inputs, fine, voxels[stage], stride * inputs * fine + fine))
        widths = (2 * fine, *[fine] * (network.decoder_convolutions[stage] - 1))
        found += [_make_block(kernel, entering, fine, voxels[stage]) for entering in widths]
        inputs = fine
    return [*found, _make_layer(1, inputs, BOUNDARY_CLASSES, voxels[0])]


def _list_heads(detector: Detector, regions: Regions) -> list[Convolution]:
    """The box head and the mask head on so many boxes."""
    detection, dimension = detector.detection, detector.dimension
    width, narrow, kernel = detection.pyramid_features, detection.mask_features, 3**dimension
    bins, hidden = math.prod(detection.box_bins), detection.box_features
    found = [_make_block(kernel, width, width, regions.boxes * bins)] * BOX_CONVOLUTIONS
    found.append(_make_layer(1, width * bins, hidden, regions.boxes))
    found += [_make_layer(1, hidden, answers, regions.boxes) for answers in (detector.classes, 2 * dimension)]
    places = regions.masks * math.prod(detection.mask_bins)
    for index in range(detection.mask_convolutions):
        found.append(_make_block(kernel, narrow if index else width, narrow, places))
    inputs = narrow if detection.mask_convolutions else width
    for _ in range(detection.mask_upsampling):
        places *= 2**dimension
        found.append(Convolution(1, inputs, narrow, places, 2**dimension * inputs * narrow + narrow))
        inputs = narrow
    return [*found, _make_layer(1, inputs, detector.classes - 1, places)]


def count_detector_weights(detector: Detector) -> int:
    """Numbers that the network learns."""
    return sum(layer.weights for layer in list_detector_convolutions(detector, Regions(1, 1)))


def count_detector_operations(detector: Detector) -> float:
    """Floating point operations of one training step on one patch: 2 per multiplication, backward twice the forward pass."""
    layers = list_detector_convolutions(detector, count_training_regions(detector.detection))
    return 3.0 * sum(2.0 * layer.kernel * layer.inputs * layer.outputs * layer.voxels for layer in layers)


def estimate_detector_training(detector: Detector, batch: int, optimizer: str, precision: PrecisionName, accumulation: int = 1) -> int:
    """Peak bytes of a training step, about: maps kept for the backward pass and gradients, crops, overlaps of boxes, weights."""
    value = FLOAT if precision == "fp32" else 2
    layers = list_detector_convolutions(detector, count_training_regions(detector.detection))
    maps = sorted((layer.outputs * layer.voxels for layer in layers), reverse=True)
    activations = WORKSPACE * value * (KEPT * sum(maps) + sum(maps[:GRADIENTS]))
    full = math.prod(detector.patch)
    images = accumulation * full * (FLOAT * detector.channels + LONG)
    loss = FLOAT * LOSS_MAPS * BOUNDARY_CLASSES * full
    each = activations + images + loss + _count_region_bytes(detector, count_training_regions(detector.detection), gradients=2)
    learned = count_detector_weights(detector) * FLOAT
    return int(batch * each + _count_pair_bytes(detector) + learned * (3 + MOMENTS[optimizer]))  # with gradients and the averaged copy


def estimate_detector_prediction(detector: Detector, volume_shape: tuple[float, ...]) -> int:
    """Peak bytes to predict a scan of `volume_shape` voxels in float32, about: tiles on their way (arrays/tiles.py), the weights, scan and

    label map.
    """
    regions = count_prediction_regions(detector.detection)
    layers = list_detector_convolutions(detector, Regions(regions.boxes, 0))
    masks = list_detector_convolutions(detector, Regions(0, regions.masks))
    dense = sum(layer.outputs * layer.voxels for layer in list_detector_convolutions(detector, Regions(0, 0)))
    heads = max(max(layer.outputs * layer.voxels for layer in part) for part in (layers, masks))
    patch = FLOAT * (dense + GRADIENTS * heads) + _count_region_bytes(detector, regions, gradients=1)
    tile = TILE_PATCHES[detector.dimension] * patch + _count_pair_bytes(detector)
    return int(tile + FLOAT * (count_detector_weights(detector) + math.prod(volume_shape) * (detector.channels + 2)))


def _count_region_bytes(detector: Detector, regions: Regions, gradients: int) -> int:
    """RoIAlign's table of all levels' maps, its places and weights per bin, and the crops, all in 32 bits; of one patch."""
    detection = detector.detection
    voxels = count_stage_voxels(detector.network, detector.patch)
    table = detection.pyramid_features * sum(voxels[stage] for stage in detection.levels)
    bins = regions.boxes * math.prod(detection.box_bins) + regions.masks * math.prod(detection.mask_bins)
    corners = (2 * SAMPLES[detector.dimension]) ** detector.dimension
    return FLOAT * gradients * (table + bins * detection.pyramid_features) + bins * corners * (LONG + FLOAT)


def _count_pair_bytes(detector: Detector) -> int:
    """Overlaps of proposals with each other and of anchors with objects, compared in parts; one image at a time."""
    detection = detector.detection
    voxels = count_stage_voxels(detector.network, detector.patch)
    anchors = sum(voxels[stage] * len(shapes) for stage, shapes in zip(detection.levels, detection.anchors))
    crowd = min(max(detection.proposals_per_level) * len(detection.levels), 2 * PAIRED)
    return FLOAT * 3 * anchors * OBJECTS + (3 * FLOAT + BOOL) * PAIRED * crowd
