"""A plan that could not be trained is refused before the first step, field, value and what is allowed named."""

import re
from typing import get_args

import msgspec
import pytest
from builders import make_configuration, make_network_spec
from planned_runs import GPU, make_dataset, make_plan, put

from autoseg.errors import InputError
from autoseg.io.profiles import list_profiles, read_profile
from autoseg.planning import plan as planner
from autoseg.planning.change import list_values
from autoseg.planning.check import check_plan, describe_tight_memory, find_loss_faults, is_sound
from autoseg.planning.memory import Workload, estimate_training
from autoseg.records.plan import LossName, LossSpec, NetworkSpec, Normalization

ONES, TWOS = [1, 1, 1], [2, 2, 2]
CT = Normalization(scheme="ct", mean=40.0, std=20.0, low=-100.0, high=200.0)


def refuse(plan, dataset=None):
    with pytest.raises(InputError) as caught:
        check_plan(plan, dataset or make_dataset())
    return caught.value


def test_plans_that_can_be_trained_pass():
    check_plan(make_plan(), make_dataset())
    check_plan(make_plan(make_configuration(2)), make_dataset(2))
    check_plan(make_plan(make_configuration(3, normalization=(CT, CT))), make_dataset(channels=2))
    residual = put(make_configuration(3), {"network.kind": "residual_encoder", "network.blocks": [1, 2], "network.convolutions": []})
    check_plan(make_plan(residual), make_dataset())
    single = make_configuration(3, network=make_network_spec(3, (4,)))
    check_plan(make_plan(single), make_dataset())
    still = put(make_configuration(3), {"optimizer.momentum": 0.0})  # adamw has none
    check_plan(make_plan(still), make_dataset())


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"patch_size": [8, 8, 9]}, "patch_size", ["8x8x9", "Axis 2", "multiple of 2", "8 or 10"]),
        ({"patch_size": [1, 8, 8]}, "patch_size", ["1x8x8", "Axis 0", ": 2."]),
        ({"patch_size": [8, 0, 8]}, "patch_size", ["Axis 1", ": 2."]),
        ({"patch_size": [8, -2, 8]}, "patch_size", ["Axis 1", ": 2."]),
        ({"patch_size": [2, 2, 2]}, "patch_size", ["single voxel"]),
        ({"patch_size": [8, 8]}, "patch_size", ["8x8", "3 entries, one per axis"]),
        ({"spacing": [1.0, 1.0]}, "spacing", ["3 entries"]),
        ({"spacing": [1.0, 0.0, 1.0]}, "spacing", ["1x0x1", "above 0"]),
        ({"spacing": [1.0, 1.0, -1.0]}, "spacing", ["above 0"]),
        ({"spacing": [1.0, 1.0, float("inf")]}, "spacing", ["above 0"]),
        ({"spacing": [1.0, 1.0, float("nan")]}, "spacing", ["above 0"]),
        ({"median_shape": [8.0, 8.0]}, "median_shape", ["3 entries"]),
        ({"network.strides": []}, "network.strides", ["per stage"]),
        ({"network.strides": [ONES, [2, 2]]}, "network.strides", ["3 numbers in every stage"]),
        ({"network.strides": [TWOS, TWOS]}, "network.strides", ["first stage", "1x1x1"]),
        ({"network.strides": [ONES, [2, 0, 2]]}, "network.strides", ["from 1 up"]),
        ({"network.strides": [ONES, TWOS, TWOS]}, "network.kernel_sizes", ["3 entries, one per stage"]),
        ({"network.kernel_sizes": [[3, 3], [3, 3]]}, "network.kernel_sizes", ["3 numbers"]),
        ({"network.kernel_sizes": [[3, 2, 3], [3, 3, 3]]}, "network.kernel_sizes", ["3x2x3", "Odd"]),
        ({"network.features": [4, 8, 16]}, "network.features", ["4,8,16", "2 entries, one per stage"]),
        ({"network.features": [4, 0]}, "network.features", ["4,0", "from 1 up"]),
        ({"network.convolutions": []}, "network.convolutions", ["none", "2 entries"]),
        ({"network.convolutions": [1, 0]}, "network.convolutions", ["from 1 up"]),
        ({"network.blocks": [1, 1]}, "network.blocks", ["No entries", "no stage of kind residual_encoder"]),
        ({"network.kind": "residual_encoder"}, "network.blocks", ["2 entries"]),
        ({"network.kind": "residual_encoder", "network.blocks": [1, 1]}, "network.convolutions", ["no stage of kind plain"]),
        ({"network.kind": "resnet50"}, "network.blocks", ["2 entries"]),
        ({"network.kind": "resnet50", "network.blocks": [1, 1], "network.convolutions": []}, "network.kind", ["instance_2d alone"]),
        ({"network.decoder_convolutions": [1, 1]}, "network.decoder_convolutions", ["1 entry, one per stage but the deepest"]),
        ({"network.decoder_convolutions": [0]}, "network.decoder_convolutions", ["from 1 up"]),
        ({"mirror_axes": [0, 3]}, "mirror_axes", ["0,3", "0, 1, 2"]),
        ({"mirror_axes": [1, 1]}, "mirror_axes", ["each once"]),
        ({"normalization": []}, "normalization", ["none", "1 entry, one per channel"]),
        ({"normalization.0.scheme": "ct"}, "normalization.0.low", ["Less than", ".high, 0"]),
        ({"normalization.0": {**msgspec.to_builtins(CT), "std": 0.0}}, "normalization.0.std", ["above 0"]),
        ({"batch_size": 0}, "batch_size", ["0", "from 1 up"]),
        ({"accumulation": 0}, "accumulation", ["from 1 up"]),
        ({"steps_per_epoch": 0}, "steps_per_epoch", ["from 1 up"]),
        ({"schedule.epochs": 0}, "schedule.epochs", ["from 1 up"]),
        ({"schedule.warmup": 1.5}, "schedule.warmup", ["1.5", "0 to 1"]),
        ({"augmentation.noise_probability": 1.01}, "augmentation.noise_probability", ["1.01", "0 to 1"]),
        ({"augmentation.foreground_probability": -0.1}, "augmentation.foreground_probability", ["-0.1"]),
        ({"augmentation.scaling": [1.4, 0.7]}, "augmentation.scaling", ["1.4,0.7", "lowest value, then the highest"]),
        ({"augmentation.gamma": [0.0, 1.5]}, "augmentation.gamma", ["above 0"]),
        ({"augmentation.low_resolution": [0.5, 1.5]}, "augmentation.low_resolution", ["up to 1"]),
        ({"augmentation.rotation": [30.0, 181.0]}, "augmentation.rotation", ["0 to 180"]),
        ({"optimizer.learning_rate": 0.0}, "optimizer.learning_rate", ["above 0"]),
        ({"optimizer.gradient_clip": 0.0}, "optimizer.gradient_clip", ["above 0"]),
        ({"optimizer.momentum": 1.0}, "optimizer.momentum", ["below 1"]),
        ({"optimizer.name": "sgd", "optimizer.momentum": 0.0}, "optimizer.momentum", ["Nesterov"]),
        ({"loss.dice_weight": 0.0, "loss.cross_entropy_weight": 0.0}, "loss.dice_weight", ["cross_entropy_weight is 0 too"]),
        ({"loss.topk_share": 0.0}, "loss.topk_share", ["above 0 and up to 1"]),
        ({"loss.topk_share": 1.1}, "loss.topk_share", ["1.1"]),
        ({"loss.unified_gamma": 1.0}, "loss.unified_gamma", ["below 1"]),
        ({"loss.unified_delta": 1.5}, "loss.unified_delta", ["0 to 1"]),
        ({"loss.tversky_alpha": -0.1}, "loss.tversky_alpha", ["-0.1", "0, or a number above"]),
        ({"loss.name": "tversky", "loss.tversky_alpha": 0.0, "loss.tversky_beta": 0.0}, "loss.tversky_alpha", ["tversky_beta is 0 too"]),
        ({"loss.class_weights": [1.0, 2.0]}, "loss.class_weights", ["1,2", "3 numbers", "background's first"]),
        ({"loss.class_weights": [0.0, 0.0, 0.0]}, "loss.class_weights", ["one at least above 0"]),
        ({"loss.class_weights": [1.0, 1.0, -1.0]}, "loss.class_weights", ["1,1,-1", "from 0 up"]),
        ({"network.dropout": 1.0}, "network.dropout", ["below 1", "no feature map"]),
        ({"network.dropout": -0.1}, "network.dropout", ["-0.1"]),
        ({"previous": "3d_lowres"}, "previous", ["3d_cascade"]),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_is_allowed(values, field, words):
    broken = put(make_configuration(3), values)
    plan = make_plan(make_configuration(2), broken)
    error = refuse(plan)
    assert error.what.startswith(f"The plan's configurations.3d_fullres.{field} cannot be ")
    assert [word for word in words if word not in f"{error.what} {error.why}"] == []
    assert not is_sound(broken, plan, make_dataset())
    assert is_sound(make_configuration(2), plan, make_dataset())


