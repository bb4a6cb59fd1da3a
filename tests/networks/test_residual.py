"""Residual encoders: what a block starts as, shapes, gradients, weights out and in."""

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.blocks import ResidualBlock, initialise
from autoseg.networks.build import build_network, export_weights, import_weights
from autoseg.networks.norms import EPSILON, SLOPE
from autoseg.planning.cost import count_weights
from autoseg.records.plan import NetworkSpec

FLAT = NetworkSpec(
    kind="residual_encoder",
    strides=((1, 1), (2, 2), (2, 2)),
    kernel_sizes=((3, 3),) * 3,
    features=(4, 6, 6),
    blocks=(1, 2, 3),
    decoder_convolutions=(1, 2),
)
ANISOTROPIC = NetworkSpec(
    kind="residual_encoder",
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    features=(4, 6, 6),
    blocks=(2, 1, 1),
    decoder_convolutions=(1, 1),
)
DEEP = msgspec.structs.replace(
    ANISOTROPIC, strides=((1,) * 3, (2,) * 3, (2,) * 3, (1, 1, 1)), kernel_sizes=((3,) * 3,) * 4, features=(4, 6, 6, 8), blocks=(1, 1, 2, 1)
)
DEEP = msgspec.structs.replace(DEEP, decoder_convolutions=(1, 1, 1))
ONE = msgspec.structs.replace(
    ANISOTROPIC, strides=((1, 1, 1),), kernel_sizes=((3, 3, 3),), features=(4,), blocks=(2,), decoder_convolutions=()
)
SPECS = {
    "2d": (FLAT, (8, 12), [(8, 12), (4, 6)]),
    "3d, anisotropic": (ANISOTROPIC, (4, 8, 12), [(4, 8, 12), (4, 4, 6)]),
    "3d, a stage of stride 1": (DEEP, (8, 8, 8), [(8, 8, 8), (4, 4, 4), (2, 2, 2)]),
    "one stage": (ONE, (3, 4, 5), [(3, 4, 5)]),
}


def waken(network):
    """Gives the last norm of every residual block a scale, as training does in its first step."""
    for part in network.modules():
        if isinstance(part, ResidualBlock):
            torch.nn.init.constant_(part.norm.weight, 0.5)
    return network


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3, 3)])
def test_a_fresh_block_of_equal_channels_is_only_its_activation(kernel):
    torch.manual_seed(0)
    block = ResidualBlock(3, 3, kernel, (1,) * len(kernel))
    initialise(block)
    x = torch.randn(2, 3, *(4, 6, 8)[: len(kernel)])
    assert torch.equal(block(x), F.leaky_relu(x, SLOPE))
    assert not torch.allclose(waken(block)(x), F.leaky_relu(x, SLOPE))


def test_a_fresh_block_that_halves_is_its_pooled_shortcut():
    torch.manual_seed(0)
    block = ResidualBlock(3, 3, (3, 3, 3), (1, 2, 2))
    initialise(block)
    x = torch.randn(2, 3, 3, 4, 6)
    pooled = x.reshape(2, 3, 3, 2, 2, 3, 2).mean(dim=(4, 6))
    torch.testing.assert_close(block(x), F.leaky_relu(pooled, SLOPE))


def test_a_block_is_the_sum_of_two_branches_written_out():
    torch.manual_seed(1)
    block = waken(ResidualBlock(2, 3, (3, 3), (2, 1)))
    for module in (block.first[1], block.norm, block.shortcut[2]):
        torch.nn.init.normal_(module.weight)
        torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 2, 6, 5)

    def norm(value, module):
        return F.instance_norm(value, weight=module.weight, bias=module.bias, eps=EPSILON)

    inner = F.leaky_relu(norm(F.conv2d(x, block.first[0].weight, stride=(2, 1), padding=1), block.first[1]), SLOPE)
    main = norm(F.conv2d(inner, block.second.weight, padding=1), block.norm)
    shortcut = norm(F.conv2d((x[:, :, ::2] + x[:, :, 1::2]) / 2, block.shortcut[1].weight), block.shortcut[2])
    torch.testing.assert_close(block(x), F.leaky_relu(main + shortcut, SLOPE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7, 9), (4, 6, 8), (1, 3, 2)])
def test_the_branches_have_the_same_size_also_for_odd_ones(size):
    rounded = (size[0], -(-size[1] // 2), -(-size[2] // 2))
    assert ResidualBlock(2, 3, (3, 3, 3), (1, 2, 2))(torch.randn(1, 2, *size)).shape == (1, 3, *rounded)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_gradient_flows_into_every_weight(name, precision):
    spec, size, _ = SPECS[name]
    network = waken(build_network(spec, 1, 2))
    network.train()
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = network(torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1)))
    sum(head.float().square().mean() for head in logits).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", SPECS)
def test_16_bits_stay_16_bits_through_the_shortcuts(name):
    spec, size, _ = SPECS[name]
    seen = []
    network = build_network(spec, 1, 2)
    for part in network.modules():
        if isinstance(part, ResidualBlock):
            part.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.randn(1, 1, *size))
    assert set(seen) == {torch.bfloat16}
    assert len(seen) == sum(spec.blocks)


@pytest.mark.parametrize("activation", ["leaky_relu", "prelu"])
@pytest.mark.parametrize("name", SPECS)
def test_the_number_of_weights_is_the_one_that_is_planned(name, activation):
    spec = msgspec.structs.replace(SPECS[name][0], activation=activation, dropout=0.1)
    network = build_network(spec, 2, 3)
    assert sum(value.numel() for value in network.parameters()) == count_weights(spec, 2, 3)


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (export_weights(build_network(ANISOTROPIC, 1, 2, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_the_exported_weights_make_another_network_the_same():
    source, target = (waken(build_network(ANISOTROPIC, 1, 2, seed)).eval() for seed in (1, 2))
    x = torch.randn(1, 1, 4, 8, 12)
    assert not torch.equal(source(x)[0], target(x)[0])
    import_weights(target, export_weights(source), "here")
    assert torch.equal(source(x)[0], target(x)[0])
