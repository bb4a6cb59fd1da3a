"""References found for masks, and pairs of them worked off: what scoring classes and scoring objects share."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from autoseg.errors import AutosegError, InputError
from autoseg.io.files import list_files
from autoseg.io.layouts import LABEL_SUFFIXES, OBJECT_FOLDERS
from autoseg.io.machine import count_cores
from autoseg.io.patterns import compile_pattern, get_file_part, match_paths, split_pattern
from autoseg.parallel import run_cases
from autoseg.progress import Progress

FEW_CASES = 8  # below this many, starting worker processes takes longer than the work
FOLDERS_OF_OBJECTS = tuple(f"{{case}}/{name}" for name in OBJECT_FOLDERS)  # a file per object in each


class Pair(Protocol):
    """What a worker is given: a case with its files."""

    @property
    def case(self) -> str: ...


AnyPair = TypeVar("AnyPair", bound=Pair)
Result = TypeVar("Result")


def find_references(references: str, cases: set[str], label_pattern: str) -> dict[str, Path]:
    """Case → reference below a folder or by a pattern: a file, or a folder of one file per object.

    In a folder the pattern of the training labels is tried, then names equal to the cases' with and without a label suffix, then folders
    of objects; the one that finds most of the cases counts.
    """
    if "{" in references:
        root, pattern = split_pattern(references)
        return {case: root / path for case, path in match_references(pattern, list_files(root), list_folders(root)).items()}
    root = Path(references)
    if not root.is_dir():
        raise InputError(f"{references} is neither a folder nor a pattern with {{case}}.")
    paths, folders = list_files(root), list_folders(root)
    patterns = [*(f"{{case}}{suffix}{{ext}}" for suffix in ("", *LABEL_SUFFIXES)), *FOLDERS_OF_OBJECTS]
    if label_pattern:
        patterns = [label_pattern, get_file_part(label_pattern), *patterns]
    found: dict[str, str] = {}
    for pattern in dict.fromkeys(patterns):
        trial = match_references(pattern, paths, folders)
        if len(cases & set(trial)) > len(cases & set(found)):
            found = trial
    return {case: root / path for case, path in found.items()}


def list_folders(root: Path) -> list[str]:
    """All folders below `root`, empty ones too (an image without objects has one), relative to it; hidden ones are left out."""
    found = (path.relative_to(root) for path in root.rglob("*/") if path.is_dir())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def match_references(pattern: str, paths: list[str], folders: list[str]) -> dict[str, str]:
    """Case → file or folder that fits a pattern. Where several files fit one case (`{case}/masks/*.png`), the folder is meant.

    Raises InputError where several files fit one case that has no folder of its own.
    """
    try:
        return match_paths(pattern, paths) or _match_folders(pattern, folders)
    except InputError:
        parent = str(PurePosixPath(pattern).parent)
        if "{case}" not in parent:
            raise
        return _match_folders(parent, folders)


def _match_folders(pattern: str, folders: list[str]) -> dict[str, str]:
    return {match["case"]: match.string for match in map(compile_pattern(pattern).match, folders) if match}


def run_pairs(function: Callable[[AnyPair], Result], tasks: Sequence[AnyPair], workers: int | None, progress: Progress) -> dict[str, Any]:
    """Case → result of all pairs, in their order. Raises InputError with all that do not fit each other."""
    count = 1 if len(tasks) < FEW_CASES else min(workers or count_cores(), len(tasks))
    results: dict[str, Result | None] = {}
    problems: list[tuple[str, AutosegError]] = []
    progress.start("Scoring", len(tasks))
    for outcome in run_cases(function, tasks, count):
        if outcome.error is not None:
            problems.append((outcome.task.case, outcome.error))
        results[outcome.task.case] = outcome.result
        progress.advance(outcome.task.case)
    progress.finish()
    if problems:
        table = "\n".join(f"{case}  {error.what} {error.why}".rstrip() for case, error in sorted(problems))
        raise InputError(f"{len(problems)} of {len(tasks)} pairs cannot be compared:\n{table}")
    return {task.case: results[task.case] for task in tasks}
