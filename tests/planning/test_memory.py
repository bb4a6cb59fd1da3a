"""The bytes of a training step, against the tensors that torch really keeps for the backward pass and against its allocations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.planning.memory import Workload, estimate_prediction_bytes, estimate_training
from autoseg.records.plan import LossSpec, NetworkSpec
from autoseg.training.losses import compute_loss


def make_network(kind, features, strides, kernels=None, depth=2, decoder=1):
    """A network of `depth` convolutions or blocks per stage, strides given from the second stage on; kernels of 3 where none are given."""
    dimension = len(strides[0]) if strides else 3
    stages = len(features)
    return NetworkSpec(
        kind=kind,
        strides=((1,) * dimension, *strides),
        kernel_sizes=kernels or ((3,) * dimension,) * stages,
        features=features,
        convolutions=(depth,) * stages if kind == "plain" else (),
        blocks=(depth,) * stages if kind == "residual_encoder" else (),
        decoder_convolutions=(decoder,) * (stages - 1),
    )


HALF2, HALF3, FLAT = (2, 2), (2, 2, 2), (1, 2, 2)
THIN = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
NETWORKS = {
    "2d": (make_network("plain", (8, 16, 24), (HALF2,) * 2, decoder=2), (24, 32)),
    "2d, one axis pooled": (make_network("plain", (6, 8), ((1, 2),), ((3, 3), (1, 3))), (9, 32)),
    "3d": (make_network("plain", (8, 12, 12), (HALF3,) * 2), (8, 12, 16)),
    "3d, anisotropic": (make_network("plain", (4, 8, 12), (FLAT, HALF3), THIN, depth=1), (6, 16, 16)),
    "3d, one stage": (make_network("plain", (8,), ()), (5, 6, 7)),
    "residual 2d": (make_network("residual_encoder", (8, 16, 16), (HALF2,) * 2), (24, 32)),
    "residual 3d": (make_network("residual_encoder", (8, 12, 12), (HALF3,) * 2, depth=1), (8, 12, 16)),
    "residual 3d, anisotropic": (
        make_network("residual_encoder", (4, 8, 8, 12), (FLAT, HALF3, (1, 1, 1)), (*THIN, (3, 3, 3))),
        (6, 16, 16),
    ),
    "residual 3d, one stage": (make_network("residual_encoder", (8,), ()), (5, 6, 7)),
}
SETTINGS = {"one": (1, 1, 2), "two channels": (2, 2, 3), "four": (4, 3, 5), "118 classes": (1, 1, 118)}  # batch, channels, classes
WORKS = {
    f"{network}; {setting}; {precision}": Workload(*NETWORKS[network], *SETTINGS[setting], precision=precision)
    for number, network in enumerate(NETWORKS)
    for setting in SETTINGS
    for precision in ("fp32", "bf16")
}


def make_step(work):
    """Network, images and labels; some labels are to be ignored."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(work.network, work.channels, work.classes).train()
    images = torch.randn(work.batch, work.channels, *work.patch, generator=generator)
    labels = torch.randint(-1, work.classes, (work.batch, *work.patch), generator=generator)
    return network, images, labels


def compute_step(network, images, labels, work):
    with Compute("cpu", work.precision).autocast():
        logits = network(images)
    return logits, compute_loss(logits, labels, LossSpec(), True)


def measure_saved(work):
    """Bytes of all distinct storages that the graph of a step holds, without weights, images and labels."""
    network, images, labels = make_step(work)
    own = {tensor.untyped_storage().data_ptr() for tensor in (images, labels, *network.parameters())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = compute_step(network, images, labels, work)
    assert torch.isfinite(held[1])
    return sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("name", WORKS)
def test_what_is_kept_for_the_backward_pass_is_what_torch_keeps(name):
    footprint = estimate_training(WORKS[name])
    assert footprint.activations + footprint.loss == pytest.approx(measure_saved(WORKS[name]), rel=0.02)
