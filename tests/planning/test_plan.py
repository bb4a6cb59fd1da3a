"""Whole plans: the reference's golden vectors, the CPU profile, and what the user may ask."""

from dataclasses import replace

import msgspec
import pytest

from autoseg.errors import InputError
from autoseg.io.profiles import list_profiles, read_profile
from autoseg.planning.cost import count_operations
from autoseg.planning.memory import Workload, estimate_training
from autoseg.planning.plan import Request, make_plan
from autoseg.records.base import compute_digest, decode, encode
from autoseg.records.dataset import ClassLabel
from autoseg.records.machine import Machine
from autoseg.records.plan import LossSpec, Plan

GPU = Machine(device="cuda", name="GPU", memory=8 * 10**9, cores=8)
CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=150e9, flops_source="estimated")
FINE = (1.5625, 1.5625)
HIPPOCAMPUS = [(260, (1.0, 1.0, 1.0), (36, 50, 35))]


def plan_gpu(data, profile="autoseg", **request):
    return make_plan(*data, read_profile(profile), GPU, Request(**request))


def get(plan, name):
    return next(configuration for configuration in plan.configurations if configuration.name == name)


# rows of the reference's golden vectors: scans; foreground classes; 3d_fullres and 2d as (patch, batch, strides after the first)
GOLDEN = {
    "hippocampus": (HIPPOCAMPUS, 2, ((40, 56, 40), 9, [(2, 2, 2)] * 3), ((56, 40), 366, [(2, 2)] * 3)),
    "brain tumour": ([(484, (1.0, 1.0, 1.0), (138, 169, 138))], 3, ((128,) * 3, 2, [(2, 2, 2)] * 5), ((192, 160), 105, [(2, 2)] * 5)),
    "liver": ([(131, (1.0, 0.7676, 0.7676), (432, 512, 512))], 2, ((128,) * 3, 2, [(2, 2, 2)] * 5), ((512, 512), 12, [(2, 2)] * 7)),
    "heart, thick slices": (
        [(160, (10.0, *FINE), (9, 237, 208)), (40, (5.0, *FINE), (18, 237, 208))],
        3,
        ((20, 256, 224), 4, [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)]),
        ((256, 224), 56, [(2, 2)] * 5),
    ),
}


@pytest.mark.parametrize("row", GOLDEN)
def test_patch_strides_and_batch_are_those_of_the_reference(describe, row):
    scans, classes, volume, image = GOLDEN[row]
    plan = plan_gpu(describe(scans, classes=tuple(f"class {number}" for number in range(classes))), "nnunet")
    assert [configuration.name for configuration in plan.configurations][:2] == ["2d", "3d_fullres"]
    for name, (patch, batch, strides) in (("3d_fullres", volume), ("2d", image)):
        configuration = get(plan, name)
        assert configuration.patch_size == patch
        assert configuration.batch_size == batch
        assert list(configuration.network.strides) == [(1,) * len(patch), *strides]


def test_regions_count_as_labels_for_the_reference_and_have_no_background(describe):
    dataset, fingerprint = describe(HIPPOCAMPUS, classes=("whole", "core"))
    nested = tuple(ClassLabel(name=name, values=values) for name, values in (("whole", (1, 2)), ("core", (2,))))
    plain, regions = (plan_gpu((d, fingerprint), "nnunet") for d in (dataset, msgspec.structs.replace(dataset, classes=nested)))
    for one, other in zip(plain.configurations, regions.configurations, strict=True):
        assert (one.patch_size, one.batch_size, one.network) == (other.patch_size, other.batch_size, other.network)
        work = Workload(one.network, one.patch_size, one.batch_size, 1, 3, precision="bf16", device="cuda", loss=one.loss)
        assert one.memory.training_bytes == estimate_training(work).total
        assert other.memory.training_bytes == estimate_training(replace(work, classes=2)).total


