"""What drawn intensity changes do to a batch, in torch on the training device. No randomness but the noise, whose seeds were drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoseg.training.sampling import Sample

BLUR_REACH = 3.0  # standard deviations
SMALL = 1e-7


@dataclass(frozen=True)
class Change:
    """One kind of change: the rows of a batch (sample · channel, *patch) that it strikes, and its numbers, a first axis for the rows."""

    name: str
    rows: Tensor
    values: tuple[Tensor, ...]
    seeds: tuple[int, ...] = ()

    def move(self, place: Callable[[Tensor], Tensor]) -> "Change":
        """The same with its tensors placed elsewhere."""
        return replace(self, rows=place(self.rows), values=tuple(place(value) for value in self.values))


def collect_changes(samples: list[Sample], patch: tuple[int, ...]) -> list[Change]:
    """All that was drawn for the samples, in the order in which it is done (nnU-Net's; what it does not have comes last)."""
    drawn = [sample.intensity for sample in samples]
    channels = len(samples[0].background)
    table = {
        name: np.concatenate([getattr(one, name) for one in drawn])
        for name in ("brightness", "contrast", "inverted_gamma", "gamma", "zoom")
    }
    blur = np.concatenate([one.blur for one in drawn])
    noise = np.repeat([one.noise_std for one in drawn], channels)
    seeds = [sample.seed + channel for sample in samples for channel in range(channels)]
    changes = [_make_change("noise", np.flatnonzero(noise), [noise], seeds)]
    changes.append(
        _make_axis_change("blur", np.flatnonzero(blur.any(axis=1)), patch, lambda row, axis: _make_blur(patch[axis], blur[row, axis]))
    )
    changes += [_make_change(name, np.flatnonzero(table[name] != 1), [table[name]]) for name in ("brightness", "contrast")]
    zoom = table["zoom"]
    changes.append(_make_axis_change("zoom", np.flatnonzero(zoom != 1), patch, lambda row, axis: _make_coarser(patch[axis], zoom[row])))
    changes += [_make_change(name, np.flatnonzero(table[name] != 1), [table[name]]) for name in ("inverted_gamma", "gamma")]
    changes.append(_collect_streaks(samples, channels))
    changes.append(_collect_occlusions(samples, patch))
    return [change for change in changes if len(change.rows)]


def _make_change(name: str, rows: np.ndarray, tables: list[np.ndarray], seeds: list[int] | None = None) -> Change:
    values = tuple(torch.from_numpy(table[rows].astype(np.float32)) for table in tables)
    return Change(name, torch.from_numpy(rows), values, tuple(seeds[row] for row in rows) if seeds else ())


def _make_axis_change(name: str, rows: np.ndarray, patch: tuple[int, ...], make: Callable[[int, int], np.ndarray]) -> Change:
    """A change that is linear along each axis: one matrix per row and axis."""
    matrices = [np.stack([make(row, axis) for row in rows]) if len(rows) else np.empty(0) for axis in range(len(patch))]
    return Change(name, torch.from_numpy(rows), tuple(torch.from_numpy(matrix.astype(np.float32)) for matrix in matrices))


def _make_blur(size: int, sigma: float) -> np.ndarray:
    """Gaussian blur of `size` voxels as a matrix, edges replicated; sigma in voxels."""
    offsets = np.arange(-math.ceil(BLUR_REACH * sigma), math.ceil(BLUR_REACH * sigma) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma else np.ones(1)
    matrix = np.zeros((size, size))
    places = np.arange(size)
    for offset, weight in zip(offsets, weights / weights.sum()):
        np.add.at(matrix, (places, np.clip(places + offset, 0, size - 1)), weight)
    return matrix


def _make_coarser(size: int, zoom: float) -> np.ndarray:
    """Down to `zoom` times the voxels by nearest neighbour and up again linearly, as a matrix: a scan of larger voxels."""
    small = max(1, round(size * zoom))
    taken = np.floor((np.arange(small) + 0.5) * size / small).astype(int)
    position = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    low = np.floor(position).astype(int)
    high, share = np.minimum(low + 1, small - 1), position - low
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size), taken[low]), 1 - share)
    np.add.at(matrix, (np.arange(size), taken[high]), share)
    return matrix


