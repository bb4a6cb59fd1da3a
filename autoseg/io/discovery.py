"""From a folder to cases: which files belong together, and what the folder itself says about them."""

import difflib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from autoseg.errors import InputError
from autoseg.io.classes import check_classes, read_labels, read_typed
from autoseg.io.files import list_files
from autoseg.io.layouts import Found, match_labels, recognise_layout
from autoseg.io.objects import read_class_map
from autoseg.io.patterns import is_folder_pattern, match_paths
from autoseg.io.scans import get_ending
from autoseg.io.tables import describe_unknown, is_column, read_column
from autoseg.records.dataset import Case, ClassLabel, LabelForm, TaskName


@dataclass(frozen=True)
class Problem:
    """Something wrong with one case; all of them are shown in one table."""

    case: str
    text: str


@dataclass(frozen=True)
class Discovery:
    """The cases of a folder before any scan was opened. `channels` are (name, pattern); `classes` is None where nothing declares them.

    `declared_in` is what a user would correct. `task` and `label_form` are settled by io/tasks.py; `shown` is what the task was taken from.
    """

    root: Path
    layout: str
    channels: tuple[tuple[str, str], ...]
    label_pattern: str
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    classes: tuple[ClassLabel, ...] | None = None
    declared_in: str = "dataset.json"
    background_value: int = 0
    ignore_value: int | None = None
    component_names: tuple[str, ...] = ()
    numbered: tuple[tuple[int, str], ...] = ()
    task: TaskName = "semantic"
    label_form: LabelForm = "values"
    shown: str = ""


@dataclass(frozen=True)
class Declared:
    """What a `dataset.json` beside the scans says (Medical Segmentation Decathlon or nnU-Net)."""

    channels: tuple[str, ...] = ()
    classes: tuple[ClassLabel, ...] | None = None
    ignore_value: int | None = None
    listed: tuple[str, ...] = field(default=())
    numbered: tuple[tuple[int, str], ...] = ()


