"""What a network costs, and patch and batch for what there is."""

import pytest

from autoseg.io.profiles import read_profile
from autoseg.networks.build import build_network
from autoseg.planning.budget import (
    MEMORY_SHARE,
    Task,
    build_network_spec,
    count_training_bytes,
    fit_to_elements,
    fit_to_memory,
    fit_to_operations,
    measure_objects_by_class,
    search_low_resolution,
    with_dimension,
)
from autoseg.planning.cost import (
    count_operations,
    count_reference_elements,
    count_weights,
)
from autoseg.planning.topology import decide_topology, make_initial_patch, round_to_scan
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import NetworkSpec

TINY = NetworkSpec(
    kind="plain",
    strides=((1, 1), (2, 2)),
    kernel_sizes=((3, 3), (1, 3)),
    features=(4, 8),
    convolutions=(1, 2),
    decoder_convolutions=(1,),
)
GPU = Machine(device="cuda", name="GPU", memory=8 * 10**9, cores=8)
CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=150e9, flops_source="estimated")


def make_task(profile, machine, spacing=(1.0, 1.0, 1.0), shape=(138, 169, 138), **changes):
    values = {"channels": 1, "classes": 4, "labels": 4, "cases": 484, "dataset_voxels": 1.5e9, "minutes": 30.0}
    values |= {"smallest_object": 40.0, "largest_object": float("inf")} | changes
    return Task(spacing=spacing, median_shape=shape, profile=read_profile(profile), machine=machine, **values)


@pytest.mark.parametrize(("patch", "poolings", "elements"), [((128,) * 3, 5, 452_796_416), ((512,) * 2, 6, 82_771_968)])
def test_reference_elements_are_those_of_the_reference(patch, poolings, elements):
    dimension = len(patch)
    strides = ((1,) * dimension,) + ((2,) * dimension,) * poolings
    limit = 512 if dimension == 2 else 320
    network = NetworkSpec(
        kind="plain",
        strides=strides,
        kernel_sizes=((3,) * dimension,) * (poolings + 1),
        features=tuple(min(32 * 2**stage, limit) for stage in range(poolings + 1)),
        convolutions=(2,) * (poolings + 1),
        decoder_convolutions=(2,) * poolings,
    )
    assert count_reference_elements(network, patch, 3) == elements
    assert build_network_spec(decide_topology((1.0,) * dimension, patch), read_profile("autoseg")).features[:2] == (32, 64)


def test_operations_of_a_tiny_network_are_those_counted_by_hand():
    """8 × 8 pixels, 2 channels, 3 classes; the deeper stage has 4 × 4 pixels."""
    encoder = 9 * 2 * 4 * 64 + 3 * 4 * 8 * 16 + 3 * 8 * 8 * 16
    decoder = 8 * 4 * 64 + 9 * 8 * 4 * 64 + 4 * 3 * 64  # up (each output pixel sees one input pixel), block on 4 + 4 channels, head
    assert count_operations(TINY, (8, 8), 2, 3) == 3 * 2 * (encoder + decoder)


def test_reference_elements_of_a_tiny_network_are_those_counted_by_hand():
    assert count_reference_elements(TINY, (8, 8), 3) == (1 * 4 * 64 + 2 * 8 * 16) + (1 + 1) * 4 * 64 + 3 * 64


def test_odd_patches_are_counted_with_what_strided_convolutions_leave():
    assert count_reference_elements(TINY, (7, 7), 3) == (4 * 49 + 2 * 8 * 16) + 2 * 4 * 49 + 3 * 49


@pytest.mark.parametrize("dimension", [2, 3])
def test_weights_are_those_of_the_network_that_is_built(dimension):
    spacing, patch = ((1.0, 1.0), (32, 32)) if dimension == 2 else ((4.0, 1.0, 1.0), (8, 32, 32))
    spec = build_network_spec(decide_topology(spacing, patch), read_profile("autoseg-cpu"))
    built = sum(parameter.numel() for parameter in build_network(spec, 2, 3).parameters())
    assert count_weights(spec, 2, 3) == pytest.approx(built, rel=0.01)


