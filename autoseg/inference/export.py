"""From probabilities on the network's grid to a label map on the scan's: slab by slab, so that memory does not grow with the classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoseg.arrays.cropping import paste
from autoseg.arrays.resampling import make_probability_matrices
from autoseg.inference.sliding_window import upsample_slab
from autoseg.records.prepared import Geometry

SLAB_VALUES = 32_000_000  # float32 values of one slab, all classes: 128 MB


@dataclass(frozen=True)
class Prediction:
    """What one configuration says about a scan: probabilities (class, …; float32 or float16) on its network's grid, and the way back.

    `spacing` (mm) is the scan's own and `target` that of the network's grid, both in the order of the plan's axes, as is the geometry.
    """

    probabilities: Tensor
    geometry: Geometry
    spacing: tuple[float, ...]
    target: tuple[float, ...]


def _make_matrices(prediction: Prediction) -> list[Tensor]:
    geometry = prediction.geometry
    cropped = tuple(high - low for low, high in geometry.box)
    matrices = make_probability_matrices(geometry.prepared_shape, cropped, prediction.spacing, prediction.target)
    return [torch.from_numpy(matrix) for matrix in matrices]


def _average_slab(members: Sequence[Prediction], matrices: list[list[Tensor]], low: int, high: int) -> Tensor:
    """Rows low … high - 1 of the cropped grid: the mean of the members' probabilities there, float32.

    Of each member only the rows that these are made of are turned to float32.
    """
    total: Tensor | None = None
    for member, (first, *others) in zip(members, matrices):
        used = first[low:high].any(dim=0).nonzero()
        start, stop = int(used[0]), int(used[-1]) + 1
        slab = upsample_slab(member.probabilities[:, start:stop].float(), [first[:, start:stop], *others], low, high)
        total = slab if total is None else total.add_(slab)
    assert total is not None  # there is at least one member
    return total / len(members) if len(members) > 1 else total


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


def restore_labels(members: Sequence[Prediction], axes: tuple[int, ...], regions: bool = False) -> np.ndarray:
    """Class numbers on the canonical grid of the scan: probabilities resampled linearly and averaged, classes chosen, crop undone.

    The members may have other voxels, but the same crop of the same scan. Outside the crop lies background.
    """
    geometry, matrices = members[0].geometry, [_make_matrices(member) for member in members]
    cropped = tuple(matrix.shape[0] for matrix in matrices[0])
    labels = np.zeros(cropped, dtype=np.int32)
    for low, high in _list_slabs(members[0].probabilities.shape[0], cropped):
        labels[low:high] = choose_classes(_average_slab(members, matrices, low, high), regions).numpy()
    return _untranspose(paste(labels, geometry.shape, geometry.box), axes)


def restore_probabilities(members: Sequence[Prediction], axes: tuple[int, ...], regions: bool = False) -> np.ndarray:
    """Mean probabilities (class, …) on the canonical grid of the scan, float32; outside the crop background, or no region, is certain."""
    geometry, matrices = members[0].geometry, [_make_matrices(member) for member in members]
    whole = paste(_average_slab(members, matrices, 0, matrices[0][0].shape[0]).numpy(), geometry.shape, geometry.box)
    if not regions:
        outside = np.ones(geometry.shape, dtype=bool)
        outside[tuple(slice(low, high) for low, high in geometry.box)] = False
        whole[0][outside] = 1
    return _untranspose(whole, axes)
