"""The rules that turn measured objects into Mask R-CNN's numbers, one by one."""

import numpy as np
import pytest
from instances_for_tests import make_instances, spread_boxes, with_objects

from autoseg.planning.anchors import choose_anchors
from autoseg.planning.detection import (
    choose_bins,
    choose_levels,
    choose_thresholds,
    choose_zoom,
    list_strides,
    make_detection,
    zoom_spacing,
)
from autoseg.planning.objects import pool_objects
from autoseg.records.profile import DetectionProfile

WIDE = DetectionProfile()
HALVED = ((1, 1), *((2, 2),) * 6)
THICK = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def pool(sides, shape=(256, 256), spacing=(1.0, 1.0), count=50, cases=4, fill=0.75, **changes):
    """Objects of `sides` (shortest, longest, in mm), and those of a fingerprint so changed."""
    _, fingerprint = make_instances([spread_boxes(shape, count, sides, spacing)] * cases, shape, spacing, fill=fill)
    return pool_objects(with_objects(fingerprint, **changes), tuple(range(len(shape))), spacing)


@pytest.mark.parametrize(("sides", "factor"), [((8, 12), 2.0), ((17, 20), 1.0), ((100, 150), 1.0), ((250, 255), 0.5), ((700, 720), 0.125)])
def test_small_objects_are_enlarged_and_large_ones_made_smaller(sides, factor):
    found, reason = choose_zoom(pool(sides, shape=(2000, 2000)))
    assert found == factor
    assert reason.startswith({1.0: "none", 2.0: "enlarged 2 times"}.get(factor, f"made {1 / factor:g} times smaller"))


def test_coarse_axes_neither_ask_for_a_zoom_nor_take_part_in_it():
    objects = pool((18, 22), (40, 128, 128), (6.0, 1.0, 1.0))
    assert np.median(objects.sides) < 16
    assert choose_zoom(objects)[0] == 1.0
    assert zoom_spacing((6.0, 1.0, 1.0), 2.0) == (6.0, 0.5, 0.5)
    assert zoom_spacing((1.9, 1.0, 1.0), 2.0) == (0.95, 0.5, 0.5)


def test_strides_are_products():
    assert list_strides(THICK) == [(1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16)]


@pytest.mark.parametrize(
    ("sides", "strides", "levels"),
    [
        ((9, 50), HALVED, (1, 2, 3)),  # 8 is four cells at stride 2, 64 eight at stride 8
        ((8, 100), HALVED, (1, 2, 3, 4)),
        ((20, 50), HALVED, (2, 3)),
        ((4, 12), HALVED, (1, 2)),  # never the full resolution, and never one level alone
        ((150, 190), HALVED, (3, 4, 5)),  # the finest has a stride of 8 at most
        ((8, 60), HALVED[:2], (1,)),
        ((8, 60), HALVED[:1], (0,)),
    ],
)
def test_levels_reach_from_small_to_large_objects(sides, strides, levels):
    assert choose_levels(pool(sides, shape=(1000, 1000)), strides) == levels


def test_levels_of_volumes_go_one_deeper():
    objects = pool((12, 30), (64, 128, 128), (3.0, 1.0, 1.0))
    assert choose_levels(objects, THICK) == (1, 2, 3)


def test_bins_follow_the_spacing():
    assert choose_bins((1.0, 1.0), 7, 3) == (7, 7)
    assert choose_bins((2.0, 1.0, 1.0), 14, 4) == (7, 14, 14)
    assert choose_bins((10.0, 1.0, 1.0), 7, 3) == (3, 7, 7)


def make(objects, tile, profile=WIDE):
    levels = (1, 2, 3)
    anchors = choose_anchors(objects.sizes, list_strides(((1,) * len(tile), *((2,) * len(tile),) * 3))[1:])
    return make_detection(objects, tile, levels, anchors, profile)[0]


def test_no_limit_is_below_what_a_crowded_tile_holds():
    crowded = pool((10, 20), (256, 256), count=700)
    detection = make(crowded, (256, 256))
    assert detection.detections == 1400
    assert detection.proposals == (1000, 2000)
    assert detection.proposals_per_level == (4000, 4000)
    assert detection.anchor_samples == 1400
    assert detection.box_samples == 512
    small = make(crowded, (32, 32))  # counts are those of a tile, not of an image
    assert small.detections == 250
    assert small.proposals_per_level == (1000, 1000)


def test_few_objects_still_leave_room():
    detection = make(pool((10, 20), count=2), (256, 256))
    assert (detection.detections, detection.proposals, detection.anchor_samples) == (250, (256, 500), 256)
    assert (detection.box_samples, detection.mask_samples) == (64, 16)


def test_the_profile_limits_what_costs_time():
    slim = DetectionProfile(candidates=2, fewest_candidates=250, box_samples=(128, 32), pyramid_features=(64, 32), mask_features=(48, 24))
    detection = make(pool((10, 20), count=200), (256, 256), slim)
    assert (detection.proposals_per_level, detection.box_samples, detection.mask_samples) == ((400, 400), 128, 32)
    assert (detection.pyramid_features, detection.mask_features) == (64, 48)


def test_overlaps_asked_for_are_lower_in_volumes():
    image, volume = make(pool((10, 20)), (64, 64)), make(pool((10, 20), (64, 64, 64), (1.0,) * 3), (32, 32, 32))
    assert (image.anchor_positive, image.anchor_negative, image.box_positive, image.box_negative) == (0.5, 0.35, 0.5, 0.5)
    assert (volume.anchor_positive, volume.anchor_negative, volume.box_positive, volume.box_negative) == (0.35, 0.1, 0.35, 0.1)
    assert volume.mask_samples == volume.box_samples / 2


@pytest.mark.parametrize(("sides", "doublings"), [((10, 16), 0), ((30, 60), 1), ((120, 180), 2)])
def test_masks_are_finer_for_larger_objects(sides, doublings):
    assert make(pool(sides, shape=(600, 600)), (256, 256)).mask_upsampling == doublings


@pytest.mark.parametrize(
    ("lost", "nms", "by_mask"),
    [((0, 0, 0, 0, 0), 0.3, False), ((9, 3, 1, 0, 0), 0.5, False), ((2, 1, 0, 0, 0), 0.4, False), ((9, 9, 9, 9, 9), 0.5, True)],
)
def test_nms_costs_less_than_a_hundredth_of_the_true_objects(lost, nms, by_mask):
    thresholds = choose_thresholds(pool((10, 20), count=150, lost_to_nms=lost))
    assert (thresholds.nms, thresholds.by_mask) == (nms, by_mask)


def test_thin_objects_are_told_apart_by_their_masks():
    assert choose_thresholds(pool((10, 20), fill=0.4)).by_mask
    assert not choose_thresholds(pool((10, 20), fill=0.6)).by_mask


def test_the_smallest_object_is_one_that_hardly_any_true_one_is_below():
    objects = pool((10, 40), count=2000)
    smallest = choose_thresholds(objects).smallest
    assert 0 < (objects.voxels < smallest).mean() < 0.002
    assert smallest > 0.9 * objects.voxels.min()
