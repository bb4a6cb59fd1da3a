"""How many bytes a training step and a prediction need: the tensors that torch keeps for our network and loss, counted one by one.

A step is followed backwards in time. Every operation of the forward pass is a `_Node`: what it alone keeps for its gradient, the gradient
it takes in, what it leaves, and what it needs besides while both are there. The peak is the largest sum on the way.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from autoseg.planning.cost import count_stage_voxels, count_weights, list_convolutions
from autoseg.records.machine import DeviceName, PrecisionName
from autoseg.records.plan import LossSpec, NetworkSpec

FLOAT, LONG, BOOL = 4, 8, 1  # bytes of a float32, an int64, a truth value
MOMENTS = {"adamw": 2, "sgd": 1}  # numbers that an optimiser keeps per weight
TILES_AT_ONCE = 2  # of the sliding window (autoseg/inference/sliding_window.py)
DICE_SUMS = 2  # numbers per class that the formula of a batch's Dice keeps: numerator and denominator
PLAIN_LOSS = LossSpec()
TERMS = {  # bytes per voxel that a loss keeps besides probabilities, labels and where they count (autoseg/training/loss_terms.py)
    "dice_ce": FLOAT,
    "weighted_ce": FLOAT,
    "topk_ce": BOOL,
    "focal": 5 * FLOAT,
    "dice_focal": 6 * FLOAT,
    "tversky": FLOAT,
    "unified_focal": 6 * FLOAT + BOOL,
    "boundary": FLOAT,
}


@dataclass(frozen=True)
class Workload:
    """A training step: `patch` in voxels, `classes` with the background, and on what it is computed.

    `averaging` holds a second copy of the weights, as the trainer always does; `accumulation` batches lie ready before one update.
    """

    network: NetworkSpec
    patch: tuple[int, ...]
    batch: int
    channels: int
    classes: int
    optimizer: Literal["adamw", "sgd"] = "sgd"
    precision: PrecisionName = "fp32"
    device: DeviceName = "cpu"
    averaging: bool = True
    accumulation: int = 1
    loss: LossSpec = PLAIN_LOSS

    @property
    def value_bytes(self) -> int:
        """Of one value of a feature map."""
        return 4 if self.precision == "fp32" else 2

    @property
    def is_fused(self) -> bool:
        """Whether norm and activation are one operation (autoseg/networks/norms.py)."""
        return self.device == "cpu" and self.precision == "fp32"


@dataclass(frozen=True)
class Footprint:
    """The bytes of a training step at its peak.

    `weights`: the weights, the optimiser's moments and the averaged copy. `batch`: images and labels. `activations`: what the network keeps
    for the backward pass, 16-bit copies of weights included. `loss`: what the loss keeps. `logits`: all heads' answers, alive all the step.
    `transient`: gradients and temporaries at the peak, less what has been given back by then. `workspace`: what the library of
    convolutions adds to the peak.
    """

    weights: int
    batch: int
    activations: int
    loss: int
    logits: int
    transient: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.batch + self.activations + self.loss + self.logits + self.transient + self.workspace


@dataclass(frozen=True)
class _Node:
    """One operation in the backward pass, in bytes: saved tensors and the gradient that end with it, gradients that it leaves (of its

    inputs and weights), temporaries that it needs besides, and what the library of convolutions takes for itself meanwhile.
    """

    kept: int = 0
    consumed: int = 0
    produced: int = 0
    extra: int = 0
    workspace: int = 0


@dataclass(frozen=True)
class _Map:
    """A feature map of the whole batch: channels, voxels of one sample, and bytes."""

    channels: int
    voxels: int
    size: int


def estimate_training(work: Workload) -> Footprint:
    """The parts of the peak of one training step."""
    network, loss = _list_network(work), _list_losses(work)
    voxels = count_stage_voxels(work.network, work.patch)
    learned = count_weights(work.network, work.channels, work.classes) * FLOAT
    weights = learned * (1 + MOMENTS[work.optimizer] + work.averaging)
    batch = work.accumulation * work.batch * voxels[0] * (work.channels * FLOAT + LONG)
    logits = sum(_make_map(work, work.classes, count).size for count in voxels[: _count_heads(work.network)])
    activations, kept = sum(node.kept for node in network), sum(node.kept for node in loss)
    summed = learned if work.accumulation > 1 else 0  # gradients of earlier batches
    update = learned + _count_update(work, learned)
    peak = max(summed + _find_peak(network + loss), update)
    widest = max(summed + _find_peak(network + loss, with_workspace=True), update)
    return Footprint(weights, batch, activations, kept, logits, peak - activations - kept, widest - peak)


def _find_peak(nodes: list[_Node], with_workspace: bool = False) -> int:
    """The most bytes at once on the way back through the nodes (given in the order of the forward pass)."""
    alive = peak = sum(node.kept for node in nodes)
    for node in reversed(nodes):
        peak = max(peak, alive + node.produced + node.extra + node.workspace * with_workspace)
        alive += node.produced - node.consumed - node.kept
    return peak


Gradient = Literal["none", "made", "added"]  # of an operation's input: not wanted, a new one, or added to one that is there already


def _count_heads(network: NetworkSpec) -> int:
    return max(1, len(network.features) - 1)


def _make_map(work: Workload, channels: int, voxels: int) -> _Map:
    return _Map(channels, voxels, work.batch * channels * voxels * work.value_bytes)


def _list_network(work: Workload) -> list[_Node]:
    """All operations of the network: encoder, then per decoder stage transposed convolution, concatenation, convolutions and head."""
    network = work.network
    voxels = count_stage_voxels(network, work.patch)
    maps = [_make_map(work, features, count) for features, count in zip(network.features, voxels)]
    source, last = _make_map(work, work.channels, voxels[0]), len(maps) - 1
    nodes = [] if work.precision == "fp32" else [_Node(kept=source.size)]  # the images in 16 bits
    for stage, target in enumerate(maps):
        nodes += ENCODERS[network.kind](work, stage, source, target)
        if stage < last:  # the skip's gradient is half of that of the concatenation, which stays whole until here
            nodes[-1] = replace(nodes[-1], consumed=nodes[-1].consumed + target.size)
        source = target
    for stage in reversed(range(last)):
        fine, kernel = maps[stage], math.prod(network.kernel_sizes[stage])
        joined = _make_map(work, 2 * fine.channels, fine.voxels)
        nodes += [_make_transposed(work, maps[stage + 1], fine, math.prod(network.strides[stage + 1])), _Node(kept=joined.size)]
        nodes += _list_blocks(work, (joined, fine), kernel, network.decoder_convolutions[stage], "made")
        nodes.append(_make_convolution(work, fine, _make_map(work, work.classes, fine.voxels), 1, "added" if stage else "made"))
    if not last:
        nodes.append(_make_convolution(work, source, _make_map(work, work.classes, source.voxels), 1, "made"))
    return nodes


def _list_plain(work: Workload, stage: int, source: _Map, target: _Map) -> list[_Node]:
    network = work.network
    gradient: Gradient = "added" if stage else "none"  # that of a skip comes from the decoder first
    return _list_blocks(work, (source, target), math.prod(network.kernel_sizes[stage]), network.convolutions[stage], gradient)


def _list_residual(work: Workload, stage: int, source: _Map, target: _Map) -> list[_Node]:
    network, nodes = work.network, []
    kernel = math.prod(network.kernel_sizes[stage])
    if stage == 0:
        nodes += _list_blocks(work, (source, target), kernel, 1, "none")
        source = target
    for _ in range(network.blocks[stage]):
        nodes += _make_residual(work, source, target, kernel)
        source = target
    return nodes


# a block of three convolutions, two of them narrow, needs less than one of two wide ones
ENCODERS = {"plain": _list_plain, "residual_encoder": _list_residual, "resnet50": _list_residual}


def _list_blocks(work: Workload, ends: tuple[_Map, _Map], kernel: int, count: int, gradient: Gradient) -> list[_Node]:
    """`count` convolutions from the first to the second map of `ends`, each with norm and activation."""
    source, target = ends
    nodes = []
    for _ in range(count):
        nodes += [_make_convolution(work, source, target, kernel, gradient), *_make_dropout(work, target)]
        nodes += _make_norm_activation(work, target)
        source, gradient = target, "made"
    return nodes


def _make_convolution(work: Workload, source: _Map, target: _Map, kernel: int, gradient: Gradient) -> _Node:
    """Its input is kept by what made it; in 16 bits it keeps a copy of its weights, whose gradient is 16 bits before it is 32."""
    weights = kernel * source.channels * target.channels
    copy = 0 if work.precision == "fp32" else weights * work.value_bytes
    made, added = (source.size if gradient == kind else 0 for kind in ("made", "added"))
    layouts = source.size + target.size if work.precision == "fp32" else (source.size + target.size) * 3 // 2
    workspace = layouts + weights * work.value_bytes  # what oneDNN takes for maps and weights in its own layouts, measured
    return _Node(kept=copy, consumed=target.size, produced=made + weights * FLOAT, extra=added + copy, workspace=workspace)


def _make_transposed(work: Workload, source: _Map, target: _Map, stride: int) -> _Node:
    """Its gradient is half of the concatenation's, taken out where the batch has more than one sample."""
    node = _make_convolution(work, source, target, stride, "made")
    return replace(node, consumed=0, extra=node.extra + (target.size if work.batch > 1 else 0))


