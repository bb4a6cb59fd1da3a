"""The machine that a plan is made for."""

from typing import Literal

from autoseg.records.base import SavedRecord

DeviceName = Literal["cpu", "cuda", "mps"]
PrecisionName = Literal["fp32", "bf16", "fp16"]


class Machine(SavedRecord, frozen=True, kw_only=True):
    """What was measured or assumed: `memory` in bytes (of the GPU, or of the host for a CPU), `cores` usable by this process,

    `flops` the floating point operations per second that training sustains (0 where unknown), `flops_source` how that is known.
    """

    device: DeviceName
    name: str
    memory: int
    cores: int
    flops: float = 0.0
    flops_source: Literal["measured", "estimated", "unknown"] = "unknown"
