"""Along which axes scans may be mirrored in training: not where a left would become a right."""

import re
from itertools import combinations

import numpy as np

from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint
from autoseg.records.profile import Profile

CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # LeftKidney is two words
LATERAL = re.compile(r"(?i)(?<![a-z])(left|right|links|rechts|gauche|droite?|[lr](?!\d))(?![a-z])")  # but L1 is a vertebra
FEWEST_CASES = 10  # with both classes of a pair, below which their places prove nothing
CONSISTENT = 0.95  # of those cases in which the pair lies the same way round
SIMILAR = 1.5  # ratio of the median volumes of a left and a right
LEVEL = 0.1  # of the scan's edges by which a left and a right may differ along the other axes


def decide_mirroring(dataset: Dataset, fingerprint: Fingerprint, profile: Profile, axes: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Axes of the transposed arrays (`axes`, see Plan) that may be mirrored, and why. Left-right is the last canonical axis (LPS)."""
    every = tuple(range(len(axes)))
    if profile.mirror == "none":
        return (), "off: in a short training the time is better spent on scans as they are"
    if profile.mirror == "all":
        return every, f"all axes, as profile {profile.name} always does"
    evidence = _find_names(dataset) or (_find_pair(dataset, fingerprint) if profile.evidence else "")
    if not evidence:
        return every, "all axes: no class is a left or a right of another"
    sides = axes.index(len(axes) - 1)
    return tuple(axis for axis in every if axis != sides), f"all axes but left-right: {evidence}, and a mirrored left is a right"


def _find_names(dataset: Dataset) -> str:
    lateral = [label.name for label in dataset.classes if LATERAL.search(CAMEL.sub(" ", label.name).replace("_", " "))]
    return f"class {lateral[0]} names a side" if lateral else ""


def _find_pair(dataset: Dataset, fingerprint: Fingerprint) -> str:
    """Two classes of similar volume that lie at one level on two sides, the same way round in nearly all cases."""
    for first, second in combinations(range(len(dataset.classes)), 2):
        both = [
            (case.classes[first], case.classes[second])
            for case in fingerprint.cases
            if len(case.classes) > second and case.classes[first].centre and case.classes[second].centre
        ]
        if len(both) < FEWEST_CASES:
            continue
        volumes = [float(np.median([pair[index].volume for pair in both])) for index in (0, 1)]
        if max(volumes) > SIMILAR * min(volumes):
            continue
        offsets = np.array([np.subtract(a.centre, b.centre) for a, b in both])
        share = max(float(np.mean(offsets[:, -1] > 0)), float(np.mean(offsets[:, -1] < 0)))
        level = np.abs(np.median(offsets[:, :-1], axis=0)).max() < LEVEL
        if share >= CONSISTENT and level and abs(float(np.median(offsets[:, -1]))) > LEVEL:
            names = f"{dataset.classes[first].name} and {dataset.classes[second].name}"
            return f"{names} lie side by side and alike, the same way round in {share:.0%} of {len(both)} scans"
    return ""
