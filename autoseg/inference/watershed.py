"""Objects of a boundary network: its insides are seeds, which grow through the foreground to where they meet (seeded watershed)."""

import numpy as np
import SimpleITK as sitk

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.arrays.masks import FoundObject
from autoseg.records.detection import Thresholds

SMALLEST_SEED = 3  # voxels: less is noise
BEYOND = 255  # the height of what is not foreground: flooded last, so that no object reaches another through it


def grow_seeds(inside: np.ndarray, foreground: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Seeds (numbers 1 … M, else 0) grown over the foreground (bool), first where `inside`, a probability, is high: int32, 0 elsewhere.

    Flooding by height (Meyer 1994) with neighbours by faces, as ITK has it; 255 heights. Foreground that touches no seed stays 0.
    """
    from scipy import ndimage  # .3 s, which only the processes that need it should spend

    parts, count = ndimage.label(foreground)
    seeded = np.zeros(count + 1, dtype=bool)
    seeded[np.unique(parts[seeds > 0])] = True
    seeded[0] = False
    heights = np.where(foreground, np.rint((1 - inside) * (BEYOND - 1)), BEYOND).clip(0, BEYOND).astype(np.uint8)
    markers = sitk.GetImageFromArray(np.where(foreground, seeds, 0).astype(np.uint32))
    flooded = sitk.MorphologicalWatershedFromMarkers(sitk.GetImageFromArray(heights), markers, markWatershedLine=False)
    return np.where(seeded[parts], sitk.GetArrayFromImage(flooded), 0).astype(np.int32)


def find_seeds(inside: np.ndarray, foreground: np.ndarray, threshold: float) -> np.ndarray:
    """Components (neighbours by faces) of foreground where the inside is as probable as `threshold`: numbers 1 … M, int32."""
    from scipy import ndimage

    seeds, count = ndimage.label((inside >= threshold) & foreground)
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    large = sizes >= SMALLEST_SEED
    large[0] = False
    return (np.cumsum(large) * large)[seeds].astype(np.int32)


def separate_objects(probabilities: np.ndarray, thresholds: Thresholds) -> list[FoundObject]:
    """Objects in the probabilities (background, insides of classes 1 … N, boundary; …) of a boundary network.

    Each has a seed. Its class is that whose inside is the more probable in sum, its score the mean probability of the foreground over its
    voxels.
    """
    from scipy import ndimage

    covered = 1 - probabilities[0]
    foreground = covered >= thresholds.mask
    if not foreground.any():
        return []
    whole = compute_bounding_box(foreground)  # what lies around it need not be flooded
    covered, foreground, insides = crop(covered, whole), crop(foreground, whole), crop(probabilities[1:-1], whole)
    inside = insides.sum(axis=0)
    ids = grow_seeds(inside, foreground, find_seeds(inside, foreground, thresholds.seed))
    count = int(ids.max())
    voxels = np.bincount(ids.ravel(), minlength=count + 1)
    scores = np.bincount(ids.ravel(), weights=covered.ravel(), minlength=count + 1) / np.maximum(voxels, 1)
    sums = np.stack([np.bincount(ids.ravel(), weights=one.ravel(), minlength=count + 1) for one in insides])
    found = []
    for number, place in enumerate(ndimage.find_objects(ids), 1):
        if place is None or voxels[number] < max(thresholds.smallest, 1) or scores[number] < thresholds.score:
            continue
        box = tuple((part.start + low, part.stop + low) for part, (low, _) in zip(place, whole))
        found.append(FoundObject(box, ids[place] == number, float(scores[number]), int(sums[:, number].argmax()) + 1))
    return found
