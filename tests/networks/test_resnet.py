"""The encoder for public weights: their names and shapes, what their frozen norms do, channels, and what it cannot start."""

import msgspec
import numpy as np
import pytest
import torch
from builders import make_detection_spec
from torch.nn import functional as F

from autoseg.networks.build import build_network, export_weights
from autoseg.networks.resnet import FrozenNorm, map_public_names
from autoseg.planning.cost import count_weights
from autoseg.records.plan import RESNET50

SMALL = msgspec.structs.replace(RESNET50, features=(4, 8, 16, 16, 32, 32), blocks=(1, 1, 2, 1, 1, 2))


def make_public(features=(8, 16, 16, 32, 32), blocks=(2, 1, 1, 2), prefix="") -> dict[str, np.ndarray]:
    """A state dict as torchvision names it, of a ResNet of bottlenecks."""
    generator, made = np.random.default_rng(3), {}

    def add(name, *shape):
        made[prefix + name] = generator.normal(0, 0.1, shape).astype(np.float32)

    def add_norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            made[f"{prefix}{name}.{part}"] = generator.uniform(0.5, 1.5, channels).astype(np.float32)
        made[f"{prefix}{name}.num_batches_tracked"] = np.array(7)

    add("conv1.weight", features[0], 3, 7, 7)
    add_norm("bn1", features[0])
    inputs = features[0]
    for layer, (outputs, count) in enumerate(zip(features[1:], blocks), 1):
        for place in range(count):
            name, width = f"layer{layer}.{place}", outputs // 4
            for number, shape in enumerate([(width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1)], 1):
                add(f"{name}.conv{number}.weight", *shape)
                add_norm(f"{name}.bn{number}", shape[0])
            if place == 0:
                add(f"{name}.downsample.0.weight", outputs, inputs, 1, 1)
                add_norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    add("fc.weight", 10, outputs)
    return made


def run_public(tensors: dict[str, np.ndarray], x: torch.Tensor, blocks=(2, 1, 1, 2)) -> list[torch.Tensor]:
    """The maps of the first convolution and the four layers, from the formulas."""
    values = {name: torch.from_numpy(value) for name, value in tensors.items()}

    def norm(x, name):
        parts = (values[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    x = norm(F.conv2d(x, values["conv1.weight"], stride=2, padding=3), "bn1").relu()
    maps = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, count in enumerate(blocks, 1):
        for place in range(count):
            name, stride = f"layer{layer}.{place}", 2 if layer > 1 and place == 0 else 1
            y = norm(F.conv2d(x, values[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(F.conv2d(y, values[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(F.conv2d(y, values[f"{name}.conv3.weight"]), f"{name}.bn3")
            if place == 0:
                x = norm(F.conv2d(x, values[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
        maps.append(x)
    return maps


@pytest.mark.parametrize("prefix", ["", "backbone.body."])
def test_public_weights_give_the_public_maps(prefix):
    network = build_network(SMALL, 3, 2, detection=make_detection_spec(2, (1, 2, 3)))
    mapped = map_public_names(make_public(prefix=prefix), 3)
    own = {name: value for name, value in network.state_dict().items() if name.startswith("encoder.")}
    assert {name: value.shape for name, value in mapped.items()} == {name: tuple(value.shape) for name, value in own.items()}
    network.load_state_dict({name: torch.from_numpy(value) for name, value in mapped.items()}, strict=False)
    x, maps = torch.randn(1, 3, 75, 66), []
    y = x
    for encode in network.encoder:
        y = encode(y)
        maps.append(y)
    assert torch.equal(maps[0], x)
    for mine, theirs in zip(maps[1:], run_public(make_public(), x)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_equal_channels_are_seen_as_a_grey_image(channels):
    public = make_public()
    weight = torch.from_numpy(map_public_names(public, channels)["encoder.1.conv1.weight"])
    grey = torch.randn(1, 1, 20, 20)
    theirs = F.conv2d(grey.expand(-1, 3, -1, -1), torch.from_numpy(public["conv1.weight"]))
    torch.testing.assert_close(F.conv2d(grey.expand(-1, channels, -1, -1), weight), theirs, rtol=1e-4, atol=1e-4)


def test_other_names_are_left_out():
    assert map_public_names({"fc.weight": np.zeros(3), "backbone.fpn.inner_blocks.0.0.weight": np.zeros(3)}, 3) == {}


def test_norms_never_learn_and_the_whole_has_the_public_number_of_weights():
    network = build_network(RESNET50, 3, 2, detection=make_detection_spec(2, (1, 2)))
    encoder = network.encoder
    learned = sum(value.numel() for value in encoder.parameters())
    norms = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, FrozenNorm))
    assert learned + 2 * norms == 23_508_032  # torchvision's 25,557,032 less 2,049,000 of the last layer
    assert count_weights(msgspec.structs.replace(RESNET50, features=(3, *RESNET50.features[1:])), 3, 2) > 23_508_032


def test_maps_keep_their_size_without_public_weights_and_every_weight_learns():
    network = build_network(SMALL, 1, 3, detection=make_detection_spec(2, (2, 3)))
    dense = network(torch.randn(2, 1, 70, 53))
    assert dense.features.fine.shape == (2, 4, 70, 53)
    assert all(0.05 < x.std() < 20 for x in dense.features.maps)
    logits, _ = network.classify(dense.features, torch.tensor([[1.0, 1, 30, 30]]), torch.tensor([1]))
    masks = network.draw_masks(dense.features, torch.tensor([[1.0, 1, 30, 30]]), torch.tensor([1]))
    sum(x.square().sum() for x in (dense.boundary, logits, masks, *dense.objectness, *dense.deltas)).backward()
    missing = [name for name, value in network.named_parameters() if value.grad is None]
    assert missing == ["box_head.deltas.weight", "box_head.deltas.bias"]  # not asked here
    assert "encoder.2.0.bn3.running_var" in export_weights(network)
