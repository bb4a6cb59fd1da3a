"""Which patch a sample is depends on seed and number alone, and lies where it says."""

from itertools import product

import msgspec
import numpy as np
import pytest
from builders import STILL, make_configuration, make_prepared_case
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.records.plan import AugmentationSpec
from autoseg.training.sampling import Sampler, compute_touched_box, draw_intensity, draw_matrix, make_generator

LIVELY = AugmentationSpec(rotation_probability=0.5, scaling_probability=0.5)


def make_sampler(seed: int = 0, dimension: int = 3, **augmentation: float) -> Sampler:
    spec = msgspec.structs.replace(LIVELY, **augmentation)
    voxels = (tuple((3, 4, z) for z in range(5, 20)), ((0, 0, 0), (19, 29, 24)))
    cases = tuple(make_prepared_case(name, (20, 30, 25), voxels) for name in "ABC")
    return Sampler(cases, make_configuration(dimension, augmentation=spec), seed)


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
    sampler = Sampler((make_prepared_case("A", shape, ((), (voxel,))),), make_configuration(augmentation=spec), 3)
    box = sampler.draw(number).box
    assert all(low <= index < high for index, (low, high) in zip(voxel, box))


@pytest.mark.parametrize("dimension", [2, 3])
def test_where_voxels_are_to_be_ignored_other_samples_lie_around_one_that_is_not(dimension):
    spec = msgspec.structs.replace(STILL, foreground_probability=0.0)
    case = msgspec.structs.replace(make_prepared_case("A", (30, 30, 30), (((1, 1, 1),),)), labelled=((20, 15, 9), (20, 9, 15)))
    sampler = Sampler((case,), make_configuration(dimension, augmentation=spec), 3)
    samples = [sampler.draw(number) for number in range(20)]
    for sample in samples:
        box = sample.box if dimension == 3 else ((sample.slice_index, sample.slice_index + 1), *sample.box)
        assert any(all(low <= index < high for index, (low, high) in zip(voxel, box)) for voxel in case.labelled)
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
        assert sample.identity
        assert all(high - low == 8 for low, high in sample.box)
        assert all((middle - 3.5).is_integer() for middle in sample.centre)


def test_an_image_smaller_than_the_patch_lies_inside_it():
    sampler = Sampler((make_prepared_case("A", (4, 5, 20)),), make_configuration(), 0)
    for number in range(10):
        assert sampler.draw(number).box[:2] == ((0, 4), (0, 5))


def test_foreground_and_free_samples_come_as_often_as_planned():
    spec = msgspec.structs.replace(STILL, foreground_probability=0.33)
    case = make_prepared_case("A", (100, 100, 100), (((50, 50, 50),),))
    sampler = Sampler((case,), make_configuration(augmentation=spec), 0)
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


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0, 1.0), (5.0, 0.7, 0.9)])
def test_a_rotation_preserves_physical_lengths_and_angles(spacing):
    scale = np.diag(spacing)
    for number in range(20):
        matrix, identity = draw_matrix(
            make_generator(number), msgspec.structs.replace(LIVELY, rotation_probability=1.0, scaling_probability=0.0), spacing
        )
        assert not identity
        turn = scale @ matrix @ np.linalg.inv(scale)
        np.testing.assert_allclose(turn @ turn.T, np.eye(len(spacing)), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_a_zoom_scales_all_axes_alike_within_its_range():
    spec = msgspec.structs.replace(LIVELY, rotation_probability=0.0, scaling_probability=1.0)
    zooms = []
    for number in range(200):
        matrix, _ = draw_matrix(make_generator(number), spec, (5.0, 1.0, 1.0))
        np.testing.assert_allclose(matrix, np.eye(3) * matrix[0, 0], atol=1e-12)
        zooms.append(matrix[0, 0])
    assert 0.7 <= min(zooms) < 0.75
    assert 1.3 < max(zooms) <= 1.4


def test_no_rotation_and_no_zoom_is_the_identity():
    matrix, identity = draw_matrix(make_generator(0), STILL, (5.0, 1.0, 1.0))
    assert identity
    assert np.array_equal(matrix, np.eye(3))


def test_intensity_changes_come_as_often_as_planned_and_within_their_ranges():
    spec = AugmentationSpec()
    drawn = [draw_intensity(make_generator(number), spec) for number in range(1500)]
    ranges = {
        "noise_std": (spec.noise_probability, spec.noise_std),
        "blur_sigma": (spec.blur_probability, spec.blur_sigma),
        "brightness": (spec.brightness_probability, spec.brightness),
        "contrast": (spec.contrast_probability, spec.contrast),
        "low_resolution": (spec.low_resolution_probability, spec.low_resolution),
        "inverted_gamma": (spec.inverted_gamma_probability, spec.gamma),
        "gamma": (spec.gamma_probability, spec.gamma),
    }
    for name, (probability, (low, high)) in ranges.items():
        values = np.array([value for value in (getattr(one, name) for one in drawn) if value is not None])
        assert len(values) / len(drawn) == pytest.approx(probability, abs=0.04), name
        assert low <= values.min() < values.max() <= high, name
        if name in ("brightness", "contrast", "gamma", "inverted_gamma"):
            assert (values < 1).mean() == pytest.approx(0.5, abs=0.12), name
