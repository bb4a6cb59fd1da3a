"""What may be typed after a flag, one function per kind: text in, value out, and a sentence where it cannot be."""

import argparse


def positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def memory(text: str) -> int:
    """Bytes.

    >>> memory("8GB"), memory("0.5GiB")
    (8000000000, 536870912)
    """
    units = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}
    for unit, size in units.items():
        if text.lower().endswith(unit):
            return int(positive(text[: -len(unit)].strip()) * size)
    raise argparse.ArgumentTypeError(f"'{text}' is not an amount of memory, such as 8GB")


def spacing(text: str) -> tuple[float, ...]:
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def folds(text: str) -> tuple[int, ...]:
    if not all(part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of folds, such as 0,1")
    return tuple(int(part) for part in text.split(","))


def gpus(text: str) -> tuple[int, ...]:
    """Numbers of devices, each once.

    >>> gpus("0,2")
    (0, 2)
    """
    parts = text.split(",")
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of GPUs, such as 0,1")
    return tuple(int(part) for part in parts)


def channel(text: str) -> tuple[str, str]:
    name, separator, pattern = text.partition("=")
    if not separator or not name or "{case}" not in pattern:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PATTERN, such as mr={{case}}/MR_T1_image.nii.gz")
    return name, pattern


def setting(text: str) -> tuple[str, str]:
    """A field of a plan and its value.

    >>> setting("configurations.2d.batch_size=4")
    ('configurations.2d.batch_size', '4')
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not FIELD=VALUE, such as configurations.3d_fullres.batch_size=4")
    return name.strip(), value.strip()
