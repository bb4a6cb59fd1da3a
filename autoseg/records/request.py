"""What was asked of a plan beyond what the data set's record tells: kept so that `plan RUN --update` can ask the same again."""

from autoseg.records.base import SavedRecord


class PlanRequest(SavedRecord, frozen=True, kw_only=True):
    """The words of `autoseg plan`: training minutes per fold, spacing (mm, canonical axis order), a GPU's memory (bytes), a profile file.

    `groups` is a regular expression or FILE.csv:COLUMN, `stratify` FILE.csv:COLUMN (absolute paths), `splits` the user's own file; `folds`
    is 0 where no number was asked for; `exclude` are the cases left out.
    """

    profile: str = ""
    minutes: float | None = None
    spacing: tuple[float, ...] | None = None
    memory: int | None = None
    groups: str = ""
    stratify: str = ""
    splits: str = ""
    folds: int = 0
    exclude: tuple[str, ...] = ()
