"""From probabilities on the network's grid to a label map on the scan's: slab by slab, so that memory does not grow with the classes."""

import numpy as np
import torch
from torch import Tensor

from autoseg.arrays.cropping import paste
from autoseg.arrays.preparation import expand_spacing
from autoseg.arrays.resampling import make_probability_matrices
from autoseg.inference.sliding_window import upsample_slab
from autoseg.records.plan import Configuration
from autoseg.records.prepared import Geometry

SLAB_VALUES = 32_000_000  # float32 values of one slab, all classes: 128 MB


def _make_matrices(geometry: Geometry, spacing: tuple[float, ...], configuration: Configuration) -> list[Tensor]:
    cropped = tuple(high - low for low, high in geometry.box)
    target = expand_spacing(configuration, spacing)
    return [torch.from_numpy(matrix) for matrix in make_probability_matrices(geometry.prepared_shape, cropped, spacing, target)]


def _list_slabs(classes: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    rows = max(1, SLAB_VALUES // max(1, classes * int(np.prod(shape[1:]))))
    return [(low, min(low + rows, shape[0])) for low in range(0, shape[0], rows)]


def _untranspose(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Back from the plan's axis order to the canonical one (the last axes)."""
    leading = array.ndim - len(axes)
    return np.ascontiguousarray(array.transpose(*range(leading), *(int(axis) + leading for axis in np.argsort(axes))))


def choose_classes(probabilities: Tensor, regions: bool) -> Tensor:
    """(class, …) → class numbers (…): the most probable, or the last of the regions above one half, as nnU-Net paints them; 0 is none.

    >>> choose_classes(torch.tensor([[0.9, 0.9, 0.2], [0.6, 0.3, 0.4]]), regions=True).tolist()
    [2, 1, 0]
    """
    if not regions:
        return probabilities.argmax(dim=0)
    numbers = torch.arange(1, len(probabilities) + 1).view(-1, *(1,) * (probabilities.ndim - 1))
    return ((probabilities > 0.5) * numbers).amax(dim=0)


def restore_labels(
    probabilities: Tensor,
    geometry: Geometry,
    spacing: tuple[float, ...],
    axes: tuple[int, ...],
    configuration: Configuration,
    regions: bool = False,
) -> np.ndarray:
    """Class numbers on the canonical grid of the scan: probabilities (class, …) resampled linearly, classes chosen, crop undone.

    `spacing` (mm) is the scan's own, transposed by `axes` like the geometry. Outside the crop lies background.
    """
    matrices = _make_matrices(geometry, spacing, configuration)
    cropped = tuple(matrix.shape[0] for matrix in matrices)
    labels = np.zeros(cropped, dtype=np.int32)
    for low, high in _list_slabs(probabilities.shape[0], cropped):
        labels[low:high] = choose_classes(upsample_slab(probabilities, matrices, low, high), regions).numpy()
    return _untranspose(paste(labels, geometry.shape, geometry.box), axes)


def restore_probabilities(
    probabilities: Tensor,
    geometry: Geometry,
    spacing: tuple[float, ...],
    axes: tuple[int, ...],
    configuration: Configuration,
    regions: bool = False,
) -> np.ndarray:
    """Probabilities (class, …) on the canonical grid of the scan, float32; outside the crop background, or no region, is certain."""
    matrices = _make_matrices(geometry, spacing, configuration)
    whole = paste(upsample_slab(probabilities, matrices, 0, matrices[0].shape[0]).numpy(), geometry.shape, geometry.box)
    if not regions:
        outside = np.ones(geometry.shape, dtype=bool)
        outside[tuple(slice(low, high) for low, high in geometry.box)] = False
        whole[0][outside] = 1
    return _untranspose(whole, axes)
