"""What a drawn sample does to a patch, in torch on the training device. No randomness but the noise, whose seed was drawn."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.training.sampling import Intensity, Sample

BLUR_RADIUS = 3  # voxels; 3 standard deviations of the widest blur


def cut_patch(image: Tensor, label: Tensor, sample: Sample, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The sample's patch from the part of the array inside `sample.box`.

    image (channel, …) float32 and label (…) int; returns (channel, *patch) by linear and (*patch) int64 by nearest interpolation. Beyond
    the image lies its own background, labelled 0.
    """
    background = torch.tensor(sample.background, device=image.device).view(-1, *(1,) * len(patch))
    if sample.identity:
        image, label = _place(image - background, sample, patch) + background, _place(label[None], sample, patch)[0].long()
    else:
        grid = _make_grid(sample, patch, tuple(label.shape)).to(image.device)[None]
        image = F.grid_sample((image - background)[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0] + background
        shifted = (label + 2).float()[None, None]  # so that the padding's 0 can be told from a label, the ignored -1 among them
        shifted = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)[0, 0].round().long()
        label = torch.where(shifted == 0, 0, shifted - 2)
    axes = [axis - len(patch) for axis in sample.flips]
    return (image.flip(axes), label.flip(axes)) if axes else (image, label)


def _place(part: Tensor, sample: Sample, patch: tuple[int, ...]) -> Tensor:
    """The patch around a centre on whole voxels: a copy with zeros where the box ends before the patch does."""
    result = part.new_zeros((part.shape[0], *patch))
    source, target = [slice(None)], [slice(None)]
    for middle, edge, (low, high) in zip(sample.centre, patch, sample.box):
        start = round(middle - (edge - 1) / 2)
        first, last = max(start, low), min(start + edge, high)
        source.append(slice(first - low, last - low))
        target.append(slice(first - start, last - start))
    result[tuple(target)] = part[tuple(source)]
    return result


def _make_grid(sample: Sample, patch: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Sampling positions (*patch, dimension) in grid_sample's convention: last axis first, -1 … 1 from border to border of the box."""
    axes = [torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2 for edge in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    low = torch.tensor([start for start, _ in sample.box], dtype=torch.float32)
    inside = offsets @ torch.from_numpy(sample.matrix.T.astype(np.float32)) + torch.tensor(sample.centre, dtype=torch.float32) - low
    size = torch.tensor(shape, dtype=torch.float32)
    return ((2 * inside + 1) / size - 1).flip(-1)


def apply_intensities(images: Tensor, samples: list[Sample]) -> Tensor:
    """The drawn intensity changes of each sample on a batch (sample, channel, …)."""
    return torch.stack([_apply_intensity(image, sample.intensity, sample.seed) for image, sample in zip(images, samples)])


def _apply_intensity(image: Tensor, drawn: Intensity, seed: int) -> Tensor:
    """One image (channel, …)."""
    if drawn.noise_std:
        generator = torch.Generator().manual_seed(seed)
        image = image + torch.randn(image.shape, generator=generator).to(image.device) * drawn.noise_std
    if drawn.blur_sigma:
        image = _blur(image, drawn.blur_sigma)
    if drawn.brightness is not None:
        image = image * drawn.brightness
    if drawn.contrast is not None:
        image = _change_contrast(image, drawn.contrast)
    if drawn.low_resolution is not None:
        image = _lower_resolution(image, drawn.low_resolution)
    if drawn.inverted_gamma is not None:
        image = -_change_gamma(-image, drawn.inverted_gamma)
    if drawn.gamma is not None:
        image = _change_gamma(image, drawn.gamma)
    return image


def _spatial(image: Tensor) -> tuple[int, ...]:
    return tuple(range(1, image.ndim))


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, one axis after the other, edges replicated."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in _spatial(image):
        moved = image.movedim(axis, -1)
        flat = moved.reshape(-1, 1, moved.shape[-1])
        flat = F.conv1d(F.pad(flat, (BLUR_RADIUS, BLUR_RADIUS), mode="replicate"), kernel.view(1, 1, -1))
        image = flat.view(moved.shape).movedim(-1, axis)
    return image


def _change_contrast(image: Tensor, factor: float) -> Tensor:
    """Stretches about each channel's mean, clipped to its old range."""
    axes = _spatial(image)
    mean = image.mean(axes, keepdim=True)
    return ((image - mean) * factor + mean).clamp(min=image.amin(axes, keepdim=True), max=image.amax(axes, keepdim=True))


def _lower_resolution(image: Tensor, zoom: float) -> Tensor:
    """Down by nearest neighbour and up again linearly: a scan of larger voxels."""
    mode = "bilinear" if image.ndim == 3 else "trilinear"
    small = [max(1, round(size * zoom)) for size in image.shape[1:]]
    shrunk = F.interpolate(image[None], size=small, mode="nearest-exact")
    return F.interpolate(shrunk, size=image.shape[1:], mode=mode)[0]


def _change_gamma(image: Tensor, gamma: float) -> Tensor:
    """x^gamma on each channel's own range, mean and deviation restored."""
    axes = _spatial(image)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    mean, std = image.mean(axes, keepdim=True), image.std(axes, keepdim=True)
    changed = ((image - low) / (high - low).clamp(min=1e-7)).clamp(0, 1) ** gamma
    return (changed - changed.mean(axes, keepdim=True)) / changed.std(axes, keepdim=True).clamp(min=1e-7) * std + mean
