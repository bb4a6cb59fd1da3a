"""The bytes of a training step, against the tensors that torch really keeps for the backward pass and against its allocations."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from builders import make_configuration

from autoseg.inference.sliding_window import predict_logits
from autoseg.io.machine import read_cpu_flags
from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.planning.cost import count_weights
from autoseg.planning.memory import TERMS, Workload, estimate_prediction_bytes, estimate_training
from autoseg.records.plan import LossSpec, NetworkSpec, OptimizerSpec
from autoseg.training.loader import Batch
from autoseg.training.losses import compute_loss
from autoseg.training.precision import BF16_FLAGS
from autoseg.training.trainer import start_state, take_step

torch.set_num_threads(1)  # every further thread has scratch memory of its own


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
LOSSES = {
    **{name: LossSpec(name=name) for name in TERMS},
    "weighted_ce": LossSpec(name="weighted_ce", class_weights=(1.0, 2.0, 3.0)),
    "no coarsest head": LossSpec(coarsest_head=False),
    "no deep supervision": LossSpec(deep_supervision=False),
}
STYLES = {"relu": {"activation": "relu"}, "prelu": {"activation": "prelu"}, "dropout": {"dropout": 0.2}}
WORKS = {
    f"{network}; {setting}; {precision}": Workload(*NETWORKS[network], *SETTINGS[setting], precision=precision)
    for network in NETWORKS
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
    return logits, compute_loss(logits, labels, work.loss, True)


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
    assert footprint.activations + footprint.loss == pytest.approx(measure_saved(WORKS[name]), rel=0.001)


@pytest.mark.parametrize("classes", [3, 12])
@pytest.mark.parametrize("name", LOSSES)
def test_what_every_loss_keeps_is_what_torch_keeps(name, classes):
    loss = LOSSES[name]
    if loss.class_weights:
        loss = msgspec.structs.replace(loss, class_weights=(1.0,) * classes)
    work = Workload(NETWORKS["3d"][0], (8, 12, 16), 2, 1, classes, loss=loss)
    footprint, plain = estimate_training(work), estimate_training(replace(work, loss=LossSpec()))
    kept = measure_saved(work) - footprint.activations
    assert footprint.loss == pytest.approx(kept, rel=0.05)
    assert (footprint.loss == plain.loss) == (name in ("dice_ce", "weighted_ce", "tversky"))


@pytest.mark.parametrize("network", ["2d", "3d, anisotropic", "residual 2d", "residual 3d"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("style", STYLES)
def test_activation_and_dropout_keep_what_torch_keeps(style, precision, network):
    spec, patch = NETWORKS[network]
    work = Workload(msgspec.structs.replace(spec, **STYLES[style]), patch, 2, 1, 3, precision=precision)
    footprint = estimate_training(work)
    assert footprint.activations + footprint.loss == pytest.approx(measure_saved(work), rel=0.005)


class Allocations:
    """Inside, torch records what it allocates on the CPU; then `peak` holds the most bytes at once."""

    def __enter__(self):
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self.profiler.__enter__()
        return self

    def __exit__(self, *error):
        self.profiler.__exit__(*error)
        records = [event for event in self.profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        alive = np.cumsum([event.nbytes() for event in sorted(records, key=lambda record: record.start_ns())])
        self.peak = int(alive.max())


def measure_peak(work):
    """Bytes of all tensors at the peak of a step as the trainer takes it, the second of a training."""
    configuration = make_configuration(
        len(work.patch),
        network=work.network,
        loss=work.loss,
        optimizer=OptimizerSpec(name=work.optimizer, learning_rate=1e-3, weight_decay=1e-4),
    )
    compute = Compute("cpu", work.precision)
    _, images, labels = make_step(work)
    batches = [Batch(images.clone(), labels.clone(), ()) for _ in range(work.accumulation)]
    state = start_state(configuration, work.channels, work.classes, 0, compute)
    take_step(state, batches, configuration, compute)
    state.optimizer.zero_grad()
    moments = [value for kept in state.optimizer.state.values() for value in kept.values() if isinstance(value, torch.Tensor)]
    standing = [*state.network.parameters(), *state.average.values(), *moments]
    standing += [tensor for batch in batches for tensor in (batch.images, batch.labels)]
    with Allocations() as allocations:
        take_step(state, batches, configuration, compute)
    return sum(tensor.untyped_storage().nbytes() for tensor in standing) + allocations.peak


WIDE = {  # oneDNN computes in blocks of 16 channels
    "2d": make_network("plain", (16, 32, 32), (HALF2,) * 2, decoder=2),
    "3d, anisotropic": make_network("plain", (16, 32, 32), (FLAT, HALF3), THIN),
    "residual 2d": make_network("residual_encoder", (16, 32, 32), (HALF2,) * 2),
    "residual 3d": make_network("residual_encoder", (16, 32, 32), (HALF3,) * 2),
}
PEAKS = {
    "2d": Workload(WIDE["2d"], (96, 96), 2, 1, 3, "adamw"),
    "2d, 16 bits": Workload(WIDE["2d"], (96, 96), 2, 1, 3, "adamw", "bf16"),
    "2d, accumulated": Workload(WIDE["2d"], (96, 96), 1, 1, 2, accumulation=2),
    "3d, anisotropic": Workload(WIDE["3d, anisotropic"], (8, 48, 48), 2, 1, 3, "sgd"),
    "3d, 118 classes": Workload(WIDE["3d, anisotropic"], (8, 32, 32), 2, 2, 118),  # of a single patch torch unfolds the convolutions
    "residual 2d": Workload(WIDE["residual 2d"], (96, 96), 2, 1, 3),
    "residual 2d, 16 bits": Workload(WIDE["residual 2d"], (96, 96), 2, 1, 3, "adamw", "bf16"),
    "residual 3d": Workload(WIDE["residual 3d"], (16, 32, 32), 2, 1, 3),
    "residual 2d, prelu": Workload(msgspec.structs.replace(WIDE["residual 2d"], activation="prelu"), (96, 96), 2, 1, 3),
    "3d, dropout": Workload(msgspec.structs.replace(WIDE["3d, anisotropic"], dropout=0.2), (8, 48, 48), 2, 1, 3),
    "2d, focal": Workload(WIDE["2d"], (96, 96), 2, 1, 3, "adamw", loss=LossSpec(name="dice_focal")),
    "2d, boundary": Workload(WIDE["2d"], (96, 96), 2, 1, 3, "adamw", loss=LossSpec(name="boundary")),
    "weights more than maps": Workload(make_network("plain", (64, 256), (HALF2,)), (16, 16), 1, 1, 2, "adamw"),
}


IMITATED = not BF16_FLAGS & read_cpu_flags()
UNSURE = pytest.mark.skipif(IMITATED, reason="this CPU imitates bf16, in scratch memory that depends on its caches")


@pytest.mark.parametrize("name", [pytest.param(name, marks=UNSURE if work.precision == "bf16" else ()) for name, work in PEAKS.items()])
def test_the_peak_of_a_step_is_that_of_its_tensors(name):
    assert estimate_training(PEAKS[name]).total == pytest.approx(measure_peak(PEAKS[name]), rel=0.05)


def test_a_network_of_one_convolution_by_hand():
    """8 × 8 pixels, two samples of 1 channel, 4 features, 3 classes: convolution and head; float32 on a CPU."""
    network = make_network("plain", (4,), (), ((3, 3),), depth=1)
    network = NetworkSpec(**{**{field: getattr(network, field) for field in network.__struct_fields__}, "strides": ((1, 1),)})
    footprint = estimate_training(Workload(network, (8, 8), 2, 1, 3, "adamw", averaging=False))
    assert footprint.weights == 3 * 4 * (9 * 4 + 2 * 4 + 4 * 3 + 3)
    assert footprint.batch == 2 * 64 * (4 + 8)
    assert footprint.activations == 2 * 4 * (2 * 4 * 64) + 2 * (2 * 4 * 4)
    assert footprint.loss == 2 * 3 * 64 * 4 + 2 * 64 * (8 + 4 + 4) + (2 * 3 + 1) * 4
    assert footprint.logits == 2 * 3 * 64 * 4


def test_weights_count_once_more_for_every_moment_and_the_average():
    work = WORKS["3d; one; fp32"]
    once = 4 * count_weights(work.network, 1, 2)
    assert estimate_training(replace(work, optimizer="sgd", averaging=False)).weights == 2 * once
    assert estimate_training(replace(work, optimizer="sgd")).weights == 3 * once
    assert estimate_training(replace(work, optimizer="adamw")).weights == 4 * once


@pytest.mark.parametrize("change", [{"batch": 3}, {"classes": 30}, {"channels": 4}, {"patch": (48, 64)}, {"accumulation": 2}])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_of_anything_needs_more(change, device):
    work = Workload(NETWORKS["2d"][0], (24, 32), 2, 1, 3, device=device)
    assert estimate_training(replace(work, **change)).total > estimate_training(work).total


def test_a_gpu_keeps_16_bits_as_a_cpu_does_and_names_no_other():
    work = replace(WORKS["2d; four; bf16"], device="cuda")
    assert estimate_training(work).activations == estimate_training(replace(work, device="cpu")).activations
    assert estimate_training(work) == estimate_training(replace(work, precision="fp16"))


@pytest.mark.parametrize(
    ("network", "patch", "volume"),
    [("2d", (96, 96), (150, 140)), ("residual 2d", (96, 96), (150, 140)), ("3d, anisotropic", (8, 48, 48), (20, 60, 60))],
)
@pytest.mark.parametrize("classes", [3, 40])
def test_prediction_bytes_are_those_of_tiles_and_sums(network, patch, volume, classes):
    spec = WIDE[network]
    configuration = make_configuration(len(patch), network=spec, patch_size=patch)
    image = np.random.default_rng(0).normal(size=(1, *volume)).astype(np.float32)
    built = build_network(spec, 1, classes)
    with Allocations() as allocations:
        predict_logits(built, image, (0.0,), configuration, Compute("cpu"), mirror=True)
    numpys = 4 * (2 * image.size + np.prod(patch) + count_weights(spec, 1, classes))  # image, padded image, weights of a tile
    assert estimate_prediction_bytes(spec, patch, volume, 1, classes) == pytest.approx(allocations.peak + numpys, rel=0.15)


def test_slices_of_a_volume_are_kept_and_joined():
    spec = NETWORKS["2d"][0]
    one, ten = (estimate_prediction_bytes(spec, (24, 32), (count, 60, 60), 1, 5) for count in (1, 10))
    assert ten - one == 4 * 60 * 60 * (10 * (1 + 2 * 5) - 1)
    assert one == estimate_prediction_bytes(spec, (24, 32), (60, 60), 1, 5)
