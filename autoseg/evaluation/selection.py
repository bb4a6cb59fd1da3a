"""What is better, and by more than chance: paired differences of scores over cases, and the decisions that follow from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.records.scores import CaseScore, InstanceScore

ScoreTable = Mapping[str, Mapping[str, float | None]]  # case → class → score, None where undefined
ROUNDING = 1e-12  # a mean that falls by less has not fallen


@dataclass(frozen=True)
class Comparison:
    """Mean over `cases` of how much better one is than the other, and its standard error; None where there are too few cases."""

    difference: float | None
    error: float | None
    cases: int

    @property
    def is_gain(self) -> bool:
        """Better by more than the standard error."""
        return self.difference is not None and self.error is not None and self.difference > max(self.error, ROUNDING)


@dataclass(frozen=True)
class Verdict:
    """What was decided among candidates, and how each compares: with the first single one, an ensemble with the best single one."""

    winner: str
    single: str
    comparisons: Mapping[str, Comparison]


def make_table(rows: Sequence[CaseScore] | Sequence[InstanceScore], metric: str) -> ScoreTable:
    table: dict[str, dict[str, float | None]] = {}
    for row in rows:
        table.setdefault(row.case, {})[row.class_name] = getattr(row, metric)
    return table


def compute_mean(table: ScoreTable) -> float | None:
    """Mean over classes of their means over cases, what is undefined left out: `mean` in scores.json.

    >>> compute_mean({"a": {"liver": 0.75, "tumour": None}, "b": {"liver": 0.25, "tumour": 0.25}})
    0.375
    """
    by_class: dict[str, list[float]] = {}
    for scores in table.values():
        for name, score in scores.items():
            if score is not None:
                by_class.setdefault(name, []).append(score)
    return float(np.mean([np.mean(scores) for scores in by_class.values()])) if by_class else None


def compare(table: ScoreTable, base: ScoreTable, class_name: str = "") -> Comparison:
    """How much better `table` is than `base` on the cases of both: per case the mean over classes (or one class), then over cases.

    The standard error is sd / √n over cases. A class without a score in either says nothing. Without one in only one of them, that one
    rightly found nothing where there is nothing, while the other saw something: it counts as 1, as AP_cell does, so that
    removing what is not there is a gain.

    >>> compare({"a": {"x": 0.9}, "b": {"x": None}}, {"a": {"x": 0.8}, "b": {"x": 0.0}}).difference
    0.55
    """
    differences = []
    for case in table.keys() & base.keys():
        names = [class_name] if class_name else sorted(table[case].keys() & base[case].keys())
        own = [difference for name in names if (difference := _subtract(table[case].get(name), base[case].get(name))) is not None]
        if own:
            differences.append(math.fsum(own) / len(own))
    count = len(differences)
    if not count:
        return Comparison(None, None, 0)
    mean = math.fsum(differences) / count
    spread = math.fsum((value - mean) ** 2 for value in differences)
    return Comparison(mean, math.sqrt(spread / (count - 1) / count) if count > 1 else None, count)


def _subtract(score: float | None, other: float | None) -> float | None:
    if score is None and other is None:
        return None
    return (1.0 if score is None else score) - (1.0 if other is None else other)


def choose_single(tables: Mapping[str, ScoreTable], finer: Mapping[str, ScoreTable] | None = None) -> str:
    """The best mean; of equals the first. Chance does no harm here: one configuration costs as much to predict with as another.

    With `finer` scores (of the same candidates) it is the best by those among all that the best mean does not exceed by more than the
    standard error.
    """
    best = max(tables, key=lambda name: _or_lowest(compute_mean(tables[name])))
    if finer is None:
        return best
    near = [name for name in tables if name == best or not compare(tables[best], tables[name]).is_gain]
    return max(near, key=lambda name: _or_lowest(compute_mean(finer[name])))


def choose_product(
    singles: Mapping[str, ScoreTable], ensembles: Mapping[str, ScoreTable], finer: Mapping[str, ScoreTable] | None = None
) -> Verdict:
    """The best single candidate, unless an ensemble is better than it by more than the standard error: it takes twice the time.

    With `finer` scores, of all candidates, an ensemble is also better where it is by those, and not worse by the others. Of several such
    ensembles the one with the best mean.
    """
    first, single = next(iter(singles)), choose_single(singles, finer)
    comparisons = {name: compare(table, singles[first]) for name, table in singles.items() if name != first}
    comparisons |= {name: compare(table, singles[single]) for name, table in ensembles.items()}
    better = [name for name in ensembles if comparisons[name].is_gain]
    if finer is not None:
        level = [name for name in ensembles if (comparisons[name].difference or 0.0) >= 0]
        better += [name for name in level if name not in better and compare(finer[name], finer[single]).is_gain]
    winner = max(better, key=lambda name: _or_lowest(compute_mean(ensembles[name])), default=single)
    return Verdict(winner, single, comparisons)


def judge_change(after: ScoreTable, before: ScoreTable, class_name: str, classes: Sequence[str]) -> tuple[Comparison, bool]:
    """How much a change gains (one class, or "": all), and whether to keep it: a gain beyond the standard error, and no class falls."""
    gain = compare(after, before, class_name)
    falls = [(compare(after, before, name).difference or 0.0) < -ROUNDING for name in classes]
    return gain, gain.is_gain and not any(falls)


def choose_volumes(components: Sequence[float], voxel: float) -> tuple[float, ...]:
    """Minimum volumes worth a try, ascending: half of the smallest reference component, and the 1 % and 5 % quantile of them.

    `components` and `voxel` (the smallest of all cases) are volumes; nothing is smaller than a voxel. Rounded to four digits.

    >>> choose_volumes([10.0] * 50 + [2.0], 1.5)
    (6.0, 10.0)
    """
    if not components:
        return ()
    volumes = (min(components) / 2, *np.quantile(components, (0.01, 0.05)).tolist())
    return tuple(sorted({float(f"{volume:.4g}") for volume in volumes if volume > voxel}))


def _or_lowest(mean: float | None) -> float:
    return -math.inf if mean is None else mean
