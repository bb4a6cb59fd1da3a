"""How well objects were found: counts per case and class that add up over cases, and the metrics that follow from them."""

from dataclasses import dataclass, fields

import numpy as np

from autoseg.records.scores import InstanceScore

PERCENTS = (10, 30, *range(50, 100, 5))  # IoU in %, so that limits are compared in whole numbers
AP_PERCENTS = PERCENTS[2:]


@dataclass(frozen=True)
class Overlaps:
    """The objects of two maps in the order in which they first appear, and which share voxels: only those pairs are stored.

    Areas int64 (n,) and (m,) in voxels that are not to be ignored; pair k is of reference `rows[k]` and prediction `columns[k]`, which
    have `shared[k]` voxels in common.
    """

    reference_ids: np.ndarray
    predicted_ids: np.ndarray
    reference_areas: np.ndarray
    predicted_areas: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shared: np.ndarray

    @property
    def united(self) -> np.ndarray:
        """Voxels that either object of a pair has, int64 (k,)."""
        return self.reference_areas[self.rows] + self.predicted_areas[self.columns] - self.shared

    @property
    def iou(self) -> np.ndarray:
        return self.shared / self.united

    def select(self, references: np.ndarray, predictions: np.ndarray) -> "Overlaps":
        """Only these objects (bool (n,) and (m,)) and the pairs among them."""
        pairs = references[self.rows] & predictions[self.columns]
        return Overlaps(
            self.reference_ids[references],
            self.predicted_ids[predictions],
            self.reference_areas[references],
            self.predicted_areas[predictions],
            (np.cumsum(references) - 1)[self.rows[pairs]],
            (np.cumsum(predictions) - 1)[self.columns[pairs]],
            self.shared[pairs],
        )


def count_overlaps(prediction: np.ndarray, reference: np.ndarray) -> Overlaps:
    """Objects and their common voxels in two maps of ids (0 background) of one shape.

    Reference voxels of -1 are left out, and so are predictions that have at least half of their voxels there. Runs of voxels in which
    both maps stay as they are count as one entry, so that the work is that of the outlines and not of the areas.

    >>> found = count_overlaps(np.array([7, 7, 7, 0]), np.array([0, 2, 2, 2]))
    >>> found.shared.tolist(), found.reference_areas.tolist(), found.predicted_areas.tolist(), found.iou.tolist()
    ([2], [3], [3], [0.5])
    """
    base = int(prediction.max(initial=0)) + 1
    keys = (reference.ravel().astype(np.int64) + 1) * base + np.maximum(prediction.ravel(), 0)
    starts = np.flatnonzero(np.concatenate((np.ones(min(1, keys.size), bool), keys[1:] != keys[:-1])))
    values, first, places = np.unique(keys[starts], return_index=True, return_inverse=True)
    counts = np.bincount(places, np.diff(np.append(starts, keys.size)), values.size).astype(np.int64)
    order = np.argsort(first)
    rows, columns, counts = values[order] // base - 1, values[order] % base, counts[order]

    ignored = rows == -1
    numbers = np.unique(columns, return_inverse=True)[1]
    whole, out = np.bincount(numbers, counts), np.bincount(numbers, counts * ignored)
    kept = ~ignored & (2 * out < whole)[numbers]
    reference_ids, reference_areas = _sum_by_id(rows, np.where(ignored, 0, counts))
    predicted_ids, predicted_areas = _sum_by_id(columns[kept], counts[kept])
    pairs = kept & (rows > 0) & (columns > 0)
    return Overlaps(
        reference_ids,
        predicted_ids,
        reference_areas,
        predicted_areas,
        _find_places(rows[pairs], reference_ids),
        _find_places(columns[pairs], predicted_ids),
        counts[pairs],
    )


