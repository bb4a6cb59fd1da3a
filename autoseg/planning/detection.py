"""Mask R-CNN's numbers from the objects that were measured, each with its reason (numbers in brackets: shared/spec/instance.md)."""

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from autoseg.planning.anchors import AnchorChoice
from autoseg.planning.objects import FINE, Counts, Objects, compute_percentiles, count_per_tile, summarise_counts
from autoseg.records.detection import DetectionSpec, Thresholds
from autoseg.records.fingerprint import NMS_LEVELS
from autoseg.records.profile import DetectionProfile

SMALL, LARGE = 16.0, 192.0  # voxels: median sides below and above which the spacing is changed
ENLARGED = 2.0  # factor for small ones (usual for nuclei, where Cellpose brings cells to 30 pixels)
WANTED = 96.0  # voxels that large ones are brought to, by a power of two
COARSEST_FIRST = 8  # voxels: longest stride of the finest level
FEWEST_CELLS = 4.0  # strides per side of a small object on the finest level
MOST_CELLS = {2: 8.0, 3: 4.0}  # of a large one on the coarsest, by dimension: volumes are told apart by what lies around, so one level more
POSITIVE = {2: 0.5, 3: 0.35}  # IoU, by dimension: in 3D it falls with the cube of an error
NEGATIVE_ANCHOR = {2: 0.35, 3: 0.1}
NEGATIVE_BOX = {2: 0.5, 3: 0.1}
ANCHOR_SAMPLES = {2: 256, 3: 128}
MASK_SHARE = {2: 0.25, 3: 0.5}  # of the boxes trained that masks are trained for
FEWEST_SAMPLES = {2: 64, 3: 16}
PROPOSAL_NMS = 0.7
FEWEST_DETECTIONS = 250  # new images may be far denser than those that were measured
MOST_CANDIDATES = 4000
TRAINED, PREDICTED = (256, 1000), (500, 2000)  # proposals after NMS, fewest and most
BOX_EDGE, MASK_EDGE = 7, 14  # bins along the finest axes
FEWEST_BINS = (3, 4)  # of the box head and of the mask head along a coarse axis
COARSE_MASK, FINE_MASK = 20.0, 100.0  # sides below which a mask of 14 does, and above which it has 56 voxels
LOST = 0.01  # share of true objects that NMS may cost
THIN = 0.5  # lower quartile of the fill below which boxes say little of overlaps
SMALLEST = 0.1  # percentile of the sizes below which an object found is none


@dataclass(frozen=True)
class Crowd:
    """Objects per image and, in its densest place, per tile."""

    image: Counts
    tile: Counts


def choose_zoom(objects: Objects) -> tuple[float, str]:
    """The factor by which images are enlarged before the network sees them, and why (6.4.2)."""
    side = float(np.median(objects.fine_sides))
    sides = f"half of the objects are smaller than {side:.3g} voxels"
    if side < SMALL:
        return (
            ENLARGED,
            f"enlarged {ENLARGED:g} times, as {sides} and small ones are missed; at {ENLARGED:g} times the cost per axis",
        )
    if side > LARGE:
        factor = 2.0 ** round(math.log2(WANTED / side))
        return factor, f"made {1 / factor:g} times smaller, as {sides} and a network sees large ones whole only then"
    return 1.0, f"none: {sides}, which a network sees well"