def _collect_streaks(samples: list[Sample], channels: int) -> Change:
    found = [(place, sample.intensity.streaks) for place, sample in enumerate(samples) if sample.intensity.streaks]
    rows = [place * channels + channel for place, _ in found for channel in range(channels)]
    numbers = [(s.strength, *s.centre, s.rays, s.phase, s.reach) for _, s in found if s for _ in range(channels)]
    table = np.array(numbers, dtype=np.float32).reshape(-1, 6)
    return Change("streaks", torch.tensor(rows, dtype=torch.long), (torch.from_numpy(table),))


def _collect_occlusions(samples: list[Sample], patch: tuple[int, ...]) -> Change:
    rows, boxes, fills = [], [], []
    for place, sample in enumerate(samples):
        for channel, fill in enumerate(sample.background if sample.intensity.occlusion else ()):
            rows.append(place * len(sample.background) + channel)
            boxes.append([[low * edge, high * edge] for (low, high), edge in zip(sample.intensity.occlusion, patch)])
            fills.append(fill)
    table = np.array(boxes, dtype=np.float32).reshape(-1, len(patch), 2)
    return Change("occlusion", torch.tensor(rows, dtype=torch.long), (torch.from_numpy(table), torch.tensor(fills, dtype=torch.float32)))


def apply_changes(images: Tensor, changes: list[Change]) -> Tensor:
    """Does the changes to a batch (sample, channel, *patch) float32, in place, and returns it.

    A CPU works on one row after the other, where it lies; a GPU on all at once.
    """
    rows = images.view(-1, *images.shape[2:])
    for change in changes:
        if images.device.type == "cpu":
            for place, row in enumerate(change.rows.tolist()):
                here = slice(place, place + 1)
                alone = replace(change, values=tuple(value[here] for value in change.values), seeds=change.seeds[here])
                rows[row : row + 1].copy_(_apply_change(rows[row : row + 1], alone))
        else:
            rows[change.rows] = _apply_change(rows[change.rows], change)
    return images


def _apply_change(rows: Tensor, change: Change) -> Tensor:
    return _add_noise(rows, change) if change.name == "noise" else CHANGES[change.name](rows, *change.values)


def apply_axes(rows: Tensor, *matrices: Tensor) -> Tensor:
    """rows (n, *shape) multiplied along each axis by matrices (n, out, in), one tensor per axis; returns (n, *outs)."""
    for axis, matrix in enumerate(matrices, 1):
        before, after = rows.shape[1:axis], rows.shape[axis + 1 :]
        if not after:
            flat = rows.reshape(len(rows), -1, rows.shape[axis]) @ matrix.transpose(1, 2)
        else:
            flat = matrix[:, None] @ rows.reshape(len(rows), math.prod(before), rows.shape[axis], math.prod(after))
        rows = flat.reshape(len(rows), *before, matrix.shape[1], *after)
    return rows


def _expand(value: Tensor, rows: Tensor) -> Tensor:
    """One number per row, to be broadcast over its voxels."""
    return value.view(-1, *(1,) * (rows.ndim - 1))


def _spatial(rows: Tensor) -> tuple[int, ...]:
    return tuple(range(1, rows.ndim))


def _add_noise(rows: Tensor, change: Change) -> Tensor:
    """Gaussian noise; every row has its own seed, so that it does not depend on the other samples."""
    generator = torch.Generator(rows.device)
    noise = torch.empty_like(rows)
    for row, seed in zip(noise, change.seeds):
        row.normal_(generator=generator.manual_seed(seed))
    return noise.mul_(_expand(change.values[0], rows)).add_(rows)


