"""What a U-Net costs in feature-map elements, operations and weights: arithmetic on its description, nothing is built."""

from dataclasses import dataclass, replace

import numpy as np

from autoseg.records.plan import NetworkSpec


@dataclass(frozen=True)
class Convolution:
    """One convolution: kernel volume, channels in and out, voxels of its output, and its weights with those of its norm, slopes or bias."""

    kernel: int
    inputs: int
    outputs: int
    voxels: int
    weights: int


def count_stage_voxels(network: NetworkSpec, patch: tuple[int, ...]) -> list[int]:
    """Voxels of one feature map per stage; strided convolutions round up."""
    cumulative = np.cumprod(np.array(network.strides), axis=0)
    return [int(np.prod([-(-size // step) for size, step in zip(patch, steps)])) for steps in cumulative]


def list_convolutions(network: NetworkSpec, patch: tuple[int, ...], channels: int, classes: int) -> list[Convolution]:
    """All convolutions of one forward pass over one patch; `classes` counts the background.

    Each output voxel of a transposed convolution sees one input voxel, so its kernel counts as 1 here.
    """
    voxels = count_stage_voxels(network, patch)
    found = []
    inputs = channels
    for stage, features in enumerate(network.features):
        found += ENCODERS[network.kind](network, stage, inputs, voxels[stage])
        inputs = features
    for stage in reversed(range(len(network.features) - 1)):
        features, deeper = network.features[stage], network.features[stage + 1]
        stride = int(np.prod(network.strides[stage + 1]))
        found.append(Convolution(1, deeper, features, voxels[stage], stride * deeper * features + features))
        found += _chain(network, stage, (2 * features, voxels[stage]), network.decoder_convolutions[stage])
        found.append(_make_head(features, classes, voxels[stage]))
    if len(network.features) == 1:
        found.append(_make_head(inputs, classes, voxels[0]))
    return found


def _make_head(inputs: int, classes: int, voxels: int) -> Convolution:
    return Convolution(1, inputs, classes, voxels, inputs * classes + classes)


def _make_normalised(kernel: int, inputs: int, outputs: int, voxels: int) -> Convolution:
    """A convolution without bias, and the scale and shift of the norm behind it."""
    return Convolution(kernel, inputs, outputs, voxels, kernel * inputs * outputs + 2 * outputs)


def _chain(network: NetworkSpec, stage: int, entry: tuple[int, int], count: int) -> list[Convolution]:
    """`count` convolutions of a stage, each with norm and activation; `entry`: channels that come in, and voxels."""
    (inputs, voxels), outputs = entry, network.features[stage]
    kernel = int(np.prod(network.kernel_sizes[stage]))
    made = [_make_normalised(kernel, inputs if index == 0 else outputs, outputs, voxels) for index in range(count)]
    slopes = outputs if network.activation == "prelu" else 0
    return [replace(convolution, weights=convolution.weights + slopes) for convolution in made]


def _list_plain(network: NetworkSpec, stage: int, inputs: int, voxels: int) -> list[Convolution]:
    return _chain(network, stage, (inputs, voxels), network.convolutions[stage])


def _list_residual(network: NetworkSpec, stage: int, inputs: int, voxels: int) -> list[Convolution]:
    outputs = network.features[stage]
    if stage == 0:
        return _chain(network, stage, (inputs, voxels), 1 + 2 * network.blocks[stage])
    shortcut = [_make_normalised(1, inputs, outputs, voxels)] if inputs != outputs else []
    return shortcut + _chain(network, stage, (inputs, voxels), 2 * network.blocks[stage])


def _list_bottleneck(network: NetworkSpec, stage: int, inputs: int, voxels: int) -> list[Convolution]:
    """Of kind resnet50; its first stage is the image, its second one convolution of 7x7."""
    outputs = network.features[stage]
    if stage < 2:
        return [_make_normalised(49, inputs, outputs, voxels)] if stage else []
    found, width = [_make_normalised(1, inputs, outputs, voxels)], outputs // 4
    for _ in range(network.blocks[stage]):
        ends = ((1, inputs, width), (9, width, width), (1, width, outputs))
        found += [_make_normalised(*end, voxels) for end in ends]
        inputs = outputs
    return found


ENCODERS = {"plain": _list_plain, "residual_encoder": _list_residual, "resnet50": _list_bottleneck}


def count_operations(network: NetworkSpec, patch: tuple[int, ...], channels: int, classes: int) -> float:
    """Floating point operations of one training step on one patch: 2 per multiplication, backward twice the forward pass."""
    return 3.0 * sum(2.0 * c.kernel * c.inputs * c.outputs * c.voxels for c in list_convolutions(network, patch, channels, classes))


def count_weights(network: NetworkSpec, channels: int, classes: int) -> int:
    """Numbers that the network learns, those of norms and biases included."""
    return sum(c.weights for c in list_convolutions(network, (1,) * len(network.strides[0]), channels, classes))


def count_reference_elements(network: NetworkSpec, patch: tuple[int, ...], classes: int) -> float:
    """nnU-Net's memory measure: elements of all convolution outputs, deep-supervision heads left out.

    A residual encoder counts a shortcut wherever a stage changes channels or size, also where it only pools. 128³, 5 poolings, 3 classes:
    452,796,416 elements in a plain U-Net, 557,420,544 with a residual encoder of 1, 3, 4, 6, 6, … blocks.
    """
    voxels = count_stage_voxels(network, patch)
    maps = [features * count for features, count in zip(network.features, voxels)]
    encoder = sum(size * _count_maps(network, stage) for stage, size in enumerate(maps))
    decoder = sum(size * (convolutions + 1) for size, convolutions in zip(maps, network.decoder_convolutions))
    return float(encoder + decoder + classes * voxels[0])


def _count_maps(network: NetworkSpec, stage: int) -> int:
    if network.kind == "plain":
        return network.convolutions[stage]
    stem = stage == 0
    widened = stage > 0 and network.features[stage] != network.features[stage - 1]
    return stem + 2 * network.blocks[stage] + (widened or max(network.strides[stage]) > 1)
