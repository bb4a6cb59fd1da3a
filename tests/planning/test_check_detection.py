"""An instance plan that could not be trained is refused, field and value named; single values of one can be set."""

import msgspec
import pytest
from instances_for_tests import make_instances, spread_boxes
from planned_runs import put

from autoseg.errors import InputError
from autoseg.io.profiles import read_profile
from autoseg.planning.change import list_fields, list_values, parse_value, set_fields
from autoseg.planning.check import check_plan
from autoseg.planning.faults import format_value
from autoseg.planning.plan import Request, make_plan
from autoseg.records.base import decode, encode
from autoseg.records.machine import Machine
from autoseg.records.plan import Plan

CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=120e9, flops_source="measured")
SET = "configurations.instance_2d."


@pytest.fixture(scope="module")
def planned():
    """A data set of cells and its plan: levels 1, 2, 3 of a network of four stages."""
    data = make_instances([spread_boxes((128, 128), 30, (8, 45), (1.0, 1.0))] * 3, (128, 128), (1.0, 1.0))
    return data[0], make_plan(*data, read_profile("autoseg-cpu"), CPU, Request(minutes=10))


def break_it(plan, values, index=0):
    changed = list(plan.configurations)
    changed[index] = put(changed[index], values)
    return msgspec.structs.replace(plan, configurations=tuple(changed))


SHAPE = [8.0, 8.0]


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"detection.levels": []}, "detection.levels", ["none", "0 to 3"]),
        ({"detection.levels": [1, 2, 4]}, "detection.levels", ["0 to 3"]),
        ({"detection.levels": [2, 1, 3]}, "detection.levels", ["finest first"]),
        ({"detection.levels": [1, 3, 3]}, "detection.levels", ["each once"]),
        ({"detection.levels": [2, 3]}, "detection.anchors", ["each of the 2 levels"]),
        ({"detection.anchors": [[SHAPE], [SHAPE], [SHAPE, SHAPE]]}, "detection.anchors", ["8x8; 8x8; 8x8,8x8", "As many shapes"]),
        ({"detection.anchors": [[], [], []]}, "detection.anchors", ["As many shapes"]),
        ({"detection.anchors": [[SHAPE], [SHAPE], [[8.0, 8.0, 8.0]]]}, "detection.anchors", ["2 edges"]),
        ({"detection.anchors": [[SHAPE], [SHAPE], [[8.0, 0.0]]]}, "detection.anchors", ["above 0"]),
        ({"detection.box_bins": [7]}, "detection.box_bins", ["2 numbers"]),
        ({"detection.mask_bins": [14, 14, 14]}, "detection.mask_bins", ["14,14,14", "2 numbers"]),
        ({"detection.mask_bins": [14, 0]}, "detection.mask_bins", ["from 1 up"]),
        ({"detection.proposals": [0, 500]}, "detection.proposals", ["0,500", "from 1 up"]),
        ({"detection.proposals_per_level": [250, -1]}, "detection.proposals_per_level", ["from 1 up"]),
        ({"detection.detections": 0}, "detection.detections", ["from 1 up"]),
        ({"detection.pyramid_features": 0}, "detection.pyramid_features", ["from 1 up"]),
        ({"detection.mask_upsampling": 4}, "detection.mask_upsampling", ["0 to 3"]),
        ({"detection.proposal_nms": 1.5}, "detection.proposal_nms", ["0 to 1"]),
        ({"detection.anchor_negative": 0.6}, "detection.anchor_negative", ["0.6", "At most detection.anchor_positive, 0.5"]),
        ({"detection.box_positive": 0.4}, "detection.box_negative", ["0.5", "At most detection.box_positive, 0.4"]),
        ({"detection.mask_samples": 1000}, "detection.mask_samples", ["At most detection.box_samples"]),
        ({"thresholds.score": 1.1}, "thresholds.score", ["0 to 1"]),
        ({"thresholds.seed": float("nan")}, "thresholds.seed", ["0 to 1"]),
        ({"thresholds.smallest": -1.0}, "thresholds.smallest", ["-1", "voxels"]),
        ({"detection": None}, "detection", ["none", "needs detection"]),
        ({"thresholds": None}, "thresholds", ["none", "needs thresholds"]),
        ({"name": "boundary_2d", "network.kind": "residual_encoder"}, "detection", ["there", "has no detection"]),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_is_allowed(planned, values, field, words):
    dataset, plan = planned
    check_plan(plan, dataset)
    broken = break_it(plan, values)
    if "name" in values:
        broken = msgspec.structs.replace(broken, configurations=broken.configurations[:1], default_configuration="boundary_2d")
    with pytest.raises(InputError) as caught:
        check_plan(broken, dataset)
    error = caught.value
    assert error.what.startswith(f"The plan's configurations.{values.get('name', 'instance_2d')}.{field} cannot be ")
    assert [word for word in words if word not in f"{error.what} {error.why}"] == []


