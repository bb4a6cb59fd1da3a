"""`autoseg stop`: a training that is going on is brought to its end early, with a whole model."""

from pathlib import Path

from autoseg.commands.job import load_course
from autoseg.errors import InputError
from autoseg.io.files import load_record, write_bytes
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.progress import Progress, Silent
from autoseg.records.training import TrainingSettings, TrainingStatus
from autoseg.training.schedule import count_ending


def stop(run: str | Path, fold: int | None = None, progress: Progress = Silent()) -> None:
    """Asks every training of a run, or that of one fold, to bring its learning rate to its end; the trainings see it at their next step.

    Raises InputError where nothing is being trained.
    """
    RunFolder(Path(run)).require_plan()
    pattern = f"models/*/fold_{'*' if fold is None else fold}"
    folders = [FoldFolder(path) for path in sorted(Path(run).glob(pattern)) if path.name.removeprefix("fold_").isdigit()]
    training = [folder for folder in folders if folder.is_held() and _read_state(folder) != "validating"]
    if not training:
        where = f"Fold {fold} of {run}" if fold is not None else f"No fold of {run}"
        is_not = "is not being trained" if fold is not None else "is being trained"
        found = "; ".join(f"{_name(folder)} {_describe_state(folder)}" for folder in folders)
        raise InputError(f"{where} {is_not}, so there is nothing to stop.", f"{found}." if found else "No training was begun.")
    for folder in training:
        write_bytes(folder.stop, b"")
        progress.say(f"{_name(folder)}: {_announce(folder)}", event="stop", folder=str(folder.path))


def _name(folder: FoldFolder) -> str:
    return f"{folder.path.parent.name}, fold {folder.path.name.removeprefix('fold_')}"


def _read_state(folder: FoldFolder) -> str:
    return load_record(TrainingStatus, folder.status).state if folder.status.is_file() else "prepared"


def _describe_state(folder: FoldFolder) -> str:
    if not folder.status.is_file():
        return "was not begun"
    status = load_record(TrainingStatus, folder.status)
    words = {"finished": "is finished", "validating": "has taken its last step and is being validated"}
    return f"{words.get(status.state, 'was interrupted')} (step {status.step} of {status.steps})"


def _announce(folder: FoldFolder) -> str:
    """What the request will cause, and about when."""
    if not folder.settings.is_file() or not folder.status.is_file():
        return "it is not at its first step yet; it will take its least number of steps, then validate and write the model."
    settings, status = load_record(TrainingSettings, folder.settings), load_record(TrainingStatus, folder.status)
    course = load_course(folder)
    leg = course.legs[-1]
    left = leg.last - status.step if leg.kind == "ending" else count_ending(leg, status.step)
    seconds = status.seconds / status.step if status.step else settings.seconds_per_step
    return (
        f"the learning rate ends over {left} more steps (now {status.step} of {course.end}), about {left * seconds / 60:.1f} minutes; "
        "then validation cases are predicted and the model is written."
    )
