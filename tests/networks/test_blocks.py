"""The fused norm and activation equals the two library operations, forwards and backwards."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.blocks import (
    EPSILON,
    SLOPE,
    ConvolutionBlock,
    FusedNormActivation,
    Norm,
    NormActivation,
    ResidualBlock,
    Style,
    initialise,
)

SHAPES = {"2d": (2, 3, 5, 4), "3d": (2, 3, 3, 4, 5), "one sample": (1, 2, 4, 4, 4)}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=dtype) * 2 + 1
    weight = torch.randn(shape[1], generator=generator, dtype=dtype)
    bias = torch.randn(shape[1], generator=generator, dtype=dtype)
    return x, weight, bias


def compute_plainly(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias, eps=EPSILON), SLOPE)


@pytest.mark.parametrize("name", SHAPES)
def test_the_fused_gradient_is_the_numerical_one(name):
    inputs = [value.requires_grad_() for value in make_inputs(SHAPES[name], torch.float64)]
    assert torch.autograd.gradcheck(FusedNormActivation.apply, (*inputs, SLOPE))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_the_fused_operation_equals_the_two_it_replaces(name, channels_last, dtype, tolerance):
    x, weight, bias = make_inputs(SHAPES[name], dtype)
    if channels_last:
        x = x.contiguous(memory_format=FORMATS[x.ndim])
    mine = [value.clone().requires_grad_() for value in (x, weight, bias)]
    theirs = [value.double().clone().requires_grad_() for value in (x, weight, bias)]
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    result, expected = FusedNormActivation.apply(*mine, SLOPE), compute_plainly(*theirs)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    result.backward(upstream.to(dtype))
    expected.backward(upstream)
    for own, other in zip(mine, theirs):
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_module_is_the_same_fused_or_not(dtype):
    x, weight, bias = make_inputs(SHAPES["3d"], dtype)
    module = NormActivation(3).to(dtype)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)
    torch.testing.assert_close(module(x), compute_plainly(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_the_input_is_left_as_it_was():
    x, weight, bias = make_inputs(SHAPES["3d"], torch.float32)
    before = x.clone()
    FusedNormActivation.apply(x, weight, bias, SLOPE)
    assert torch.equal(x, before)


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


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3)])
def test_channels_far_from_zero_are_normalised_precisely_in_both_layouts(kernel):
    shape = (2, 32, *(24,) * len(kernel))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 10
    norm = Norm(32)
    expected = F.instance_norm(x.double(), eps=1e-5)
    for layout in (torch.contiguous_format, FORMATS[len(shape)]):
        placed = x.contiguous(memory_format=layout).requires_grad_()
        answer = norm(placed)
        assert answer.is_contiguous(memory_format=layout)
        torch.testing.assert_close(answer.double(), expected, rtol=0, atol=2e-4)
