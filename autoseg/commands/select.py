"""The selection among what a run has trained."""
# stand-in

from pathlib import Path

import numpy as np

from autoseg.commands.evaluate import save_scores
from autoseg.errors import InputError
from autoseg.evaluation.summary import summarise
from autoseg.io.files import load_record, save_record
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Progress, Silent
from autoseg.records.choice import Choice, Trial
from autoseg.records.scores import Scores


def select(run: str | Path, progress: Progress = Silent(), workers: int | None = None, configurations: tuple[str, ...] = ()) -> Choice:
    """The configuration with the highest mean Dice over the cases of its finished folds; writes choice.json and scores.json."""
    folder = RunFolder(Path(run))
    names = configurations or tuple(c.name for c in folder.load_plan().configurations)
    finished = {name: folder.finished_folds(name) for name in names if folder.finished_folds(name)}
    if not finished:
        raise InputError(f"{run} has no finished fold.", todo=f"autoseg train {run} --fold 0")
    rows = {
        name: [row for fold in folds for row in load_record(Scores, folder.fold(name, fold).validation / "scores.json").cases]
        for name, folds in finished.items()
    }
    means = {name: float(np.mean([row.dice for row in own if row.dice is not None] or [0.0])) for name, own in rows.items()}
    best = max(means, key=lambda name: means[name])
    choice = Choice(
        metric="dice",
        configurations=(best,),
        folds=tuple(finished[best]),
        cases=len({row.case for row in rows[best]}),
        weights_digests={best: tuple(folder.fold(best, fold).load_model().weights_digest for fold in finished[best])},
        trials=tuple(Trial(what=name, mean=mean, cases=len(rows[name]), kept=name == best) for name, mean in means.items()),
    )
    save_scores(summarise(rows[best], folder.load_dataset().classes), folder.scores)
    save_record(folder.choice, choice)
    progress.say(f"Selected: {best}", event="selection")
    return choice