def test_losses_that_need_classes_which_exclude_each_other_are_refused_for_regions():
    refused = {name for name in get_args(LossName) if any(find_loss_faults(LossSpec(name=name), 3, regions=True))}
    assert refused == {"weighted_ce"}
    assert not any(find_loss_faults(LossSpec(name="weighted_ce", class_weights=(1.0, 0.0, 2.0)), 3))


def list_numbers(configuration):
    """Names of all values that hold numbers, but those that may be anything or are only told."""
    told = ("memory.", "normalization.", "user_set", "reasons", "name")
    for name, value in list_values(configuration).items():
        parts = value if isinstance(value, tuple) else (value,)
        if not name.startswith(told) and parts and not isinstance(parts[0], (str, bool, type(None))):
            yield name


def negate(value):
    """-1, or with -1 as its first number."""
    return [negate(value[0]), *value[1:]] if isinstance(value, tuple) else -1


@pytest.mark.parametrize("name", list(list_numbers(make_configuration(3))))
def test_no_number_may_be_negative(name):
    configuration = make_configuration(3)
    error = refuse(make_plan(put(configuration, {name: negate(list_values(configuration)[name])})))
    assert f"configurations.3d_fullres.{name} cannot be" in error.what


def can_be_halved(size, steps):
    """Whether every stride divides what the one before it has left."""
    for step in steps:
        if size % step:
            return False
        size //= step
    return size > 0


