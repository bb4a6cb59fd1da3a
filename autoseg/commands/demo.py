"""`autoseg demo`: made-up scans, the whole way, a picture of the result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from autoseg.arrays.labels import encode_labels
from autoseg.arrays.phantoms import Balls
from autoseg.arrays.volume import Volume
from autoseg.commands.cells import make_cells
from autoseg.commands.plan import PlanOptions, plan
from autoseg.errors import InputError
from autoseg.io.files import write_aside, write_bytes
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import read_label, read_scan
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Dataset
from autoseg.report.overlay import draw_objects, draw_overlay

CASES = 20
IMAGES, IMAGE_SHAPE = 24, (192, 192)
CELLS = Balls((15, 35), (4.0, 16.0))
MINUTES = 1.5
SEED = 7


@dataclass(frozen=True)
class Subject:
    """What a demo is about: its scans and how they are planned, the score that is told, and the picture of a case.

    `draw` is given the scan, its label maps ("reference", "prediction"), the data set and a heading, and makes a PNG.
    """

    scans: Path
    options: PlanOptions
    metric: str
    title: str
    draw: Callable[[Volume, dict[str, np.ndarray], Dataset, str], bytes]


def demo(output: str | Path = "", task: str = "semantic", progress: Progress = Silent()) -> Path:
    """Makes a small data set, then plans, trains a fold, predicts and evaluates it; returns the picture's path.

    The scans are MR-like with two structures, or for the task "instance" images of cells. Without `output` the folder is autoseg_demo or
    autoseg_demo_instance. Repeated, it goes on where it was stopped.
    """
    from autoseg.commands.evaluate import Wanted, evaluate
    from autoseg.commands.predict import PredictOptions, predict
    from autoseg.commands.train import TrainOptions, train

    if task not in SUBJECTS:
        raise InputError(f"There is no demo of the task '{task}'.", f"Tasks: {', '.join(SUBJECTS)}.")
    folder = Path(output or FOLDERS[task])
    run, masks, picture = folder / "run", folder / "masks", folder / "result.png"
    _refuse_other_task(run, task)
    subject = SUBJECTS[task](folder, progress)
    if not RunFolder(run).plan.is_file():
        plan(subject.scans, run, subject.options, progress)
    train(run, 0, options=TrainOptions(minutes=MINUTES), progress=progress)
    predict(run, subject.scans / "images", masks, PredictOptions(cases="fold:0", preview=True), progress)
    scores = evaluate(masks, subject.scans / "labels", wanted=Wanted(only_predicted=True), progress=progress)
    write_bytes(picture, _draw(subject, run, masks))
    progress.say(
        f"The whole way is done: mean {subject.title} {scores.mean[subject.metric] or 0:.3f} on scans that the model had not seen.\n"
        f"  scans and labels  {subject.scans}\n  run (plan, model) {run}\n  masks and scores  {masks}\n  picture           {picture}\n"
        f"Next: autoseg plan YOUR_FOLDER -o RUN && autoseg train RUN --fold 0 --minutes 10",
        event="demo",
        picture=str(picture),
    )
    return picture


def _refuse_other_task(run: Path, task: str) -> None:
    if RunFolder(run).plan.is_file() and (found := RunFolder(run).load_dataset().task) != task:
        raise InputError(f"{run} is the run of a demo of the task {found}.", todo=f"autoseg demo --task {task} -o ANOTHER_FOLDER")


def _make_semantic(folder: Path, progress: Progress) -> Subject:
    scans = folder / "scans"
    progress.say(f"Making {CASES} scans in {scans}: two touching structures, uneven brightness, noise, oblique and uneven voxels")
    make_scans(scans)
    return Subject(scans, PlanOptions(minutes=MINUTES, classes=("body", "head")), "dice", "Dice", _draw_classes)


def _make_instance(folder: Path, progress: Progress) -> Subject:
    scans = folder / "cells"
    progress.say(f"Making {IMAGES} images in {scans}: round cells of very unequal size that touch, noise, an uneven ground")
    make_cells(scans, range(IMAGES), IMAGE_SHAPE, (1.0, 1.0), CELLS)
    options = PlanOptions(task="instance", minutes=MINUTES, classes=("cell",))
    return Subject(scans, options, "ap_cell_50", "AP_cell@.5 (TP / (TP + FP + FN))", _draw_objects)


FOLDERS = {"semantic": "autoseg_demo", "instance": "autoseg_demo_instance"}
SUBJECTS: dict[str, Callable[[Path, Progress], Subject]] = {"semantic": _make_semantic, "instance": _make_instance}


def _draw(subject: Subject, run: Path, masks: Path) -> bytes:
    """The picture of one validation case."""
    folder = RunFolder(run)
    dataset = folder.load_dataset()
    case = next(case for case in dataset.cases if case.id == folder.load_splits().folds[0].validation[0])
    volume = read_scan([subject.scans / path for path in case.images], dataset.channels)
    (mask,) = masks.glob(f"{case.id}.*")
    maps = {"reference": read_label(subject.scans / (case.label or ""))[0], "prediction": read_label(mask)[0]}
    return subject.draw(volume, maps, dataset, f"{case.id}: not seen in training")


def _draw_classes(volume: Volume, maps: dict[str, np.ndarray], dataset: Dataset, heading: str) -> bytes:
    """Reference above, prediction below."""
    numbers = {name: encode_labels(values, dataset.classes, 0, None) for name, values in maps.items()}
    names = tuple(label.name for label in dataset.classes)
    return draw_overlay(volume.array[0], numbers, volume.grid.spacing, names, heading)


def _draw_objects(volume: Volume, maps: dict[str, np.ndarray], dataset: Dataset, heading: str) -> bytes:
    """Reference on the left, prediction on the right."""
    return draw_objects(volume.array, maps, volume.grid.spacing, heading)


def make_scans(folder: Path, cases: int = CASES, shape: tuple[int, int, int] = (24, 40, 40)) -> None:
    """Writes `cases` images and labels as NIfTI; the same every time. Cases that are there are kept."""
    for number in range(cases):
        generator = np.random.default_rng((SEED, number))
        image_path, label_path = (folder / name / f"case_{number:02d}.nii.gz" for name in ("images", "labels"))
        if image_path.is_file() and label_path.is_file():
            continue
        label, spacing = _draw_label(generator, shape)
        image = _draw_image(generator, label)
        direction = _draw_direction(generator)
        for path, array in ((image_path, image), (label_path, label)):
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing(tuple(reversed(spacing)))
            picture.SetDirection(direction)
            picture.SetOrigin((-20.0, 15.0, 100.0 + number))
            with write_aside(path) as partial:
                sitk.WriteImage(picture, str(partial), useCompression=True)


def _draw_label(generator: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Two ellipsoids that touch, 1 and 2, at a random place and angle, on voxels that are thicker than wide."""
    spacing = (float(generator.uniform(1.5, 2.2)), 1.0, 1.0)
    grid = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing)], indexing="ij"), axis=-1)
    angle = generator.uniform(0, np.pi)
    along = np.array([generator.uniform(-0.3, 0.3), np.sin(angle), np.cos(angle)])
    along /= np.linalg.norm(along)
    middle = generator.uniform(-3, 3, size=3)
    radius = generator.uniform(6.0, 8.0)
    label = np.zeros(shape, dtype=np.uint8)
    for number, (offset, size) in enumerate(((-0.5 * radius, radius), (0.8 * radius, 0.7 * radius)), 1):
        distance = grid - (middle + offset * along)
        lengthwise = distance @ along
        across = np.linalg.norm(distance - lengthwise[..., None] * along, axis=-1)
        inside = (lengthwise / (1.2 * size)) ** 2 + (across / size) ** 2 < 1
        label[inside & (label == 0)] = number
    return label, spacing


def _draw_image(generator: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """Grey values per structure, blurred, with texture, a bias field and noise, on an arbitrary scale, like MR."""
    values = np.array([0.5, 0.9, 0.75]) + generator.normal(0, 0.03, 3)
    image = ndimage.gaussian_filter(values[label], 0.6)
    texture = ndimage.gaussian_filter(generator.normal(size=label.shape), 2)
    image += 0.05 * texture / texture.std()
    bias = ndimage.gaussian_filter(generator.normal(size=label.shape), 12)
    image *= 1 + 0.15 * bias / np.abs(bias).max()
    image += generator.normal(0, 0.05, label.shape)
    return (image * 10 ** generator.uniform(1, 4)).astype(np.float32)


def _draw_direction(generator: np.random.Generator) -> tuple[float, ...]:
    """An oblique scan: turned by up to 15° about the patient's long axis, every third one stored left to right."""
    angle = np.deg2rad(generator.uniform(-15, 15))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    mirror = np.diag([-1.0, -1.0, 1.0]) if generator.random() < 1 / 3 else np.eye(3)
    return tuple(float(value) for value in (turn @ mirror).ravel())
