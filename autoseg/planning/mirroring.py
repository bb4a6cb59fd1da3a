"""Along which axes scans may be mirrored in training: a mirrored left is a right, so classes that are one or the other forbid it."""

import re
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint
from autoseg.records.profile import Profile

CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # LeftKidney is two words
LATERAL = re.compile(
    r"(?i)(?<![a-z])(left|right|lh|rh|links|rechts|(?:linke|rechte)[mnrs]?|gauche|droite?|[lr](?!\d))(?![a-z])"  # but L1 is a vertebra
)
FEWEST_CASES = 10  # with both classes, below which positions claim nothing
AGREEMENT = 0.95  # share of these cases in which a left and a right keep their order
ALIKE = 1.5  # ratio of median volumes up to which two classes may be a left and a right of the same thing
LEVEL = 0.1  # share of the scan by which the other axes of their centres may differ
APART = 0.05  # share of the scan by which their left-right positions differ at least
CENTRAL = 0.25  # share of their distance by which the point halfway between them may miss the middle of all classes


@dataclass(frozen=True)
class Pair:
    """Two classes that lie left and right of the middle in the same order in `agreeing` of `cases`; `ratio` of their volumes, 1 or more."""

    names: tuple[str, str]
    ratio: float
    agreeing: int
    cases: int


def decide_mirroring(dataset: Dataset, fingerprint: Fingerprint, profile: Profile, axes: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """The axes that may be mirrored, and the reason. `axes` transposes canonical order; the result counts transposed axes.

    In canonical order (LPS, read as z, y, x) left-right is the last axis. Scans in their `stored` order may have it anywhere.
    """
    match profile.mirror:
        case "none":
            return (), "off: in a short training the time is better spent on scans as they are"
        case "all":
            return tuple(range(len(axes))), "all axes, as the profile asks, whatever the classes are"
    reason = _find_sides(dataset, fingerprint, profile)
    if not reason:
        return tuple(range(len(axes))), "all axes: no class names a side" + _describe_search(dataset, profile)
    if profile.orientation == "stored":
        return (), f"off: {reason}; in scans as they are stored left-right may be any axis"
    sides = axes.index(len(axes) - 1)
    kept = tuple(axis for axis in range(len(axes)) if axis != sides)
    where = "the horizontal one, taken as left-right" if len(axes) == 2 else "left-right"
    return kept, f"all axes but {where}: {reason}"


def _find_sides(dataset: Dataset, fingerprint: Fingerprint, profile: Profile) -> str:
    """Why a mirrored scan would be wrong; empty where nothing says so."""
    named = [label.name for label in dataset.classes if LATERAL.search(CAMEL.sub(" ", label.name))]
    if named:
        return f"class {named[0]} names a side, and a mirrored left is a right"
    pair = find_pair(dataset, fingerprint) if profile.evidence else None
    if pair is None:
        return ""
    first, second = pair.names
    return (
        f"{first} and {second} are alike in size and lie on either side of the middle, in the same order in {pair.agreeing} of "
        f"{pair.cases} scans; they look like a left and a right of the same thing"
    )


def _describe_search(dataset: Dataset, profile: Profile) -> str:
    return ", and no two lie left and right of the middle like a pair" if profile.evidence and len(dataset.classes) > 1 else ""


def find_pair(dataset: Dataset, fingerprint: Fingerprint) -> Pair | None:
    """The two classes, most alike in volume, that are a left and a right by where they lie; None where there are none.

    Positions are shares of the scan's edges, canonical order. The middle is the mean of all classes' centres in a case.
    """
    names = [label.name for label in dataset.classes]
    centres = np.array([_list_centres(case, names, dataset.dimension) for case in fingerprint.cases])  # (case, class, axis)
    volumes = np.array([_list_volumes(case, names) for case in fingerprint.cases])  # (case, class)
    pairs = []
    for a, b in combinations(range(len(names)), 2):
        both = ~np.isnan(centres[:, [a, b]]).any(axis=(1, 2))
        if both.sum() < FEWEST_CASES:
            continue
        middle = np.nanmean(centres[both][:, :, -1], axis=1)
        agreeing = _count_agreeing(centres[both][:, [a, b]], middle)
        sizes = np.median(volumes[both][:, [a, b]], axis=0)
        ratio = float(sizes.max() / sizes.min())
        if agreeing >= AGREEMENT * both.sum() and ratio <= ALIKE:
            pairs.append(Pair((names[a], names[b]), ratio, agreeing, int(both.sum())))
    return min(pairs, key=lambda pair: pair.ratio, default=None)


def _count_agreeing(centres: np.ndarray, middle: np.ndarray) -> int:
    """Cases in which the two centres (case, 2, axis) keep their usual left-right order; 0 where they are no mirror images of each other.

    They are where, in the median over cases, they differ along left-right, hardly along the other axes, and have the middle (case) between
    them.
    """
    apart = centres[:, 1] - centres[:, 0]
    distance = float(np.median(np.abs(apart[:, -1])))
    offset = float(np.median(np.abs(centres[:, :, -1].mean(axis=1) - middle)))
    level = np.median(np.abs(apart[:, :-1]), axis=0)
    if distance < APART or offset > CENTRAL * distance or (level > LEVEL).any():
        return 0
    return max(int((apart[:, -1] > 0).sum()), int((apart[:, -1] < 0).sum()))


def _list_centres(case: CaseFingerprint, names: list[str], dimension: int) -> list[tuple[float, ...]]:
    """Per class its centre, NaN where the case has none."""
    known = {found.name: found.centre for found in case.classes if len(found.centre) == dimension}
    return [known.get(name, (float("nan"),) * dimension) for name in names]


def _list_volumes(case: CaseFingerprint, names: list[str]) -> list[float]:
    known = {found.name: found.volume for found in case.classes}
    return [known.get(name, 0.0) for name in names]
