"""What the tests of whole commands share: made-up folders of scans, the command in this process and in one that may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.commands.demo import make_scans
from autoseg.commands.plan import PlanOptions
from autoseg.io.files import PARTIAL

CASES = 6
SHAPE = (16, 24, 24)
STEPS = 12
MODEL = Path("models/3d_fullres/fold_0")
STORE = Path("prepared/3d_fullres")
PLAN_OPTIONS = PlanOptions(device="cpu", minutes=0.1, classes=("body", "head"), workers=1)
PLAN_WORDS = ("--device", "cpu", "--minutes", "0.1", "--workers", "1")
TRAIN_WORDS = ("--fold", "0", "--device", "cpu", "--steps", str(STEPS), "--precision", "fp32", "--workers", "1")

# Every write takes a while and every step leaves a checkpoint, so that a kill finds files half-written.
SLOW_CHILD = """
import os, sys, time
import autoseg.training.trainer
from autoseg.cli import main
autoseg.training.trainer.CHECKPOINT_SECONDS = 0.0
os.fsync = lambda handle: time.sleep(0.05)
sys.exit(main())
"""


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str


@contextmanager
def on_one_core() -> Iterator[None]:
    """Tiny networks are fastest on one thread, beside other work too; and one core makes results repeatable bit by bit."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def make_folder(folder: Path, cases: int = CASES) -> Path:
    """Made-up MR-like scans on oblique, uneven and mirrored grids: images/ and labels/ with values 0, 1, 2."""
    make_scans(folder, cases=cases, shape=SHAPE)
    return folder


def write_scan(path: Path, array: np.ndarray, spacing: tuple[float, ...] | None = None) -> Path:
    """Writes an array (z, y, x), (y, x), or (y, x, colour) with `path` ending as wanted; spacing in array order."""
    colour = array.ndim == 3 and path.suffix in (".png", ".jpg")
    image = sitk.GetImageFromArray(array, isVector=colour)
    if spacing:
        image.SetSpacing(tuple(reversed(spacing)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def draw_case(seed: int, shape: tuple[int, ...] = (12, 16, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A bright block in noise, float32, and its label, uint8."""
    generator = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(low, low + size // 2) for low, size in zip(generator.integers(1, 4, len(shape)), shape))] = 1
    return (100 * label + generator.normal(50, 10, shape)).clip(1, 255).astype(np.float32), label


def write_cases(folder: Path, names: list[str], shape: tuple[int, ...] = (12, 16, 16)) -> Path:
    """images/NAME.nii.gz and labels/NAME.nii.gz with one structure each."""
    for seed, name in enumerate(names):
        image, label = draw_case(seed, shape)
        write_scan(folder / "images" / f"{name}.nii.gz", image)
        write_scan(folder / "labels" / f"{name}.nii.gz", label)
    return folder


def read_array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def start_slowly(*words: object) -> subprocess.Popen:
    """The command in a process group of its own, so slow at writing that it can be stopped at any place."""
    line = [sys.executable, "-c", SLOW_CHILD, *map(str, words)]
    return subprocess.Popen(line, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(arrived: Callable[[], object], process: subprocess.Popen, seconds: float = 240.0) -> None:
    """Waits while the process works; fails where it ends, or takes too long, before that."""
    end = time.monotonic() + seconds
    while not arrived():
        if process.poll() is not None:
            raise AssertionError(f"the command ended too early ({process.returncode}):\n{process.stdout.read()}")
        if time.monotonic() > end:
            kill(process)
            raise AssertionError(f"nothing arrived in {seconds} s")
        time.sleep(0.005)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the whole process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def list_partials(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PARTIAL}*"))
