"""Single values of a plan, changed by the user: read from text, put in place, checked, and what follows from them brought up to date."""

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from autoseg.errors import InputError
from autoseg.planning.check import KIND_FIELDS, check_plan, format_value, is_sound
from autoseg.planning.needs import estimate_needs
from autoseg.records.dataset import Dataset
from autoseg.records.plan import RESNET50, Configuration, ConfigurationName, MemoryEstimate, NetworkSpec, Plan

FIXED_OF_PLAN = {  # why --set does not take a field
    "format_version": "it says how the file is to be read",
    "autoseg_version": "it says who wrote the file",
    "profile": "another profile is another plan: plan anew with --profile",
    "machine": "another machine is another plan: plan anew with --device or --memory",
    "dataset_digest": "digests say what belongs together",
    "fingerprint_digest": "digests say what belongs together",
    "orientation": "all scans would have to be measured anew",
    "axes": "all scans would have to be measured anew",
    "default_reason": "reasons are written by whoever decides",
}
FIXED = {
    "name": "prepared scans and models are found by it",
    "median_shape": "it follows from the spacing",
    "memory": "it is estimated from patch, batch and network",
    "seconds_per_step": "it is estimated from patch, batch and network",
    "reasons": "reasons are written by whoever decides",
    "user_set": "--set keeps it",
}
EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple[int, ...]: "whole numbers, such as 4x128x128 or 4,128,128",
    tuple[float, ...]: "numbers, such as 3x0.8x0.8 or 3,0.8,0.8",
    tuple[float, float]: "two numbers, such as 0.7,1.4",
    tuple[tuple[int, ...], ...]: "the numbers of every stage, such as 1x1x1,1x2x2,2x2x2",
}
USER = "set by the user (the planner had "  # begins a reason that a later change leaves, as it tells what the planner wanted


@dataclass(frozen=True)
class Field:
    """One value that --set takes: its name as typed, the way to it in the plan's plain form, and its type."""

    name: str
    keys: tuple[str | int, ...]
    type: Any

    @property
    def expected(self) -> str:
        """In words, what it takes."""
        choices = _list_choices(self.type)
        return f"one of {', '.join(choices)}" if choices else EXPECTED[self.type]


def set_fields(plan: Plan, settings: dict[str, str], dataset: Dataset) -> Plan:
    """The plan with values changed, each given as text under its dotted name; pure.

    A changed field is noted in its configuration's `user_set` and has a reason that tells the planner's value. The median shape follows
    the spacing, estimates of memory and time follow everything. Raises InputError for an unknown or fixed field, a value of the wrong
    type, and a plan that could not be trained.
    """
    plain = msgspec.to_builtins(plan)
    fields = list_fields(plan)
    for name, text in settings.items():
        field = _find_field(name, fields, plan)
        place = plain
        for key in field.keys[:-1]:
            place = place[key]
        place[field.keys[-1]] = _read_value(field, text)
    edited = msgspec.convert(plain, type=Plan, strict=True)
    marked = tuple(_mark(old, new) for old, new in zip(plan.configurations, edited.configurations))
    edited = msgspec.structs.replace(edited, configurations=marked, default_reason=_explain_default(plan, edited))
    check_plan(edited, dataset)
    estimated = tuple(_estimate(old, new, plan, dataset) for old, new in zip(plan.configurations, marked))
    return msgspec.structs.replace(edited, configurations=estimated)


def list_fields(plan: Plan) -> dict[str, Field]:
    """Every value of the plan that may be set, by the name that is typed."""
    fields = [Field("default_configuration", ("default_configuration",), ConfigurationName)]
    for index, configuration in enumerate(plan.configurations):
        for keys, kind in _list_leaves(configuration):
            if keys[0] not in FIXED:
                name = ".".join(map(str, ("configurations", configuration.name, *keys)))
                fields.append(Field(name, ("configurations", index, *keys), kind))
    return {field.name: field for field in fields}


