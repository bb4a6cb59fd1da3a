"""Whole plans of instance tasks: two configurations that fit the machine, each decision with its reason."""

import math
from itertools import accumulate

import msgspec
import numpy as np
import pytest
from instances_for_tests import make_instances, spread_boxes

from autoseg.errors import InputError
from autoseg.io.profiles import read_profile
from autoseg.planning.check import check_plan
from autoseg.planning.instances import CHANGES
from autoseg.planning.needs import estimate_needs
from autoseg.planning.plan import Request, make_plan
from autoseg.records.base import decode, encode
from autoseg.records.machine import Machine
from autoseg.records.plan import AugmentationSpec, Plan, count_network_outputs

GPU = Machine(device="cuda", name="GPU", memory=16 * 10**9, cores=8)
CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=120e9, flops_source="measured")
COLOURS = ("red", "green", "blue")
THICK = (3.0, 1.0, 1.0)


def make_cells(shape=(256, 320), sides=(7, 50), spacing=(1.0, 1.0), count=40, cases=6, channels=COLOURS):
    return make_instances([spread_boxes(shape, count, sides, spacing)] * cases, shape, spacing, channels)


def plan(data, machine=CPU, **request):
    return make_plan(*data, read_profile("autoseg-cpu" if machine.device == "cpu" else "autoseg"), machine, Request(**request))


def take(made):
    """Mask R-CNN and the boundary network."""
    detector, boundary = made.configurations
    return detector, boundary


def test_images_and_volumes_get_mask_r_cnn_and_a_control():
    for data, dimension in ((make_cells(), 2), (make_cells((64, 128, 128), (12, 30), THICK, channels=("image",)), 3)):
        made = plan(data)
        detector, boundary = take(made)
        assert (detector.name, boundary.name) == (f"instance_{dimension}d", f"boundary_{dimension}d")
        assert made.default_configuration == detector.name
        assert (detector.product, boundary.product) == ("objects", "boundaries")
        assert detector.spacing == boundary.spacing
        assert detector.normalization == boundary.normalization
        assert detector.thresholds == boundary.thresholds is not None
        assert boundary.memory.training_bytes == estimate_needs(boundary, data[0], CPU).training_bytes
        assert (count_network_outputs(detector, data[0].classes), count_network_outputs(boundary, data[0].classes)) == (2, 3)
        assert detector.mirror_axes == boundary.mirror_axes == tuple(range(dimension))


def test_the_network_ends_where_the_heads_do_and_the_patch_fits_it():
    for machine in (CPU, GPU):
        detector, _ = take(plan(make_cells((64, 128, 128), (12, 30), THICK, channels=("image",)), machine))
        assert detector.detection.levels[-1] == len(detector.network.strides) - 1
        strides = list(accumulate(detector.network.strides, lambda a, b: tuple(x * y for x, y in zip(a, b))))
        assert all(edge % step == 0 for edge, step in zip(detector.patch_size, strides[-1]))
        assert detector.network.kernel_sizes[0] == (1, 3, 3)
        assert detector.detection.box_bins == (3, 7, 7)


@pytest.mark.parametrize("minutes", [1.5, 5, 30, 600])
def test_a_patch_shows_large_objects_whole_twice_if_time_allows(minutes):
    data = make_cells()
    detector, _ = take(plan(data, minutes=minutes))
    sizes = np.concatenate([spread_boxes((256, 320), 40, (7, 50), (1.0, 1.0))])
    needed = np.maximum(2 * np.percentile(sizes[:, 2:] - sizes[:, :2], 99, axis=0), 4 * np.median(sizes[:, 2:] - sizes[:, :2], axis=0))
    whole = (np.array(detector.patch_size) >= needed).all()
    steps = minutes * 60 / detector.seconds_per_step
    wanted = read_profile("autoseg-cpu").detection.steps
    assert steps >= wanted / 2
    assert whole == (minutes > 1.5)
    assert ("put together from tiles" in detector.reasons["patch_size"]) == (not whole)
    assert f"about {steps:.0f} steps" in detector.reasons["patch_size"]


def test_more_time_is_spent_on_larger_patches_and_batches():
    made = [take(plan(make_cells(), minutes=minutes))[0] for minutes in (1, 5, 12, 30, 90)]
    work = [configuration.batch_size * math.prod(configuration.patch_size) for configuration in made]
    assert work == sorted(work)
    assert work[-1] > 8 * work[0]
    assert made[-1].batch_size == read_profile("autoseg-cpu").detection.maximum_batch[0]


@pytest.mark.parametrize("gigabytes", [1, 2, 4, 8, 40])
def test_memory_is_kept_to_and_large_objects_cost_the_batch_first(gigabytes):
    data = make_cells((1000, 1000), (60, 120), count=60)
    machine = msgspec.structs.replace(GPU, memory=gigabytes * 10**9)
    made = plan(data, machine)
    detector, _ = take(made)
    assert detector.memory.training_bytes <= 0.95 * machine.memory
    assert detector.memory.training_bytes == estimate_needs(detector, data[0], machine).training_bytes
    assert detector.accumulation == (2 if detector.batch_size == 1 else 1)
    assert min(detector.patch_size) >= 200 or detector.batch_size == 1
    check_plan(made, data[0])


