"""Whether one set of masks is better than another: paired differences over the same cases, and how likely chance alone makes them."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from autoseg.evaluation.summary import compute_interval
from autoseg.records.comparison import CaseDifference, Judgement, PairedDifference
from autoseg.records.scores import CaseScore, InstanceScore

LOWER_IS_BETTER = frozenset({"hausdorff_mm", "hd95_mm", "assd_mm", "count_error", "object_hausdorff"})
SIGNIFICANT = 0.05
LEAST_CASES = 6  # with fewer that differ, no signed-rank test can reach p < 0.05: 2 / 2^5 = 0.0625
SHOWN = 5  # cases named each way
DIGITS = 12  # of a difference: rounding of sums is no difference

Rows = Sequence[CaseScore] | Sequence[InstanceScore]
Table = Mapping[tuple[str, str], CaseScore | InstanceScore]


def compare_rows(first: Rows, second: Rows, metrics: Sequence[str]) -> tuple[PairedDifference, ...]:
    """Every metric of every class that both have, over the cases that both have, in the order of `first`'s classes.

    p values are corrected for the number of classes, metric by metric (Holm); different metrics of the same masks say nearly the same and
    are not counted as further tests.
    """
    tables: list[Table] = [{(row.class_name, row.case): row for row in rows} for rows in (first, second)]
    known = {row.class_name for row in second}
    names = [name for name in dict.fromkeys(row.class_name for row in first) if name in known]
    found: list[PairedDifference] = []
    for metric in metrics:
        own = [_compare_metric(name, metric, *tables) for name in names]
        corrected = correct_holm([one.p for one in own])
        found += [_judge(msgspec.structs.replace(one, p_holm=p)) for one, p in zip(own, corrected)]
    places = {name: place for place, name in enumerate(names)}
    return tuple(sorted((one for one in found if one.difference.n), key=lambda one: places[one.class_name]))


def _compare_metric(name: str, metric: str, first: Table, second: Table) -> PairedDifference:
    """One metric of one class, without the correction over classes and the judgement."""
    common = [case for own, case in first if own == name and (name, case) in second]
    pairs = [(case, getattr(first[name, case], metric), getattr(second[name, case], metric)) for case in common]
    both = [pair for pair in pairs if None not in pair]
    cases = [CaseDifference(case=case, first=one, second=two, difference=round(two - one, DIGITS)) for case, one, two in both]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    losses = sorted((case for case in cases if sign * case.difference < 0), key=lambda case: sign * case.difference)
    gains = sorted((case for case in cases if sign * case.difference > 0), key=lambda case: -sign * case.difference)
    differences = [case.difference for case in cases]
    return PairedDifference(
        class_name=name,
        metric=metric,
        first=float(np.mean([case.first for case in cases])) if cases else None,
        second=float(np.mean([case.second for case in cases])) if cases else None,
        difference=compute_interval(list(differences)),
        p=rank_differences(differences),
        p_holm=None,
        one_sided=sum(pair.count(None) == 1 for pair in pairs),
        judgement="noise",
        worst=tuple(losses[:SHOWN]),
        best=tuple(gains[:SHOWN]),
    )


def rank_differences(differences: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (Wilcoxon 1945), differences of 0 left out as he did; exact for few cases without ties.

    None without a case; 1 where all differences are 0: nothing speaks against chance.

    >>> rank_differences([0.0, 0.0]), rank_differences([0.1, 0.2, 0.3, 0.4, 0.5, 0.0])
    (1.0, 0.0625)
    """
    from scipy.stats import wilcoxon  # .5 s, which only comparing needs

    values = np.array([value for value in differences if value], dtype=np.float64)
    if not values.size:
        return 1.0 if len(differences) else None
    return float(wilcoxon(values, zero_method="wilcox").pvalue)


def correct_holm(values: Sequence[float | None]) -> list[float | None]:
    """Each p as it is for the whole family (Holm 1979): the k-th smallest of n times n - k + 1, never falling, at most 1.

    >>> correct_holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (value, place) in enumerate(order):
        least = min(1.0, max(least, value * (len(order) - rank)))
        corrected[place] = least
    return corrected


def _judge(one: PairedDifference) -> PairedDifference:
    """More than noise: the interval leaves 0 out, and the corrected p is below 0.05."""
    low, high, mean = one.difference.low, one.difference.high, one.difference.mean
    judgement: Judgement = "noise"
    if low is not None and high is not None and mean and not low <= 0 <= high and (one.p_holm or 0) < SIGNIFICANT:
        judgement = "second" if (mean > 0) != (one.metric in LOWER_IS_BETTER) else "first"
    elif 0 < one.difference.n < LEAST_CASES:
        judgement = "few cases"
    return msgspec.structs.replace(one, judgement=judgement)
