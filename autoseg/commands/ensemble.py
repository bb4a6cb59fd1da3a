"""`autoseg ensemble`: masks from the averaged probabilities of several models."""  # stand-in

from pathlib import Path

from autoseg.errors import InputError
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Progress


def ensemble_validation(
    run: RunFolder, configurations: tuple[str, ...], folds: tuple[int, ...], output: Path, progress: Progress
) -> dict[str, Path]:
    """stand-in."""
    raise InputError("This version keeps no probabilities.")