def test_widths_double_up_to_the_limit_of_the_dimension():
    profile = read_profile("autoseg")
    deep = build_network_spec(decide_topology((1.0, 1.0, 1.0), (128, 128, 128)), profile)
    assert deep.features == (32, 64, 128, 256, 320, 320)
    flat = build_network_spec(decide_topology((1.0, 1.0), (512, 512)), profile)
    assert flat.features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert (deep.convolutions, deep.decoder_convolutions) == ((2,) * 6, (2,) * 5)


@pytest.mark.parametrize(("fit", "profile"), [(fit_to_elements, "nnunet"), (fit_to_memory, "autoseg")])
def test_more_memory_never_means_a_smaller_patch_or_batch_of_it(fit, profile):
    machines = [Machine(device="cuda", name="", memory=gb * 10**9, cores=8) for gb in (4, 8, 24, 40)]
    fits = [fit(make_task(profile, machine, memory=machine.memory)) for machine in machines]
    voxels = [fit.patch_size[0] * fit.patch_size[1] * fit.patch_size[2] * fit.batch_size for fit in fits]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


def test_a_2d_patch_may_grow_until_the_batch_is_the_smallest():
    fit = fit_to_elements(make_task("nnunet", GPU, spacing=(1.0, 1.0), shape=(1024, 1024), classes=3))
    assert (fit.patch_size, fit.batch_size) == ((1024, 1024), 3)  # the reference batch of 12 would not fit


def test_few_scans_limit_the_batch_to_5_percent_of_all_voxels():
    many = fit_to_elements(make_task("nnunet", GPU, shape=(36, 50, 35), dataset_voxels=1e9))
    few = fit_to_elements(make_task("nnunet", GPU, shape=(36, 50, 35), dataset_voxels=36 * 50 * 35 * 100))
    assert few.batch_size == round(36 * 50 * 35 * 100 * 0.05 / (40 * 56 * 40))
    assert few.batch_size < many.batch_size
    assert "5%" in few.reasons["batch_size"]
    assert "memory" in many.reasons["batch_size"]


def test_the_batch_is_never_below_the_minimum():
    assert fit_to_elements(make_task("nnunet", GPU, dataset_voxels=1.0)).batch_size == 2


@pytest.mark.parametrize("minutes", [5.0, 30.0, 240.0])
def test_a_step_on_a_cpu_is_fast_enough_for_the_steps_of_the_profile(minutes):
    task = make_task("autoseg-cpu", CPU, minutes=minutes)
    fit = fit_to_operations(task)
    operations = fit.batch_size * count_operations(fit.network, fit.patch_size, task.channels, task.classes)
    assert operations * task.profile.steps <= CPU.flops * minutes * 60
    assert count_training_bytes(task, fit.network, fit.patch_size, fit.batch_size) <= MEMORY_SHARE * CPU.memory


def test_a_cpu_with_little_memory_gets_a_smaller_patch():
    small = Machine(device="cpu", name="", memory=500 * 10**6, cores=2, flops=1e15)
    task = make_task("autoseg-cpu", small, smallest_object=1.0)
    fit = fit_to_operations(task)
    assert count_training_bytes(task, fit.network, fit.patch_size, fit.batch_size) <= MEMORY_SHARE * small.memory
    assert fit.patch_size < (128, 160, 128)


def test_large_organs_are_coarsened_until_the_scan_fits_a_patch():
    fit = fit_to_operations(make_task("autoseg-cpu", CPU, smallest_object=1000.0))
    assert min(fit.spacing) > 1
    assert max(fit.spacing) <= 4
    assert fit.median_shape == tuple(round(size / step) for size, step in zip((138, 169, 138), fit.spacing))
    assert "coarsened" in fit.reasons["spacing"]


def test_small_objects_are_not_coarsened_away():
    fit = fit_to_operations(make_task("autoseg-cpu", CPU, smallest_object=10.0))
    assert fit.spacing == (1.0, 1.0, 1.0)
    assert fit.reasons["spacing"] == ""
    kept = fit_to_operations(make_task("autoseg-cpu", CPU, smallest_object=40.0))
    assert 1 < max(kept.spacing) <= 40 / 32


def test_coarsening_starts_with_the_axes_more_than_twice_as_fine():
    task = make_task("autoseg-cpu", CPU, spacing=(4.0, 1.0, 1.0), shape=(10, 256, 256), smallest_object=1000.0, minutes=51.0)
    fit = fit_to_operations(task)
    assert fit.spacing[0] == 4.0
    assert 1 < fit.spacing[1] == fit.spacing[2]