def test_patch_strides_and_batch_of_colour_images_are_those_of_the_reference(describe):
    plan = plan_gpu(describe([(100, (1.0, 1.0), (400, 400))], channels=("R", "G", "B")), "nnunet")
    (configuration,) = plan.configurations
    assert (configuration.name, configuration.patch_size, configuration.batch_size) == ("2d", (448, 448), 4)
    assert list(configuration.network.strides) == [(1, 1)] + [(2, 2)] * 6
    assert plan.default_configuration == "2d"
    assert len(configuration.normalization) == 3


def test_thick_slices_are_planned_at_the_10th_percentile(describe):
    assert get(plan_gpu(describe(GOLDEN["heart, thick slices"][0]), "nnunet"), "3d_fullres").spacing == (5.0, *FINE)


def test_the_cpu_profile_plans_a_small_organ_within_the_minutes_given(describe):
    profile = read_profile("autoseg-cpu")
    plan = make_plan(*describe(HIPPOCAMPUS, classes=("Anterior", "Posterior"), extent=22.0), profile, CPU)
    configuration = get(plan, "3d_fullres")
    assert plan.default_configuration == "3d_fullres"
    assert configuration.spacing == (1.0, 1.0, 1.0)
    assert all(size - 8 < edge <= size + 8 for edge, size in zip(configuration.patch_size, (36, 50, 35)))
    assert list(configuration.network.strides) == [(1, 1, 1)] + [(2, 2, 2)] * 3
    assert profile.minimum_batch <= configuration.batch_size <= profile.maximum_batch
    operations = configuration.batch_size * count_operations(configuration.network, configuration.patch_size, 1, 3)
    assert operations * profile.steps <= CPU.flops * 60 * configuration.schedule.minutes
    assert configuration.schedule.minutes == 30
    assert configuration.mirror_axes == ()


def test_minutes_asked_for_replace_those_of_the_profile(describe):
    configuration = get(make_plan(*describe(HIPPOCAMPUS), read_profile("autoseg-cpu"), CPU, Request(minutes=7)), "3d_fullres")
    assert configuration.schedule.minutes == 7
    assert "7 minutes" in configuration.reasons["schedule"]


@pytest.mark.parametrize("name", ["left kidney", "Kidney_R", "lung right upper", "Niere links", "rein droit", "ovaire gauche", "kidney-l"])
def test_classes_that_name_a_side_switch_mirroring_of_the_sides_off(describe, name):
    for configuration in plan_gpu(describe(HIPPOCAMPUS, classes=("spleen", name))).configurations:
        assert configuration.mirror_axes == tuple(range(configuration.dimension - 1))
        assert name in configuration.reasons["mirror_axes"]


@pytest.mark.parametrize("name", ["liver", "brightness", "cleft", "adrenal", "vertebra L1", "vertebra_L5", "R2 lesion"])
def test_classes_that_name_no_side_are_mirrored_along_all_axes(describe, name):
    plan = plan_gpu(describe(HIPPOCAMPUS, classes=(name,)))
    assert get(plan, "3d_fullres").mirror_axes == (0, 1, 2)
    assert get(plan, "2d").mirror_axes == (0, 1)


@pytest.mark.parametrize(("profile", "machine"), [("autoseg", GPU), ("autoseg-cpu", CPU)])
def test_the_same_records_give_the_same_plan_and_stay_unchanged(describe, profile, machine):
    data = describe(HIPPOCAMPUS)
    before = [encode(record) for record in data]
    first, second = (make_plan(*data, read_profile(profile), machine) for _ in range(2))
    assert encode(first) == encode(second)
    assert [encode(record) for record in data] == before
    assert decode(Plan, encode(first), "plan.json") == first


def test_the_plan_knows_what_it_was_made_from(describe):
    dataset, fingerprint = describe(HIPPOCAMPUS)
    plan = plan_gpu((dataset, fingerprint))
    assert plan.dataset_digest == compute_digest(dataset)
    assert plan.fingerprint_digest == compute_digest(fingerprint)
    assert (plan.profile, plan.machine) == ("autoseg", GPU)


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0), (1.0,) * 4, (1.0, 0.0, 1.0), (1.0, -2.0, 1.0), (1.0, float("nan"), 1.0), (float("inf"), 1.0, 1.0)]
)
def test_a_spacing_of_the_wrong_length_or_sign_is_refused(describe, spacing):
    with pytest.raises(InputError, match="--spacing needs 3 positive numbers, in the order z,y,x"):
        plan_gpu(describe(HIPPOCAMPUS), spacing=spacing)


