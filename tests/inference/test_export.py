"""The way back to the scan's grid undoes resampling, crop and axes."""

from itertools import permutations

import numpy as np
import pytest
import torch
from builders import make_configuration
from hypothesis import given, settings
from hypothesis import strategies as st

import autoseg.inference.export as export_module
from autoseg.arrays.labels import decode_labels, encode_labels, list_painted, make_membership
from autoseg.arrays.preparation import expand_spacing, prepare_image, prepare_label
from autoseg.inference.export import Prediction, choose_classes, restore_labels, restore_probabilities
from autoseg.io.classes import read_typed

torch.set_num_threads(1)


def one_hot(label: np.ndarray, classes: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([label == number for number in range(classes)]).astype(np.float32))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    axes=st.sampled_from(list(permutations(range(3)))),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_labels_come_back_from_crop_and_axes_voxel_by_voxel(shape, axes, data, seed):
    generator = np.random.default_rng(seed)
    image, label = np.zeros((1, *shape), np.float32), np.zeros(shape, np.int16)
    box = tuple(sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))) for size in shape)
    inside = tuple(slice(low, high) for low, high in box)
    label[inside] = generator.integers(0, 3, label[inside].shape)
    image[0][inside] = generator.uniform(1, 2, label[inside].shape)
    configuration = make_configuration()
    spacing = (1.0, 1.0, 1.0)
    _, geometry = prepare_image(image, spacing, axes, configuration)
    prepared = prepare_label(label, spacing, axes, configuration, geometry)
    member = Prediction(one_hot(prepared, 3), geometry, spacing, spacing)
    assert np.array_equal(restore_labels([member], axes), label)
    restored = restore_probabilities([member], axes)
    assert restored.dtype == np.float32
    assert np.array_equal(restored, one_hot(label, 3).numpy())


def make_resampled() -> tuple:
    image = np.random.default_rng(0).uniform(1, 2, (1, 11, 13, 9)).astype(np.float32)
    spacing, axes, configuration = (1.5, 0.8, 1.3), (2, 0, 1), make_configuration()
    _, geometry = prepare_image(image, spacing, axes, configuration)
    logits = torch.randn(3, *geometry.prepared_shape, generator=torch.Generator().manual_seed(0))
    turned = tuple(spacing[axis] for axis in axes)
    return [Prediction(logits.softmax(0), geometry, turned, expand_spacing(configuration, turned))], axes


@pytest.mark.parametrize("values", [1, 500, 1500])
def test_slab_by_slab_gives_what_the_whole_gives(monkeypatch, values):
    arguments = make_resampled()
    whole = restore_labels(*arguments)
    assert whole.shape == (11, 13, 9)
    monkeypatch.setattr(export_module, "SLAB_VALUES", values)
    assert np.array_equal(restore_labels(*arguments), whole)


def test_the_label_is_the_most_probable_class_and_probabilities_sum_to_one():
    arguments = make_resampled()
    probabilities = restore_probabilities(*arguments)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=0), restore_labels(*arguments))


def test_a_smooth_object_survives_resampling_and_the_way_back():
    z, y, x = np.ogrid[:24, :30, :28]
    spacing, axes, configuration = (1.5, 0.8, 1.2), (0, 1, 2), make_configuration()
    label = ((((z - 12) * 1.5) ** 2 + ((y - 15) * 0.8) ** 2 + ((x - 14) * 1.2) ** 2) < 64).astype(np.int16)
    _, geometry = prepare_image(np.ones((1, *label.shape), np.float32), spacing, axes, configuration)
    prepared = prepare_label(label, spacing, axes, configuration, geometry)
    assert prepared.shape != label.shape
    back = restore_labels([Prediction(one_hot(prepared, 2), geometry, spacing, configuration.spacing)], axes)
    assert 2 * (back * label).sum() / (back.sum() + label.sum()) > 0.95


REGIONS = {
    "BraTS": ("whole=1+2+3", "core=2+3", "enhancing=3"),
    "KiTS": ("kidney=1+2+3", "masses=2+3", "tumour=2"),
    "side by side": ("body=1+7", "head=3", "eye=7"),
    "crossing": ("a=1+2", "b=2+3", "both=2"),
    "twice the same place": ("all=1+2", "one=1", "two=2"),
}


@pytest.mark.parametrize("typed", REGIONS.values(), ids=REGIONS)
def test_regions_of_a_label_map_paint_the_label_map(typed):
    classes = read_typed(typed).classes
    values = np.random.default_rng(0).choice([0, *sorted({value for label in classes for value in label.values})], (6, 7, 8))
    regions = torch.from_numpy(np.stack([np.isin(values, label.values) for label in classes]).astype(np.float32))
    np.testing.assert_array_equal(decode_labels(choose_classes(regions, regions=True).numpy(), classes, 0), values)
    numbers = encode_labels(values, classes, 0, None)
    np.testing.assert_array_equal(make_membership(classes)[:, numbers], regions.numpy() == 1)
    np.testing.assert_array_equal(list_painted(classes)[choose_classes(regions, regions=True).numpy()], numbers)


def test_values_of_the_same_regions_are_written_as_the_first():
    classes = read_typed(("whole=2+1+3", "core=3")).classes
    regions = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert decode_labels(choose_classes(regions, regions=True).numpy(), classes, 0).tolist() == [2, 3]
    np.testing.assert_array_equal(encode_labels(np.array([1, 2, 3]), classes, 0, None), [1, 1, 2])


def test_regions_are_painted_one_over_the_other_in_their_order():
    probabilities = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    painted = torch.zeros(4, 5, 6, dtype=torch.int64)
    for number, region in enumerate(probabilities, 1):
        painted[region > 0.5] = number
    assert torch.equal(choose_classes(probabilities, regions=True), painted)
    assert len(painted.unique()) == 4


@pytest.mark.parametrize("values", [1, 500])
def test_regions_come_back_slab_by_slab_and_nothing_lies_outside_the_crop(monkeypatch, values):
    generator = np.random.default_rng(0)
    image, spacing, axes, configuration = np.zeros((1, 9, 8, 7), np.float32), (1.0, 1.0, 1.0), (2, 0, 1), make_configuration()
    image[0, 2:8, 1:6, 3:7] = generator.uniform(1, 2, (6, 5, 4))
    _, geometry = prepare_image(image, spacing, axes, configuration)
    probabilities = torch.from_numpy(generator.random((2, *geometry.prepared_shape)).astype(np.float32))
    monkeypatch.setattr(export_module, "SLAB_VALUES", values)
    member = Prediction(probabilities, geometry, spacing, spacing)
    restored = restore_probabilities([member], axes, regions=True)
    labels = restore_labels([member], axes, regions=True)
    assert not restored[:, image[0] == 0].any()
    np.testing.assert_array_equal(labels, np.where(restored[1] > 0.5, 2, np.where(restored[0] > 0.5, 1, 0)))
