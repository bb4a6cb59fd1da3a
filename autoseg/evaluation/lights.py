"""The traffic light: the means of a class against the two limits of a clinical guide, and against what a purpose demands.

The limits are those of issue 6: green at Dice .85, IoU .80, sensitivity .95, specificity .90, Hausdorff 5 mm; amber at .75, .70, .90, .85,
10 mm; red below. They say how masks compare with common thresholds; they are no evidence that anything is fit for clinical use.
"""

from collections.abc import Sequence

from autoseg.records.scores import CaseScore, Scores
from autoseg.records.verdict import Colour, Fitness, Light, Limit

LIMITS = (
    Limit(metric="dice", green=0.85, amber=0.75),
    Limit(metric="iou", green=0.80, amber=0.70),
    Limit(metric="sensitivity", green=0.95, amber=0.90),
    Limit(metric="specificity", green=0.90, amber=0.85),
    Limit(metric="hausdorff", green=5.0, amber=10.0),
)
PURPOSES: dict[str, tuple[tuple[str, float], ...]] = {  # strictly better than every one of these
    "surgical planning": (("dice", 0.85), ("hausdorff", 5.0)),
    "volume": (("dice", 0.80), ("iou", 0.75)),
    "lesion detection": (("sensitivity", 0.95),),
}
DISTANCES = frozenset({"hausdorff"})  # smaller is better; in mm, or there is no light
FIELDS = {"hausdorff": "hausdorff_mm"}  # what a metric is called in a row, where that differs


def light_classes(scores: Scores, limits: Sequence[Limit] = LIMITS) -> tuple[Light, ...]:
    """A light per class and metric."""
    return tuple(_light(name, _rows(scores, name), limit, scores.unit) for name in scores.classes for limit in limits)


def judge_purposes(scores: Scores) -> tuple[Fitness, ...]:
    """Per class and purpose, whether the means meet the demands. A missed case has no distance: the demand on distances is not met then."""
    return tuple(
        Fitness(
            class_name=name,
            purpose=purpose,
            demands=" and ".join(f"{metric} {'<' if metric in DISTANCES else '>'} {bound:g}{_unit(metric)}" for metric, bound in demands),
            met=_meets(_rows(scores, name), demands, scores.unit),
        )
        for name in scores.classes
        for purpose, demands in PURPOSES.items()
    )


def choose_colour(value: float | None, limit: Limit) -> Colour:
    """The colour of one value.

    >>> choose_colour(0.85, LIMITS[0]), choose_colour(5.1, LIMITS[4]), choose_colour(None, LIMITS[0])
    ('green', 'amber', 'n/a')
    """
    if value is None:
        return "n/a"
    sign = -1 if limit.metric in DISTANCES else 1
    return "green" if sign * value >= sign * limit.green else "amber" if sign * value >= sign * limit.amber else "red"


def _rows(scores: Scores, name: str) -> list[CaseScore]:
    return [row for row in scores.cases if row.class_name == name]


def _unit(metric: str) -> str:
    return " mm" if metric in DISTANCES else ""


def _read(row: CaseScore, metric: str, unit: str) -> float | None:
    """The value of a row; distances in pixels have no limit to be held against."""
    return None if metric in DISTANCES and unit == "px" else getattr(row, FIELDS.get(metric, metric))


def _count_missed(rows: list[CaseScore], metric: str, unit: str) -> int:
    """Cases without a distance because one of mask and reference is empty and the other is not; 0 where distances were not measured."""
    if metric not in DISTANCES or unit == "px":
        return 0
    if any(row.voxels_reference and row.voxels_predicted and _read(row, metric, unit) is None for row in rows):
        return 0
    return sum((row.voxels_reference == 0) != (row.voxels_predicted == 0) for row in rows)


def _average(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _light(name: str, rows: list[CaseScore], limit: Limit, unit: str) -> Light:
    """A missed case is red; the mean over the others is then amber at best, since an infinite distance is left out of it."""
    values = [_read(row, limit.metric, unit) for row in rows]
    value, missed = _average(values), _count_missed(rows, limit.metric, unit)
    colours = [choose_colour(own, limit) for own in values]
    colour = choose_colour(value, limit)
    if missed:
        colour = {"green": "amber", "n/a": "red"}.get(colour, colour)  # type: ignore[assignment]
    return Light(
        class_name=name,
        metric=limit.metric,
        value=value,
        colour=colour,
        green=colours.count("green"),
        amber=colours.count("amber"),
        red=colours.count("red") + missed,
        missed=missed,
        undefined=colours.count("n/a") - missed,
    )


def _meets(rows: list[CaseScore], demands: tuple[tuple[str, float], ...], unit: str) -> bool | None:
    answers: list[bool | None] = []
    for metric, bound in demands:
        value = _average([_read(row, metric, unit) for row in rows])
        if _count_missed(rows, metric, unit):
            answers.append(False)
        elif value is None:
            answers.append(None)
        else:
            answers.append(value < bound if metric in DISTANCES else value > bound)
    return False if False in answers else None if None in answers else True