def _make_norm(work: Workload, target: _Map) -> _Node:
    """Keeps its input and per sample and channel mean and deviation, unfused also the scale."""
    numbers = work.batch * target.channels * (2 if work.is_fused else 3)
    return _Node(kept=target.size + numbers * FLOAT, consumed=target.size, produced=target.size)


def _make_dropout(work: Workload, target: _Map) -> list[_Node]:
    """Keeps a factor per sample and channel; its input is given up for its output."""
    if not work.network.dropout:
        return []
    return [_Node(kept=work.batch * target.channels * work.value_bytes, consumed=target.size, produced=target.size)]


def _make_activation(work: Workload, target: _Map) -> _Node:
    """In place, so that only its output is kept; PReLU keeps its input too, and its slopes' gradient begins as a whole map."""
    learned = work.network.activation == "prelu"
    extra, slopes = (target.size, target.channels * FLOAT) if learned else (0, 0)
    return _Node(kept=target.size + extra, consumed=target.size, produced=target.size + slopes, extra=extra)


def _make_norm_activation(work: Workload, target: _Map) -> list[_Node]:
    norm, activation = _make_norm(work, target), _make_activation(work, target)
    if not work.is_fused or work.network.activation == "prelu":
        return [norm, activation]
    return [replace(norm, kept=norm.kept + activation.kept, extra=target.size)]


