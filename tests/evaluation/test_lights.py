"""The traffic light: limits are kept to the digit, and what cannot be measured has no light."""

import pytest
from made_up_scores import make_scores

from autoseg.evaluation.lights import LIMITS, choose_colour, judge_purposes, light_classes
from autoseg.records.verdict import Limit

DICE, HAUSDORFF = LIMITS[0], LIMITS[4]


@pytest.mark.parametrize(
    ("value", "limit", "colour"),
    [
        (0.85, DICE, "green"),
        (0.8499, DICE, "amber"),
        (0.75, DICE, "amber"),
        (0.7499, DICE, "red"),
        (5.0, HAUSDORFF, "green"),
        (5.01, HAUSDORFF, "amber"),
        (10.0, HAUSDORFF, "amber"),
        (10.01, HAUSDORFF, "red"),
        (None, DICE, "n/a"),
    ],
)
def test_a_limit_belongs_to_the_better_colour(value, limit, colour):
    assert choose_colour(value, limit) == colour


def test_the_limits_are_those_of_the_guide():
    assert [(one.metric, one.green, one.amber) for one in LIMITS] == [
        ("dice", 0.85, 0.75),
        ("iou", 0.80, 0.70),
        ("sensitivity", 0.95, 0.90),
        ("specificity", 0.90, 0.85),
        ("hausdorff", 5.0, 10.0),
    ]


def test_the_light_is_the_means_and_cases_are_counted_by_their_own_colour():
    scores = make_scores(liver=[{"dice": 0.9}, {"dice": 0.8}, {"dice": 0.5}, {"dice": None}])
    light = light_classes(scores, (DICE,))[0]
    assert light.value == pytest.approx(2.2 / 3)
    assert (light.colour, light.green, light.amber, light.red, light.undefined) == ("red", 1, 1, 1, 1)


def test_other_limits_give_other_lights():
    scores = make_scores(liver=[{"dice": 0.6}])
    assert light_classes(scores, (Limit(metric="dice", green=0.6, amber=0.5),))[0].colour == "green"


def test_a_missed_case_is_red_and_keeps_the_mean_from_being_green():
    scores = make_scores(liver=[{"hausdorff_mm": 1.0}, {"hausdorff_mm": None, "voxels_predicted": 0}])
    light = light_classes(scores, (HAUSDORFF,))[0]
    assert (light.colour, light.value, light.green, light.red, light.missed, light.undefined) == ("amber", 1.0, 1, 1, 1, 0)
    alone = light_classes(make_scores(liver=[{"hausdorff_mm": None, "voxels_predicted": 0}]), (HAUSDORFF,))[0]
    assert (alone.colour, alone.value, alone.red) == ("red", None, 1)


def test_a_case_without_the_class_on_either_side_is_undefined_and_not_missed():
    scores = make_scores(liver=[{"hausdorff_mm": 1.0}, {"hausdorff_mm": None, "voxels_predicted": 0, "voxels_reference": 0}])
    light = light_classes(scores, (HAUSDORFF,))[0]
    assert (light.colour, light.missed, light.undefined) == ("green", 0, 1)


def test_distances_in_pixels_have_no_light():
    scores = make_scores("px", liver=[{"hausdorff_mm": 1.0}])
    assert light_classes(scores, (HAUSDORFF,))[0].colour == "n/a"
    assert {one.purpose: one.met for one in judge_purposes(scores)}["surgical planning"] is None


def test_purposes_demand_more_than_their_limits():
    scores = make_scores(
        liver=[{"dice": 0.86, "hausdorff_mm": 4.9, "iou": 0.75, "sensitivity": 0.951}],
        lung=[{"dice": 0.85, "hausdorff_mm": 4.9, "iou": 0.76, "sensitivity": 0.95}],
    )
    met = {(one.class_name, one.purpose): one.met for one in judge_purposes(scores)}
    assert met == {
        ("liver", "surgical planning"): True,
        ("liver", "volume"): False,
        ("liver", "lesion detection"): True,
        ("lung", "surgical planning"): False,
        ("lung", "volume"): True,
        ("lung", "lesion detection"): False,
    }


def test_a_missed_case_is_not_good_enough_for_planning():
    scores = make_scores(liver=[{"dice": 0.99, "hausdorff_mm": 1.0}] * 20 + [{"dice": 0.0, "hausdorff_mm": None, "voxels_predicted": 0}])
    assert {one.purpose: one.met for one in judge_purposes(scores)}["surgical planning"] is False