def test_no_memory_at_all_is_refused():
    with pytest.raises(InputError, match="--memory"):
        plan(make_cells(), msgspec.structs.replace(GPU, memory=10**7))


def test_small_cells_are_enlarged_where_a_patch_still_shows_large_ones():
    detector, boundary = take(plan(make_cells(sides=(6, 14)), GPU))
    assert detector.spacing == boundary.spacing == (0.5, 0.5)
    assert detector.median_shape == boundary.median_shape == (512.0, 640.0)
    assert "enlarged 2 times" in detector.reasons["zoom"]
    mixed = [np.concatenate([spread_boxes((512, 512), 90, (6, 10), (1.0, 1.0)), spread_boxes((512, 512), 4, (200, 240), (1.0, 1.0))])] * 4
    detector, _ = take(plan(make_instances(mixed, (512, 512), (1.0, 1.0)), minutes=10))
    assert detector.spacing == (1.0, 1.0)
    assert "would not show large ones whole" in detector.reasons["zoom"]


def test_a_spacing_given_is_kept():
    detector, boundary = take(plan(make_cells(sides=(6, 14)), GPU, spacing=(1.0, 1.0)))
    assert detector.spacing == boundary.spacing == (1.0, 1.0)
    assert detector.reasons["zoom"] == "none: the spacing was given"


def test_images_are_scaled_as_their_objects_vary_and_colours_more():
    varied, _ = take(plan(make_cells()))
    alike, _ = take(plan(make_cells(sides=(20, 24), channels=("grey",))))
    assert (varied.augmentation.scaling, alike.augmentation.scaling) == ((0.5, 2.0), (0.7, 1.4))
    assert varied.augmentation.brightness[1] > alike.augmentation.brightness[1]
    for configuration in (varied, alike):
        assert (configuration.augmentation.foreground_probability, configuration.augmentation.object_probability) == (0.5, 1.0)
        assert configuration.augmentation.elastic_probability > 0
    volume, _ = take(plan(make_cells((64, 128, 128), (12, 30), THICK, channels=("image",))))
    assert volume.augmentation.elastic_probability == 0


def test_colour_pictures_are_normalised_each_by_itself():
    detector, _ = take(plan(make_cells()))
    assert [channel.scheme for channel in detector.normalization] == ["zscore"] * 3
    assert detector.reasons["normalization"].startswith("red, green, blue: units differ")


@pytest.mark.parametrize("machine", [CPU, GPU], ids=lambda machine: machine.device)
def test_every_decision_has_a_reason_and_the_plan_is_sound_and_the_same_again(machine):
    data = make_cells((64, 128, 128), (12, 30), THICK, channels=("image",))
    made, again = plan(data, machine), plan(data, machine)
    assert encode(made) == encode(again)
    assert decode(Plan, encode(made), "plan.json") == made
    check_plan(made, data[0])
    detector, boundary = take(made)
    for configuration in (detector, boundary):
        assert {"spacing", "zoom", "patch_size", "batch_size", "augmentation", "thresholds", "nms", "smallest"} <= set(
            configuration.reasons
        )
        assert all(configuration.reasons.values())
    assert {"detection", "levels", "anchors", "proposals", "box_samples", "mask_bins", "detections"} <= set(detector.reasons)
    overlap = detector.reasons["anchors"].partition("%")[0].rpartition(" ")[2]
    assert 60 <= int(overlap) <= 100


@pytest.mark.parametrize(
    "data",
    [
        {"shape": (40, 40), "sides": (5, 9), "count": 3},
        {"shape": (30, 2000), "sides": (20, 29)},
        {"shape": (256, 256), "sides": (4, 200), "count": 300},
        {"shape": (3000, 3000), "sides": (500, 900)},
        {"shape": (7, 130, 129), "sides": (10, 40), "spacing": (6.0, 1.0, 1.0)},
        {"shape": (1, 200, 200), "sides": (10, 40), "spacing": (5.0, 1.0, 1.0)},
        {"shape": (200, 200, 200), "sides": (4, 150), "spacing": (0.7, 0.7, 0.7), "count": 9},
        {"shape": (2, 2), "sides": (1, 2), "count": 1},
    ],
    ids=str,
)
def test_odd_data_can_be_planned(data):
    described = make_cells(**{"spacing": (1.0, 1.0), **data}, channels=("image",))
    for machine in (CPU, GPU):
        check_plan(plan(described, machine), described[0])


def test_short_trainings_change_images_less_often():
    detector, boundary = take(plan(make_cells(), minutes=30))
    usual, _ = take(plan(make_cells(), GPU))
    for configuration in (detector, boundary):
        spec = configuration.augmentation
        assert spec.elastic_probability == pytest.approx(0.4 * 0.2)
        assert spec.brightness_probability == pytest.approx(0.4 * 0.3)
        assert (spec.foreground_probability, spec.object_probability) == (0.5, 1.0)
        assert spec.scaling == usual.augmentation.scaling
        assert "each change 0.4 times as often" in configuration.reasons["augmentation"]
    changes = [name for name in AugmentationSpec.__struct_fields__ if name.endswith("_probability")]
    kept = {"foreground_probability", "object_probability", "blur_channel_probability", "low_resolution_channel_probability"}
    assert {f"{change}_probability" for change in CHANGES} == set(changes) - kept
    assert "times as often" not in usual.reasons["augmentation"]
