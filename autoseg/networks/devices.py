"""Which device computes, in which precision and memory layout."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from autoseg.errors import InputError, OutOfMemory
from autoseg.records.machine import DeviceName, PrecisionName


@dataclass(frozen=True)
class Compute:
    """A device with a precision and a layout; `channels_last` puts the channels next to each other in memory, `compiled` networks train

    through torch.compile.
    """

    device: DeviceName
    precision: PrecisionName = "fp32"
    channels_last: bool = False
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """The context of the forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """A batch (sample, channel, …) on the device in the layout."""
        return tensor.to(self.device).contiguous(memory_format=self.memory_format(tensor.ndim))

    def place_network(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network on the device, its convolutions' weights in the layout."""
        network.to(self.device)
        for parameter in network.parameters():
            if parameter.ndim in (4, 5):
                parameter.data = parameter.data.contiguous(memory_format=self.memory_format(parameter.ndim))
        return network

    def memory_format(self, ndim: int) -> torch.memory_format:
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last_3d if ndim == 5 else torch.channels_last


def choose_device(name: str = "auto") -> DeviceName:
    """The device asked for, or the best there is. Raises InputError for one that is not here."""
    available: dict[str, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in available.items() if here)
    if not available.get(name, False):
        here = ", ".join(device for device, present in available.items() if present)
        raise InputError(f"The device '{name}' is not available.", f"torch {torch.__version__} sees here: {here}.")
    return name  # type: ignore[return-value]


@contextmanager
def use_cores(count: int) -> Iterator[None]:
    """Inside, torch uses `count` cores and takes denormal numbers as zero: they appear as weights decay and slow a CPU down many times.

    A GPU times the kernels of its convolutions and keeps the fastest. These are settings of the whole process, so they are put back for the
    caller's own work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    torch.set_flush_denormal(True)
    timing, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = timing
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@contextmanager
def name_full_memory(what: str, expected: int) -> Iterator[None]:
    """Turns an allocation that failed into OutOfMemory with the plan's estimate (`expected`, bytes) and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "memory" not in str(error):
            raise
        raise OutOfMemory(
            f"The memory does not hold {what}.",
            f"The plan expects {expected / 1e9:.1f} GB. {error}",
            "What was written before is whole.",
            f"Plan a new run for less: autoseg plan SCANS -o OTHER_RUN --memory {max(1, round(expected / 2e9))}GB",
        ) from error
