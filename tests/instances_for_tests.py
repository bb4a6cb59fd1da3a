"""Made-up objects as a fingerprint holds them, from boxes in numpy."""

import msgspec
import numpy as np

from autoseg.arrays.labels import pack_voxels
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint, MeasuredObjects

NONE_LOST = (0, 0, 0, 0, 0)


def make_measured(boxes: np.ndarray, fill: float = 0.75, lost: tuple[int, ...] = NONE_LOST, touching: int = 0) -> MeasuredObjects:
    """Objects of class 1 with these boxes (n, 2 · dimension, whole voxels), which fill a share of them."""
    dimension = boxes.shape[1] // 2
    voxels = np.maximum(1, np.rint(fill * np.prod(boxes[:, dimension:] - boxes[:, :dimension], axis=1)))
    return MeasuredObjects(
        boxes=pack_voxels(boxes),
        voxels=pack_voxels(voxels),
        classes=pack_voxels(np.ones(len(boxes))),
        touching=touching,
        on_border=0,
        in_parts=0,
        tiny=0,
        overlapping=0,
        lost=0,
        lost_to_nms=lost,
    )


def spread_boxes(shape: tuple[int, ...], count: int, sides: tuple[float, float], spacing: tuple[float, ...]) -> np.ndarray:
    """`count` boxes (count, 2 · dimension, voxels) spread over an image: edges in mm evenly in log scale between `sides`, up to a quarter

    longer or shorter along each axis. No random numbers: fractions of multiples of roots, which fill a unit cube evenly.
    """
    dimension = len(shape)
    numbers = np.arange(1, count + 1)[:, None] * np.sqrt([2.0, 3, 5, 7, 11, 13, 17][: 2 * dimension + 1])
    fractions = numbers - np.floor(numbers)
    side = sides[0] * (sides[1] / sides[0]) ** fractions[:, :1] * 1.25 ** (2 * fractions[:, 1 : dimension + 1] - 1)
    edges = np.clip(np.rint(side / np.array(spacing)), 1, shape).astype(np.int64)
    low = np.floor(fractions[:, dimension + 1 :] * (np.array(shape) - edges + 1)).astype(np.int64)
    return np.concatenate([low, low + edges], axis=1)


def make_instances(
    boxes: list[np.ndarray], shape: tuple[int, ...], spacing: tuple[float, ...], channels: tuple[str, ...] = ("image",), fill: float = 0.75
) -> tuple[Dataset, Fingerprint]:
    """An instance data set of one class: a case per entry of `boxes`, all of one shape (voxels) and spacing (mm)."""
    names = [f"case {number:04d}" for number in range(len(boxes))]
    dataset = Dataset(
        root="/data",
        task="instance",
        dimension=len(shape),
        unit="px" if len(shape) == 2 else "mm",
        layout="paired",
        label_form="ids",
        channels=tuple(Channel(name=channel, pattern=f"{{case}} {channel}.png") for channel in channels),
        classes=(ClassLabel(name="object", values=(1,)),),
        cases=tuple(Case(id=name, images=(f"{name}.png",) * len(channels)) for name in names),
    )
    cases = tuple(
        CaseFingerprint(
            case=name,
            digest="",
            shape=shape,
            spacing=spacing,
            orientation="LPS",
            cropped_shape=shape,
            channels=(),
            classes=(),
            objects=make_measured(own, fill),
        )
        for name, own in zip(names, boxes)
    )
    return dataset, Fingerprint(cases=cases)


def with_objects(fingerprint: Fingerprint, **changes: object) -> Fingerprint:
    """The fingerprint with fields of every case's objects replaced."""
    changed = [msgspec.structs.replace(case, objects=msgspec.structs.replace(case.objects, **changes)) for case in fingerprint.cases]
    return Fingerprint(cases=tuple(changed))
