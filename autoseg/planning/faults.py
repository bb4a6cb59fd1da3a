"""A field of a plan that cannot be, and values as --set takes them."""

from dataclasses import dataclass

SHAPES = ("spacing", "median_shape", "patch_size")  # written 4x128x128, where other rows of numbers are 32,64,128


@dataclass(frozen=True)
class Fault:
    """One field that cannot be: its dotted name, its value as text, what is allowed, and what else may be done."""

    field: str
    value: str
    allowed: str
    todo: str = ""


def format_value(value: object, field: str = "") -> str:
    """A value as --set takes it.

    >>> format_value((4, 128, 128), "patch_size"), format_value(((1, 1), (2, 2)), "network.strides"), format_value((0.7, 1.4))
    ('4x128x128', '1x1,2x2', '0.7,1.4')
    >>> format_value((((4.0, 6.5), (8.0, 8.0)), ((16.0, 16.0),)))
    '4x6.5,8x8; 16x16'
    """
    match value:
        case None | () | []:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case tuple() | list() if _is_deep(value):
            return "; ".join(format_value(part) for part in value)
        case tuple() | list():
            return ("x" if field in SHAPES else ",").join(format_value(part, SHAPES[0]) for part in value)
    return str(value)


def _is_deep(value: tuple | list) -> bool:
    """Whether it holds rows of rows of numbers, as anchors do."""
    return all(isinstance(part, (tuple, list)) and part and isinstance(part[0], (tuple, list)) for part in value)