def test_a_spacing_for_images_has_two_numbers(describe):
    with pytest.raises(InputError, match="--spacing needs 2 positive numbers, in the order y,x"):
        plan_gpu(describe([(9, (1.0, 1.0), (64, 64))]), spacing=(1.0, 1.0, 1.0))


def test_a_spacing_given_is_planned_with(describe):
    plan = plan_gpu(describe(HIPPOCAMPUS), spacing=(1.0, 2.0, 1.0))
    assert plan.axes == (1, 0, 2)
    assert get(plan, "3d_fullres").spacing == (2.0, 1.0, 1.0)
    assert get(plan, "2d").spacing == (1.0, 1.0)


def test_few_slices_default_to_2d_and_a_single_one_has_no_3d(describe):
    thin = plan_gpu(describe([(9, (5.0, 1.0, 1.0), (7, 100, 100))]))
    assert thin.default_configuration == "2d"
    assert "7 slices" in thin.default_reason
    assert {configuration.name for configuration in thin.configurations} >= {"2d", "3d_fullres"}
    assert plan_gpu(describe([(9, (5.0, 1.0, 1.0), (8, 100, 100))])).default_configuration == "3d_fullres"
    single = plan_gpu(describe([(9, (5.0, 1.0, 1.0), (1, 100, 100))]))
    assert [configuration.name for configuration in single.configurations] == ["2d"]


def test_elongated_2d_patches_are_turned_by_15_degrees_at_most(describe):
    square = get(plan_gpu(describe([(9, (1.0, 1.0), (100, 100))])), "2d")
    long = get(plan_gpu(describe([(9, (1.0, 1.0), (100, 200))])), "2d")
    assert (square.augmentation.rotation[0], long.augmentation.rotation[0]) == (180, 15)


@pytest.mark.parametrize("profile", list_profiles())
def test_every_installed_profile_gives_every_decision_a_reason_and_a_memory_estimate(describe, profile):
    machine = CPU if read_profile(profile).budget == "operations" else GPU
    plan = make_plan(*describe(HIPPOCAMPUS, classes=("a", "b")), read_profile(profile), machine)
    decided = {
        "spacing",
        "patch_size",
        "batch_size",
        "normalization",
        "network",
        "loss",
        "optimizer",
        "schedule",
        "augmentation",
        "mirror_axes",
    }
    for configuration in plan.configurations:
        assert decided <= set(configuration.reasons)
        assert all(configuration.reasons.values())
        assert decided - {"network"} <= set(msgspec.structs.asdict(configuration))
        precision = "fp32" if machine.device == "cpu" else "bf16"
        patch, batch, optimizer = configuration.patch_size, configuration.batch_size, configuration.optimizer.name
        assert configuration.loss == LossSpec(coarsest_head=not profile.startswith("nnunet"))
        work = Workload(configuration.network, patch, batch, 1, 3, optimizer, precision, machine.device, loss=configuration.loss)
        assert configuration.memory.training_bytes == estimate_training(work).total
        assert configuration.memory.prediction_bytes > 0


def test_a_fingerprint_of_other_cases_or_another_dimension_is_refused(describe):
    dataset, fingerprint = describe(HIPPOCAMPUS)
    fewer = msgspec.structs.replace(fingerprint, cases=fingerprint.cases[1:])
    with pytest.raises(InputError, match=f"{fingerprint.cases[0].case} is in the data set, but not in the fingerprint"):
        plan_gpu((dataset, fewer))
    _, images = describe([(260, (1.0, 1.0), (36, 50))])
    with pytest.raises(InputError, match="is 2D, the data set 3D"):
        plan_gpu((dataset, images))
