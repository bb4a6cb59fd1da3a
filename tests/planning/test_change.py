"""Values that a user sets: read as people write them, marked as theirs, and what follows from them is brought up to date."""

import msgspec
import pytest
from builders import make_configuration, make_detection_spec
from planned_runs import GPU, make_dataset, make_plan, put

from autoseg.errors import InputError
from autoseg.planning.change import find_reason_key, list_changed, list_fields, list_values, parse_value, set_fields
from autoseg.planning.cost import count_operations
from autoseg.planning.faults import format_value
from autoseg.planning.memory import Workload, estimate_prediction_bytes, estimate_training
from autoseg.records.base import decode, encode
from autoseg.records.detection import Thresholds
from autoseg.records.plan import RESNET50, MemoryEstimate, Plan

FULL = "configurations.3d_fullres."


def change(values, plan=None, dataset=None):
    """The 3d_fullres configuration after values were set in it."""
    settings = {f"{FULL}{name}": text for name, text in values.items()}
    changed = set_fields(plan or make_plan(), settings, dataset or make_dataset())
    return next(configuration for configuration in changed.configurations if configuration.name == "3d_fullres")


def refuse(settings, plan=None):
    with pytest.raises(InputError) as caught:
        set_fields(plan or make_plan(), settings, make_dataset())
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("4x128x128", [4, 128, 128]),
        ("4,128,128", [4, 128, 128]),
        ("4, 128, 128", [4, 128, 128]),
        ("[4, 128, 128]", [4, 128, 128]),
        ("3x0.8x0.8", [3, 0.8, 0.8]),
        ("0.7,1.4", [0.7, 1.4]),
        ("1x1,2x2", [[1, 1], [2, 2]]),
        ("[[1, 1], [2, 2]]", [[1, 1], [2, 2]]),
        ("adamw", "adamw"),
        ("residual_encoder", "residual_encoder"),
        ('"adamw"', "adamw"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1,nan", "1,nan"),
        ("4x", "4x"),
    ],
)
def test_values_are_read_as_people_write_them(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("batch_size", "4", 4),
        ("patch_size", "4x6x8", (4, 6, 8)),
        ("patch_size", "4,6,8", (4, 6, 8)),
        ("accumulation", "2", 2),
        ("mirror_axes", "0", (0,)),
        ("mirror_axes", "none", ()),
        ("mirror_axes", "", ()),
        ("mirror_axes", "[]", ()),
        ("batch_dice", "false", False),
        ("network.features", "8,16", (8, 16)),
        ("network.strides", "1x1x1,1x2x2", ((1, 1, 1), (1, 2, 2))),
        ("network.kernel_sizes", "1x3x3,3x3x3", ((1, 3, 3), (3, 3, 3))),
        ("optimizer.name", "sgd", "sgd"),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "1e-4", 1e-4),
        ("schedule.epochs", "500", 500),
        ("augmentation.rotation_probability", "0.5", 0.5),
        ("augmentation.rotation", "15,0", (15.0, 0.0)),
        ("loss.dice_weight", "0.5", 0.5),
        ("loss.deep_supervision", "false", False),
        ("loss.name", "tversky", "tversky"),
        ("loss.class_weights", "0.5,2,4", (0.5, 2.0, 4.0)),
        ("network.dropout", "0.1", 0.1),
        ("network.activation", "prelu", "prelu"),
        ("normalization.0.scheme", "zscore", "zscore"),
    ],
)
def test_a_value_is_set_noted_and_has_the_planners_in_its_reason(name, text, value):
    before = make_configuration(3)
    after = change({name: text}, make_plan(put(before, {"reasons": {name: "the planner's"}})))
    assert list_values(after)[name] == value
    assert list_changed(before, after) == [name]
    assert after.user_set == (name,)
    was = format_value(list_values(before)[name], name)
    assert after.reasons == {name: f"set by the user (the planner had {was})"}


