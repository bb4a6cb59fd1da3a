"""What a U-Net costs in feature-map elements, operations, weights and bytes: arithmetic on its description, nothing is built."""

from dataclasses import dataclass

import numpy as np

from autoseg.records.plan import NetworkSpec

BYTES = 4  # of a float32 value
SAVED_COPIES = 3  # of every convolution's output kept for the backward pass: before and after normalisation, and its gradient
OPTIMIZER_COPIES = 5  # weights, gradients, two moments, averaged weights


@dataclass(frozen=True)
class Convolution:
    """One convolution: kernel volume, channels in and out, voxels of its output."""

    kernel: int
    inputs: int
    outputs: int
    voxels: int


def list_convolutions(network: NetworkSpec, patch: tuple[int, ...], channels: int, classes: int) -> list[Convolution]:
    """All convolutions of one forward pass over one patch; `classes` counts the background."""
    cumulative = np.cumprod(np.array(network.strides), axis=0)
    voxels = [int(np.prod([-(-size // step) for size, step in zip(patch, steps)])) for steps in cumulative]
    kernels = [int(np.prod(kernel)) for kernel in network.kernel_sizes]
    found = []
    inputs = channels
    for stage, features in enumerate(network.features):
        for _ in range(network.convolutions[stage]):
            found.append(Convolution(kernels[stage], inputs, features, voxels[stage]))
            inputs = features
    for stage in reversed(range(len(network.features) - 1)):
        features = network.features[stage]
        found.append(Convolution(1, network.features[stage + 1], features, voxels[stage]))
        inputs = 2 * features
        for _ in range(network.decoder_convolutions[stage]):
            found.append(Convolution(kernels[stage], inputs, features, voxels[stage]))
            inputs = features
        found.append(Convolution(1, features, classes, voxels[stage]))
    return found


def count_operations(network: NetworkSpec, patch: tuple[int, ...], channels: int, classes: int) -> float:
    """Floating point operations of one training step on one patch: 2 per multiplication, backward twice the forward pass."""
    return 3.0 * sum(2.0 * c.kernel * c.inputs * c.outputs * c.voxels for c in list_convolutions(network, patch, channels, classes))


def count_weights(network: NetworkSpec, channels: int, classes: int) -> int:
    """Weights of the network, about: biases and the kernels of transposed convolutions with their strides."""
    patch = tuple(int(np.prod([stride[axis] for stride in network.strides])) for axis in range(len(network.strides[0])))
    total = sum(c.kernel * c.inputs * c.outputs + 3 * c.outputs for c in list_convolutions(network, patch, channels, classes))
    pooled = zip(network.strides[1:], network.features[1:], network.features[:-1])
    return total + sum((int(np.prod(stride)) - 1) * deep * shallow for stride, deep, shallow in pooled)


def count_reference_elements(network: NetworkSpec, patch: tuple[int, ...], classes: int) -> float:
    """nnU-Net's memory measure for a plain U-Net: elements of all convolution outputs, deep-supervision heads left out.

    128³, 5 poolings, 3 classes: 452,796,416 elements.
    """
    cumulative = np.cumprod(np.array(network.strides), axis=0)
    voxels = [int(np.prod([-(-size // step) for size, step in zip(patch, steps)])) for steps in cumulative]
    stages = list(zip(network.features, voxels, network.convolutions))
    encoder = sum(convolutions * features * count for features, count, convolutions in stages)
    decoder = sum((convolutions + 1) * features * count for (features, count, _), convolutions in zip(stages, network.decoder_convolutions))
    return float(encoder + decoder + classes * voxels[0])


def estimate_training_bytes(network: NetworkSpec, patch: tuple[int, ...], batch: int, channels: int, classes: int) -> int:
    """Peak bytes of a float32 training step: saved feature maps, and the copies of the weights."""
    outputs = sum(c.outputs * c.voxels for c in list_convolutions(network, patch, channels, classes))
    return int(batch * outputs * BYTES * SAVED_COPIES + count_weights(network, channels, classes) * BYTES * OPTIMIZER_COPIES)


def estimate_prediction_bytes(
    network: NetworkSpec, patch: tuple[int, ...], median_shape: tuple[int, ...], channels: int, classes: int
) -> int:
    """Peak bytes to predict a median scan: the widest stage of one tile (input, output, skip), and the volumes that are summed up."""
    widest = max(c.outputs * c.voxels for c in list_convolutions(network, patch, channels, classes))
    volume = float(np.prod([max(size, edge) for size, edge in zip(median_shape, patch)]))
    return int(BYTES * (4 * widest + volume * (channels + 2 * classes + 1)))
