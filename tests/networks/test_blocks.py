"""The blocks: sizes, activations, dropout, initial weights."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.blocks import ConvolutionBlock, ResidualBlock, Style, initialise
from autoseg.networks.norms import EPSILON, SLOPE


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [((3, 3, 3), (1, 1, 1), (4, 5, 6)), ((1, 3, 3), (1, 2, 2), (4, 3, 3)), ((3, 3), (2, 1), (2, 5))]
)
def test_a_block_keeps_the_size_up_to_its_stride(kernel, stride, size):
    x = torch.randn(1, 2, *((4, 5, 6)[-len(kernel) :] if len(kernel) == 3 else (4, 5)))
    assert ConvolutionBlock(2, 3, kernel, stride)(x).shape == (1, 3, *size)


def test_initial_weights_have_the_spread_of_kaiming_and_biases_are_zero():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv3d(16, 64, 3), torch.nn.ConvTranspose2d(8, 8, 2))
    initialise(layers)
    assert layers[0].weight.std().item() == pytest.approx((2 / (1 + SLOPE**2) / (16 * 27)) ** 0.5, rel=0.03)
    assert not layers[0].bias.any()
    assert not layers[1].bias.any()


REFERENCES = {"leaky_relu": lambda x, _: F.leaky_relu(x, SLOPE), "relu": lambda x, _: F.relu(x), "prelu": F.prelu}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", REFERENCES)
def test_every_activation_is_the_librarys_forwards_and_backwards(activation, dtype):
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 3, (3, 3), (1, 1), Style(activation)).to(dtype)
    x = torch.randn(2, 2, 5, 4, dtype=dtype)
    slopes = block[2].weight if activation == "prelu" else None
    normed = F.instance_norm(F.conv2d(x, block[0].weight, padding=1), weight=block[1].weight, bias=block[1].bias, eps=EPSILON)
    expected = REFERENCES[activation](normed, slopes)
    result = block(x)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    upstream, weights = torch.randn_like(result), list(block.parameters())
    own, other = (torch.autograd.grad(answer, weights, upstream) for answer in (result, expected))
    torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3)])
def test_dropout_leaves_out_whole_maps_before_the_norm_and_scales_the_others(kernel):
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 200, kernel, (1,) * len(kernel), Style(dropout=0.25)).train()
    seen = []
    block[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 2, *(5 for _ in kernel))
    block(x)
    block.eval()(x)
    dropped, whole = (maps.flatten(2) for maps in seen)
    gone = (dropped == 0).all(dim=2)
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.06)
    torch.testing.assert_close(dropped[~gone], whole[~gone] / 0.75)


@pytest.mark.parametrize("block", [ConvolutionBlock, ResidualBlock])
def test_weights_have_the_same_names_with_dropout_and_without(block):
    plain, dropping = (block(2, 3, (3, 3), (2, 2), Style(dropout=share)) for share in (0.0, 0.5))
    assert list(plain.state_dict()) == list(dropping.state_dict())
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(plain.eval()(x), dropping.eval()(x))


@pytest.mark.parametrize("activation", REFERENCES)
def test_a_residual_block_ends_with_the_activation(activation):
    torch.manual_seed(0)
    block = ResidualBlock(3, 3, (3, 3), (1, 1), Style(activation, 0.3))
    torch.nn.init.ones_(block.norm.weight)
    x = torch.randn(2, 3, 6, 5)
    block.eval()
    main = block.norm(block.second(block.first(x)))
    torch.testing.assert_close(block(x), REFERENCES[activation](main + x, getattr(block.activation, "weight", None)))
    block.train()
    seen = []
    block.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(x)
    assert (seen[0].flatten(2) == 0).all(dim=2).any()
