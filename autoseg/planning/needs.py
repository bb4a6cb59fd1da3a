"""What one configuration needs: bytes, operations and weights, asked here and nowhere else."""

import math
from dataclasses import dataclass

import msgspec

from autoseg.planning.cost import count_operations, count_weights, estimate_prediction_bytes, estimate_training_bytes
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Configuration, NetworkSpec


@dataclass(frozen=True)
class Needs:
    """Peak bytes of a training step and of predicting a median scan, operations of one step (all its batches), weights of the network."""

    training_bytes: int
    prediction_bytes: int
    operations: float
    weights: int


def estimate_needs(configuration: Configuration, dataset: Dataset) -> Needs:
    """The needs of a configuration that passes check_plan; the few further channels of a cascade are left out, as when it is planned."""
    network, patch, batch = _as_plain(configuration.network), configuration.patch_size, configuration.batch_size
    channels, classes = len(dataset.channels), len(dataset.classes) + 1
    median_shape = tuple(math.ceil(size) for size in configuration.median_shape)
    return Needs(
        training_bytes=estimate_training_bytes(network, patch, batch, channels, classes),
        prediction_bytes=estimate_prediction_bytes(network, patch, median_shape, channels, classes),
        operations=batch * configuration.accumulation * count_operations(network, patch, channels, classes),
        weights=count_weights(network, channels, classes),
    )


def _as_plain(network: NetworkSpec) -> NetworkSpec:
    """A plain encoder of as many convolutions, as cost.py knows no residual blocks: a stem, and two per block."""
    if network.kind == "plain":
        return network
    first, *rest = (2 * blocks for blocks in network.blocks)
    return msgspec.structs.replace(network, kind="plain", convolutions=(1 + first, *rest), blocks=())