def test_every_field_can_be_set_to_what_it_is_and_nothing_changes():
    low = make_configuration(3, name="3d_lowres")
    plan = make_plan(make_configuration(3), make_configuration(2), low, make_configuration(3, name="3d_cascade", previous="3d_lowres"))
    fields = list_fields(plan)
    values = {}
    for c in plan.configurations:
        values |= {f"configurations.{c.name}.{name}": format_value(value, name) for name, value in list_values(c).items()}
    values["default_configuration"] = plan.default_configuration
    assert len(fields) > 4 * 45
    assert set(fields) < set(values)
    assert set_fields(plan, {name: values[name] for name in fields}, make_dataset()) == plan


def test_the_plan_given_stays_as_it_is_and_the_new_one_can_be_saved():
    plan = make_plan()
    before = encode(plan)
    changed = set_fields(plan, {f"{FULL}batch_size": "3", "configurations.2d.batch_size": "5"}, make_dataset())
    assert encode(plan) == before
    assert [configuration.batch_size for configuration in changed.configurations] == [3, 5]
    assert decode(Plan, encode(changed), "plan.json") == changed


def test_a_field_set_twice_still_tells_what_the_planner_had():
    plan = make_plan()
    for text in ("3", "5"):
        plan = set_fields(plan, {f"{FULL}batch_size": text}, make_dataset())
    (configuration, _) = plan.configurations
    assert configuration.batch_size == 5
    assert configuration.user_set == ("batch_size",)
    assert configuration.reasons["batch_size"] == "set by the user (the planner had 2)"


def test_the_reason_replaced_is_the_one_that_speaks_of_the_field():
    plan = make_plan(make_configuration(3, reasons={"features": "widths", "network": "stages", "schedule": "long", "name": "x"}))
    after = change({"network.features": "8,16", "schedule.epochs": "9", "optimizer.name": "sgd"}, plan)
    assert after.reasons["features"] == "set by the user (the planner had 4,8)"
    assert (after.reasons["network"], after.reasons["schedule"]) == ("stages", "long")
    assert after.reasons["schedule.epochs"] == "set by the user (the planner had 1)"
    assert after.reasons["optimizer.name"] == "set by the user (the planner had adamw)"
    assert find_reason_key(plan.configurations[0], "network.features") == "features"
    assert find_reason_key(plan.configurations[0], "optimizer.name") == "optimizer.name"


def test_several_fields_are_checked_together():
    values = {
        "network.strides": "1x1x1,2x2x2,1x2x2",
        "network.kernel_sizes": "3x3x3,3x3x3,3x3x3",
        "network.features": "4,8,16",
        "network.convolutions": "1,1,1",
        "network.decoder_convolutions": "1,1",
    }
    assert change(values).network.features == (4, 8, 16)
    for name in values:
        error = refuse({f"{FULL}{other}": text for other, text in values.items() if other != name})
        assert "network" in error.what


def test_another_kind_of_network_empties_the_field_of_the_former():
    after = change({"network.kind": "residual_encoder", "network.blocks": "1,2"})
    assert (after.network.blocks, after.network.convolutions) == ((1, 2), ())
    assert set(after.user_set) == {"network.kind", "network.blocks", "network.convolutions"}
    assert "network.blocks cannot be none" in refuse({f"{FULL}network.kind": "residual_encoder"}).what


def test_memory_follows():
    estimate = MemoryEstimate(training_bytes=1, prediction_bytes=1, prepared_bytes=1000)
    plan = make_plan(make_configuration(3, memory=estimate), make_configuration(2, memory=estimate))
    after = change({"patch_size": "16x16x16", "batch_size": "3", "network.features": "8,8", "optimizer.name": "sgd"}, plan)
    network = after.network
    work = Workload(network, (16, 16, 16), 3, 1, 3, "sgd", "bf16", "cuda")
    assert after.memory.training_bytes == estimate_training(work).total
    assert after.memory.prediction_bytes == estimate_prediction_bytes(network, (16, 16, 16), (12, 12, 12), 1, 3)
    assert after.memory.prepared_bytes == 1000
    changed = set_fields(plan, {f"{FULL}batch_size": "3"}, make_dataset())
    assert changed.configurations[1] == plan.configurations[1]


