"""Training state on disk: two generations, each whole, the newest readable one counts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.io.weights import load_tensors, save_tensors
from autoseg.progress import Progress, Silent
from autoseg.records.plan import LossSpec
from autoseg.training.distribution import ALONE, Distribution


def _no_scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


@dataclass
class TrainingState:
    """All that a resumption needs: the network, its optimiser, the averaged weights (empty where averaging is off), the scaler of fp16
    losses, the steps done and the seconds they took.

    Several processes train one network: `distribution` is this one's place, `forward` the pass that joins their gradients; alone it
    is the compiled network, or nothing.
    """

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    scaler: torch.amp.GradScaler = field(default_factory=_no_scaler)
    step: int = 0
    seconds: float = 0.0
    distribution: Distribution = ALONE
    forward: Callable[[Tensor], list[Tensor]] | None = None

    def join(self, distribution: Distribution, loss: LossSpec) -> None:
        """From here on a step is that of all ranks."""
        self.distribution = distribution
        every_head = loss.deep_supervision and loss.coarsest_head
        if distribution.size > 1:
            self.forward = distribution.join_network(self.network, every_head)


class _Header(msgspec.Struct):
    step: int
    seconds: float
    settings: str
    scaler: dict[str, float | int]
    digest: str = ""


def save_checkpoint(folder: Path, state: TrainingState, settings_digest: str) -> None:
    """Writes the state as the newest generation and keeps the one before it, no other."""
    tensors = _collect(state)
    header = _Header(state.step, state.seconds, settings_digest, state.scaler.state_dict())
    header.digest = _compute_digest(header, tensors)
    newest = folder / f"step_{state.step:09d}.safetensors"
    save_tensors(newest, tensors, msgspec.json.encode(header).decode())
    before = next((path for path in list_checkpoints(folder) if path.name < newest.name), newest)
    for old in list_checkpoints(folder):
        if old not in (newest, before):
            old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def restore_checkpoint(folder: Path, state: TrainingState, settings_digest: str, progress: Progress = Silent()) -> bool:
    """Brings the state to the newest whole checkpoint of the same settings; False where there is none. Warns of damaged ones."""
    for path in list_checkpoints(folder):
        try:
            tensors, header = _read(path)
        except (InputError, msgspec.DecodeError) as error:
            progress.warn(f"{path} is damaged and not used; an earlier state is. {getattr(error, 'why', error)}", event="damaged")
            continue
        if header.settings == settings_digest:
            _distribute(tensors, state)
            if state.scaler.is_enabled() and header.scaler:
                state.scaler.load_state_dict(header.scaler)
            state.step, state.seconds = header.step, header.seconds
            return True
    return False


def _read(path: Path) -> tuple[dict[str, np.ndarray], _Header]:
    """Raises InputError where a single bit differs from what was written."""
    tensors, text = load_tensors(path)
    header = msgspec.json.decode(text, type=_Header)
    if header.digest != _compute_digest(header, tensors):
        raise InputError(f"{path} is damaged.", "Its content does not have the digest that it was written with.")
    return tensors, header


def _compute_digest(header: _Header, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of the header and of names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(header, digest="")))
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _to_array(value: Tensor) -> np.ndarray:
    array = value.detach().cpu().numpy()
    return np.ascontiguousarray(array).reshape(array.shape)  # numpy makes a single number a list of one


def _collect(state: TrainingState) -> dict[str, np.ndarray]:
    tensors = {f"network.{name}": _to_array(value) for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": _to_array(value) for name, value in state.average.items()}
    for index, entries in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": _to_array(torch.as_tensor(value)) for key, value in entries.items() if value is not None}
    return tensors


def _distribute(tensors: dict[str, np.ndarray], state: TrainingState) -> None:
    values = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    state.network.load_state_dict({n.removeprefix("network."): v for n, v in values.items() if n.startswith("network.")})
    for name, average in state.average.items():
        average.copy_(values[f"average.{name}"])
    optimizer = state.optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in values.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict({**optimizer, "state": moments})
