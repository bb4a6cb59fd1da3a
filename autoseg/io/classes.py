"""What the classes are called and which label values they have: as typed after --classes, or as a dataset.json declares them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from autoseg.errors import InputError
from autoseg.records.dataset import ClassLabel, are_regions, list_parts

IGNORE = "ignore"  # the name that nnU-Net reserves for voxels that nobody has labelled
EXAMPLE = "--classes whole=1+2+3,core=2+3,enhancing=3,ignore=4"


@dataclass(frozen=True)
class Typed:
    """What --classes says: names alone, for the values found in ascending order, or classes with their values."""

    names: tuple[str, ...] = ()
    classes: tuple[ClassLabel, ...] | None = None
    ignore_value: int | None = None


def read_typed(words: tuple[str, ...]) -> Typed:
    """NAME for every class, or NAME=VALUE+VALUE for every class; ignore=VALUE goes with both. Raises InputError.

    >>> read_typed(("liver", "tumour", "ignore=255"))
    Typed(names=('liver', 'tumour'), classes=None, ignore_value=255)
    """
    labels: dict[str, Any] = {}
    for word in words:
        name, separator, values = word.partition("=")
        if name.strip() in labels:
            raise InputError(f"--classes names {name.strip()} twice.")
        labels[name.strip()] = _read_values(word, values) if separator else None
    plain = tuple(name for name, values in labels.items() if values is None)
    valued = {name: values for name, values in labels.items() if values is not None}
    if IGNORE in plain or "" in labels:
        raise InputError("--classes: ignore needs its value, and every class a name.", todo=EXAMPLE)
    if plain and set(valued) - {IGNORE}:
        raise InputError(
            f"--classes gives values to some classes ({', '.join(valued)}) and none to others ({', '.join(plain)}).", todo=EXAMPLE
        )
    classes, ignore = read_labels(valued, "--classes")
    return Typed(plain, None if plain else classes, ignore)


def _read_values(word: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split("+")]
    except ValueError:
        raise InputError(f"--classes: '{word}' is not NAME=VALUE or NAME=VALUE+VALUE, with whole numbers.", todo=EXAMPLE) from None


def read_labels(labels: Mapping[str, Any], source: str, order: Any = None) -> tuple[tuple[ClassLabel, ...] | None, int | None]:
    """The classes of {name: value or list of values} and the value to be ignored; None where no class is named.

    Regions come in the order in which they are painted, each with the value that it is painted with first: as `order` says (nnU-Net's
    regions_class_order: one value per region, as they are listed), else the larger set of values before the smaller. Raises InputError.
    """
    values = {name: _check_values(name, value, source) for name, value in labels.items()}
    ignored = values.pop(IGNORE, (None,))
    if len(ignored) > 1:
        raise InputError(f"{source}: {IGNORE} has one value, not {list(ignored)}.")
    classes = tuple(ClassLabel(name=name, values=own) for name, own in values.items() if own != (0,))
    check_classes(classes, ignored[0], source)
    if not are_regions(classes):
        return tuple(sorted(classes, key=lambda label: label.values)) or None, ignored[0]
    arranged = arrange_regions(classes) if order is None else _paint_as_told(classes, order, source)
    check_painting(arranged, source)
    return arranged, ignored[0]


def _check_values(name: str, value: Any, source: str) -> tuple[int, ...]:
    own = value if isinstance(value, list) else [value]
    if not own or not all(isinstance(part, int) and not isinstance(part, bool) for part in own):
        raise InputError(f"{source}: label {name} is {value!r}.", "A label is a whole number, or a list of whole numbers (a region).")
    return tuple(dict.fromkeys(own))


def check_classes(classes: tuple[ClassLabel, ...], ignored: int | None, source: str) -> None:
    """Raises InputError for values that are background or ignored too, and for two classes of the same values."""
    if ignored == 0:
        raise InputError(f"{source}: {IGNORE} has the value 0, which is the background.", "Unlabelled voxels need a value of their own.")
    known: dict[frozenset[int], str] = {}
    for label in classes:
        for value, meaning in ((0, "the background"), (ignored, "to be ignored")):
            if value in label.values:
                raise InputError(f"{source}: {label.name} has the value {value}, which is {meaning}.")
        same = known.setdefault(frozenset(label.values), label.name)
        if same != label.name:
            raise InputError(f"{source}: {same} and {label.name} have the same values {list(label.values)}.", "They would be one class.")


def arrange_regions(classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ...]:
    """Larger sets of values first, so that what lies inside is painted over them; each with a value first that no later region has.

    >>> classes = (ClassLabel(name="core", values=(2, 3)), ClassLabel(name="whole", values=(3, 2, 1)), ClassLabel(name="rim", values=(3,)))
    >>> [(label.name, label.values) for label in arrange_regions(classes)]
    [('whole', (1, 3, 2)), ('core', (2, 3)), ('rim', (3,))]
    """
    counts = Counter(value for label in classes for value in label.values)
    ordered = sorted(classes, key=lambda label: -len(label.values))
    arranged = []
    for place, label in enumerate(ordered):
        later = {value for other in ordered[place + 1 :] for value in other.values}
        arranged.append(_put_first(label, min(label.values, key=lambda value: (value in later, counts[value]))))
    return tuple(arranged)


def _put_first(label: ClassLabel, value: int) -> ClassLabel:
    return msgspec.structs.replace(label, values=(value, *(other for other in label.values if other != value)))


def _paint_as_told(classes: tuple[ClassLabel, ...], order: Any, source: str) -> tuple[ClassLabel, ...]:
    if not isinstance(order, list) or len(order) != len(classes):
        names = ", ".join(label.name for label in classes)
        raise InputError(f"{source}: regions_class_order is {order!r}.", f"It holds one value for each of the regions {names}.")
    for label, value in zip(classes, order):
        if value not in label.values:
            raise InputError(f"{source}: regions_class_order paints {label.name} with {value}, which is none of {list(label.values)}.")
    return tuple(_put_first(label, value) for label, value in zip(classes, order))


def check_painting(classes: tuple[ClassLabel, ...], source: str) -> None:
    """Raises InputError where a painted mask would say other regions than those that were found (classes in the order of painting)."""
    for part in list_parts(classes):
        last = classes[part.classes[-1]]
        if last.values[0] not in part.values:
            names = " and ".join(classes[place].name for place in part.classes)
            raise InputError(
                f"{source}: the regions cannot be written as one label map.",
                f"Value {part.values[0]} is of {names}; {last.name} is painted last there, with {last.values[0]}, which means others.",
                todo=f"Name what they share as a class of its own (shared={part.values[0]}), or change the order of painting.",
            )


def describe_regions(classes: tuple[ClassLabel, ...]) -> str:
    """How regions are written, in a line."""
    painted = ", ".join(f"{label.name} ({'+'.join(map(str, sorted(label.values)))}) as {label.values[0]}" for label in classes)
    return f"overlap, so each is found by itself; masks are painted in this order, the later over the earlier: {painted}"