def test_objects_are_measured_class_by_class(describe):
    _, long = describe([(3, (1.0, 1.0, 1.0), (9, 9, 9))], classes=("liver",), extent=200.0)
    _, short = describe([(2, (1.0, 1.0, 1.0), (9, 9, 9))], classes=("tumour",), extent=12.0)
    _, longer = describe([(1, (1.0, 1.0, 1.0), (9, 9, 9))], classes=("tumour",), extent=90.0)
    assert measure_objects_by_class(Fingerprint(cases=long.cases + short.cases + longer.cases)) == [200, 12]
    assert measure_objects_by_class(Fingerprint(cases=())) == []


def test_a_2d_task_sees_the_last_two_axes():
    task = with_dimension(make_task("autoseg", GPU, spacing=(3.0, 2.0, 1.0), shape=(10, 20, 30)), 2)
    assert (task.spacing, task.median_shape) == ((2.0, 1.0), (20, 30))


def fit_gpu(gigabytes, **changes):
    return fit_to_memory(make_task("autoseg", Machine(device="cuda", name="", memory=gigabytes * 10**9, cores=8), **changes))


SHAPES = [
    ((1.0, 1.0, 1.0), (138, 169, 138)),
    ((1.0, 0.77, 0.77), (432, 512, 512)),
    ((5.0, 0.8, 0.8), (95, 512, 512)),
    ((3.6, 0.6, 0.6), (40, 320, 319)),
    ((1.5, 1.5, 1.5), (333, 255, 255)),
    ((0.005, 0.005, 0.005), (165, 768, 1024)),
    ((1.0, 1.0), (5000, 4000)),
    ((1.0, 1.0), (3000, 2048)),
]


@pytest.mark.parametrize("gigabytes", [6, 8, 11, 16, 24, 40, 80])
@pytest.mark.parametrize(("spacing", "shape"), SHAPES)
def test_memory_is_well_used_and_never_beyond_its_share(spacing, shape, gigabytes):
    task = make_task("autoseg", Machine(device="cuda", name="", memory=gigabytes * 10**9, cores=8), spacing=spacing, shape=shape)
    fit = fit_to_memory(task)
    used = count_training_bytes(task, fit.network, fit.patch_size, fit.batch_size) / task.machine.memory
    assert used <= MEMORY_SHARE
    if fit.patch_size != round_to_scan(spacing, make_initial_patch(spacing, shape)).patch_size:
        assert used >= 0.8, (fit.patch_size, fit.batch_size)
    assert ("left unused" in fit.reasons["batch_size"]) == (used < 0.8)


@pytest.mark.parametrize(
    ("spacing", "shape"), [((1.0, 1.0, 1.0), (36, 50, 35)), ((5.0, 1.5, 1.5), (18, 237, 208)), ((1.0, 1.0), (400, 400))]
)
def test_a_patch_is_not_rounded_up_past_the_scan(spacing, shape):
    fit = fit_gpu(24, spacing=spacing, shape=shape)
    assert all(edge <= 1.03 * size for edge, size in zip(fit.patch_size, shape))


def test_small_images_are_not_batched_by_the_thousand():
    fit = fit_gpu(40, shape=(36, 50, 35), dataset_voxels=1e12)
    assert fit.batch_size <= read_profile("autoseg").maximum_batch
    assert "unused" in fit.reasons["batch_size"]


def test_one_patch_at_a_time_with_gradients_added_up_where_only_that_fits():
    task = make_task("autoseg", Machine(device="cuda", name="", memory=160 * 10**6, cores=8), classes=30, labels=30)
    fit = fit_to_memory(task)
    assert (fit.batch_size, fit.accumulation) == (1, 2)
    assert "added up" in fit.reasons["batch_size"]


def test_no_low_resolution_where_the_objects_fit_a_patch():
    task = make_task("autoseg", GPU, spacing=(1.0, 0.77, 0.77), shape=(432, 512, 512), largest_object=50.0)
    full = fit_to_memory(task)
    assert search_low_resolution(task, full, fit_to_memory) is None
    large = make_task("autoseg", GPU, spacing=(1.0, 0.77, 0.77), shape=(432, 512, 512), largest_object=300.0)
    low = search_low_resolution(large, full, fit_to_memory)
    assert low is not None
    assert low.coverage >= 0.25
    assert min(low.spacing) > 1
