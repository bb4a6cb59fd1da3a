"""Operations per second that training sustains on this CPU: a few steps of a small fixed network, in a process of its own.

`python -m autoseg.networks.rate CORES` writes one line of JSON: {"flops": …, "precision": "fp32" or "bf16"}. Planning starts it and so
needs no torch itself (autoseg/io/machine.py).
"""

import sys
import time

import msgspec
import torch
from torch.nn import functional as F

from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute, use_cores
from autoseg.records.machine import PrecisionName
from autoseg.records.plan import NetworkSpec

PATCH = (32, 48, 32)
BATCH = 2
CHANNELS = 1
CLASSES = 3
SPEC = NetworkSpec(
    kind="plain",
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 4,
    features=(16, 32, 64, 128),
    convolutions=(1, 2, 2, 2),
    decoder_convolutions=(1, 1, 1),
)
OPERATIONS = 20_440_350_720  # of one step: 2 per multiplication, backward twice the forward pass (autoseg/planning/cost.py)
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
RATE = 1e-3  # of learning
TIMED_SECONDS = 1.4  # in which the precisions take turns
HOPELESS = 2.0  # a precision that takes this many times the best one's on a small patch is given up
SMALL = 2  # by which the patch is divided there


class TimedStep:
    """A training step of the fixed network on random data; called, it takes one and returns the seconds it took."""

    def __init__(self, compute: Compute, patch: tuple[int, ...] = PATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        self.compute = compute
        self.network = compute.place_network(build_network(SPEC, CHANNELS, CLASSES)).train()
        self.images = compute.place(torch.randn(BATCH, CHANNELS, *patch, generator=generator))
        self.labels = torch.randint(0, CLASSES, (BATCH, *patch), generator=generator)

    def __call__(self) -> float:
        begun = time.perf_counter()
        self.network.zero_grad(set_to_none=True)
        with self.compute.autocast():
            logits = self.network(self.images)
        self._compute_loss(logits).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        with torch.no_grad():  # by hand, as torch's optimisers take as long to import as all the steps here
            for parameter in self.network.parameters():
                parameter.sub_(RATE * parameter.grad)  # type: ignore[operator]
        return time.perf_counter() - begun

    def _compute_loss(self, logits: list[torch.Tensor]) -> torch.Tensor:
        """Soft Dice and cross-entropy at every resolution, in form and cost like the loss of training."""
        total = torch.zeros(())
        for head in logits:
            labels = F.interpolate(self.labels[:, None].float(), size=head.shape[2:], mode="nearest-exact")[:, 0].long()
            own = head.float().softmax(dim=1).gather(1, labels[:, None])
            total = total + F.cross_entropy(head.float(), labels) - own.mean()
        return total


def measure_flops(cores: int, seconds: float = TIMED_SECONDS) -> tuple[float, PrecisionName]:
    """Operations per second of the faster precision with its channels last, and which one that is.

    The precisions take turns, so that other work on the machine slows both, and each counts with its fastest step. Where 16 bits are only
    imitated they are given up on a small patch, before they cost many seconds.
    """
    with use_cores(cores):
        computes = [Compute("cpu", precision, channels_last=True) for precision in PRECISIONS]
        small = {compute: TimedStep(compute, tuple(edge // SMALL for edge in PATCH)) for compute in computes}
        tried = {compute: min(step() for _ in range(2)) for compute, step in small.items()}
        steps = {compute: TimedStep(compute) for compute in computes if tried[compute] <= HOPELESS * min(tried.values())}
        timed = dict.fromkeys(steps, float("inf"))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or float("inf") in timed.values():
            for compute, step in steps.items():
                timed[compute] = min(timed[compute], step())
    best = min(timed, key=lambda compute: timed[compute])
    return OPERATIONS / timed[best], best.precision


def main(words: list[str]) -> None:
    """Measures on as many cores as the only word says, and writes the line."""
    flops, precision = measure_flops(int(words[0]))
    sys.stdout.buffer.write(msgspec.json.encode({"flops": flops, "precision": precision}) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