def _sum_by_id(ids: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids above 0 by first appearance, and the sum of the counts of each."""
    names, first, places = np.unique(ids, return_index=True, return_inverse=True)
    sums = np.bincount(places, counts, names.size).astype(np.int64)
    order = np.argsort(first)
    order = order[names[order] > 0]
    return names[order], sums[order]


def _find_places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    order = np.argsort(among)
    return order[np.searchsorted(among, ids, sorter=order)]


def count_matches(rows: np.ndarray, columns: np.ndarray) -> int:
    """The most pairs that can be chosen with no object in two of them.

    From an IoU above 1/2 on maps leave no choice: the pairs are the matches. Below, Hopcroft and Karp's (1973).
    """
    if rows.size == 0 or (np.bincount(rows).max() == 1 and np.bincount(columns).max() == 1):
        return int(rows.size)
    from scipy.sparse import csr_array  # .2 s, which only they need to spend who score objects
    from scipy.sparse.csgraph import maximum_bipartite_matching

    table = csr_array((np.ones(rows.size, np.int8), (rows, columns)))
    return int(np.count_nonzero(maximum_bipartite_matching(table) >= 0))


def match_one_to_one(rows: np.ndarray, columns: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """The pairs, at most one per object, with the largest sum of IoU (Kuhn 1955, by sparse shortest paths): indices.

    Every row may go without a partner, at the cost of an IoU of 0.

    >>> match_one_to_one(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.5, 0.4, 0.4])).tolist()
    [1, 2]
    """
    if rows.size == 0:
        return np.zeros(0, np.int64)
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    own, count = np.unique(rows, return_inverse=True)[1], int(columns.max()) + 1
    spare = np.arange(own.max() + 1)
    costs = np.concatenate((2.0 - iou, np.full(spare.size, 2.0)))  # a cost of 0 would be no pair at all
    places = (np.concatenate((own, spare)), np.concatenate((columns, count + spare)))
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(csr_array((costs, places)))
    chosen = set(zip(chosen_rows.tolist(), chosen_columns.tolist()))
    return np.flatnonzero([pair in chosen for pair in zip(own.tolist(), columns.tolist())])


@dataclass(frozen=True)
class Tally:
    """What is counted of one class, in one case or, summed, in several.

    `hits` int64 (PERCENTS,): one-to-one matches from each IoU on; `matched` and `matched_iou` the number and the sum of IoU of those above
    1/2; `aji`, `aji_plus` int64 (2,): shared and united voxels; `seg` the sum of IoU of references with what covers over half of them.
    """

    references: int
    predictions: int
    hits: np.ndarray
    matched: int
    matched_iou: float
    aji: np.ndarray
    aji_plus: np.ndarray
    seg: float

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def tally(overlaps: Overlaps) -> Tally:
    """Counts the matches of one class."""
    rows, columns, shared, united, iou = overlaps.rows, overlaps.columns, overlaps.shared, overlaps.united, overlaps.iou
    close = [100 * shared >= percent * united for percent in PERCENTS]
    matched = iou[2 * shared > united]
    return Tally(
        references=overlaps.reference_areas.size,
        predictions=overlaps.predicted_areas.size,
        hits=np.array([count_matches(rows[chosen], columns[chosen]) for chosen in close], dtype=np.int64),
        matched=matched.size,
        matched_iou=float(matched.sum()),
        aji=_join(overlaps, _find_best(overlaps)),
        aji_plus=_join(overlaps, match_one_to_one(rows, columns, iou)),
        seg=float(iou[2 * shared > overlaps.reference_areas[rows]].sum()),
    )


def _find_best(overlaps: Overlaps) -> np.ndarray:
    """The pair of largest IoU of every reference that has one; on ties that with more common voxels, then the first in the map."""
    order = np.lexsort((-overlaps.shared, -overlaps.iou, overlaps.rows))
    return order[np.unique(overlaps.rows[order], return_index=True)[1]]


def _join(overlaps: Overlaps, chosen: np.ndarray) -> np.ndarray:
    """Common voxels of the chosen pairs, and their united ones with the whole area of every object that is in none: int64 (2,)."""
    alone = np.delete(overlaps.reference_areas, overlaps.rows[chosen]).sum()
    alone += np.delete(overlaps.predicted_areas, overlaps.columns[chosen]).sum()
    return np.array([overlaps.shared[chosen].sum(), overlaps.united[chosen].sum() + alone], dtype=np.int64)


def _divide(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def score_tally(case: str, name: str, counts: Tally) -> InstanceScore:
    """The metrics of one class; of a sum over cases as though all were one image.

    With the one-to-one matches TP at an IoU of at least t, and the unmatched predictions FP and references FN:
    AP_cell TP / (TP + FP + FN) at .5 and its mean over .5, .55 … .95 (Caicedo 2019, the score of the Data Science Bowl 2018; not the area
    under a curve, which is COCO's AP), F1 2TP / (2TP + FP + FN) at .5, .3 and .1, precision TP / (TP + FP), recall TP / (TP + FN).
    PQ = SQ · DQ (Kirillov 2019) with SQ the mean IoU of the matches above .5 and DQ their F1. AJI (Kumar 2017) takes the prediction of best
    IoU for every reference, AJI+ (Graham 2019) the one-to-one matching of largest total IoU: common voxels by united ones, with those of
    all that is left over. SEG (Maška 2014): IoU with the prediction that covers over half of the reference, else 0, mean over references.
    A ratio whose denominator is 0 is None: with no object on either side all but AP_cell, which is then 1 (nothing to find, nothing found),
    and the counts. With objects on one side only AP_cell, F1, PQ, DQ, AJI and AJI+ are 0, and SQ is None; so is precision without
    predictions, recall and SEG without references.
    """
    both = counts.references + counts.predictions
    hits = dict(zip(PERCENTS, counts.hits.tolist()))
    cells = [hits[percent] / (both - hits[percent]) if both else 1.0 for percent in AP_PERCENTS]
    error = counts.predictions - counts.references
    return InstanceScore(
        case=case,
        class_name=name,
        ap_cell_50=cells[0],
        ap_cell_50_95=float(np.mean(cells)),
        f1_50=_divide(2 * hits[50], both),
        f1_30=_divide(2 * hits[30], both),
        f1_10=_divide(2 * hits[10], both),
        precision_50=_divide(hits[50], counts.predictions),
        recall_50=_divide(hits[50], counts.references),
        pq=_divide(2 * counts.matched_iou, both),
        sq=_divide(counts.matched_iou, counts.matched),
        dq=_divide(2 * counts.matched, both),
        aji=_divide(*counts.aji.tolist()),
        aji_plus=_divide(*counts.aji_plus.tolist()),
        seg=_divide(counts.seg, counts.references),
        count_error=float(abs(error)),
        count_bias=float(error),
        objects_reference=counts.references,
        objects_predicted=counts.predictions,
    )