def test_the_median_shape_and_the_prepared_bytes_follow_the_spacing():
    estimate = MemoryEstimate(training_bytes=1, prediction_bytes=1, prepared_bytes=1000)
    plan = make_plan(make_configuration(3, memory=estimate, median_shape=(12.0, 13.0, 40.5)))
    after = change({"spacing": "2x1x1"}, plan)
    assert after.median_shape == (6.0, 13.0, 40.0)  # 40.5 is rounded to even
    assert after.memory.prepared_bytes == round(1000 * 0.5 * 40 / 40.5)
    assert after.user_set == ("spacing",)
    assert change({"spacing": "100,100,100"}, plan).median_shape == (1.0, 1.0, 1.0)


def test_the_time_of_a_step_follows_in_proportion_to_its_operations():
    before = make_configuration(3, seconds_per_step=0.5)
    after = change({"batch_size": "3", "accumulation": "2", "network.features": "8,8"}, make_plan(before))
    ratio = 6 * count_operations(after.network, (8, 8, 8), 1, 3) / (2 * count_operations(before.network, (8, 8, 8), 1, 3))
    assert after.seconds_per_step == pytest.approx(0.5 * ratio)
    assert change({"optimizer.learning_rate": "0.1"}, make_plan(before)).seconds_per_step == 0.5
    assert change({"batch_size": "3"}).seconds_per_step == 0


def test_what_a_hand_has_broken_can_be_set_right():
    broken = put(make_configuration(3, seconds_per_step=0.5), {"patch_size": [8, 8, 9], "network.features": [4, 8, 16]})
    after = change({"patch_size": "8x8x8", "network.features": "4,8"}, make_plan(broken))
    assert after.patch_size == (8, 8, 8)
    assert after.seconds_per_step == 0


def test_the_default_can_be_set():
    changed = set_fields(make_plan(), {"default_configuration": "2d"}, make_dataset())
    assert changed.default_configuration == "2d"
    assert changed.default_reason == "set by the user (the planner had 3d_fullres)"
    assert changed.configurations == make_plan().configurations
    error = refuse({"default_configuration": "3d_lowres"})
    assert "default_configuration cannot be 3d_lowres" in error.what
    assert "3d_fullres, 2d" in error.why


@pytest.mark.parametrize(
    ("name", "near"),
    [
        (f"{FULL}batchsize", f"{FULL}batch_size"),
        ("configurations.2d.patch", "configurations.2d.patch_size"),
        ("batch_size", f"{FULL}batch_size"),
        ("network.features", f"{FULL}network.features"),
        ("learning_rate", f"{FULL}optimizer.learning_rate"),
        ("epochs", f"{FULL}schedule.epochs"),
        (f"{FULL}network.feature", f"{FULL}network.features"),
        (f"{FULL}network", f"{FULL}network."),
        (f"{FULL}optimizer.lerning_rate", f"{FULL}optimizer.learning_rate"),
        ("default_configuraton", "default_configuration"),
        (f"{FULL}normalization.7.scheme", f"{FULL}normalization.0.scheme"),
    ],
)
def test_an_unknown_field_names_the_nearest(name, near):
    error = refuse({name: "1"})
    assert error.what == f"The plan has no field {name}."
    assert error.todo.startswith(f"Did you mean {near}")


def test_a_field_like_no_other_shows_how_fields_are_named():
    assert "configurations.3d_fullres.batch_size" in refuse({"qqq": "1"}).todo


def test_an_unknown_configuration_lists_those_there_are():
    error = refuse({"configurations.3d_ful.batch_size": "1"})
    assert "no configuration '3d_ful'" in error.what
    assert "2d, 3d_fullres" in error.why


