"""Which patch a sample is depends on seed and number alone, and lies where it says."""

from itertools import product

import msgspec
import numpy as np
import pytest
from builders import STILL, make_configuration, make_prepared_case
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.labels import pack_voxels
from autoseg.records.plan import AugmentationSpec
from autoseg.training.sampling import Sampler, compute_touched_box

LIVELY = AugmentationSpec(rotation_probability=0.5, scaling_probability=0.5)


def sample_from(cases, configuration, seed: int = 0) -> Sampler:
    """A sampler of records that are not on disk."""
    records = {case.case: case for case in cases}
    return Sampler(tuple(records), records.__getitem__, configuration, seed)


def make_sampler(seed: int = 0, dimension: int = 3, **augmentation: float) -> Sampler:
    spec = msgspec.structs.replace(LIVELY, **augmentation)
    voxels = (tuple((3, 4, z) for z in range(5, 20)), ((0, 0, 0), (19, 29, 24)))
    cases = tuple(make_prepared_case(name, (20, 30, 25), voxels) for name in "ABC")
    return sample_from(cases, make_configuration(dimension, augmentation=spec), seed)


def as_text(sample: object) -> str:
    return repr(sample)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_number_gives_the_same_sample_in_any_order(dimension):
    forward = [as_text(make_sampler(dimension=dimension).draw(number)) for number in range(12)]
    sampler = make_sampler(dimension=dimension)
    backward = [as_text(sampler.draw(number)) for number in reversed(range(12))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 12
    assert forward != [as_text(make_sampler(seed=1, dimension=dimension).draw(number)) for number in range(12)]


def test_every_pass_sees_every_case_once_in_an_order_of_its_own():
    sampler = make_sampler()
    passes = [tuple(sampler.draw(turn * 3 + place).case for place in range(3)) for turn in range(20)]
    assert all(sorted(order) == ["A", "B", "C"] for order in passes)
    assert len(set(passes)) > 1


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.tuples(*[st.integers(5, 20)] * 3), st.data(), st.integers(0, 1000))
def test_a_foreground_sample_contains_its_voxel(shape, data, number):
    voxel = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    spec = msgspec.structs.replace(STILL, foreground_probability=1.0)
    sampler = sample_from((make_prepared_case("A", shape, ((), (voxel,))),), make_configuration(augmentation=spec), 3)
    box = sampler.draw(number).box
    assert all(low <= index < high for index, (low, high) in zip(voxel, box))


@pytest.mark.parametrize("dimension", [2, 3])
def test_where_voxels_are_to_be_ignored_other_samples_lie_around_one_that_is_not(dimension):
    spec = msgspec.structs.replace(STILL, foreground_probability=0.0)
    labelled = ((20, 15, 9), (20, 9, 15))
    case = make_prepared_case("A", (30, 30, 30), (((1, 1, 1),),))
    case = msgspec.structs.replace(case, labelled=pack_voxels(np.array(labelled)))
    sampler = sample_from((case,), make_configuration(dimension, augmentation=spec), 3)
    samples = [sampler.draw(number) for number in range(20)]
    for sample in samples:
        box = sample.box if dimension == 3 else ((sample.slice_index, sample.slice_index + 1), *sample.box)
        assert any(all(low <= index < high for index, (low, high) in zip(voxel, box)) for voxel in labelled)
    assert len({sample.box for sample in samples}) == 2


def test_a_foreground_sample_in_2d_lies_in_the_slice_of_its_voxel():
    sampler = make_sampler(dimension=2, foreground_probability=1.0, rotation_probability=0.0, scaling_probability=0.0)
    slices = {sampler.draw(number).slice_index for number in range(30)}
    assert slices <= {3, 0, 19}
    assert len(slices) > 1


def test_samples_without_augmentation_lie_on_whole_voxels_inside_the_image():
    sampler = make_sampler(rotation_probability=0.0, scaling_probability=0.0)
    for number in range(30):
        sample = sampler.draw(number)
        assert sample.on_voxels
        assert all(high - low == 8 for low, high in sample.box)
        assert all((middle - 3.5).is_integer() for middle in sample.centre)


