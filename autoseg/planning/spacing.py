"""At which spacing to work, in which axis order, and how large scans are there (rules of nnU-Net, Nature Methods 2021, Methods)."""

from dataclasses import dataclass

import numpy as np

from autoseg.records.fingerprint import CaseFingerprint, Fingerprint

ANISOTROPY = 3.0
COARSE_QUANTILE = 10.0  # percentile of the slice distances that replaces their median where scans are anisotropic
GRADUAL = (2.0, 4.0)  # ratios between which the percentile goes from the median to COARSE_QUANTILE where there is no threshold at 3
FEWEST_VOXELS = 4.0  # that the smallest objects should have along the coarse axis


@dataclass(frozen=True)
class Resolution:
    """Spacing (mm) and median shape (voxels, .5 between two scans) after the transposition `axes`, with the reason for the spacing."""

    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    axes: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class SpacingRule:
    """`gradual`: no threshold where slices are 3 times as far apart as pixels, and slices close enough for `smallest_object` (mm)."""

    gradual: bool = False
    smallest_object: float = float("inf")


def decide_resolution(fingerprint: Fingerprint, wanted: tuple[float, ...] | None = None, rule: SpacingRule = SpacingRule()) -> Resolution:
    """The full-resolution spacing: the median per axis, finer along slices that are far apart; `wanted` (mm) overrides it.

    The axis of largest spacing comes first, so that a 2D network sees the finest plane.
    """
    spacings = np.array([case.spacing for case in fingerprint.cases])
    shapes = np.array([case.cropped_shape for case in fingerprint.cases])
    target, reason = _decide_spacing(spacings, shapes, rule)
    if wanted is not None:
        target, reason = np.array(wanted), "given with --spacing"
    axes = _order_axes(tuple(target))
    return Resolution(
        spacing=tuple(float(target[axis]) for axis in axes),
        median_shape=compute_median_shape(fingerprint.cases, tuple(target), axes),
        axes=axes,
        reason=reason,
    )


def _decide_spacing(spacings: np.ndarray, shapes: np.ndarray, rule: SpacingRule) -> tuple[np.ndarray, str]:
    target = np.median(spacings, axis=0)
    if len(target) < 3:
        return target, "the median of the images"
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    finest = float(max(target[others]))
    level = _choose_quantile(target, np.median(shapes, axis=0), worst, rule)
    distance = float(np.percentile(spacings[:, worst], level))
    reason = "the median of the scans"
    if level < 50:
        reason += (
            f"; slices lie {target[worst] / finest:.2g} times as far apart as pixels, so their distance is that of the {level:.0f} % "
            f"finest, {distance:.3g} mm"
        )
    if rule.gradual and rule.smallest_object / distance < FEWEST_VOXELS and distance > float(spacings[:, worst].min()):
        distance = max(float(np.percentile(spacings[:, worst], COARSE_QUANTILE)), rule.smallest_object / FEWEST_VOXELS)
        reason += f"; objects of {rule.smallest_object:.3g} mm would vanish between slices further apart than {distance:.3g} mm"
    if level < 50 or rule.gradual:
        target[worst] = distance if distance >= finest else min(target[worst], finest + 1e-5)
    return target, reason


def _choose_quantile(target: np.ndarray, size: np.ndarray, worst: int, rule: SpacingRule) -> float:
    """The percentile of the slice distances to work at: 50 is the median."""
    others = [axis for axis in range(3) if axis != worst]
    if not rule.gradual:
        anisotropic = target[worst] > ANISOTROPY * max(target[others]) and ANISOTROPY * size[worst] < min(size[others])
        return COARSE_QUANTILE if anisotropic else 50.0
    low, high = GRADUAL
    apart = np.clip((target[worst] / max(target[others]) - low) / (high - low), 0, 1)
    flat = np.clip((min(size[others]) / size[worst] - low) / (high - low), 0, 1)
    return float(50.0 - (50.0 - COARSE_QUANTILE) * apart * flat)


def _order_axes(target: tuple[float, ...]) -> tuple[int, ...]:
    if len(target) < 3:
        return tuple(range(len(target)))
    worst = int(np.argmax(target))
    return (worst, *(axis for axis in range(3) if axis != worst))


def compute_median_shape(cases: tuple[CaseFingerprint, ...], target: tuple[float, ...], axes: tuple[int, ...]) -> tuple[float, ...]:
    """Median over cases of the cropped shape at `target` spacing (canonical axis order), transposed by `axes`, in voxels."""
    shapes = np.rint(np.array([case.spacing for case in cases]) / np.array(target) * np.array([case.cropped_shape for case in cases]))
    median = np.median(shapes, axis=0)
    return tuple(max(1.0, float(median[axis])) for axis in axes)