def _make_residual(work: Workload, source: _Map, target: _Map, kernel: int) -> list[_Node]:
    """The sum hands one gradient to both branches; what comes back from the branches is added up where the source was made."""
    first = _list_blocks(work, (source, target), kernel, 1, "added")
    second, norm = _make_convolution(work, target, target, kernel, "made"), _make_norm(work, target)
    shortcut = _make_shortcut(work, source, target)
    if not shortcut:
        norm = replace(norm, consumed=0)  # the same gradient is that of the source
    return [*first, second, *_make_dropout(work, target), norm, *shortcut, _make_activation(work, target)]


def _make_shortcut(work: Workload, source: _Map, target: _Map) -> list[_Node]:
    pooled, widened = source.voxels != target.voxels, source.channels != target.channels
    middle = _make_map(work, source.channels, target.voxels)
    nodes = []
    if pooled:
        wide = work.device == "cpu" and len(work.patch) == 3 and work.precision != "fp32"  # CPUs pool volumes in float32 only
        copy = 2 * source.size if wide else 0
        nodes.append(_Node(kept=copy + (middle.size if widened else 0), consumed=middle.size if widened else 0, extra=copy + source.size))
    if widened:
        nodes.append(_make_convolution(work, middle, target, 1, "made" if pooled else "added"))
        nodes.append(replace(_make_norm(work, target), consumed=0))
    return nodes


