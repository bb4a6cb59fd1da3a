"""What a plan would decide otherwise on other measurements."""

import math
from typing import Any

from autoseg.planning.change import list_changed, list_values
from autoseg.planning.faults import format_value
from autoseg.records.plan import Plan

TOLERANCE = 0.05  # share by which a measured number (a spacing, a mean intensity) may move before it is called a drift


def list_drift(before: Plan, after: Plan) -> list[str]:
    """The decisions of two plans that differ, a line each; numbers with decimals by more than TOLERANCE."""
    lines = []
    for field in ("axes", "default_configuration"):
        if getattr(before, field) != getattr(after, field):
            lines.append(f"{field}: {format_value(getattr(before, field))} → {format_value(getattr(after, field))}")
    old, new = ({one.name: one for one in plan.configurations} for plan in (before, after))
    lines += [f"{name}: not planned any more" for name in old if name not in new]
    lines += [f"{name}: planned as well" for name in new if name not in old]
    for name in (name for name in old if name in new):
        was, now = list_values(old[name]), list_values(new[name])
        changed = [field for field in list_changed(old[name], new[name]) if not _is_near(was.get(field), now[field])]
        lines += [f"{name}.{field}: {format_value(was.get(field), field)} → {format_value(now[field], field)}" for field in changed]
    return lines


def _is_near(was: Any, now: Any) -> bool:
    """Whether two values are equal but for a little in their numbers with decimals."""
    if isinstance(was, (tuple, list)) and isinstance(now, (tuple, list)):
        return len(was) == len(now) and all(map(_is_near, was, now))
    if isinstance(was, float) and isinstance(now, float):
        return math.isclose(was, now, rel_tol=TOLERANCE)
    return bool(was == now)
