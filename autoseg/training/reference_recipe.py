"""nnU-Net's recipe built from batchgenerators' transforms: the oracle of our own augmentation. Without torch: it runs in loader processes.

Order, probabilities and interpolation as in spec/nnunet.md 4.8 (Isensee 2021, Nat Methods 18, supplement); labels by nearest neighbour.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from batchgenerators.transforms.abstract_transforms import AbstractTransform
from batchgenerators.transforms.color_transforms import BrightnessMultiplicativeTransform, ContrastAugmentationTransform, GammaTransform
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

from autoseg.errors import InputError
from autoseg.io.store import Store
from autoseg.records.plan import AugmentationSpec, Configuration
from autoseg.training.sampling import Sample

SCALE_MARGIN = 0.85  # a loader's patch is made larger by this factor, for scaling
ONLY_OURS = ("elastic_probability", "turn_probability", "streak_probability", "occlusion_probability")


@dataclass(frozen=True)
class Draft:
    """One sample to make: which place of which case (`sample`), and with which configuration."""

    store: Store
    sample: Sample
    configuration: Configuration


def refuse_only_ours(spec: AugmentationSpec) -> None:
    """Raises InputError where the plan asks for what the reference recipe does not have."""
    names = [name for name in ONLY_OURS if getattr(spec, name)]
    if names:
        raise InputError(
            f"The recipe of batchgenerators has no {', '.join(names)}.",
            "The plan's augmentation asks for it.",
            todo="Train with --augmentation autoseg, or set the field to 0 in the plan.",
        )


def compute_loader_patch(patch: tuple[int, ...], spec: AugmentationSpec) -> tuple[int, ...]:
    """The part of the image that is read for a patch, in voxels: room for a rotation about each axis and for scaling (spec 4.6).

    As large as nnU-Net's, or one voxel more, so that the patch lies in its middle on whole voxels.

    >>> compute_loader_patch((128, 128, 128), AugmentationSpec())
    (206, 206, 206)
    """
    first, others = (math.radians(min(90.0, limit)) for limit in spec.rotation)
    turns = [(0, 1, first)] if len(patch) == 2 else [(1, 2, first), (2, 0, others), (0, 1, others)]  # the first of two axes gains
    rows = [list(map(float, patch))]
    for a, b, theta in turns:
        row = list(rows[0])
        row[a] = abs(patch[a] * math.cos(theta) + patch[b] * math.sin(theta))
        row[b] = abs(patch[b] * math.cos(theta) - patch[a] * math.sin(theta))
        rows.append(row)
    largest = (np.max(rows, axis=0) / SCALE_MARGIN).astype(int)
    return tuple(int(size + (size - edge) % 2) for size, edge in zip(largest, patch))


def build_recipe(configuration: Configuration) -> list[AbstractTransform]:
    """All transforms in nnU-Net's order, on {"data": (1, channel, …) float32, "seg": (1, 1, …) float32}; the first is the spatial one."""
    spec = configuration.augmentation
    return [
        _build_spatial(configuration.patch_size, spec),
        GaussianNoiseTransform(spec.noise_std, p_per_sample=spec.noise_probability),  # its "variance" is the standard deviation
        GaussianBlurTransform(
            spec.blur_sigma,
            different_sigma_per_channel=True,
            different_sigma_per_axis=True,
            p_per_channel=spec.blur_channel_probability,
            p_per_sample=spec.blur_probability,
        ),
        BrightnessMultiplicativeTransform(spec.brightness, per_channel=True, p_per_sample=spec.brightness_probability),
        ContrastAugmentationTransform(spec.contrast, preserve_range=True, per_channel=True, p_per_sample=spec.contrast_probability),
        SimulateLowResolutionTransform(
            spec.low_resolution,
            per_channel=True,
            p_per_channel=spec.low_resolution_channel_probability,
            order_downsample=0,
            order_upsample=1,
            p_per_sample=spec.low_resolution_probability,
        ),
        _build_gamma(spec, inverted=True),
        _build_gamma(spec, inverted=False),
        *([MirrorTransform(configuration.mirror_axes)] if configuration.mirror_axes else []),
    ]


