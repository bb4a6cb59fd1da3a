"""What scores show to be wrong, in words with numbers and the cure: predicted as background, blurred borders, sides mixed up, and so on.

Every threshold is a rule of thumb, stated beside its name. A finding is a hint where to look; none is no proof that all is well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.training_course import Course, find_gaps
from autoseg.records.scores import CaseScore, Scores, SizeRecall
from autoseg.records.verdict import Finding

QUIET_SPECIFICITY, POOR_DICE, QUIET_VOLUME = 0.99, 0.5, 0.25  # background: specificity at least, Dice and share of the volume below
LARGE_VOLUME, LOOSE_PRECISION = 1.5, 0.75  # over-segmentation: predicted / reference volume at least, precision below
GOOD_DICE, POOR_NSD = 0.8, 0.7  # blurred borders: Dice at least, surface Dice below
LEAST_LESIONS, RECALL_GAP = 5, 0.25  # small lesions: so many of a size, and so much less recall than the largest have
LEAST_CASES, SIZE_GAP = 8, 0.15  # small targets: the smaller half of so many cases has a mean Dice so much lower
SAME_VOLUME = 1.5  # sides mixed up: each volume right within this factor, both Dice below POOR_DICE
LEAST_FOR_OUTLIERS, OUTLIER_GAP, SOUND_MEDIAN = 5, 0.2, 0.6  # outliers: so far below a median that is sound, and below Tukey's fence
FEW_CASES = 10  # below which an interval over cases says little
SHOWN = 5  # cases named in a finding
RAISE = (
    "plan RUN --set configurations.NAME.augmentation.foreground_probability=0.67, then train with --overwrite; "
    "look whether the labels of these cases are right."
)


@dataclass(frozen=True)
class Background:
    """What is known of the training beside the scores: the validation cases of each fold, and the course of each fold's training."""

    folds: tuple[tuple[str, ...], ...] = ()
    courses: tuple[Course, ...] = ()


def diagnose(scores: Scores, known: Background = Background()) -> tuple[Finding, ...]:
    """All findings: of each class, of pairs of classes, of folds and trainings."""
    rows = {name: [row for row in scores.cases if row.class_name == name] for name in scores.classes}
    findings = [finding for name, own in rows.items() for check in CHECKS if (finding := check(name, own)) is not None]
    findings += [one for name, sizes in scores.lesion_recall.items() if (one := find_missed_lesions(name, sizes, scores.unit)) is not None]
    findings += find_mixed_sides(rows)
    for name, own in rows.items():
        findings += find_absent(name, own, known.folds)
    findings += find_gaps(known.courses)
    return (*findings, *find_few_cases(scores))


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _volumes(rows: Sequence[CaseScore]) -> tuple[int, int]:
    return sum(row.voxels_predicted for row in rows), sum(row.voxels_reference for row in rows)


def _name_cases(cases: Sequence[str]) -> str:
    return ", ".join(cases[:SHOWN]) + (f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else "")


def find_background(name: str, rows: Sequence[CaseScore]) -> Finding | None:
    """High specificity, low Dice and little volume: the class is left to the background."""
    dice, specificity = _mean([row.dice for row in rows]), _mean([row.specificity for row in rows])
    predicted, reference = _volumes(rows)
    if dice is None or not reference or predicted >= QUIET_VOLUME * reference:
        return None
    if dice >= POOR_DICE or (specificity is not None and specificity < QUIET_SPECIFICITY):
        return None
    empty = sum(row.voxels_reference > 0 and row.voxels_predicted == 0 for row in rows)
    return Finding(
        name="background",
        what=f"{name} is mostly predicted as background.",
        evidence=f"Specificity {_show(specificity)}, but Dice {dice:.3f}; the masks hold {predicted / reference:.0%} of the references' "
        f"volume and are empty in {empty} of {len(rows)} cases.",
        cure=f"Train longer, or show the class more often: autoseg {RAISE}",
    )


