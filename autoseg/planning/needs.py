"""What one configuration needs: bytes, operations and weights, counted as when it was planned."""

from dataclasses import dataclass

from autoseg.planning.budget import PRECISIONS
from autoseg.planning.cost import count_operations, count_weights
from autoseg.planning.memory import Workload, estimate_prediction_bytes, estimate_training
from autoseg.records.dataset import Dataset, count_outputs
from autoseg.records.machine import Machine
from autoseg.records.plan import Configuration


@dataclass(frozen=True)
class Needs:
    """Peak bytes of a training step and of predicting a median scan, operations of one step (all its batches), weights of the network."""

    training_bytes: int
    prediction_bytes: int
    operations: float
    weights: int


def estimate_needs(configuration: Configuration, dataset: Dataset, machine: Machine) -> Needs:
    """The needs of a configuration that passes check_plan; the few further channels of a cascade are left out, as when it is planned."""
    network, patch, batch = configuration.network, configuration.patch_size, configuration.batch_size
    channels, classes = len(dataset.channels), count_outputs(dataset.classes)
    work = Workload(
        network,
        patch,
        batch,
        channels,
        classes,
        optimizer=configuration.optimizer.name,
        precision=PRECISIONS[machine.device],
        device=machine.device,
        accumulation=configuration.accumulation,
        loss=configuration.loss,
    )
    return Needs(
        training_bytes=estimate_training(work).total,
        prediction_bytes=estimate_prediction_bytes(network, patch, configuration.median_shape, channels, classes),
        operations=batch * configuration.accumulation * count_operations(network, patch, channels, classes),
        weights=count_weights(network, channels, classes),
    )
