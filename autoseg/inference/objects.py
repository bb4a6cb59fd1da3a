"""From a prepared image to objects: what the networks say is collected once, and settled into objects by thresholds, as often as wanted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoseg.arrays.boxes import drop_weaker, find_pairs, order_by_score, suppress_boxes
from autoseg.arrays.cropping import Box, crop
from autoseg.arrays.masks import FoundObject, count_common, list_edges, paste_mask
from autoseg.arrays.preparation import expand_spacing
from autoseg.arrays.resampling import make_probability_matrices
from autoseg.arrays.tiles import TILE_PATCHES, choose_overlap, choose_tile, compute_padding
from autoseg.errors import InputError
from autoseg.inference.clustering import Detections, cluster_detections
from autoseg.inference.detection import detect
from autoseg.inference.merging import Candidate, Tile, merge_tiles, place_tiles
from autoseg.inference.sliding_window import compute_probabilities, list_flips, pad_image, predict_logits
from autoseg.inference.watershed import separate_objects
from autoseg.networks.detector import BOUNDARY_CLASSES
from autoseg.networks.devices import Compute
from autoseg.networks.pyramid import list_strides
from autoseg.records.detection import Thresholds
from autoseg.records.plan import Configuration
from autoseg.records.prepared import Geometry

ACROSS_CLASSES = 0.7  # IoU of masks from which two objects of different classes are one


@dataclass(frozen=True)
class Members:
    """The networks of several folds that answer together, and how: mirrored too, if `mirror`."""

    networks: tuple[torch.nn.Module, ...]
    configuration: Configuration
    compute: Compute
    mirror: bool = False


@dataclass(frozen=True)
class RawDetections:
    """What Mask R-CNN says of each tile of an image, one set per tile; `offset` is the padding before the image, per axis.

    `boundary` are the probabilities (background, inside, boundary; …) of the image's voxels by its head of full resolution, float32.
    """

    tiles: list[Tile]
    offset: tuple[int, ...]
    detections: list[Detections]
    boundary: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.boundary.shape[1:]


@dataclass(frozen=True)
class RawProbabilities:
    """What a boundary network says of an image: (background, insides of classes, boundary; …), float32."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]


Raw = RawDetections | RawProbabilities


def find_objects(
    members: Members, image: np.ndarray, background: tuple[float, ...], thresholds: Thresholds, helpers: Sequence[Members] = ()
) -> list[FoundObject]:
    """The objects in a prepared image (channel, …) on its own voxels; what lies beyond its border is `background` per channel.

    `helpers` are boundary networks that see the same image: their probabilities and those of Mask R-CNN's own head are averaged.
    """
    raw = collect(members, image, background)
    if isinstance(raw, RawDetections) and helpers:
        raw = join_boundaries(raw, [_collect_probabilities(helper, image, background) for helper in helpers])
    return settle(raw, thresholds)


def join_boundaries(raw: RawDetections, others: Sequence[RawProbabilities]) -> RawDetections:
    """The boxes and masks of Mask R-CNN with the mean of all that is known of the image's voxels; every network counts alike."""
    parts = [np.stack([other.values[0], other.values[1:-1].sum(axis=0), other.values[-1]]) for other in others]
    return replace(raw, boundary=np.mean([raw.boundary, *parts], axis=0))


def collect(members: Members, image: np.ndarray, background: tuple[float, ...]) -> Raw:
    """All that the networks say of a prepared image (channel, …), whatever the thresholds."""
    product = members.configuration.product
    if product == "objects":
        return _collect_detections(members, image, background)
    if product == "boundaries":
        return _collect_probabilities(members, image, background)
    raise ValueError(f"a network whose product is {product} finds no objects")


def settle(raw: Raw, thresholds: Thresholds) -> list[FoundObject]:
    """The objects that the networks' answers are by these thresholds, on the prepared image's voxels."""
    if isinstance(raw, RawProbabilities):
        return separate_objects(raw.values, thresholds)
    covered = 1 - raw.boundary[0]
    candidates = [
        candidate
        for number, detections in enumerate(raw.detections)
        for candidate in _settle_tile(detections, _place_tile(raw, number), covered, thresholds)
    ]
    found = merge_tiles(candidates, raw.tiles, raw.shape)
    least = max(thresholds.smallest, 1)
    return _drop_across_classes([one for one in found if np.count_nonzero(one.select(thresholds.mask)) >= least], thresholds.mask)


