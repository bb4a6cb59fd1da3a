"""At which spacing to work, in which axis order, and how large scans are there (rules of nnU-Net, Nature Methods 2021, Methods)."""

from dataclasses import dataclass

import numpy as np

from autoseg.records.fingerprint import CaseFingerprint, Fingerprint

ANISOTROPY = 3.0
COARSE_QUANTILE = 10.0  # percentile of the slice distances that replaces their median where scans are anisotropic


@dataclass(frozen=True)
class Resolution:
    """Spacing (mm) and median shape (voxels) after the transposition `axes`, with the reason for the spacing."""

    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    axes: tuple[int, ...]
    reason: str


def decide_resolution(fingerprint: Fingerprint, wanted: tuple[float, ...] | None = None) -> Resolution:
    """The full-resolution spacing: the median per axis, finer along slices that are far apart; `wanted` (mm) overrides it.

    The axis of largest spacing comes first, so that a 2D network sees the finest plane.
    """
    spacings = np.array([case.spacing for case in fingerprint.cases])
    shapes = np.array([case.cropped_shape for case in fingerprint.cases])
    target, reason = _decide_spacing(spacings, shapes)
    if wanted is not None:
        target, reason = np.array(wanted), "given with --spacing"
    axes = _order_axes(tuple(target))
    return Resolution(
        spacing=tuple(float(target[axis]) for axis in axes),
        median_shape=compute_median_shape(fingerprint.cases, tuple(target), axes),
        axes=axes,
        reason=reason,
    )


def _decide_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, str]:
    target = np.median(spacings, axis=0)
    if len(target) < 3:
        return target, "the median of the images"
    size = np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    anisotropic = target[worst] > ANISOTROPY * max(target[others]) and ANISOTROPY * size[worst] < min(size[others])
    if not anisotropic:
        return target, "the median of the scans"
    fine = float(np.percentile(spacings[:, worst], COARSE_QUANTILE))
    target[worst] = fine if fine >= max(target[others]) else max(target[others]) + 1e-5
    return target, (
        f"the median of the scans; slices lie more than {ANISOTROPY:g} times as far apart as pixels, "
        f"so their distance is the {COARSE_QUANTILE:g} % finest, {target[worst]:.3g} mm"
    )


def _order_axes(target: tuple[float, ...]) -> tuple[int, ...]:
    if len(target) < 3:
        return tuple(range(len(target)))
    worst = int(np.argmax(target))
    return (worst, *(axis for axis in range(3) if axis != worst))


def compute_median_shape(cases: tuple[CaseFingerprint, ...], target: tuple[float, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Median over cases of the cropped shape at `target` spacing (canonical axis order), transposed by `axes`, in voxels."""
    shapes = np.array([[round(size * old / new) for size, old, new in zip(case.cropped_shape, case.spacing, target)] for case in cases])
    median = np.median(shapes, axis=0)
    return tuple(max(1, int(median[axis])) for axis in axes)
