"""Training state on disk: two generations, each whole, the newest readable one counts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.io.weights import load_tensors, save_tensors
from autoseg.training.distribution import ALONE, Distribution

GENERATIONS = 2


@dataclass
class TrainingState:
    """All that a resumption needs: the network, its optimiser, the averaged weights, the steps done and the seconds they took.

    Several processes train one network: `distribution` is this one's place, `forward` the pass that joins their gradients.
    """

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    distribution: Distribution = ALONE
    forward: Callable[[Tensor], list[Tensor]] | None = None

    def join(self, distribution: Distribution, every_parameter: bool) -> None:
        """From here on a step is that of all ranks."""
        self.distribution = distribution
        self.forward = distribution.join_network(self.network, every_parameter)


class _Header(msgspec.Struct):
    step: int
    seconds: float
    settings: str


def save_checkpoint(folder: Path, state: TrainingState, settings_digest: str) -> None:
    """Writes the state as the newest generation and removes the oldest beyond two."""
    header = _Header(state.step, state.seconds, settings_digest)
    save_tensors(folder / f"step_{state.step:09d}.safetensors", _collect(state), msgspec.json.encode(header).decode())
    for old in list_checkpoints(folder)[GENERATIONS:]:
        old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def restore_checkpoint(folder: Path, state: TrainingState, settings_digest: str) -> bool:
    """Brings the state to the newest readable checkpoint of the same settings; False where there is none."""
    for path in list_checkpoints(folder):
        try:
            tensors, text = load_tensors(path)
            header = msgspec.json.decode(text, type=_Header)
        except (InputError, msgspec.DecodeError):
            continue
        if header.settings == settings_digest:
            _distribute(tensors, state)
            state.step, state.seconds = header.step, header.seconds
            return True
    return False


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
