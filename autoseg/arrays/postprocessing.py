"""Post-processing of label maps: components removed, holes filled."""

from collections.abc import Sequence

import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.errors import InputError
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel, are_regions


def apply_rules(labels: np.ndarray, rules: Sequence[Rule], classes: tuple[ClassLabel, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Applies rules one after the other to label numbers 0 … N, (z, y, x) or (y, x); the input is left as it is.

    `spacing` in mm and array order; all ones where voxels have no physical size. What is removed becomes background (0), and only
    background is filled; numbers below 0 are left alone. A single slice is treated as the 2D image that it is. Regions overlap and have no
    voxels of their own, so that they only know rules of all foreground as one. Raises InputError for a rule that cannot be applied.
    """
    result = labels.copy()
    if not (result > 0).any():
        return result
    flat = np.atleast_1d(result.squeeze())  # a view
    voxel = float(np.prod(spacing))
    for rule in rules:
        number = _find_number(rule, classes)
        own = flat == number if number else flat > 0
        match rule.kind:
            case "largest_component":
                flat[own & ~keep_largest(own)] = 0
            case "minimum_volume":
                flat[own & ~keep_large(own, rule.volume / voxel)] = 0
            case "fill_holes":
                flat[find_holes(own, flat == 0)] = number
    return result


def _find_number(rule: Rule, classes: tuple[ClassLabel, ...]) -> int:
    """The label number of the rule's class, 0 for all foreground."""
    names = [label.name for label in classes]
    if not rule.class_name:
        if rule.kind == "fill_holes":
            raise InputError("A rule fills the holes of no class: class_name is empty.", f"Classes: {', '.join(names)}.")
        return 0
    if are_regions(classes):
        raise InputError(f"A rule ({rule.kind}) is for {rule.class_name} alone, but regions overlap: only rules of all classes apply.")
    if rule.class_name not in names:
        raise InputError(f"A rule ({rule.kind}) is for the class '{rule.class_name}', which is none of {', '.join(names)}.")
    return names.index(rule.class_name) + 1


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """The largest component of a mask, connected by faces, edges and corners; of several of that size all. Bool.

    >>> keep_largest(np.array([1, 0, 1, 1, 0, 1, 1], bool)).astype(int).tolist()
    [0, 0, 1, 1, 0, 1, 1]
    """
    components, sizes = label_components(mask)
    return _select(components, sizes == sizes.max(initial=0))


def keep_large(mask: np.ndarray, voxels: float) -> np.ndarray:
    """The components of a mask with at least so many voxels: bool.

    >>> keep_large(np.array([1, 0, 1, 1, 0], bool), 1.5).astype(int).tolist()
    [0, 0, 1, 1, 0]
    """
    components, sizes = label_components(mask)
    return _select(components, sizes >= voxels)


def label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers 1 … K of the components of a mask (faces, edges and corners connect), and the voxels of each, int (K,)."""
    from scipy import ndimage  # .3 s, which only they need to spend who look for components

    components = np.zeros(mask.shape, np.int32)
    box = compute_bounding_box(mask)  # the rest of a scan holds nothing to look through
    ndimage.label(crop(mask, box), structure=np.ones((3,) * mask.ndim), output=crop(components, box))
    return components, np.bincount(components.ravel())[1:]


def _select(components: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.concatenate(([False], kept))[components]


def find_holes(mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Holes of a mask: components (by faces) of what is not of it that do not reach the border, and are background throughout. Bool.

    >>> find_holes(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool), np.ones((3, 3), bool))[1].tolist()
    [False, True, False]
    """
    from scipy import ndimage  # .3 s, as above

    box = compute_bounding_box(mask)
    own, empty = crop(mask, box), crop(background, box)
    components, count = ndimage.label(~own)
    hole = np.ones(count + 1, dtype=bool)
    hole[0] = False
    hole[components[~own & ~empty]] = False
    for axis in range(mask.ndim):
        hole[components.take((0, -1), axis=axis)] = False
    found = np.zeros(mask.shape, dtype=bool)
    crop(found, box)[...] = hole[components]
    return found