def zoom_spacing(spacing: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Divided by the factor along the fine axes.

    >>> zoom_spacing((3.0, 1.0, 1.0), 2.0)
    (3.0, 0.5, 0.5)
    """
    finest = min(spacing)
    return tuple(step / factor if step < FINE * finest else step for step in spacing)


def list_strides(strides: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Voxels of the patch per voxel of every stage's map, per axis."""
    return list(accumulate(strides, lambda whole, step: tuple(a * b for a, b in zip(whole, step))))


def choose_levels(objects: Objects, strides: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The stages whose maps carry the heads, finest first (6.4.4); `strides` are those of all stages there could be.

    The finest still gives a small object several cells, the coarsest is that whose anchors reach the large ones; the full resolution is
    left to the head of boundaries.
    """
    steps = list_strides(strides)
    sides = [math.prod(step) ** (1 / len(step)) for step in steps]
    sizes, last = compute_percentiles(objects.sides), len(steps) - 1
    small, large = float(sizes[5.0]), float(sizes[99.5])
    able = [stage for stage in range(1, last + 1) if max(steps[stage]) <= COARSEST_FIRST and small / sides[stage] >= FEWEST_CELLS]
    first = max(able, default=min(1, last))
    reaching = [stage for stage in range(first + 1, last + 1) if large / sides[stage] <= MOST_CELLS[len(steps[0])]]
    return tuple(range(first, min(reaching, default=last) + 1))


def choose_bins(spacing: tuple[float, ...], edge: int, fewest: int) -> tuple[int, ...]:
    """RoIAlign's bins per axis: fewer along axes of coarser spacing.

    >>> choose_bins((3.0, 1.0, 1.0), 14, 4)
    (5, 14, 14)
    """
    finest = min(spacing)
    return tuple(max(fewest, round(edge * finest / step)) for step in spacing)


def make_detection(
    objects: Objects, patch: tuple[int, ...], levels: tuple[int, ...], anchors: AnchorChoice, profile: DetectionProfile
) -> tuple[DetectionSpec, Crowd]:
    """All numbers but those that the encoder has, for a patch in voxels (6.4.5 to 6.4.10)."""
    dimension = len(patch)
    which = dimension - 2
    crowd = Crowd(summarise_counts(objects.per_case), count_per_tile(objects, patch))
    dense, most = crowd.tile.p95, crowd.tile.p99
    candidates = _limit(profile.candidates * most, profile.fewest_candidates, MOST_CANDIDATES)
    boxes = _limit(4 * dense, FEWEST_SAMPLES[dimension], profile.box_samples[which])
    spec = DetectionSpec(
        levels=levels,
        pyramid_features=profile.pyramid_features[which],
        anchors=anchors.shapes,
        anchor_positive=POSITIVE[dimension],
        anchor_negative=NEGATIVE_ANCHOR[dimension],
        anchor_samples=max(ANCHOR_SAMPLES[dimension], math.ceil(2 * dense)),
        proposals_per_level=(candidates, candidates),
        proposals=(_limit(4 * most, *TRAINED), _limit(4 * most, *PREDICTED)),
        proposal_nms=PROPOSAL_NMS,
        box_positive=POSITIVE[dimension],
        box_negative=NEGATIVE_BOX[dimension],
        box_samples=boxes,
        box_bins=choose_bins(objects.spacing, BOX_EDGE, FEWEST_BINS[0]),
        box_features=profile.box_features[which],
        mask_samples=math.ceil(boxes * MASK_SHARE[dimension]),
        mask_bins=choose_bins(objects.spacing, MASK_EDGE, FEWEST_BINS[1]),
        mask_features=profile.mask_features[which],
        mask_convolutions=profile.mask_convolutions[which],
        mask_upsampling=_choose_upsampling(objects),
        detections=max(FEWEST_DETECTIONS, 2 * crowd.tile.largest),
    )
    return spec, crowd


def _limit(value: float, fewest: int, most: int) -> int:
    return min(max(math.ceil(value), fewest), most)


def _choose_upsampling(objects: Objects) -> int:
    """0, 1 or 2 doublings of the mask's 14 voxels, for what three quarters of the objects are not larger than (6.4.9)."""
    side = float(compute_percentiles(objects.fine_sides)[75.0])
    return int(side >= COARSE_MASK) + int(side > FINE_MASK)


def choose_thresholds(objects: Objects) -> Thresholds:
    """To begin with, until they are chosen on validation images (6.4.10, 6.9)."""
    level = next((level for level, lost in zip(NMS_LEVELS, objects.lost_to_nms) if lost < LOST), None)
    thin = float(compute_percentiles(objects.fill)[25.0]) < THIN
    return Thresholds(
        nms=0.5 if level is None else level,
        by_mask=level is None or thin,
        smallest=math.floor(float(np.percentile(objects.voxels, SMALLEST))),
    )


def explain_objects(objects: Objects) -> str:
    """What there is, in one line."""
    sizes = compute_percentiles(objects.sides)
    return (
        f"{len(objects.boxes)} objects of {sizes[50.0]:.3g} voxels in the median ({sizes[5.0]:.3g} … {sizes[95.0]:.3g} for nine in ten), "
        f"{objects.touching:.0%} touch another"
    )


def explain_detection(detection: DetectionSpec, objects: Objects, anchors: AnchorChoice, crowd: Crowd) -> dict[str, str]:
    """The reasons by field."""
    sizes, tile = compute_percentiles(objects.sides), crowd.tile
    borrowed = sum(not own for own in anchors.own)
    more = f"; {borrowed} level{'s' if borrowed > 1 else ''} with few objects take their neighbour's, doubled" if borrowed else ""
    densest = f"the densest place of an image holds {tile.median:g} objects in the median and {tile.largest} at most"
    mask, fine = MASK_EDGE * 2**detection.mask_upsampling, float(compute_percentiles(objects.fine_sides)[75.0])
    return {
        "detection": explain_objects(objects),
        "levels": f"the finest gives objects of {sizes[5.0]:.3g} voxels (one in twenty is smaller) several cells, the coarsest has anchors "
        f"for {sizes[99.5]:.3g}",
        "anchors": f"by k-means of the objects' sizes: {anchors.overlap:.0%} mean best overlap, {anchors.below_half:.1%} of the objects "
        f"below 50 % and {anchors.below_third:.1%} below 35 %{more}",
        "anchor_positive": "an anchor of this overlap is told to be an object"
        + ("" if len(objects.spacing) == 2 else "; in 3D overlaps fall with the cube of an error"),
        "anchor_samples": "half of them positive where there are enough",
        "proposals_per_level": f"{densest}; before NMS, in training and in prediction",
        "proposals": "after NMS; no limit holds for a whole image",
        "box_samples": f"four per object of a crowded tile ({tile.p95:g}), within what the profile allows",
        "mask_samples": f"{MASK_SHARE[len(objects.spacing)]:.0%} of them, as masks cost most",
        "mask_bins": f"a mask of {mask} voxels along fine axes, as a quarter of the objects is larger than {fine:.3g}",
        "mask_upsampling": "doublings of the mask behind its bins",
        "detections": f"twice what the densest place of any image holds ({tile.largest}); {crowd.image.largest} in an image at most",
    }


def explain_thresholds(thresholds: Thresholds, objects: Objects) -> dict[str, str]:
    """The reasons by field, of either kind of network."""
    lost = ", ".join(f"{share:.1%} at {level:g}" for level, share in zip(NMS_LEVELS, objects.lost_to_nms))
    thin = float(compute_percentiles(objects.fill)[25.0])
    return {
        "thresholds": "to begin with: they are chosen anew on validation images",
        "nms": f"true objects that suppression by boxes would cost: {lost}",
        "by_mask": f"a quarter of the objects fills less than {thin:.0%} of its box"
        + (", and boxes alone would delete too many" if thresholds.by_mask else ", so boxes tell enough"),
        "smallest": "one object in a thousand is smaller; in voxels at this spacing",
    }
