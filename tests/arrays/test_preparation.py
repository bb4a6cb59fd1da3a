"""From a scan to what the network sees, and back to the scan's own voxels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.preparation import expand_spacing, measure_background, prepare_image, prepare_label
from autoseg.inference.export import Prediction, restore_labels
from autoseg.records.plan import (
    AugmentationSpec,
    Configuration,
    LossSpec,
    MemoryEstimate,
    NetworkSpec,
    Normalization,
    OptimizerSpec,
    ScheduleSpec,
)


def describe(spacing, scheme="none", channels=1):
    """A configuration of which preparation reads spacing, dimension and normalisation only."""
    return Configuration(
        name="2d" if len(spacing) == 2 else "3d_fullres",
        spacing=spacing,
        median_shape=(8,) * len(spacing),
        patch_size=(8,) * len(spacing),
        batch_size=2,
        steps_per_epoch=1,
        normalization=(Normalization(scheme=scheme),) * channels,
        network=NetworkSpec(kind="plain", strides=(), kernel_sizes=(), features=(), convolutions=(), decoder_convolutions=()),
        batch_dice=True,
        loss=LossSpec(),
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.01, weight_decay=0.0),
        schedule=ScheduleSpec(name="poly", warmup=0.0, averaging=0.0, epochs=1, minutes=0.0),
        augmentation=AugmentationSpec(),
        mirror_axes=(),
        memory=MemoryEstimate(training_bytes=0, prediction_bytes=0),
        reasons={},
    )


def draw_ball(shape, spacing):
    """A label map with a ball (1) in a ball (2), off centre; the border is background."""
    grid = np.meshgrid(*[(np.arange(size) + 0.5) * step for size, step in zip(shape, spacing)], indexing="ij")
    extents = [size * step for size, step in zip(shape, spacing)]
    distance = np.sqrt(sum(((axis - 0.45 * extent) / (0.4 * extent)) ** 2 for axis, extent in zip(grid, extents)))
    return np.where(distance < 0.5, 1, np.where(distance < 1, 2, 0)).astype(np.int16)


def test_a_scan_is_transposed_cropped_normalised_and_resampled():
    image = np.zeros((2, 6, 8, 10), np.float32)
    image[:, 1:5, 2:6, 3:9] = np.random.default_rng(0).uniform(10, 20, (2, 4, 4, 6))
    prepared, geometry = prepare_image(image, (1.0, 1.0, 2.0), (2, 0, 1), describe((1.0, 1.0, 1.0), "zscore", 2))
    assert geometry.shape == (10, 6, 8)
    assert geometry.box == ((3, 9), (1, 5), (2, 6))
    assert geometry.prepared_shape == (12, 4, 4)
    assert prepared.shape == (2, 12, 4, 4)
    assert prepared.dtype == np.float32
    inside = image[1, 1:5, 2:6, 3:9].transpose(2, 0, 1)
    middle = (inside - inside.mean()) / inside.std()
    assert np.corrcoef(prepared[1].reshape(6, 2, -1).mean(axis=1).ravel(), middle.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (1.7, 0.8, 0.8), (4.0, 1.0, 1.0)])
def test_image_and_label_stay_on_the_same_voxels(axes, target):
    spacing = (1.0, 1.5, 0.7)
    label = draw_ball((20, 16, 30), spacing)
    image = np.stack([(label == 1), (label > 0)]).astype(np.float32)
    configuration = describe(target, channels=2)
    prepared, geometry = prepare_image(image, spacing, axes, configuration)
    moved = prepare_label(label, spacing, axes, configuration, geometry)
    assert moved.dtype == np.int16
    assert moved.shape == prepared.shape[1:] == geometry.prepared_shape
    for shown, mask in zip(prepared > 0.5, (moved == 1, moved > 0)):
        assert 2 * (shown & mask).sum() / (shown.sum() + mask.sum()) > 0.9


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.permutations((0, 1, 2)), st.tuples(*[st.integers(2, 7)] * 3), st.integers(0, 999))
def test_transposing_and_cropping_are_undone_by_prediction(axes, shape, seed):
    """Without resampling every label comes back to its own voxel: crop, transposition, and their inverses in inference/export."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, shape) * (generator.random(shape) < 0.3)
    spacing, axes = (1.0, 1.5, 2.0), tuple(axes)
    transposed = tuple(spacing[axis] for axis in axes)
    configuration = describe(transposed)
    _, geometry = prepare_image(label[None].astype(np.float32), spacing, axes, configuration)
    prepared = prepare_label(label, spacing, axes, configuration, geometry)
    probabilities = torch.from_numpy(np.stack([prepared == number for number in range(3)]).astype(np.float32))
    np.testing.assert_array_equal(restore_labels([Prediction(probabilities, geometry, transposed, transposed)], axes), label)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_label_that_was_resampled_comes_back_almost_as_it_was(axes):
    spacing = (1.0, 1.5, 0.7)
    label = draw_ball((24, 16, 34), spacing)
    configuration = describe((0.9, 0.9, 0.9))
    _, geometry = prepare_image((label > 0)[None].astype(np.float32), spacing, axes, configuration)
    prepared = prepare_label(label, spacing, axes, configuration, geometry)
    probabilities = torch.from_numpy(np.stack([prepared == number for number in range(3)]).astype(np.float32))
    turned = tuple(spacing[axis] for axis in axes)
    restored = restore_labels([Prediction(probabilities, geometry, turned, configuration.spacing)], axes)
    assert restored.shape == label.shape
    assert (restored == label).mean() > 0.97


def test_a_2d_configuration_keeps_the_slices_of_a_volume():
    image = np.ones((1, 3, 8, 8), np.float32)
    configuration = describe((2.0, 2.0))
    assert expand_spacing(configuration, (5.0, 1.0, 1.0)) == (5.0, 2.0, 2.0)
    assert expand_spacing(configuration, (1.0, 1.0)) == (2.0, 2.0)
    prepared, geometry = prepare_image(image, (5.0, 1.0, 1.0), (0, 1, 2), configuration)
    assert prepared.shape == (1, 3, 4, 4)
    assert geometry.prepared_shape == (3, 4, 4)


def test_an_ignored_voxel_stays_ignored():
    label = np.full((4, 4), -1, np.int16)
    label[:2] = 1
    configuration = describe((0.5, 0.5))
    _, geometry = prepare_image(np.ones((1, 4, 4), np.float32), (1.0, 1.0), (0, 1), configuration)
    prepared = prepare_label(label, (1.0, 1.0), (0, 1), configuration, geometry)
    assert sorted(np.unique(prepared)) == [-1, 1]
    assert (prepared[:4] == 1).all()
    assert (prepared[4:] == -1).all()


def test_the_background_is_the_low_end_of_the_outer_faces_of_each_channel():
    image = np.full((2, 5, 6, 7), 100.0)
    image[0, 1:-1, 1:-1, 1:-1] = -999  # inside: does not count
    image[1, 0], image[1, -1] = -5, -5
    assert measure_background(image) == (100, -5)
    assert measure_background(np.full((1, 1, 1), 3.0)) == (3,)
