"""RoIAlign equals interpolation box by box, forwards and backwards, in 2 and 3 dimensions."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks.roi_align import Regions, align_rois, flatten_maps

SETTINGS = {  # sizes and strides of the levels, bins, samples
    "2d": ([(16, 20), (8, 10)], [(2, 2), (4, 4)], (7, 7), 2),
    "2d, odd sizes": ([(19, 27), (10, 14), (5, 7)], [(2, 2), (4, 4), (8, 8)], (3, 5), 2),
    "2d, one voxel": ([(5, 1)], [(8, 8)], (2, 2), 1),
    "3d": ([(8, 9, 10), (4, 5, 5)], [(2, 2, 2), (4, 4, 4)], (3, 3, 3), 1),
    "3d, anisotropic": ([(7, 12, 10), (7, 6, 5)], [(1, 2, 2), (1, 4, 4)], (3, 7, 7), 2),
}


def align_by_sampling(maps, strides, regions, bins, samples):
    """Box by box: the library's linear interpolation at the samples of every bin, and their mean."""
    crops = []
    for box, image, level in zip(regions.boxes.double(), regions.images, regions.levels):
        x = maps[level][image][None]
        axes = []
        for axis, count in enumerate(bins):
            low, high = box[axis], box[len(bins) + axis]
            edges = low + (high - low) * (torch.arange(count * samples) + 0.5) / (count * samples)
            axes.append(2 * edges / (strides[level][axis] * x.shape[2 + axis]) - 1)
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None]
        taken = F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)
        crops.append((F.avg_pool2d if len(bins) == 2 else F.avg_pool3d)(taken, samples))
    return torch.cat(crops)


def draw_problem(name: str):
    """Maps of two images and boxes on all levels, some of them reaching out of the image, some outside, one empty."""
    sizes, strides, bins, samples = SETTINGS[name]
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).float().requires_grad_() for size in sizes]
    extent = torch.tensor([size * step for size, step in zip(sizes[0], strides[0])])
    low = (torch.rand(12, len(bins), generator=generator) * 1.4 - 0.3) * extent
    high = low + torch.rand(12, len(bins), generator=generator) * extent * 0.6
    high[0] = low[0]
    images, levels = torch.arange(12) % 2, torch.arange(12) % len(sizes)
    return maps, strides, Regions(torch.cat([low, high], dim=1), images, levels), bins, samples


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_equal_to_sampling_box_by_box(name, channels_last):
    maps, strides, regions, bins, samples = draw_problem(name)
    layout = torch.contiguous_format
    if channels_last:
        layout = torch.channels_last if len(bins) == 2 else torch.channels_last_3d
    mine = align_rois(flatten_maps([x.contiguous(memory_format=layout) for x in maps], strides), regions, bins, samples)
    theirs = align_by_sampling(maps, strides, regions, bins, samples)
    assert mine.shape == (12, 3, *bins)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(mine.shape, generator=torch.Generator().manual_seed(3))
    for own, other in zip(torch.autograd.grad(mine, maps, upstream), torch.autograd.grad(theirs, maps, upstream)):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_ramp_gives_the_middles_of_the_bins(dimension):
    """Linear interpolation is exact on a ramp, so that a bin's value is where its middle lies: half a voxel off would show."""
    size, stride = (12,) * dimension, (2,) * dimension
    ramp = ((torch.arange(12) + 0.5) * 2).view(1, 1, 12, *(1,) * (dimension - 1)).expand(1, 1, *size)
    box = torch.tensor([[4.0] * dimension + [18.0] * dimension])
    one = torch.zeros(1, dtype=torch.long)
    crop = align_rois(flatten_maps([ramp], [stride]), Regions(box, one, one), (7,) * dimension, 1)
    assert torch.allclose(crop[0, 0].flatten(1)[:, 0] if dimension == 3 else crop[0, 0][:, 0], torch.arange(7) * 2 + 5.0)


def test_no_boxes_give_no_crops_and_a_gradient_of_zero():
    maps = [torch.randn(1, 4, 6, 6, requires_grad=True)]
    none = torch.zeros(0, dtype=torch.long)
    crops = align_rois(flatten_maps(maps, [(2, 2)]), Regions(torch.zeros(0, 4), none, none), (7, 7), 2)
    assert crops.shape == (0, 4, 7, 7)
    crops.sum().backward()
    assert (maps[0].grad == 0).all()


def test_maps_of_16_bits_are_read_in_32():
    dtype = torch.bfloat16
    maps = [torch.randn(1, 4, 6, 6).to(dtype)]
    one = torch.zeros(1, dtype=torch.long)
    regions = Regions(torch.tensor([[1.0, 1, 9, 9]]), one, one)
    with torch.autocast("cpu", dtype=dtype):
        crops = align_rois(flatten_maps(maps, [(2, 2)]), regions, (2, 2), 2)
    assert crops.dtype == torch.float32
    torch.testing.assert_close(crops, align_rois(flatten_maps([maps[0].float()], [(2, 2)]), regions, (2, 2), 2))
