"""Cases dealt to folds so that each fold's validation gets its share of what only some cases have.

Iterative stratification (Sechidis et al., On the stratification of multi-label data, ECML PKDD 2011): the rarest label first, each case
to the fold that has least of it. Unlike scikit-learn's StratifiedGroupKFold it takes several labels per case.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SEED = 12345  # the reference's, so that its folds and ours are the same
Labels = Mapping[str, frozenset[str]]  # what only some cases have → the cases that have it


@dataclass(frozen=True)
class _Unit:
    """Cases that stay together, and how many of them have each label that any has."""

    cases: Sequence[str]
    counts: Counter[str]


def deal(units: Sequence[Sequence[str]], labels: Labels, held_out: Sequence[Sequence[str]]) -> list[list[str]]:
    """The validation cases of each fold, sorted: `held_out`, which stay where they are, and `units` (a patient's cases each) shared out.

    Folds that are full (an even share of all cases) get no more as long as there are others.

    >>> deal([["a"], ["b"], ["c"], ["d"]], {"tumour": frozenset("ab")}, [[], []])
    [['a', 'd'], ['b', 'c']]
    """
    folds = [list(own) for own in held_out]
    held = [_count(own, labels) for own in held_out]
    room = math.ceil((sum(map(len, units)) + sum(map(len, folds))) / len(folds))
    waiting = [_Unit(units[place], _count(units[place], labels)) for place in np.random.RandomState(SEED).permutation(len(units))]
    waiting.sort(key=lambda unit: -len(unit.cases))  # large groups first: small ones even out what they leave
    while waiting:
        left: Counter[str] = sum((unit.counts for unit in waiting), Counter())
        rarest = min(left, key=lambda label: (left[label], label), default=None)
        for unit in waiting:
            if rarest is None or rarest in unit.counts:
                place = _choose_fold(unit, rarest, folds, held, room)
                folds[place].extend(unit.cases)
                held[place].update(unit.counts)
        waiting = [unit for unit in waiting if rarest is not None and rarest not in unit.counts]
    return [sorted(fold) for fold in folds]


def _count(cases: Sequence[str], labels: Labels) -> Counter[str]:
    """How many of the cases have each label that any has."""
    return Counter(label for label, own in labels.items() for case in cases if case in own)


def _choose_fold(unit: _Unit, rarest: str | None, folds: list[list[str]], held: list[Counter[str]], room: int) -> int:
    """The fold with the least of the rarest label, then of the unit's other labels, then of cases."""

    def measure(place: int) -> tuple[int, int, int, int]:
        return held[place][rarest or ""], sum(held[place][label] for label in unit.counts), len(folds[place]), place

    with_room = [place for place, fold in enumerate(folds) if len(fold) + len(unit.cases) <= room]
    return min(with_room or range(len(folds)), key=measure)


def is_shared_out(held_out: Sequence[Sequence[str]], labels: Labels) -> bool:
    """Whether each fold has its share of every label, rounded down or up."""
    for cases in labels.values():
        counts = [len(cases.intersection(own)) for own in held_out]
        share = sum(counts) / len(counts)
        if min(counts) < math.floor(share) or max(counts) > math.ceil(share):
            return False
    return True