def _show(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def find_excess(name: str, rows: Sequence[CaseScore]) -> Finding | None:
    """Too much volume and low precision: over-segmentation."""
    precision = _mean([row.precision for row in rows])
    predicted, reference = _volumes(rows)
    if precision is None or precision >= LOOSE_PRECISION or not reference or predicted < LARGE_VOLUME * reference:
        return None
    without = [row.case for row in rows if row.voxels_predicted and not row.voxels_reference]
    return Finding(
        name="excess",
        what=f"{name} is over-segmented: more is marked than there is.",
        evidence=f"The masks hold {predicted / reference:.2f} times the references' volume; precision {precision:.3f}, "
        f"sensitivity {_show(_mean([row.sensitivity for row in rows]))}"
        + (f"; marked where the reference has none: {_name_cases(without)}." if without else "."),
        cure="autoseg select RUN tries whether keeping the largest component or a least volume helps; "
        "add training cases without the class if it is marked where there is none.",
    )


def find_blurred_borders(name: str, rows: Sequence[CaseScore]) -> Finding | None:
    """Good Dice, poor surface Dice."""
    dice, nsd = _mean([row.dice for row in rows]), _mean([row.nsd for row in rows])
    if dice is None or nsd is None or dice < GOOD_DICE or nsd >= POOR_NSD:
        return None
    return Finding(
        name="borders",
        what=f"The borders of {name} are blurred: the bulk is right, the surface is not.",
        evidence=f"Dice {dice:.3f}, but only {nsd:.0%} of the surfaces lie within the tolerance of each other (NSD {nsd:.3f}).",
        cure="Work at a finer voxel size: autoseg plan FOLDER -o ANOTHER_RUN --spacing Z,Y,X; or train with the loss of borders: "
        "autoseg plan RUN --set configurations.NAME.loss.name=boundary. A tolerance below the voxel size cannot be met.",
    )


def find_missed_small(name: str, rows: Sequence[CaseScore]) -> Finding | None:
    """The smaller half of the references scores far lower than the larger half."""
    sized = sorted((row.voxels_reference, row.dice) for row in rows if row.voxels_reference and row.dice is not None)
    if len(sized) < LEAST_CASES:
        return None
    half = len(sized) // 2
    small, large = (float(np.mean([dice for _, dice in part])) for part in (sized[:half], sized[-half:]))
    if large - small < SIZE_GAP:
        return None
    return Finding(
        name="small targets",
        what=f"Small {name} is found much worse than large.",
        evidence=f"Mean Dice {small:.3f} in the {half} cases with up to {sized[half - 1][0]} voxels, {large:.3f} in the {half} largest.",
        cure=f"A finer voxel size (--spacing), or patches centred on the class more often: autoseg {RAISE}",
    )


def find_missed_lesions(name: str, sizes: Sequence[SizeRecall], unit: str) -> Finding | None:
    """The smallest lesions are found far less often than the largest; sizes with few lesions say nothing."""
    counted = [size for size in sizes if size.lesions >= LEAST_LESIONS]
    if len(counted) < 2:
        return None
    small, large = counted[0], counted[-1]
    recalls = [size.found / size.lesions for size in (small, large)]
    if recalls[1] - recalls[0] < RECALL_GAP:
        return None
    measure = "ml" if unit == "mm" else "px"
    return Finding(
        name="small lesions",
        what=f"Small lesions of {name} are missed.",
        evidence=f"Found: {small.found} of {small.lesions} below {small.high_ml:g} {measure}, "
        f"{large.found} of {large.lesions} from {large.low_ml:g} {measure} on.",
        cure=f"A finer voxel size (--spacing), or patches centred on the class more often: autoseg {RAISE}",
    )


def find_outliers(name: str, rows: Sequence[CaseScore]) -> Finding | None:
    """A few cases far below the others: under Tukey's lower fence (first quartile - 1.5 times the range between the quartiles)."""
    scored = [(row.dice, row.case) for row in rows if row.dice is not None]
    if len(scored) < LEAST_FOR_OUTLIERS:
        return None
    low, median, high = np.quantile([dice for dice, _ in scored], (0.25, 0.5, 0.75))
    fence = min(low - 1.5 * (high - low), median - OUTLIER_GAP)
    outliers = sorted((dice, case) for dice, case in scored if dice < fence)
    if not outliers or median < SOUND_MEDIAN:
        return None
    worst = _name_cases([f"{case} ({dice:.3f})" for dice, case in outliers])
    return Finding(
        name="outliers",
        what=f"{len(outliers)} of {len(scored)} cases are far worse in {name} than the others.",
        evidence=f"{worst}; the median is {median:.3f}.",
        cure="Look at these scans and labels (autoseg predict … --preview): another scanner, a pathology, or a wrong label. "
        "Leave out what is wrong with plan --exclude, add more of what is rare.",
    )


def find_mixed_sides(rows: dict[str, list[CaseScore]]) -> list[Finding]:
    """Classes whose names differ by left and right alone, both badly matched in cases where both volumes are right."""
    findings = []
    for left, right in list_sides(list(rows)):
        others = {row.case: row for row in rows[right]}
        pairs = [(row, others[row.case]) for row in rows[left] if row.case in others]
        mixed = [row.case for row, other in pairs if _is_swapped(row) and _is_swapped(other)]
        if mixed:
            findings.append(
                Finding(
                    name="sides",
                    what=f"{left} and {right} are mixed up in {len(mixed)} of {len(pairs)} cases.",
                    evidence=f"Both volumes are right within a factor of {SAME_VOLUME:g}, but both Dice are below {POOR_DICE:g}: "
                    f"{_name_cases(mixed)}.",
                    cure="Look at one of them (a shifted mask looks the same). If the labels are right, do not mirror that axis: "
                    "autoseg plan RUN --set configurations.NAME.mirror_axes=…, then train with --overwrite and predict without --tta.",
                )
            )
    return findings


def list_sides(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ by left and right alone.

    >>> list_sides(["kidney_left", "Right lung", "kidney_right", "Left lung", "liver"])
    [('kidney_left', 'kidney_right'), ('Left lung', 'Right lung')]
    """
    found = {name.lower(): name for name in names}
    swaps = ((name, name.lower().replace("left", "right")) for name in names if "left" in name.lower())
    return [(name, found[other]) for name, other in swaps if other in found]


def _is_swapped(row: CaseScore) -> bool:
    if not row.voxels_reference or row.dice is None or row.dice >= POOR_DICE:
        return False
    return 1 / SAME_VOLUME <= row.voxels_predicted / row.voxels_reference <= SAME_VOLUME


def find_absent(name: str, rows: Sequence[CaseScore], folds: Sequence[tuple[str, ...]]) -> list[Finding]:
    """A class that no reference has; that a fold's validation cases lack; or that only one fold's have, so that its model never saw it."""
    having = {row.case for row in rows if row.voxels_reference}
    if not having:
        what = f"{name} occurs in none of the {len(rows)} references."
        return [Finding(name="absent", what=what, evidence="It has no Dice.", cure="Check --classes and the values in the label files.")]
    cure = (
        f"Spread it over the folds: autoseg plan FOLDER -o ANOTHER_RUN --stratify FILE.csv:COLUMN (a column that tells cases with {name})."
    )
    findings = []
    for number, cases in enumerate(folds):
        here = having & set(cases)
        if not here:
            what, evidence = f"No validation case of fold {number} has {name}.", f"{len(cases)} cases; it is not scored there."
        elif having <= set(cases) and len(folds) > 1:
            what = f"The model of fold {number} has never seen {name}."
            evidence = f"All {len(having)} cases that have it are the fold's validation cases."
        else:
            continue
        findings.append(Finding(name="absent from a fold", what=what, evidence=evidence, cure=cure))
    return findings


def find_few_cases(scores: Scores) -> list[Finding]:
    """Fewer cases than an interval needs."""
    count = len({row.case for row in scores.cases})
    if count >= FEW_CASES:
        return []
    widths = [own.high - own.low for entry in scores.classes.values() if (own := entry["dice"]).low is not None and own.high is not None]
    evidence = f"{count} cases" + (f"; the widest 95 % interval of a Dice spans {max(widths):.3f}." if widths else ".")
    cure = "Score more cases; all folds together score every case: autoseg train RUN --fold all"
    return [Finding(name="few cases", what="There are too few cases for a firm judgement.", evidence=evidence, cure=cure)]


CHECKS: tuple[Callable[[str, Sequence[CaseScore]], Finding | None], ...] = (
    find_background,
    find_excess,
    find_blurred_borders,
    find_missed_small,
    find_outliers,
)