@pytest.mark.parametrize("steps", [(1, 2), (1, 2, 2, 2), (1, 2, 1, 3), (1, 1)])
def test_patches_pass_exactly_where_every_stage_divides_them(steps):
    network = NetworkSpec(
        kind="plain",
        strides=tuple((step, 1) for step in steps),
        kernel_sizes=((3, 3),) * len(steps),
        features=(4,) * len(steps),
        convolutions=(1,) * len(steps),
        decoder_convolutions=(1,) * (len(steps) - 1),
    )
    for size in range(1, 40):
        plan = make_plan(make_configuration(2, network=network, patch_size=(size, 7)))
        if can_be_halved(size, steps):
            check_plan(plan, make_dataset(2))
            continue
        named = [int(number) for number in re.findall(r"\d+", refuse(plan, make_dataset(2)).why.rpartition(":")[2])]
        below = [other for other in range(1, size) if can_be_halved(other, steps)]
        above = next(other for other in range(size, 10 * size) if can_be_halved(other, steps))
        assert named == [*below[-1:], above]


def test_the_default_must_be_planned():
    error = refuse(make_plan(make_configuration(3), default="3d_lowres"))
    assert error.what == "The plan's default_configuration cannot be 3d_lowres."
    assert "3d_fullres" in error.why


def test_a_name_stands_once():
    assert "3d_fullres is there twice" in refuse(make_plan(make_configuration(3), make_configuration(3))).why


def test_axes_are_those_of_the_scans():
    assert "axes cannot be 0,1,2" in refuse(make_plan(), make_dataset(2)).what
    turned = msgspec.structs.replace(make_plan(), axes=(0, 1, 1))
    assert "axes cannot be 0,1,1" in refuse(turned).what
    volume_of_images = msgspec.structs.replace(make_plan(), axes=(0, 1))
    assert "configurations.3d_fullres.name" in refuse(volume_of_images, make_dataset(2)).what