def _collect_probabilities(members: Members, image: np.ndarray, background: tuple[float, ...]) -> RawProbabilities:
    total: Tensor | None = None
    for network in members.networks:
        logits = predict_logits(network, image, background, members.configuration, members.compute, members.mirror)
        answer = compute_probabilities(logits, regions=False)
        total = answer if total is None else total + answer
    assert total is not None  # there is at least one network
    return RawProbabilities((total / len(members.networks)).numpy())


def _collect_detections(members: Members, image: np.ndarray, background: tuple[float, ...]) -> RawDetections:
    """Tile by tile; what several networks and mirrored views say of one is joined at once."""
    configuration, shape = members.configuration, image.shape[1:]
    spec, patch = configuration.detection, configuration.patch_size
    assert spec is not None  # its product are objects
    if len(shape) != len(patch):
        raise InputError(f"{configuration.name} finds objects in {len(patch)}D images, this one is {len(shape)}D.")
    sides = [max(shapes) for shapes in zip(*(anchor for level in spec.anchors for anchor in level))]
    overlap = choose_overlap(patch, tuple(sides))
    edges = choose_tile(shape, patch, overlap, list_strides(configuration.network)[-1])
    padding = compute_padding(shape, edges)
    padded = torch.from_numpy(pad_image(image, padding, background))
    tiles = place_tiles(shape, edges, overlap)
    at_once = max(1, TILE_PATCHES[len(shape)] * math.prod(patch) // math.prod(edges))
    flips = list_flips(configuration.mirror_axes if members.mirror else ())
    offset = tuple(before for before, _ in padding)
    detections, boundary = [], np.zeros((BOUNDARY_CLASSES, *shape), dtype=np.float32)
    for first in range(0, len(tiles), at_once):
        group = tiles[first : first + at_once]
        places = [tuple(slice(low, low + edge) for (low, _), edge in zip(tile.box, edges)) for tile in group]
        batch = torch.stack([padded[(slice(None), *place)] for place in places])
        answers = [
            detect(network, batch, configuration, members.compute, flip)  # type: ignore[arg-type]  # a Detector, by its product
            for network in members.networks
            for flip in flips
        ]
        detections += [cluster_detections(list(views)) for views in zip(*(found for found, _ in answers))]
        for tile, own in zip(group, np.mean([parts for _, parts in answers], axis=0)):
            inner = tuple((a - low + o, b - low + o) for (a, b), (low, _), o in zip(tile.core, tile.box, offset))
            crop(boundary, tile.core)[...] = crop(own, inner)
    return RawDetections(tiles, offset, detections, boundary)


def _place_tile(raw: RawDetections, number: int) -> tuple[int, Tile, np.ndarray]:
    """The tile's number, the tile, and where its voxel 0 lies in the image (2D,)."""
    start = np.array([low - before for (low, _), before in zip(raw.tiles[number].box, raw.offset)], dtype=np.float32)
    return number, raw.tiles[number], np.concatenate([start, start])


def _settle_tile(
    detections: Detections, place: tuple[int, Tile, np.ndarray], covered: np.ndarray, thresholds: Thresholds
) -> list[Candidate]:
    """Those of a tile's detections that are strong enough and have no stronger double, as masks on the image's voxels.

    A mask's probability is the geometric mean of the mask head's and of `covered`, the image's foreground by the head of full resolution,
    which sees where the coarse mask ends. An object's score is its class's times the square of the mean probability over its mask: what
    the two heads doubt is seldom an object (the square, as that mean is of a root).
    """
    number, tile, start = place
    strong = detections.select(detections.scores >= thresholds.score)
    if not thresholds.by_mask:
        strong = strong.select(suppress_boxes(strong.boxes, strong.scores, strong.classes, thresholds.nms))
    candidates = []
    for index, frame in enumerate(strong.frames + start):
        box, probability = _paste_within(strong.masks[index], frame, tile)
        probability = np.sqrt(probability * crop(covered, box))
        mask = probability >= thresholds.mask
        score = float(strong.scores[index] * probability[mask].mean() ** 2) if mask.any() else 0.0
        if mask.any() and score >= thresholds.score:
            found = FoundObject(box, probability.astype(np.float16), score, int(strong.classes[index]))
            candidates.append(Candidate(found, found.select(thresholds.mask), strong.boxes[index] + start, number))
    return _suppress_masks(candidates, thresholds.nms) if thresholds.by_mask else candidates


def _paste_within(mask: np.ndarray, frame: np.ndarray, tile: Tile) -> tuple[Box, np.ndarray]:
    """The mask on the voxels of the image that its tile sees."""
    low = np.array([start for start, _ in tile.box], dtype=np.float32)
    shape = tuple(stop - start for start, stop in tile.box)
    box, probability = paste_mask(mask, frame - np.concatenate([low, low]), shape)
    return tuple((a + start, b + start) for (a, b), (start, _) in zip(box, tile.box)), probability


def _measure_overlaps(candidates: list[tuple[FoundObject, np.ndarray]], pairs: np.ndarray) -> np.ndarray:
    """IoU (P,) of the masks (bool, in the objects' boxes) of pairs (P, 2)."""
    voxels = [int(np.count_nonzero(mask)) for _, mask in candidates]
    overlaps = []
    for i, j in pairs.tolist():
        (a, mask_a), (b, mask_b) = candidates[i], candidates[j]
        common = count_common(mask_a, a.box, mask_b, b.box)
        overlaps.append(common / max(voxels[i] + voxels[j] - common, 1))
    return np.array(overlaps)


def _suppress_masks(candidates: list[Candidate], threshold: float) -> list[Candidate]:
    """Greedy NMS within each class by the IoU of masks."""
    edges = list_edges([candidate.found for candidate in candidates])
    classes = np.array([candidate.found.class_number for candidate in candidates])
    pairs = find_pairs(edges)
    pairs = pairs[classes[pairs[:, 0]] == classes[pairs[:, 1]]]
    overlaps = _measure_overlaps([(candidate.found, candidate.mask) for candidate in candidates], pairs)
    order = order_by_score(np.array([candidate.found.score for candidate in candidates]), edges)
    kept = drop_weaker(pairs[overlaps > threshold], order)
    return [candidate for candidate, stays in zip(candidates, kept) if stays]


def _drop_across_classes(found: list[FoundObject], threshold: float) -> list[FoundObject]:
    """The weaker of two objects of different classes goes where they are the same voxels: a label map has room for one of them."""
    classes = np.array([one.class_number for one in found])
    if len(np.unique(classes)) < 2:
        return found
    edges = list_edges(found)
    pairs = find_pairs(edges)
    pairs = pairs[classes[pairs[:, 0]] != classes[pairs[:, 1]]]
    overlaps = _measure_overlaps([(one, one.select(threshold)) for one in found], pairs)
    kept = drop_weaker(pairs[overlaps > ACROSS_CLASSES], order_by_score(np.array([one.score for one in found]), edges))
    return [one for one, stays in zip(found, kept) if stays]


def restore_objects(
    objects: list[FoundObject],
    geometry: Geometry,
    spacing: tuple[float, ...],
    axes: tuple[int, ...],
    configuration: Configuration,
    threshold: float,
) -> list[FoundObject]:
    """Objects of the prepared image on the canonical grid of the scan, as masks: each probability resampled linearly by itself, then taken

    from `threshold` on (a mask from one half on), crop and axes undone. `spacing` (mm) is the scan's own, transposed by `axes` like the
    geometry. What has no voxel left is gone.
    """
    cropped = tuple(high - low for low, high in geometry.box)
    matrices = make_probability_matrices(geometry.prepared_shape, cropped, spacing, expand_spacing(configuration, spacing))
    order = [int(axis) for axis in np.argsort(axes)]
    restored = []
    for found in objects:
        box, mask = _resample(found, matrices, threshold)
        if mask.any():
            moved = tuple((low + start, high + start) for (low, high), (start, _) in zip(box, geometry.box))
            back = tuple(moved[axis] for axis in order)
            restored.append(FoundObject(back, mask.transpose(order), found.score, found.class_number, found.merged))
    return restored


def _resample(found: FoundObject, matrices: list[np.ndarray], threshold: float) -> tuple[Box, np.ndarray]:
    """The mask of an object behind one matrix (new, old) per axis, and its box there."""
    if all(new == old for new, old in (matrix.shape for matrix in matrices)):
        return found.box, found.select(threshold)
    values, box = found.probability.astype(np.float32), []
    for axis, (matrix, (low, high)) in enumerate(zip(matrices, found.box)):
        part = matrix[:, low:high]
        reached = np.flatnonzero(part.any(axis=1))
        first, last = (int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 0)
        box.append((first, last))
        values = np.moveaxis(np.tensordot(part[first:last], values, axes=(1, axis)), 0, axis)
    return tuple(box), values >= (0.5 if found.probability.dtype == bool else threshold)