def test_instance_plans_are_for_instance_tasks(planned):
    dataset, plan = planned
    with pytest.raises(InputError, match="name cannot be instance_2d") as caught:
        check_plan(plan, msgspec.structs.replace(dataset, task="semantic"))
    assert "--task instance" in caught.value.todo


def test_class_weights_of_the_boundary_network_count_the_boundary(planned):
    dataset, plan = planned
    check_plan(break_it(plan, {"loss.class_weights": [1.0, 1.0, 2.0]}, index=1), dataset)
    with pytest.raises(InputError, match=r"boundary_2d\.loss\.class_weights"):
        check_plan(break_it(plan, {"loss.class_weights": [1.0, 1.0]}, index=1), dataset)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("detection.box_samples", "256", 256),
        ("detection.proposals", "300,600", (300, 600)),
        ("detection.proposal_nms", "0.8", 0.8),
        ("detection.mask_bins", "14x28", (14, 28)),
        ("detection.anchors", "8x8; 16x16; 32x40", (((8.0, 8.0),), ((16.0, 16.0),), ((32.0, 40.0),))),
        ("detection.anchors", "8x8,8x12; 16x16,6x6; 32x40,9x9", (((8, 8), (8, 12)), ((16, 16), (6, 6)), ((32, 40), (9, 9)))),
        ("thresholds.score", "0.7", 0.7),
        ("thresholds.by_mask", "true", True),
    ],
)
def test_plain_values_can_be_set_and_are_read_again(planned, field, text, value):
    dataset, plan = planned
    changed = set_fields(plan, {f"{SET}{field}": text}, dataset)
    configuration = changed.configurations[0]
    assert list_values(configuration)[field] == value
    assert configuration.user_set == (field,)
    before = format_value(list_values(plan.configurations[0])[field], field)
    assert f"set by the user (the planner had {before})" in configuration.reasons.values()
    assert decode(Plan, encode(changed), "plan.json") == changed
    assert set_fields(plan, {f"{SET}{field}": format_value(value, field)}, dataset) == changed


def test_memory_and_time_follow(planned):
    dataset, plan = planned
    before = plan.configurations[0]
    after = set_fields(plan, {f"{SET}detection.pyramid_features": "128"}, dataset).configurations[0]
    assert after.memory.training_bytes > 1.2 * before.memory.training_bytes
    assert after.seconds_per_step > 1.5 * before.seconds_per_step > 0


def test_the_planners_own_anchors_survive_being_set(planned):
    dataset, plan = planned
    anchors = plan.configurations[0].detection.anchors
    assert set_fields(plan, {f"{SET}detection.anchors": format_value(anchors)}, dataset) == plan
    assert parse_value("4x6.5; 8x8") == [[[4, 6.5]], [[8, 8]]]


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("detection.proposals", "300", "two whole numbers"),
        ("detection.anchors", "8,8", "shapes of every level"),
        ("detection.levels", "a", "whole numbers"),
        ("thresholds.by_mask", "yes", "true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_what_the_field_takes(planned, field, text, words):
    dataset, plan = planned
    with pytest.raises(InputError) as caught:
        set_fields(plan, {f"{SET}{field}": text}, dataset)
    assert words in caught.value.why


def test_every_field_says_what_it_takes(planned):
    assert all(field.expected for field in list_fields(planned[1]).values())
