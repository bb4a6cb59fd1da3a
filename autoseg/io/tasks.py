"""What a folder's labels are for: a class for each voxel, or objects that are told apart, as asked for or as the folder shows."""

from dataclasses import replace
from pathlib import Path

import msgspec

from autoseg.errors import InputError
from autoseg.io.classes import read_typed
from autoseg.io.discovery import Discovery, name_classes
from autoseg.io.objects import CLASS_MAP, read_class_map
from autoseg.records.dataset import ClassLabel

ONE_CLASS = "object"


def settle_task(discovery: Discovery, task: str, words: tuple[str, ...]) -> tuple[Discovery, tuple[str, ...]]:
    """The discovery with its task, the form of its labels and its classes; and the typed names (`words`, --classes) still without values.

    `task` is what was asked for, or empty: then one file per object, or class maps beside the labels, make it an instance task.
    """
    files = discovery.label_form == "files"
    maps = any(case.object_classes for case in discovery.cases)
    if task == "semantic" or not (task or files or maps):
        plain = tuple(msgspec.structs.replace(case, object_classes=None) for case in discovery.cases)
        return name_classes(replace(discovery, task="semantic", cases=plain, shown="asked for" if task else ""), words)
    reason = f"every object has a file of its own, in {discovery.label_pattern}" if files else "class maps lie beside the labels"
    form = "files" if files else "ids"
    typed = read_typed(words)
    ignore = discovery.ignore_value if typed.ignore_value is None else typed.ignore_value
    shown = "asked for" if task else reason
    found = replace(discovery, task="instance", label_form=form, ignore_value=ignore, shown=shown)  # type: ignore[arg-type]
    if typed.classes:
        raise InputError(
            "--classes gives values, but in an instance task the labels hold the numbers of objects.",
            todo=f"--classes NAME, or a file {{case}}.json beside each label: {CLASS_MAP}",
        )
    return replace(found, classes=_name_objects(found, typed.names), declared_in="the class maps"), ()


def _name_objects(discovery: Discovery, typed: tuple[str, ...]) -> tuple[ClassLabel, ...]:
    """The classes of objects, numbered 1 … N: as typed, else by name as the class maps have them, else one."""
    values = _list_values(discovery)
    if not values:
        if len(typed) > 1:
            raise InputError(
                f"--classes names {len(typed)} classes of objects, but nothing says which object is of which.",
                todo=f"a file {{case}}.json beside each label: {CLASS_MAP}",
            )
        return _number((typed or _declare_one(discovery))[:1])
    numbers = sorted(value for value in values if isinstance(value, int))
    named = tuple(sorted(value for value in values if isinstance(value, str)))
    if numbers and named:
        raise InputError(f"The class maps call classes by number ({numbers[0]}) and by name ({named[0]}).", todo="Use names everywhere.")
    if numbers:
        given = dict(discovery.numbered)
        named = tuple(given.get(value, f"class_{value}") for value in range(numbers[-1] + 1))
        return _number(typed if len(typed) == len(named) else named)
    missing = sorted(set(named) - set(typed)) if typed else []
    if missing:
        raise InputError(f"--classes leaves out {', '.join(missing)}, which the class maps name.")
    return _number(typed or named)


def _declare_one(discovery: Discovery) -> tuple[str, ...]:
    """The name of the only class that a dataset.json declares, else a plain one."""
    declared = discovery.classes or ()
    return (declared[0].name if len(declared) == 1 else ONE_CLASS,)


def _number(names: tuple[str, ...]) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(names, 1))


def _list_values(discovery: Discovery) -> set[str | int]:
    """All that the class maps of the cases name. Raises InputError for a negative number."""
    values: set[str | int] = set()
    for case in discovery.cases:
        if case.object_classes:
            own = set((read_class_map(discovery.root / Path(case.object_classes)) or {}).values())
            if any(isinstance(value, int) and value < 0 for value in own):
                raise InputError(f"{case.object_classes} has a negative class number.", "They count from 0.")
            values |= own
    return values
