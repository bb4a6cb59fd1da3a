"""What one configuration needs: bytes, operations and weights, counted as when it was planned."""

from dataclasses import dataclass
from typing import Literal

from autoseg.planning.budget import PRECISIONS
from autoseg.planning.cost import count_operations, count_weights
from autoseg.planning.detection_cost import (
    OVERHEAD,
    Detector,
    count_detector_operations,
    count_detector_weights,
    estimate_detector_prediction,
    estimate_detector_training,
)
from autoseg.planning.memory import Workload, estimate_prediction_bytes, estimate_training
from autoseg.records.dataset import Dataset
from autoseg.records.machine import Machine, PrecisionName
from autoseg.records.plan import Configuration, count_network_outputs


@dataclass(frozen=True)
class Needs:
    """Peak bytes of a training step and of predicting a median scan, operations of one step (all its batches), weights of the network.

    `overhead` is the factor from the time of its operations to that of a step.
    """

    training_bytes: int
    prediction_bytes: int
    operations: float
    weights: int
    overhead: float = 1.0


def estimate_needs(configuration: Configuration, dataset: Dataset, machine: Machine) -> Needs:
    """The needs of a configuration that passes check_plan; the few further channels of a cascade are left out, as when it is planned."""
    network, patch, batch = configuration.network, configuration.patch_size, configuration.batch_size
    channels, classes = len(dataset.channels), count_network_outputs(configuration, dataset.classes)
    if configuration.detection is not None:
        detector = Detector(network, configuration.detection, patch, channels, classes)
        return estimate_detector_needs(detector, _describe_load(configuration, machine))
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


@dataclass(frozen=True)
class Load:
    """How a network is trained and used: patches at once, batches to an update, optimiser, precision; and a median scan (voxels)."""

    batch: int
    accumulation: int
    optimizer: Literal["adamw", "sgd"]
    precision: PrecisionName
    median_shape: tuple[float, ...]


def _describe_load(configuration: Configuration, machine: Machine) -> Load:
    return Load(
        configuration.batch_size,
        configuration.accumulation,
        configuration.optimizer.name,
        PRECISIONS[machine.device],
        configuration.median_shape,
    )


def estimate_detector_needs(detector: Detector, load: Load) -> Needs:
    """The needs of a Mask R-CNN."""
    return Needs(
        training_bytes=estimate_detector_training(detector, load.batch, load.optimizer, load.precision, load.accumulation),
        prediction_bytes=estimate_detector_prediction(detector, load.median_shape),
        operations=load.batch * load.accumulation * count_detector_operations(detector),
        weights=count_detector_weights(detector),
        overhead=OVERHEAD,
    )
