"""A sliding window over a network that gives back what it is given must give back the image."""

import numpy as np
import pytest
import torch
from builders import make_configuration

from autoseg.inference.sliding_window import compute_probabilities, list_flips, predict_logits, upsample_slab
from autoseg.networks.devices import Compute

torch.set_num_threads(1)
CPU = Compute("cpu")


class Echo(torch.nn.Module):
    """Logits are the input and its negative."""

    def forward(self, x):
        assert x.shape[2:] == (8,) * (x.ndim - 2)
        return [torch.cat([x, -x], dim=1)]


class Ramp(torch.nn.Module):
    """Not equivariant: adds the voxel's place along the first axis."""

    def forward(self, x):
        return [x + torch.arange(x.shape[2], dtype=x.dtype).view(-1, *(1,) * (x.ndim - 3))]


def make_image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (1, *shape)).astype(np.float32)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shape", [(8, 8, 8), (20, 9, 13), (3, 17, 8), (1, 2, 3), (21, 10), (4, 30)])
def test_the_input_is_reproduced_at_every_voxel(shape, mirror):
    image = make_image(shape)
    logits = predict_logits(Echo(), image, (0.0,), make_configuration(len(shape)), CPU, mirror)
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), np.concatenate([image, -image]), atol=1e-5)


def test_a_2d_configuration_goes_over_a_volume_slice_by_slice():
    image = make_image((5, 12, 9))
    logits = predict_logits(Echo(), image, (0.0,), make_configuration(2), CPU, False)
    np.testing.assert_allclose(logits.numpy(), np.concatenate([image, -image]), atol=1e-5)


def test_small_images_are_padded_with_their_background():
    class Mean(torch.nn.Module):
        def forward(self, x):
            return [x.mean((2, 3, 4), keepdim=True).expand_as(x)]

    image = np.full((1, 4, 8, 8), 3.0, np.float32)
    logits = predict_logits(Mean(), image, (-1.0,), make_configuration(), CPU, False)
    torch.testing.assert_close(logits, torch.ones(1, 4, 8, 8))


def test_mirroring_averages_over_the_planned_axes():
    image = make_image((8, 8, 8))
    plain = predict_logits(Ramp(), image, (0.0,), make_configuration(), CPU, False).numpy()
    mirrored = predict_logits(Ramp(), image, (0.0,), make_configuration(), CPU, True).numpy()
    np.testing.assert_allclose(plain[0, :, 0, 0] - image[0, :, 0, 0], np.arange(8), atol=1e-5)
    np.testing.assert_allclose(mirrored, image + 3.5, atol=1e-5)
    others = predict_logits(Ramp(), image, (0.0,), make_configuration(mirror_axes=(1, 2)), CPU, True).numpy()
    np.testing.assert_allclose(others, plain, atol=1e-5)


def test_all_combinations_of_mirrored_axes_are_listed():
    assert len(list_flips((0, 1, 2))) == 8
    assert list_flips(()) == [()]


def test_slabs_together_are_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    matrices = [torch.randn(new, old, generator=generator) for new, old in ((7, 4), (5, 5), (3, 6))]
    matrices[1] = torch.eye(5)
    whole = torch.einsum("az,cx,nzyx->nayc", matrices[0], matrices[2], logits)
    parts = [upsample_slab(logits, matrices, low, min(low + 3, 7)) for low in (0, 3, 6)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_probabilities_sum_to_one_over_the_classes():
    probabilities = compute_probabilities(torch.randn(3, 4, 4) * 50, regions=False)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(4, 4))


def test_probabilities_of_regions_do_not_depend_on_each_other():
    logits = torch.randn(3, 4, 4)
    expected = 1 / (1 + torch.exp(-logits[1]))
    torch.testing.assert_close(compute_probabilities(logits, regions=True)[1], expected)