def test_a_cascade_needs_the_configuration_before_it():
    full, low = make_configuration(3), make_configuration(3, name="3d_lowres")
    for previous in (None, "3d_lowres", "3d_cascade", "2d"):
        cascade = make_configuration(3, name="3d_cascade", previous=previous)
        error = refuse(make_plan(full, make_configuration(2), cascade))
        assert "configurations.3d_cascade.previous cannot be" in error.what
        assert "3d_fullres" in error.why
    check_plan(make_plan(full, low, make_configuration(3, name="3d_cascade", previous="3d_lowres")), make_dataset())


def count_bytes(network, patch, batch):
    """Of a training step on GPU, as make_configuration plans it."""
    return estimate_training(Workload(network, patch, batch, 1, 3, "adamw", "bf16", "cuda")).total


def plan_for(available, **changes):
    return make_plan(make_configuration(3, **changes), machine=msgspec.structs.replace(GPU, memory=available))


def test_a_training_that_does_not_fit_is_refused_by_how_much():
    spec = make_configuration(3)
    needed = count_bytes(spec.network, spec.patch_size, spec.batch_size)
    check_plan(plan_for(needed), make_dataset())
    big = msgspec.structs.replace(spec.memory, training_bytes=10**12)
    check_plan(plan_for(needed // 2, memory=big), make_dataset())  # the planner knew, as with nnU-Net's rules
    check_plan(plan_for(0), make_dataset())  # the machine's memory is not known
    older = msgspec.structs.replace(plan_for(needed // 2), autoseg_version="0.0.9")
    check_plan(older, make_dataset())  # which counted other bytes
    with pytest.raises(InputError, match="at batch_size 2"):
        check_plan(msgspec.structs.replace(plan_for(needed // 2, user_set=("batch_size",)), autoseg_version="0.0.9"), make_dataset())
    refuse(plan_for(needed - 1))
    error = refuse(plan_for(needed * 4, patch_size=(64, 64, 64), batch_size=32))
    assert error.what == "The plan's configurations.3d_fullres.patch_size cannot be 64x64x64 at batch_size 32."
    again = count_bytes(spec.network, (64, 64, 64), 32)
    assert f"{again / 1e9:.2f} GB" in error.why
    assert f"{(again - 4 * needed) / 1e9:.2f} GB ({again / (4 * needed) - 1:.0%}) more" in error.why
    assert "batch_size" in error.todo


def test_nearly_all_memory_is_warned_of():
    spec = make_configuration(3)
    needed = count_bytes(spec.network, spec.patch_size, spec.batch_size)
    assert describe_tight_memory(plan_for(round(needed / 0.94)), make_dataset()) == []
    (line,) = describe_tight_memory(plan_for(round(needed / 0.96)), make_dataset())
    assert "3d_fullres" in line
    assert "96%" in line
    assert describe_tight_memory(plan_for(0), make_dataset()) == []


SCANS = [
    [(260, (1.0, 1.0, 1.0), (36, 50, 35))],
    [(131, (1.0, 0.77, 0.77), (432, 512, 512))],
    [(9, (5.0, 1.0, 1.0), (7, 100, 100))],
    [(9, (5.0, 1.0, 1.0), (1, 100, 100))],
    [(5, (1.0, 1.0), (9, 2000))],
    [(3, (1.0, 1.0), (2, 2))],
]


@pytest.mark.parametrize("profile", list_profiles())
@pytest.mark.parametrize("scans", SCANS, ids=str)
def test_what_the_planner_decides_passes(describe, profile, scans):
    chosen = read_profile(profile)
    cpu = msgspec.structs.replace(GPU, device="cpu", memory=16 * 10**9, flops=1e11)
    gpu = msgspec.structs.replace(GPU, memory=8 * 10**9)
    dataset, fingerprint = describe(scans, classes=("a", "b"))
    check_plan(planner.make_plan(dataset, fingerprint, chosen, cpu if chosen.budget == "operations" else gpu), dataset)
