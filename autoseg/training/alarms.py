"""What a log shows before its training is over: a class that is never found, nothing found at all, learning by heart, no progress."""

from collections.abc import Sequence

from autoseg.training.trainer import EpochRow

ZERO_SHARE = 1 / 3  # of the run, in which a class has scored zero
EMPTY_VALIDATIONS = 2  # in a row without any foreground
WORSE_SCORE = 0.1  # by which the last third's mean lies below the best
BETTER_LOSS = 0.1  # share by which the training loss has fallen since the best validation
DIGITS = 5  # that log.csv keeps: a resumption, which reads it, must decide alike


def find_alarms(rows: Sequence[EpochRow], steps: int) -> dict[str, str]:
    """Alarm → text, with the likely cause and cure, from the rows of a run of `steps` steps so far.

    The names are stable, so that each can be told once.
    """
    validated = [row for row in rows if row.foreground is not None]
    if not validated:
        return {}
    if _is_empty(validated):
        return {"background": EMPTY}
    found = {f"zero {name}": ZERO.format(name) for name in validated[-1].validation if _scores_zero(validated, name, steps)}
    if _learns_by_heart(validated):
        found["overfitting"] = OVERFITTING
    return found


EMPTY = (
    "Everything is predicted as background. Likely the learning rate is too high, or the foreground too small for the patches: "
    "halve optimizer.learning_rate, or raise augmentation.foreground_probability (autoseg plan RUN --set …), and train with --overwrite."
)
ZERO = (
    "Class '{}' has scored zero in whole-case validation for a third of the run. Likely it is rare or small, or its labels are wrong in "
    "some cases: look at them, and raise augmentation.foreground_probability (autoseg plan RUN --set …), then train with --overwrite."
)
OVERFITTING = (
    "The training loss still falls, but validation gets worse: the network learns its cases by heart. Likely there are few cases, or some "
    "validation scans differ from the rest: add cases or augmentation, or end now with autoseg stop RUN."
)


def _is_empty(validated: Sequence[EpochRow]) -> bool:
    last = validated[-EMPTY_VALIDATIONS:]
    return len(last) == EMPTY_VALIDATIONS and all(row.foreground == 0 for row in last)


def _scores_zero(validated: Sequence[EpochRow], name: str, steps: int) -> bool:
    """Whether every score of the class since some step has been zero, and that step lies a third of the run back."""
    scored = [row for row in validated if row.validation.get(name) is not None]
    if not scored or scored[-1].validation[name]:
        return False
    since = max((row.step for row in scored if row.validation[name]), default=0)
    return scored[-1].step - since >= ZERO_SHARE * steps


def _learns_by_heart(validated: Sequence[EpochRow]) -> bool:
    """Whether the last third's mean score lies far below the best, while the training loss has fallen since."""
    scores = [(row.mean_score, row) for row in validated if row.mean_score is not None]
    late = [score for score, row in scores if row.step > validated[-1].step * 2 / 3]
    if not late:
        return False
    best, at = max(scores, key=lambda entry: entry[0])
    fall = at.loss - validated[-1].loss
    return sum(late) / len(late) < best - WORSE_SCORE and fall > BETTER_LOSS * abs(at.loss)


def is_stagnant(rows: Sequence[EpochRow], patience: int) -> bool:
    """Whether the last `patience` validations brought no new best mean score."""
    scores = [round(row.mean_score, DIGITS) for row in rows if row.mean_score is not None]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
