"""Weights and training state as safetensors: tensors and a JSON text, nothing that could run."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from autoseg.errors import InputError
from autoseg.io.files import write_bytes


def save_tensors(path: Path, tensors: dict[str, np.ndarray], text: str = "") -> str:
    """Writes named arrays and a text (JSON of the caller's), whole or not at all; returns the SHA-256 of the file."""
    data = save(tensors, {"autoseg": text} if text else None)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads the arrays and the text. Raises InputError for a file that is damaged or missing."""
    try:
        with safe_open(str(path), framework="numpy") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, (stream.metadata() or {}).get("autoseg", "")  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or missing.", str(error)) from None


def load_weights(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Reads a model's arrays. Raises InputError where the file has not the SHA-256 that its model.json gives."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read.", str(error)) from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise InputError(
            f"{path} is damaged, or not the file that was written with its model.json.",
            f"Its SHA-256 is {found[:12]}…, model.json says {digest[:12]}….",
            todo="Copy the model anew, both files together.",
        )
    return load(data)