def _build_gamma(spec: AugmentationSpec, inverted: bool) -> AbstractTransform:
    probability = spec.inverted_gamma_probability if inverted else spec.gamma_probability
    return GammaTransform(spec.gamma, invert_image=inverted, per_channel=True, retain_stats=True, p_per_sample=probability)


def _build_spatial(patch: tuple[int, ...], spec: AugmentationSpec) -> AbstractTransform:
    """Rotation about each axis and one scaling, in one grid; neither: the middle is cut out."""
    first, others = ((-math.radians(limit), math.radians(limit)) for limit in spec.rotation)
    return SpatialTransform(
        patch,
        patch_center_dist_from_border=None,
        do_elastic_deform=False,
        angle_x=first,
        angle_y=others,
        angle_z=others,
        scale=spec.scaling,
        border_mode_data="constant",
        order_data=1,
        border_mode_seg="constant",
        order_seg=0,
        random_crop=False,
        p_el_per_sample=0.0,
        p_scale_per_sample=spec.scaling_probability,
        p_rot_per_sample=spec.rotation_probability,
    )


def read_around(draft: Draft) -> tuple[np.ndarray, np.ndarray]:
    """The loader's patch around the sample's centre: image (channel, …) float32 and label (…) int16.

    Beyond the image lies its own background, labelled 0.
    """
    sample, configuration = draft.sample, draft.configuration
    size = compute_loader_patch(configuration.patch_size, configuration.augmentation)
    shape = draft.store.read_shape(sample.case)[-len(size) :]
    starts = [round(c - (p - 1) / 2) - (s - p) // 2 for c, p, s in zip(sample.centre, configuration.patch_size, size)]
    box = tuple((min(max(start, 0), n), max(min(start + edge, n), 0)) for start, edge, n in zip(starts, size, shape))
    target = tuple(slice(low - start, high - start) for start, (low, high) in zip(starts, box))
    image = np.empty((len(sample.background), *size), np.float32)
    image[:] = np.reshape(np.array(sample.background, np.float32), (-1, *(1,) * len(size)))
    label = np.zeros(size, np.int16)
    slices = () if sample.slice_index is None else ((sample.slice_index, sample.slice_index + 1),)
    inside = draft.store.read_image(sample.case, (*slices, *box)), draft.store.read_label(sample.case, (*slices, *box))
    image[(slice(None), *target)] = inside[0].reshape(len(image), *(high - low for low, high in box))
    label[target] = inside[1].reshape(*(high - low for low, high in box))
    return image, label


def make_sample(draft: Draft) -> tuple[np.ndarray, np.ndarray]:
    """Reads and augments: image (channel, *patch) float32 and label (*patch) int16."""
    return augment(*read_around(draft), draft)


def augment(image: np.ndarray, label: np.ndarray, draft: Draft) -> tuple[np.ndarray, np.ndarray]:
    """The recipe on what `read_around` gave; what is drawn depends on the sample's seed alone.

    Spatial changes are made with the background at 0, which is what they pad with.
    """
    background = np.reshape(np.array(draft.sample.background, np.float32), (1, -1, *(1,) * label.ndim))
    spatial, *others = build_recipe(draft.configuration)
    data = {"data": image[None] - background, "seg": label[None, None].astype(np.float32)}
    with own_randomness(draft.sample.seed % 2**32):
        data = spatial(**data)
        data["data"] = data["data"] + background
        for transform in others:
            data = transform(**data)
    return np.ascontiguousarray(data["data"][0], np.float32), np.rint(data["seg"][0, 0]).astype(np.int16)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """batchgenerators draws from numpy's and Python's global generators: inside they are seeded, afterwards as they were."""
    kept = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept[0])
        random.setstate(kept[1])