def list_changed(old: Configuration, new: Configuration) -> list[str]:
    """Dotted names, within the configuration, of the values that differ and may be set."""
    before, after = list_values(old), list_values(new)
    return [name for name, value in after.items() if name.split(".")[0] not in FIXED and before.get(name) != value]


def find_reason_key(configuration: Configuration, name: str) -> str:
    """The key of `reasons` that speaks of a dotted name: itself, or its last part where that is no field of its own (as `features`)."""
    last = name.rpartition(".")[2]
    short = last in configuration.reasons and last not in Configuration.__struct_fields__
    return last if short and name not in configuration.reasons else name


def parse_value(text: str) -> Any:
    """JSON, or numbers joined by x or commas, or both (stages by commas), or a bare word.

    >>> parse_value("4x128x128"), parse_value("0.7,1.4"), parse_value("1x1,2x2"), parse_value("adamw")
    ([4, 128, 128], [0.7, 1.4], [[1, 1], [2, 2]], 'adamw')
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    if "," in text and "x" in text:
        return [_parse_row(part, "x") for part in text.split(",")]
    return _parse_row(text, "," if "," in text else "x")


def _parse_row(text: str, separator: str) -> Any:
    """Numbers as a list, one alone as itself; anything else stays a word."""
    try:
        numbers = [_parse_number(part.strip()) for part in text.split(separator)]
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


def _parse_number(text: str) -> int | float:
    if text.isdigit():
        return int(text)
    value = float(text)
    if not math.isfinite(value):  # JSON has no such numbers, so the plan could not be read again
        raise ValueError(text)
    return value


def _list_leaves(record: msgspec.Struct) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The way to every value inside a record, and its type; records within, single or in rows, are gone into."""
    hints = get_type_hints(type(record))
    for name in record.__struct_fields__:
        value = getattr(record, name)
        parts: list[tuple[tuple[str | int, ...], msgspec.Struct]] = []
        if isinstance(value, msgspec.Struct):
            parts = [((name,), value)]
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            parts = [((name, index), part) for index, part in enumerate(value)]
        else:
            yield (name,), hints[name]
        for way, part in parts:
            yield from (((*way, *keys), kind) for keys, kind in _list_leaves(part))


def list_values(configuration: Configuration) -> dict[str, Any]:
    """Every single value of a configuration under its dotted name, such as network.features or normalization.0.scheme."""
    found = {}
    for keys, _ in _list_leaves(configuration):
        value: Any = configuration
        for key in keys:
            value = value[key] if isinstance(key, int) else getattr(value, key)
        found[".".join(map(str, keys))] = value
    return found


def _find_field(name: str, fields: dict[str, Field], plan: Plan) -> Field:
    if name in fields:
        return fields[name]
    first, *rest = name.split(".")
    known = {configuration.name for configuration in plan.configurations}
    owner, table = (rest[1], FIXED) if first == "configurations" and len(rest) > 1 and rest[0] in known else (first, FIXED_OF_PLAN | FIXED)
    if owner in table:
        raise InputError(f"{name} cannot be set.", f"{table[owner]}.".capitalize())
    if first == "configurations" and rest and rest[0] not in known:
        raise InputError(f"The plan has no configuration '{rest[0]}'.", f"It has: {', '.join(sorted(known))}.")
    near = _find_near(name, fields, plan)
    raise InputError(f"The plan has no field {name}.", todo=f"Did you mean {near}?" if near else f"Fields are named as {_example(plan)}.")


def _find_near(name: str, fields: dict[str, Field], plan: Plan) -> str:
    """The field of the nearest name; a name without its configuration is looked for in the default one."""
    prefix = f"configurations.{plan.default_configuration}."
    by_name = {field: field for field in fields}
    by_name |= {field.removeprefix(prefix): field for field in fields if field.startswith(prefix)}
    by_name |= {field.rpartition(".")[2]: field for field in fields if field.startswith(prefix) and field.count(".") == 3}
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.6)
    return by_name[near[0]] if near else ""