def _list_losses(work: Workload) -> list[_Node]:
    """Per head that is trained, finest first: probabilities, labels and where they count, in 32 bits, and what the loss's own terms keep.

    Classes that exclude each other are counted; regions, each a problem of two classes, keep a few maps each.
    """
    nodes, heads = [], _count_heads(work.network)
    for weight, voxels in zip(work.loss.weigh_heads(heads), count_stage_voxels(work.network, work.patch)):
        if not weight:
            continue
        places, logits = work.batch * voxels, _make_map(work, work.classes, voxels)
        probabilities = places * work.classes * FLOAT
        kept = probabilities + places * (LONG + FLOAT + TERMS[work.loss.name]) + (DICE_SUMS * work.classes + 1) * FLOAT
        if work.loss.name == "topk_ce":
            kept += math.ceil(work.loss.topk_share * places) * (LONG + FLOAT)  # the hardest voxels' places, and which of them are taken
        worst = probabilities + 3 * places * FLOAT  # the gradient of all logits, and three of the true class
        nodes.append(_Node(kept=kept, produced=logits.size, extra=worst - logits.size))
    if work.loss.name == "boundary":
        nodes.append(_make_distances(work))
    return nodes


def _make_distances(work: Workload) -> _Node:
    """Once more the probabilities at full resolution, a map of distances per foreground class, and where they count."""
    places = work.batch * math.prod(work.patch)
    probabilities = places * work.classes * FLOAT
    distances = places * (work.classes - 1) * FLOAT
    return _Node(kept=probabilities + distances + places * BOOL, produced=probabilities, extra=probabilities)


def _count_update(work: Workload, learned: int) -> int:
    """Temporaries of the optimiser's step: on a GPU for all weights at once, on a CPU for the largest array twice."""
    if work.device != "cpu":
        return learned
    layers = list_convolutions(work.network, work.patch, work.channels, work.classes)
    return 2 * FLOAT * max(layer.weights for layer in layers)


def estimate_prediction_bytes(
    network: NetworkSpec, patch: tuple[int, ...], volume_shape: tuple[float, ...], channels: int, classes: int
) -> int:
    """Peak bytes to predict one scan of `volume_shape` voxels in float32: the weights, tiles on their way through the network, and the scan

    with its sums (autoseg/inference/sliding_window.py). A 2D network goes over a volume slice by slice.
    """
    plane = volume_shape[len(volume_shape) - len(patch) :]
    slices = math.ceil(math.prod(volume_shape)) / math.ceil(math.prod(plane))
    padded = math.prod(max(math.ceil(size), edge) for size, edge in zip(plane, patch))
    sums = padded * (classes + 1) + math.prod(patch)
    answer = classes * math.prod(patch) * TILES_AT_ONCE
    tiles = TILES_AT_ONCE * _count_forward(network, patch, channels, classes)
    steps = max(tiles + 3 * answer, 5 * answer)  # the last tiles' answer, the flips' sum, the last flip's; then the next, turned and added
    running = padded * channels + sums + max(steps, math.prod(plane) * classes)
    whole = math.prod(volume_shape) * (channels + classes * (2 if slices > 1 else 0))
    return int(FLOAT * (count_weights(network, channels, classes) + running + whole))


def _count_forward(network: NetworkSpec, patch: tuple[int, ...], channels: int, classes: int) -> int:
    """The most elements at once in a forward pass of one patch that keeps no gradients: skips, and a stage's own maps."""
    voxels = count_stage_voxels(network, patch)
    maps = [features * count for features, count in zip(network.features, voxels)]
    alive = channels * voxels[0]
    peak = 0
    for size in maps:
        peak = max(peak, alive + 3 * size)  # a block's input, its convolution's output and the norm's
        alive += size
    for stage in reversed(range(len(maps) - 1)):
        peak = max(peak, alive + maps[stage + 1] + 5 * maps[stage])  # two joined, the same in another layout, and the output
    return max(peak, alive + maps[0] + 2 * classes * voxels[0])  # the head's output in another layout too
