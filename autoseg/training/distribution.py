"""One fold on several devices: every process (rank) takes its part of each batch, and together they are one with the whole batch.

A loss is a function of sums over the batch, and `Distribution.sum` makes them sums over all ranks. So every rank has the loss of the joined
batch, however unevenly samples and ignored voxels are dealt out.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from autoseg.errors import InputError, Interrupted
from autoseg.records.machine import DeviceName

LONGEST_WAIT = timedelta(hours=24)  # for another rank, which may validate or prepare; one that dies is noticed at once
BACKENDS: dict[DeviceName, str] = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")  # what the libraries say when a peer is gone


class _SumOfRanks(torch.autograd.Function):
    """The sum over all ranks, on all of them.

    All ranks compute the same loss L from it, so the gradient with respect to a rank's own part is dL/dsum. It is given back times the
    number of ranks, because DistributedDataParallel divides the summed gradients of the weights by that number.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * dist.get_world_size()


@dataclass(frozen=True)
class Distribution:
    """Which of `size` processes this is; `local_rank` counts on this machine. One process alone needs no other."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def deal(self, batch_size: int) -> range:
        """Places in the batch of this rank's samples: every size-th, so that no rank has two samples more than another."""
        return range(self.rank, batch_size, self.size)

    def sum(self, part: Tensor) -> Tensor:
        """Sum over all ranks, with its gradient; every rank must come here equally often."""
        return _SumOfRanks.apply(part) if self.size > 1 else part

    def join_network(self, network: torch.nn.Module, every_parameter: bool = True) -> Callable[[Tensor], list[Tensor]]:
        """The network's forward pass, after whose backward pass every rank has the gradient of the joined batch.

        `every_parameter`: all of them take part in the loss (not so without deep supervision).
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, find_unused_parameters=not every_parameter)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank; waits for all of them."""
        if self.size == 1:
            return flag
        count = torch.tensor(int(flag))  # on the CPU: the devices are not disturbed
        dist.all_reduce(count)
        return bool(count)

    def wait(self) -> None:
        """Until all ranks are here."""
        self.any(False)

    def check_device(self, asked: str, chosen: DeviceName) -> None:
        """Raises InputError where this rank alone might have found no GPU."""
        if self.size > 1 and asked == "auto" and chosen == "cpu" and dist.is_nccl_available():
            raise InputError(
                f"Process {self.rank} of {self.size} sees no GPU.",
                "Each process of a training takes one.",
                todo="torchrun --nproc-per-node with the number of GPUs, or --device cpu.",
            )

    def check_batch(self, batch_size: int) -> None:
        """Raises InputError where some ranks would have nothing to do."""
        if batch_size < self.size:
            raise InputError(
                f"A batch of {batch_size} cannot be dealt out to {self.size} processes.",
                "Each needs a sample of every step.",
                todo=f"torchrun --nproc-per-node {batch_size}, or plan --set configurations.NAME.batch_size={self.size}",
            )


ALONE = Distribution()


@contextmanager
def join_group(distribution: Distribution, device: DeviceName) -> Iterator[None]:
    """Inside, the ranks that torchrun started know each other. Raises Interrupted where another one ends before its time."""
    if distribution.size == 1:
        yield
        return
    if device not in BACKENDS:
        raise InputError(f"{distribution.size} processes cannot share the device '{device}'.", f"Possible: {', '.join(BACKENDS)}.")
    if device == "cuda":
        torch.cuda.set_device(0)  # the only one that the command line lets this rank see
    dist.init_process_group(BACKENDS[device], rank=distribution.rank, world_size=distribution.size, timeout=LONGEST_WAIT)
    try:
        yield
        dist.barrier()  # none leaves while another still speaks to it
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise Interrupted(
            f"Another process of this training ended; rank {distribution.rank} of {distribution.size} ends with it.",
            str(error).splitlines()[0],
            "The last checkpoint is whole.",
            "Type the same command again: it goes on from there.",
        ) from error
    finally:
        gc.collect()  # networks that know the group go before it, or its threads end the process
        dist.destroy_process_group()
