"""Small objects beside large ones: a class drawn voxel by voxel shows the large ones only, so patches are drawn by object as well."""

import statistics

from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint

OBJECT_SHARE = 0.5  # of the patches centred on a class, where its objects are scattered
SEVERAL = 2  # objects in a median scan that has any
UNEQUAL = 10.0  # the largest object's volume over the lower quartile's


def choose_object_share(dataset: Dataset, fingerprint: Fingerprint) -> tuple[float, str]:
    """How many of the patches centred on a class are centred on one of its objects drawn evenly, and why; 0 and "" where none need be."""
    for number, label in enumerate(dataset.classes):
        classes = [case.classes[number] for case in fingerprint.cases if len(case.classes) > number]
        found = [one for one in classes if one.object_volumes]
        if not found:
            continue
        count = statistics.median(one.objects for one in found)
        small, large = statistics.median(one.object_volumes[1] for one in found), max(one.object_volumes[-1] for one in found)
        if count >= SEVERAL and large >= UNEQUAL * small:
            unit = "px" if dataset.dimension == 2 else "mm³"
            sizes = f"a quarter of them below {small:.3g} {unit}, the largest {large:.3g}"
            where = f"{label.name} has {count:g} in a median scan, {sizes}"
            return OBJECT_SHARE, f"half of the patches centred on a class go to an object drawn evenly, as {where}"
    return 0.0, ""