def test_an_image_smaller_than_the_patch_lies_inside_it():
    sampler = sample_from((make_prepared_case("A", (4, 5, 20)),), make_configuration(), 0)
    for number in range(10):
        assert sampler.draw(number).box[:2] == ((0, 4), (0, 5))


def test_foreground_and_free_samples_come_as_often_as_planned():
    spec = msgspec.structs.replace(STILL, foreground_probability=0.33)
    case = make_prepared_case("A", (100, 100, 100), (((50, 50, 50),),))
    sampler = sample_from((case,), make_configuration(augmentation=spec), 0)
    centred = [all(low <= 50 < high for low, high in sampler.draw(number).box) for number in range(300)]
    assert np.mean(centred) == pytest.approx(0.33, abs=0.08)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 3))
def test_the_touched_box_is_what_linear_interpolation_reads(seed, dimension):
    generator = np.random.default_rng(seed)
    patch, shape = tuple(generator.integers(1, 6, dimension)), tuple(generator.integers(1, 12, dimension))
    centre = tuple(generator.uniform(0, size - 1) for size in shape)
    matrix = generator.normal(0, 0.8, (dimension, dimension))
    touched = []
    for index in product(*(range(edge) for edge in patch)):
        position = np.array(centre) + matrix @ (np.array(index) - (np.array(patch) - 1) / 2)
        touched += [np.floor(position), np.ceil(position)]
    box = compute_touched_box(centre, matrix, patch, shape)
    for axis, (low, high) in enumerate(box):
        assert 0 <= low < high <= shape[axis]
        read = [value[axis] for value in touched]
        assert low == np.clip(min(read), 0, shape[axis] - 1)
        assert high == np.clip(max(read) + 1, low + 1, shape[axis])


def test_small_objects_are_centred_on_as_often_as_large_ones_where_asked():
    spec = msgspec.structs.replace(STILL, foreground_probability=1.0, object_probability=1.0)
    large, small = [(20, 20, z) for z in range(50)], [(80, 80, 80)]
    case = make_prepared_case("A", (100, 100, 100), ((*large, *small),))
    packed = (tuple(pack_voxels(np.array(voxels)) for voxels in (large, small)),)
    sampler = sample_from((msgspec.structs.replace(case, objects=packed),), make_configuration(augmentation=spec))
    on_small = [all(low <= 80 < high for low, high in sampler.draw(number).box) for number in range(300)]
    assert np.mean(on_small) == pytest.approx(0.5, abs=0.08)


def test_only_axes_that_are_turned_are_interpolated():
    """Rotation in the plane leaves a volume of thick slices on its slices."""
    spec = msgspec.structs.replace(STILL, rotation_probability=1.0, rotation=(180.0, 0.0))
    sampler = sample_from((make_prepared_case("A", (20, 30, 25)),), make_configuration(augmentation=spec))
    for number in range(20):
        sample = sampler.draw(number)
        assert (sample.centre[0] - 3.5).is_integer()
        assert not sample.on_voxels


def test_bent_patches_read_as_far_as_they_are_bent():
    spec = msgspec.structs.replace(STILL, elastic_probability=1.0)
    sampler = sample_from((make_prepared_case("A", (60, 60, 60)),), make_configuration(augmentation=spec))
    for number in range(20):
        sample = sampler.draw(number)
        reach = np.abs(sample.displacements).max()
        assert not sample.on_voxels
        for middle, (low, high) in zip(sample.centre, sample.box):
            assert low == max(0, np.floor(middle - 3.5 - reach))
            assert high == min(60, np.ceil(middle + 3.5 + reach) + 1)


def test_records_of_cases_are_not_all_kept(monkeypatch):
    loaded = []
    monkeypatch.setattr("autoseg.training.sampling.KEPT_RECORDS", 2)
    records = {name: make_prepared_case(name, (20, 20, 20)) for name in "ABCDE"}
    sampler = Sampler(tuple(records), lambda name: loaded.append(name) or records[name], make_configuration(), 0)
    for number in range(20):
        sampler.draw(number)
    assert len(loaded) > 10