def _example(plan: Plan) -> str:
    return f"configurations.{plan.default_configuration}.batch_size"


def _list_choices(kind: Any) -> list[str]:
    """The words that a field takes, none where it takes other things."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if kind is type(None):
        return ["none"]
    return [] if get_origin(kind) is tuple else [choice for part in get_args(kind) for choice in _list_choices(part)]


def _read_value(field: Field, text: str) -> Any:
    nothing = text.lower() in ("none", "") and get_origin(field.type) is not Literal  # a scheme may be called none
    value = None if nothing else parse_value(text)
    if get_origin(field.type) is tuple and not isinstance(value, list):
        value = [] if value is None else [value]
    try:
        return msgspec.to_builtins(msgspec.convert(value, type=field.type, strict=True))
    except msgspec.ValidationError:
        near = difflib.get_close_matches(text, _list_choices(field.type), n=1)
        todo = f"Did you mean {near[0]}?" if near else ""
        raise InputError(f"{field.name} cannot be '{text}'.", f"It takes {field.expected}.", todo=todo) from None


def _explain_default(old: Plan, new: Plan) -> str:
    if old.default_configuration == new.default_configuration:
        return old.default_reason
    return _tell(old.default_reason, old.default_configuration)


def _tell(reason: str, value: str) -> str:
    return reason if reason.startswith(USER) else f"{USER}{value})"


def _mark(old: Configuration, new: Configuration) -> Configuration:
    """Notes what the user has changed; what another kind of network needs and the median shape follow."""
    network = _complete_kind(new.network) if new.network.kind != old.network.kind else new.network
    new = msgspec.structs.replace(new, network=network)
    changed, before, reasons = list_changed(old, new), list_values(old), dict(new.reasons)
    for name in changed:
        key = find_reason_key(old, name)
        reasons[key] = _tell(reasons.get(key, ""), format_value(before.get(name), name))
    return msgspec.structs.replace(
        new,
        median_shape=_rescale(old, new) if "spacing" in changed else new.median_shape,
        reasons=reasons,
        user_set=tuple(dict.fromkeys((*new.user_set, *changed))),
    )


def _complete_kind(network: NetworkSpec) -> NetworkSpec:
    """Without the other kinds' fields; resnet50 brings its sizes, as public weights have no others."""
    if network.kind == "resnet50":
        return msgspec.structs.replace(RESNET50, dropout=network.dropout)
    unused = {field: () for field in KIND_FIELDS.values() if field != KIND_FIELDS[network.kind]}
    return msgspec.structs.replace(network, **unused)


def _rescale(old: Configuration, new: Configuration) -> tuple[float, ...]:
    """The median shape (voxels) at another spacing; a spacing that check_plan will refuse leaves it."""
    if len(new.spacing) != len(old.spacing) or not all(math.isfinite(step) and step > 0 for step in new.spacing):
        return old.median_shape
    return tuple(max(1.0, float(round(size * a / b))) for size, a, b in zip(old.median_shape, old.spacing, new.spacing))


def _estimate(old: Configuration, new: Configuration, plan: Plan, dataset: Dataset) -> Configuration:
    """Memory anew; seconds per step and bytes on the disk in proportion to what the planner expected (0 where it did not)."""
    if old == new:
        return old
    needs = estimate_needs(new, dataset, plan.machine)
    seconds = 0.0
    if old.seconds_per_step and is_sound(old, plan, dataset):
        seconds = old.seconds_per_step * needs.operations / estimate_needs(old, dataset, plan.machine).operations
    prepared = old.memory.prepared_bytes * math.prod(new.median_shape) / math.prod(old.median_shape)
    memory = MemoryEstimate(training_bytes=needs.training_bytes, prediction_bytes=needs.prediction_bytes, prepared_bytes=round(prepared))
    return msgspec.structs.replace(new, memory=memory, seconds_per_step=seconds)