@pytest.mark.parametrize(
    "name",
    [
        *("format_version", "autoseg_version", "profile", "machine", "machine.memory", "dataset_digest", "fingerprint_digest"),
        *("orientation", "axes", "default_reason", f"{FULL}name", f"{FULL}median_shape", f"{FULL}memory"),
        *(f"{FULL}memory.training_bytes", f"{FULL}seconds_per_step", f"{FULL}reasons", f"{FULL}reasons.spacing", f"{FULL}user_set"),
        *("memory", "name"),
    ],
)
def test_what_is_not_the_users_to_decide_is_refused_with_the_reason(name):
    error = refuse({name: "1"})
    assert error.what == f"{name} cannot be set."
    assert error.why[0].isupper() or error.why.startswith("--")
    assert error.exit_code == 2


def test_every_field_of_the_records_is_either_settable_or_refused():
    plan = make_plan()
    top = {name.split(".")[0] for name in list_fields(plan)}
    for name in set(plan.__struct_fields__) - top:
        assert "cannot be set" in refuse({name: "1"}).what
    inside = {name.split(".")[2] for name in list_fields(plan) if name.startswith(FULL)}
    for name in set(plan.configurations[0].__struct_fields__) - inside:
        assert "cannot be set" in refuse({f"{FULL}{name}": "1"}).what


@pytest.mark.parametrize(
    ("name", "text", "expected", "todo"),
    [
        ("batch_size", "many", "a whole number", ""),
        ("batch_size", "2.5", "a whole number", ""),
        ("batch_size", "true", "a whole number", ""),
        ("batch_size", "4,4", "a whole number", ""),
        ("batch_size", "", "a whole number", ""),
        ("patch_size", "8x8x8.5", "4x128x128", ""),
        ("patch_size", "large", "4x128x128", ""),
        ("spacing", "1,1,nan", "3,0.8,0.8", ""),
        ("network.strides", "1x1x1", "1x1x1,1x2x2,2x2x2", ""),
        ("network.kind", "residual", "one of plain, residual_encoder", "residual_encoder"),
        ("optimizer.name", "adam", "one of adamw, sgd", "adamw"),
        ("optimizer.learning_rate", "fast", "a number", ""),
        ("augmentation.scaling", "0.7", "two numbers", ""),
        ("augmentation.scaling", "0.7,1,1.4", "two numbers", ""),
        ("batch_dice", "1", "true or false", ""),
        ("previous", "3d", "boundary_3d, none", ""),
        ("normalization.0.scheme", "z-score", "zscore", "zscore"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_what_the_field_takes(name, text, expected, todo):
    error = refuse({f"{FULL}{name}": text})
    assert error.what == f"{FULL}{name} cannot be '{text}'."
    assert expected in error.why
    assert todo in error.todo


def test_a_scheme_may_be_called_none():
    plan = make_plan(put(make_configuration(3), {"normalization.0.scheme": "zscore"}))
    assert change({"normalization.0.scheme": "none"}, plan).normalization[0].scheme == "none"


def test_what_could_not_be_trained_is_refused():
    error = refuse({f"{FULL}patch_size": "8x8x9"})
    assert "patch_size cannot be 8x8x9" in error.what
    assert "8 or 10" in error.why
    assert "GB" in refuse({f"{FULL}batch_size": "100000"}).why


def test_types_are_those_of_the_records():
    for field in list_fields(make_plan()).values():
        assert field.expected
    assert msgspec.convert("2d", list_fields(make_plan())["default_configuration"].type) == "2d"


def test_resnet50_brings_its_own_sizes():
    boxes = make_configuration(2, patch=64, name="instance_2d", detection=make_detection_spec(2, (0, 1)), thresholds=Thresholds())
    machine = msgspec.structs.replace(GPU, memory=8 * 10**9)
    dataset = msgspec.structs.replace(make_dataset(2), task="instance", label_form="ids")
    changed = set_fields(make_plan(boxes, machine=machine), {"configurations.instance_2d.network.kind": "resnet50"}, dataset)
    after = changed.configurations[0]
    assert msgspec.structs.replace(after.network, dropout=0.0) == RESNET50
    assert {"network.kind", "network.strides", "network.features"} <= set(after.user_set)
