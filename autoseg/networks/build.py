"""From a description to a network, and from a network to named arrays and back."""

import numpy as np
import torch
from torch import nn

from autoseg.errors import InputError
from autoseg.networks.blocks import initialise
from autoseg.networks.detector import Detector
from autoseg.networks.heads import start_heads
from autoseg.networks.unet import UNet
from autoseg.records.detection import DetectionSpec
from autoseg.records.plan import NetworkSpec


def build_network(spec: NetworkSpec, channels: int, classes: int, seed: int = 0, detection: DetectionSpec | None = None) -> UNet | Detector:
    """Builds and initialises a network for `channels` inputs and `classes` outputs (with background); same seed, same weights.

    A Mask R-CNN where `detection` is given, else a U-Net.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(spec, channels, classes) if detection is None else Detector(spec, detection, channels, classes)
        initialise(network)
        start_heads(network)
    return network


def export_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """The weights by name, as contiguous float32 arrays."""
    return {name: np.ascontiguousarray(value.detach().float().cpu().numpy()) for name, value in network.state_dict().items()}


def import_weights(network: nn.Module, weights: dict[str, np.ndarray], source: str) -> None:
    """Loads weights by name. Raises InputError that names what does not fit."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{source} does not hold the weights of this network.",
            f"{len(wrong)} tensors differ, the first is {name}: expected {expected.get(name)}, found {found.get(name)}.",
        )
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
