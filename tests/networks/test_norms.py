"""The norms that are written out equal the library's in float64, forwards and backwards, whatever the groups, layout and precision."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.norms import (
    EPSILON,
    SLOPE,
    FusedNorm,
    FusedNormActivation,
    GroupNorm,
    GroupNormActivation,
    Norm,
    NormActivation,
    count_groups,
)

SHAPES = {"2d": (2, 6, 5, 4), "3d": (2, 6, 3, 4, 5), "one sample": (1, 6, 4, 4, 4)}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
GROUPS = [1, 3, 6]
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 2e-5)]


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
    weight, bias = (torch.randn(shape[1], generator=generator, dtype=torch.float64) for _ in range(2))
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


def compute_plainly(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int) -> torch.Tensor:
    return F.group_norm(x, groups, weight, bias, EPSILON)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("groups", GROUPS)
def test_the_gradients_are_the_numerical_ones(name, groups):
    inputs = [value.requires_grad_() for value in make_inputs(SHAPES[name], torch.float64)]
    assert torch.autograd.gradcheck(FusedNorm.apply, (*inputs, groups))
    assert torch.autograd.gradcheck(FusedNormActivation.apply, (*inputs, groups, SLOPE))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_norm_and_activation_equal_the_two_operations_they_replace(name, channels_last, groups, dtype, tolerance):
    x, weight, bias = make_inputs(SHAPES[name], dtype)
    if channels_last:
        x = x.contiguous(memory_format=FORMATS[x.ndim])
    mine = [value.clone().requires_grad_() for value in (x, weight, bias)]
    theirs = [value.double().clone().requires_grad_() for value in (x, weight, bias)]
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    result, expected = FusedNormActivation.apply(*mine, groups, SLOPE), F.leaky_relu(compute_plainly(*theirs, groups), SLOPE)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    result.backward(upstream.to(dtype))
    expected.backward(upstream)
    for own, other in zip(mine, theirs):
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("kernel", [(24, 20), (6, 24, 20)])
@pytest.mark.parametrize("groups", [8, 32])
def test_16_bits_with_channels_last_lose_no_more_than_their_digits(kernel, groups):
    """Sums over voxels are in 32 bits: those of weights and biases agree to the digits of single values, not to those of their sum."""
    x, weight, bias = make_inputs((2, 32, *kernel), torch.float32)
    x = x.bfloat16().contiguous(memory_format=FORMATS[x.ndim])
    upstream = (torch.randn(x.shape, generator=torch.Generator().manual_seed(4)) + 1).bfloat16().contiguous(memory_format=FORMATS[x.ndim])
    mine = [value.clone().requires_grad_() for value in (x, weight, bias)]
    theirs = [value.double().clone().requires_grad_() for value in (x, weight, bias)]
    result, expected = FusedNorm.apply(*mine, groups), compute_plainly(*theirs, groups)
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=FORMATS[x.ndim])
    torch.testing.assert_close(result.double(), expected, rtol=0.01, atol=0.01)
    result.backward(upstream)
    expected.backward(upstream.double())
    for own, other, limit in zip(mine, theirs, (0.03, 1.5, 0.2)):  # values of about 3, sums over 480 and 2,880 voxels
        assert (own.grad.double() - other.grad).abs().max() < limit


MODULES = {
    "norm": (lambda: Norm(6), 6, None),
    "norm, activation": (lambda: NormActivation(6), 6, SLOPE),
    "groups": (lambda: GroupNorm(6), 3, None),
    "groups, activation": (lambda: GroupNormActivation(6), 3, 0.0),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_modules_are_the_same_written_out_or_not(name, dtype):
    make, groups, slope = MODULES[name]
    x, weight, bias = make_inputs(SHAPES["3d"], dtype)
    module = make().to(dtype)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)
    expected = compute_plainly(x, weight, bias, groups)
    if slope is not None:
        expected = F.leaky_relu(expected, slope)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: Norm(32), lambda: NormActivation(32), lambda: GroupNormActivation(32)])
def test_16_bits_keep_their_layout(make):
    x = torch.randn(2, 32, 6, 5).bfloat16()
    for layout in (torch.contiguous_format, torch.channels_last):
        answer = make()(x.contiguous(memory_format=layout))
        assert answer.dtype == torch.bfloat16
        assert answer.is_contiguous(memory_format=layout)


def test_the_input_is_left_as_it_was():
    x, weight, bias = make_inputs(SHAPES["3d"], torch.float32)
    before = x.clone()
    FusedNormActivation.apply(x, weight, bias, 6, SLOPE)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3)])
@pytest.mark.parametrize("norm", [Norm(32), GroupNorm(32)])
def test_channels_far_from_zero_are_normalised_precisely_in_both_layouts(kernel, norm):
    shape = (2, 32, *(24,) * len(kernel))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 10
    expected = F.group_norm(x.double(), getattr(norm, "groups", 32), eps=1e-5)
    for layout in (torch.contiguous_format, FORMATS[len(shape)]):
        placed = x.contiguous(memory_format=layout).requires_grad_()
        answer = norm(placed)
        assert answer.is_contiguous(memory_format=layout)
        torch.testing.assert_close(answer.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(3, 32, 1, 1), (2, 32, 4, 5), (2, 64, 2, 3, 4), (0, 32, 7, 7)])
def test_group_norm_is_mean_0_and_deviation_1_per_group(shape):
    norm, x = GroupNorm(shape[1]), torch.randn(shape) * 3 + 2
    groups = x.reshape(shape[0], count_groups(shape[1]), -1) if x.numel() else x.reshape(0, 4, 8 * 49)
    apart = groups - groups.mean(2, keepdim=True)
    expected = apart / (apart.square().mean(2, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected.reshape(shape), rtol=1e-4, atol=1e-5)
