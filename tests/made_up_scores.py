"""Scores made up case by case, without a mask behind them."""

import msgspec

from autoseg.evaluation.summary import summarise
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import CaseScore, Scores

PLAIN = CaseScore(
    case="",
    class_name="",
    dice=0.9,
    iou=0.82,
    precision=0.9,
    sensitivity=0.9,
    specificity=0.999,
    volume_reference_ml=1.0,
    volume_predicted_ml=1.0,
    voxels_reference=1000,
    voxels_predicted=1000,
    nsd=0.95,
)


def make_scores(unit: str = "mm", **classes: list[dict]) -> Scores:
    """Cases c00, c01, … of every class, each the plain row with changes."""
    rows = [
        msgspec.structs.replace(PLAIN, case=f"c{number:02d}", class_name=name, **changes)
        for name, cases in classes.items()
        for number, changes in enumerate(cases)
    ]
    labels = tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(classes, 1))
    return msgspec.structs.replace(summarise(rows, labels), unit=unit)
