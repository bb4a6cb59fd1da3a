"""Intensity statistics and normalisation."""

import numpy as np

from autoseg.records.fingerprint import QUANTILE_LEVELS, Intensities
from autoseg.records.plan import Normalization

EPSILON = 1e-8


def measure_intensities(values: np.ndarray) -> Intensities:
    """Count, mean, population std and quantiles of a set of values (any shape); sums in float64."""
    if values.size == 0:
        return Intensities(count=0, mean=0.0, std=0.0, quantiles=())
    ordered = np.sort(values, axis=None)  # once for all levels; np.quantile takes ten times longer
    places = np.array(QUANTILE_LEVELS) * (ordered.size - 1)
    below = places.astype(int)
    low, high = ordered[[below, np.minimum(below + 1, ordered.size - 1)]].astype(np.float64)
    quantiles = low + (high - low) * (places - below)
    mean, std = _mean_and_std(ordered)
    return Intensities(count=ordered.size, mean=mean, std=std, quantiles=tuple(float(q) for q in quantiles))


def normalize_channel(values: np.ndarray, normalization: Normalization, mask: np.ndarray) -> np.ndarray:
    """One channel (…) as float32 on a common scale; `mask` is the nonzero mask, used where the normalisation asks for it.

    With a mask, voxels outside it are set to 0. Raises no error on a constant image: it becomes 0.
    """
    values = values.astype(np.float32)
    match normalization.scheme:
        case "zscore":
            inside = values[mask] if normalization.mask else values
            mean, std = _mean_and_std(inside)
            scaled = (values - mean) / max(std, EPSILON)
            return np.where(mask, scaled, np.float32(0)).astype(np.float32) if normalization.mask else scaled.astype(np.float32)
        case "ct":
            clipped = np.clip(values, normalization.low, normalization.high)
            return ((clipped - normalization.mean) / max(normalization.std, EPSILON)).astype(np.float32)
        case "rescale":
            low, high = float(values.min()), float(values.max())
            return ((values - low) / max(high - low, EPSILON)).astype(np.float32)
        case "rgb":
            return values / np.float32(255)
        case "none":
            return values


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    if values.size == 0:
        return 0.0, 1.0
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def pool_moments(parts: list[Intensities]) -> tuple[float, float]:
    """Mean and population std of the union of several sets, every set weighted alike (as the reference draws equally many per case).

    >>> one = measure_intensities(np.array([1.0, 3.0])); pool_moments([one, one])
    (2.0, 1.0)
    """
    filled = [part for part in parts if part.count]
    if not filled:
        return 0.0, 1.0
    means = np.array([part.mean for part in filled])
    squares = np.array([part.std**2 + part.mean**2 for part in filled])
    mean = float(means.mean())
    return mean, float(np.sqrt(max(squares.mean() - mean**2, 0.0)))


def pool_quantile(parts: list[Intensities], level: float) -> float:
    """Quantile of the union of several sets, every set weighted alike: the mean of their distribution functions is inverted.

    Between the stored quantiles each distribution function is taken as linear, so the result is exact at stored levels of one set.
    """
    filled = [part for part in parts if part.count]
    if not filled:
        return 0.0
    values = np.unique(np.concatenate([part.quantiles for part in filled]))
    distribution = np.mean([_distribution(values, part) for part in filled], axis=0)
    return float(np.interp(level, distribution.ravel(), np.repeat(values, 2)))


def _distribution(values: np.ndarray, part: Intensities) -> np.ndarray:
    """The part's distribution function just below and at sorted `values`: (n, 2). It jumps where quantiles are equal."""
    knots, levels = np.asarray(part.quantiles), np.asarray(QUANTILE_LEVELS)
    below = np.interp(-values, -knots[::-1], levels[::-1], left=1.0, right=0.0)  # np.interp takes the last of equal knots
    return np.stack([below, np.interp(values, knots, levels, left=0.0, right=1.0)], axis=1)