def _change_brightness(rows: Tensor, factor: Tensor) -> Tensor:
    return rows * _expand(factor, rows)


def _change_contrast(rows: Tensor, factor: Tensor) -> Tensor:
    """Stretches about each row's mean, clipped to its old range."""
    low, high = rows.flatten(1).amin(1), rows.flatten(1).amax(1)
    mean = rows.mean(_spatial(rows))
    stretched = torch.addcmul(_expand(mean - mean * factor, rows), rows, _expand(factor, rows))
    torch.maximum(stretched, _expand(low, rows), out=stretched)  # a CPU takes five times as long to clamp between tensors
    return torch.minimum(stretched, _expand(high, rows), out=stretched)


def _change_gamma(rows: Tensor, gamma: Tensor) -> Tensor:
    """x^gamma on each row's own range, mean and deviation restored; as exp(gamma log x), which is five times as fast as the power."""
    low, high = rows.flatten(1).amin(1), rows.flatten(1).amax(1)
    span = (high - low).clamp(min=SMALL)
    shares = (rows - _expand(low, rows)).div_(_expand(span, rows))
    mean, std = _measure(shares)
    changed = shares.log_().mul_(_expand(gamma, rows)).exp_()
    other_mean, other_std = _measure(changed)
    scale = std / other_std.clamp(min=SMALL)
    return changed.mul_(_expand(scale * span, rows)).add_(_expand((mean - other_mean * scale) * span + low, rows))


def _measure(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of rows of values in 0 … 1, where the mean of the squares loses nothing."""
    flat = rows.flatten(1)
    mean = flat.mean(1)
    return mean, (torch.linalg.vector_norm(flat, dim=1).square() / flat.shape[1] - mean.square()).clamp_(min=0).sqrt()


def _change_inverted_gamma(rows: Tensor, gamma: Tensor) -> Tensor:
    return _change_gamma(rows.neg(), gamma).neg_()


def _add_streaks(rows: Tensor, numbers: Tensor) -> Tensor:
    """Bright and dark rays from a point, as metal leaves them in CT (an imitation): cosine of the angle's multiple, fading with distance.

    numbers (n, 6): strength in deviations of the row, centre y and x as shares, number of rays, phase, reach as a share of the longer edge.
    """
    strength, centre_y, centre_x, rays, phase, reach = (_expand(column, rows) for column in numbers.unbind(1))
    edges = rows.shape[-2:]
    y = torch.arange(edges[0], device=rows.device).view(-1, 1) - centre_y * edges[0]
    x = torch.arange(edges[1], device=rows.device) - centre_x * edges[1]
    pattern = torch.cos(rays * torch.atan2(y, x) + phase) * torch.exp(-torch.hypot(y, x) / (reach * max(edges)))
    return rows + pattern * strength * _expand(rows.std(_spatial(rows)), rows)


def _occlude(rows: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """A box blanked with the background (DeVries 2017, arXiv 1708.04552); boxes (n, dimension, 2) in voxels."""
    inside = torch.ones((), dtype=torch.bool, device=rows.device)
    for axis in range(rows.ndim - 1):
        index = torch.arange(rows.shape[axis + 1], device=rows.device) + 0.5
        low, high = boxes[:, axis, :1], boxes[:, axis, 1:]
        within = (index >= low) & (index < high)
        inside = inside & within.view(len(rows), *(-1 if other == axis else 1 for other in range(rows.ndim - 1)))
    return torch.where(inside, _expand(fill, rows), rows)


CHANGES: dict[str, Callable[..., Tensor]] = {
    "blur": apply_axes,
    "brightness": _change_brightness,
    "contrast": _change_contrast,
    "zoom": apply_axes,
    "inverted_gamma": _change_inverted_gamma,
    "gamma": _change_gamma,
    "streaks": _add_streaks,
    "occlusion": _occlude,
}
