"""What is left to give up where a step does not fit into the memory after all."""

import math

import msgspec

from autoseg.records.plan import Configuration

SMALLEST_MAP = 4  # voxels that the deepest feature map keeps along its longest axis


def step_down(configuration: Configuration) -> Configuration | None:
    """The configuration with half the batch (its gradients added up instead), then with a smaller patch; None where nothing is left.

    The network stays as it is, and so does the number of patches per update while the patch stays.
    """
    batch = configuration.batch_size
    if batch > 1:
        smaller = batch // 2
        accumulation = math.ceil(configuration.accumulation * batch / smaller)
        return _record(configuration, "batch_size", batch_size=smaller, accumulation=accumulation)
    patch = configuration.patch_size
    strides = configuration.network.strides
    divisors = [math.prod(stride[axis] for stride in strides) for axis in range(len(patch))]
    axis = max(range(len(patch)), key=lambda index: patch[index] / configuration.median_shape[index])
    axis = axis if patch[axis] > divisors[axis] else max(range(len(patch)), key=lambda index: patch[index] / divisors[index])
    reduced = tuple(edge - divisors[axis] if index == axis else edge for index, edge in enumerate(patch))
    if max(edge // divisor for edge, divisor in zip(reduced, divisors)) < SMALLEST_MAP or min(reduced) < 1:
        return None
    return _record(configuration, "patch_size", patch_size=reduced)


def _record(configuration: Configuration, field: str, **changes: object) -> Configuration:
    before = getattr(configuration, field)
    text = "x".join(map(str, before)) if isinstance(before, tuple) else str(before)
    reasons = {**configuration.reasons, field: f"made smaller, as a step with {text} did not fit into the memory"}
    return msgspec.structs.replace(configuration, reasons=reasons, **changes)