def discover(
    root: Path, images: dict[str, str] | None = None, labels: str | None = None, groups: str | None = None, exclude: tuple[str, ...] = ()
) -> Discovery:
    """Finds the cases below `root`.

    `images` maps channel names to patterns and `labels` is the label's pattern; without them the table of layouts decides. `groups` is a
    regular expression whose first group (or whole match) names the patient of a case, or FILE.csv:COLUMN. Raises InputError where no pair
    is found.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.", todo="autoseg plan FOLDER_OF_SCANS -o RUN")
    paths = [path for path in list_files(root) if get_ending(path)]
    found = _find_by_patterns(paths, images, labels) if images or labels else recognise_layout(paths)
    if found is None or not found.count_pairs():
        raise InputError(*_explain_no_pairs(root, paths, found))
    declared = _read_declaration(root / "dataset.json")
    channels = _name_channels(found, declared)
    cases, problems, notes = _pair(found, channels, declared)
    cases = _find_class_maps(root, cases)
    unknown = sorted(set(exclude) - {case.id for case in cases} - {problem.case for problem in problems})
    if unknown:
        raise InputError(f"--exclude names cases that are not there: {', '.join(unknown)}.")
    cases, more, doubts = _group([case for case in cases if case.id not in exclude], groups)
    return Discovery(
        root=root.resolve(),
        layout=found.layout,
        channels=channels,
        label_pattern=found.label_pattern,
        cases=tuple(cases),
        problems=tuple(problem for problem in (*problems, *more) if problem.case not in exclude),
        notes=(*notes, *doubts),
        classes=declared.classes,
        ignore_value=declared.ignore_value,
        component_names=declared.channels if len(channels) == 1 else (),
        numbered=declared.numbered,
        label_form="files" if is_folder_pattern(found.label_pattern) else "values",
    )


def _find_by_patterns(paths: list[str], images: dict[str, str] | None, labels: str | None) -> Found:
    if not images or not labels:
        given, missing = ("--labels", "--images (or --channels)") if labels else ("--images", "--labels")
        raise InputError(f"{given} needs {missing} beside it.", todo="--images 'images/{case}.nii.gz' --labels 'labels/{case}.nii.gz'")
    label_files, rest = match_labels(labels, paths)
    return Found("patterns", dict(images), {name: match_paths(pattern, rest) for name, pattern in images.items()}, labels, label_files)


def _explain_no_pairs(root: Path, paths: list[str], found: Found | None) -> tuple[str, str, str, str]:
    if not paths:
        others = len(list_files(root))
        return f"No scan was found in {root}.", f"It holds {others} files, none with a known ending.", "", "Point autoseg at the folder."
    if found is not None:
        counts = ", ".join(f"{len(found.images.get(name, {}))} for {pattern}" for name, pattern in found.patterns.items())
        why = f"Of {len(paths)} files, the patterns fit: {counts}; {len(found.labels)} for the label {found.label_pattern}."
    else:
        why = f"{len(paths)} scans fit no known layout; the first is {paths[0]}."
    neighbours = [path for path in paths[1:] if Path(path).parent == Path(paths[0]).parent]
    near = difflib.get_close_matches(paths[0], neighbours or paths[1:], n=1, cutoff=0.5)
    if near:
        why += f"\nClosest: {paths[0]}  ↔  {near[0]}"
    todo = f"autoseg plan {root} -o RUN --images 'PATTERN' --labels 'PATTERN'\nwith {{case}} for what varies: {{case}}/MR_T1_image.nii.gz"
    return f"No pair of image and label was found in {root}.", why, "", todo


def _name_channels(found: Found, declared: Declared) -> tuple[tuple[str, str], ...]:
    keys = list(found.images) if found.layout == "patterns" else sorted(found.images)
    names = declared.channels if len(declared.channels) == len(keys) else tuple(key or "image" for key in keys)
    if found.layout == "folder per case":
        counts = [len(found.images[key]) for key in keys]
        keys = [key for key, count in zip(keys, counts) if count == max(counts)]
        names = tuple(keys)
    return tuple((name, found.patterns[key]) for name, key in zip(names, keys))


def _pair(found: Found, channels: tuple[tuple[str, str], ...], declared: Declared) -> tuple[list[Case], list[Problem], list[str]]:
    by_pattern = {pattern: found.images[key] for key, pattern in found.patterns.items() if key in found.images}
    images = [(name, by_pattern.get(pattern, {})) for name, pattern in channels]
    with_image = {case for _, files in images for case in files}
    listed = set(declared.listed) if declared.listed else None
    cases, problems, unlabelled = [], [], []
    for case in sorted(with_image | set(found.labels) | (listed or set())):
        if listed is not None and case not in listed:
            continue
        missing = [name for name, files in images if case not in files]
        label = found.labels.get(case)
        if case not in with_image:
            problems.append(Problem(case, f"the label {label} has no image" if label else "dataset.json lists it, but there are no files"))
        elif label is None:
            unlabelled.append(case)
        elif missing:
            problems.append(Problem(case, f"no file for channel {', '.join(missing)}"))
        else:
            cases.append(Case(id=case, images=tuple(files[case] for _, files in images), label=label))
    notes = [f"{len(unlabelled)} images have no label and are left out: {_shorten(unlabelled)}"] if unlabelled else []
    return cases, problems, notes


def _find_class_maps(root: Path, cases: list[Case]) -> list[Case]:
    """The cases with the class map that lies beside the label as {case}.json."""
    found = []
    for case in cases:
        path = (Path(case.label or "").parent / f"{case.id}.json").as_posix()
        there = (root / path).is_file() and read_class_map(root / path) is not None
        found.append(msgspec.structs.replace(case, object_classes=path) if there else case)
    return found


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _group(cases: list[Case], groups: str | None) -> tuple[list[Case], list[Problem], tuple[str, ...]]:
    """The cases with their groups, those that have none as problems, and what else is odd."""
    if groups is None:
        return cases, [], ()
    if is_column(groups):
        column = read_column(groups, "--groups", [case.id for case in cases])
        grouped = [msgspec.structs.replace(case, group=column.words[case.id]) for case in cases]
        return grouped, [], describe_unknown(column, "--groups")
    try:
        expression = re.compile(groups)
    except re.error as error:
        raise InputError(f"--groups '{groups}' is not a regular expression: {error}.") from None
    grouped, problems = [], []
    for case in cases:
        match = expression.search(case.id)
        group = None if match is None else match[1] if expression.groups else match[0]
        if group is None:
            problems.append(Problem(case.id, f"its name does not fit --groups '{groups}'"))
            continue
        grouped.append(msgspec.structs.replace(case, group=group))
    return grouped, problems, ()


def _read_declaration(path: Path) -> Declared:
    """What dataset.json says; silent where there is none. Raises InputError for one that cannot be understood."""
    if not path.is_file():
        return Declared()
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        channels = content.get("channel_names") or content.get("modality") or {}
        names = tuple(str(channels[key]) for key in sorted(channels, key=int)) if isinstance(channels, dict) else ()
        labels = content.get("labels", {})
        values = {str(value): int(key) for key, value in labels.items()} if all(k.isdigit() for k in labels) else dict(labels)
        listed = tuple(_case_of(item) for item in content.get("training", []))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be understood.", str(error), todo="Correct it, or move it away: autoseg does not need it."
        ) from None
    classes, ignore = read_labels(values, str(path), content.get("regions_class_order"))
    numbered = tuple((value, name) for name, value in values.items() if isinstance(value, int))
    return Declared(names, classes, ignore, listed, numbered)


def name_classes(discovery: Discovery, words: tuple[str, ...]) -> tuple[Discovery, tuple[str, ...]]:
    """The discovery with the classes that were typed (`words`, see read_typed) in place of those declared, and the names without values."""
    if not words:
        return discovery, ()
    typed = read_typed(words)
    ignore = discovery.ignore_value if typed.names and typed.ignore_value is None else typed.ignore_value
    classes = typed.classes if typed.classes or typed.names else discovery.classes
    check_classes(classes or (), ignore, "--classes")
    source = "--classes" if typed.classes else discovery.declared_in
    return replace(discovery, classes=classes, declared_in=source, ignore_value=ignore), typed.names


def _case_of(item: Any) -> str:
    """The case id of an entry of the Decathlon's `training` list: a file name, or {image, label}."""
    name = Path(item["image"] if isinstance(item, dict) else item).name
    return name[: len(name) - len(get_ending(name))]
