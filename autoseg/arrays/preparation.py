"""From a scan to what the network sees: the one function behind `prepare` and `predict`."""

import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, compute_nonzero_mask, crop
from autoseg.arrays.intensities import normalize_channel
from autoseg.arrays.resampling import compute_resampled_shape, find_coarse_axis, resample_ids, resample_image, resample_label
from autoseg.records.plan import Configuration
from autoseg.records.prepared import Geometry


def expand_spacing(configuration: Configuration, spacing: tuple[float, ...]) -> tuple[float, ...]:
    """The configuration's spacing for every axis of the image: a 2D configuration keeps a volume's own slice spacing."""
    return (*spacing[: len(spacing) - configuration.dimension], *configuration.spacing)


def prepare_image(
    image: np.ndarray, spacing: tuple[float, ...], axes: tuple[int, ...], configuration: Configuration
) -> tuple[np.ndarray, Geometry]:
    """Transposes, crops to the nonzero region, normalises and resamples a canonical image (channel, …); spacing in mm, canonical order.

    Returns float32 (channel, …) on the configuration's spacing and the geometry that leads back.
    """
    image = image.transpose(0, *(axis + 1 for axis in axes))
    spacing = tuple(spacing[axis] for axis in axes)
    mask = compute_nonzero_mask(image)
    box = compute_bounding_box(mask)
    cropped, mask = crop(image, box), crop(mask, box)
    normalized = np.stack([normalize_channel(c, n, mask) for c, n in zip(cropped, configuration.normalization)])
    target = expand_spacing(configuration, spacing)
    shape = compute_resampled_shape(cropped.shape[1:], spacing, target)
    prepared = resample_image(normalized, shape, find_coarse_axis(spacing, target))
    return prepared, Geometry(shape=image.shape[1:], box=box, prepared_shape=shape)


def prepare_label(
    label: np.ndarray, spacing: tuple[float, ...], axes: tuple[int, ...], configuration: Configuration, geometry: Geometry
) -> np.ndarray:
    """The label map (canonical, class numbers) on the same voxels as the prepared image. int16."""
    return resample_label(*_cut_label(label, spacing, axes, configuration, geometry)).astype(np.int16)


def prepare_ids(
    ids: np.ndarray, spacing: tuple[float, ...], axes: tuple[int, ...], configuration: Configuration, geometry: Geometry
) -> np.ndarray:
    """The map of objects (canonical, 1 … M) on the same voxels as the prepared image; int32.

    Numbers stay; objects without a voxel left, or where the image shows nothing (geometry's crop), are gone.
    """
    return resample_ids(*_cut_label(ids, spacing, axes, configuration, geometry)).astype(np.int32)


def _cut_label(
    label: np.ndarray, spacing: tuple[float, ...], axes: tuple[int, ...], configuration: Configuration, geometry: Geometry
) -> tuple[np.ndarray, tuple[int, ...], int | None]:
    """A canonical label map transposed and cropped as the image was, the shape to come, and the axis resampled by nearest neighbour."""
    spacing = tuple(spacing[axis] for axis in axes)
    coarse = find_coarse_axis(spacing, expand_spacing(configuration, spacing))
    return crop(label.transpose(axes), geometry.box), geometry.prepared_shape, coarse


def measure_background(image: np.ndarray) -> tuple[float, ...]:
    """What lies beyond the border, per channel of a prepared image: the 1 % quantile of the values on the image's outer faces."""
    values = []
    for channel in image:
        faces = np.concatenate(
            [np.take(channel, (0, -1), axis=axis).ravel() for axis in range(channel.ndim) if channel.shape[axis] > 1] or [channel.ravel()]
        )
        values.append(float(np.quantile(faces, 0.01)))
    return tuple(values)
