"""Tiny plans, cases and images that several tests build on."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import SimpleITK as sitk

from autoseg.arrays.labels import pack_voxels
from autoseg.io.store import Store
from autoseg.records.detection import DetectionSpec, Thresholds
from autoseg.records.plan import (
    AugmentationSpec,
    Configuration,
    LossSpec,
    MemoryEstimate,
    NetworkSpec,
    Normalization,
    OptimizerSpec,
    ScheduleSpec,
)
from autoseg.records.prepared import Geometry, PreparedCase
from autoseg.training.recipe import Intensity

STILL = AugmentationSpec(
    rotation_probability=0.0,
    scaling_probability=0.0,
    noise_probability=0.0,
    blur_probability=0.0,
    brightness_probability=0.0,
    contrast_probability=0.0,
    low_resolution_probability=0.0,
    gamma_probability=0.0,
    inverted_gamma_probability=0.0,
    foreground_probability=0.5,
)


NOTHING = Intensity(  # of two channels
    noise_std=0.0,
    blur=np.zeros((2, 3)),
    brightness=np.ones(2),
    contrast=np.ones(2),
    zoom=np.ones(2),
    inverted_gamma=np.ones(2),
    gamma=np.ones(2),
    streaks=None,
    occlusion=(),
)


def make_network_spec(dimension: int = 3, features: tuple[int, ...] = (4, 8)) -> NetworkSpec:
    """A U-Net that halves every axis from stage to stage."""
    stages = len(features)
    return NetworkSpec(
        kind="plain",
        strides=((1,) * dimension, *((2,) * dimension for _ in range(stages - 1))),
        kernel_sizes=((3,) * dimension,) * stages,
        features=features,
        convolutions=(1,) * stages,
        decoder_convolutions=(1,) * (stages - 1),
    )


def make_detection_spec(dimension: int = 2, levels: tuple[int, ...] = (1, 2)) -> DetectionSpec:
    """A small Mask R-CNN on the levels of a network that halves every axis: two shapes at each, the first of 4 strides."""
    sides = [2.0 ** (stage + 2) for stage in levels]
    return DetectionSpec(
        levels=levels,
        pyramid_features=8,
        anchors=tuple(((side,) * dimension, (1.5 * side,) * dimension) for side in sides),
        anchor_positive=0.5,
        anchor_negative=0.35,
        anchor_samples=32,
        proposals_per_level=(40, 25),
        proposals=(30, 20),
        proposal_nms=0.7,
        box_positive=0.5,
        box_negative=0.5,
        box_samples=16,
        box_bins=(5,) * dimension,
        box_features=16,
        mask_samples=8,
        mask_bins=(5,) * dimension,
        mask_features=8,
        mask_convolutions=1,
        mask_upsampling=1,
        detections=20,
    )


def make_configuration(dimension: int = 3, patch: int = 8, **changes: object) -> Configuration:
    """A configuration of 1 mm voxels without augmentation, on which `changes` are made."""
    plain = Configuration(
        name="3d_fullres" if dimension == 3 else "2d",
        spacing=(1.0,) * dimension,
        median_shape=(12,) * dimension,
        patch_size=(patch,) * dimension,
        batch_size=2,
        steps_per_epoch=4,
        normalization=(Normalization(scheme="none"),),
        network=make_network_spec(dimension),
        batch_dice=True,
        loss=LossSpec(),
        optimizer=OptimizerSpec(name="adamw", learning_rate=0.01, weight_decay=0.01),
        schedule=ScheduleSpec(name="cosine", warmup=0.1, averaging=0.2, epochs=1, minutes=0.0),
        augmentation=STILL,
        mirror_axes=tuple(range(dimension)),
        memory=MemoryEstimate(training_bytes=0, prediction_bytes=0),
        reasons={},
    )
    return msgspec.structs.replace(plain, **changes)


def make_prepared_case(name: str, shape: tuple[int, ...], foreground: tuple = (), background: tuple[float, ...] = (0.0,)) -> PreparedCase:
    """The record of a case that was prepared without cropping or resampling; `foreground` lists voxels per class."""
    packed = tuple(pack_voxels(np.array(voxels).reshape(-1, len(shape))) for voxels in foreground)
    geometry = Geometry(shape=shape, box=tuple((0, size) for size in shape), prepared_shape=shape)
    return PreparedCase(
        case=name, case_digest="c", preparation_digest="p", stamps=(), geometry=geometry, background=background, foreground=packed
    )


@dataclass(frozen=True)
class Problem:
    """A store of easy cases: a bright block on a dim, noisy ground."""

    store: Store
    cases: tuple[PreparedCase, ...]


def write_problem(folder: Path, count: int = 3, shape: tuple[int, ...] = (12, 12, 12)) -> Problem:
    """Writes `count` cases of one class each."""
    store, cases = Store(folder), []
    for index in range(count):
        generator = np.random.default_rng(index)
        label = np.zeros(shape, np.int16)
        corner = generator.integers(1, 5, len(shape))
        label[tuple(slice(low, low + 5) for low in corner)] = 1
        image = (label * 2.0 + generator.normal(0, 0.3, shape)).astype(np.float32)[None]
        voxels = tuple(tuple(int(i) for i in voxel) for voxel in np.argwhere(label == 1)[::7])
        record = make_prepared_case(f"case{index}", shape, (voxels,))
        store.write(record, image, label)
        cases.append(record)
    return Problem(store, tuple(cases))


def make_image(array: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...], direction: np.ndarray) -> sitk.Image:
    """An ITK image of a numpy array (z, y, x); spacing, origin and direction as ITK has them (x, y, z)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection([float(value) for value in np.asarray(direction).ravel()])
    return image


def make_detection(dimension: int = 2, **changes: object) -> DetectionSpec:
    """Mask R-CNN for objects of about 8 voxels on the first two strided stages of a U-Net, on which `changes` are made."""
    spec = msgspec.structs.replace(
        make_detection_spec(dimension),
        pyramid_features=16,
        anchors=tuple(((side,) * dimension, (side / 1.5,) * dimension) for side in (8.0, 16.0)),
        anchor_samples=64,
        proposals_per_level=(100, 100),
        proposals=(50, 50),
        box_samples=32,
        box_features=64,
        mask_samples=16,
        mask_bins=(7,) * dimension,
        mask_features=16,
        mask_convolutions=2,
        detections=100,
    )
    return msgspec.structs.replace(spec, **changes)


def make_object_configuration(dimension: int = 2, patch: int = 32, **changes: object) -> Configuration:
    """A tiny Mask R-CNN without augmentation, on which `changes` are made; `detection=None` makes it a boundary network."""
    plain = make_configuration(
        dimension,
        patch,
        network=make_network_spec(dimension, (8, 16, 16)),
        detection=make_detection(dimension),
        thresholds=Thresholds(),
        normalization=(Normalization(scheme="none"),),
    )
    return msgspec.structs.replace(plain, **changes)


def draw_balls(shape: tuple[int, ...], count: int, seed: int, radii: tuple[float, float] = (3.0, 6.0)) -> np.ndarray:
    """Numbers (int32) of `count` balls or discs that may touch; none where there is no room."""
    generator = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int32)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    for number in range(1, count + 1):
        ball = np.linalg.norm(grid - generator.uniform(0, shape), axis=-1) < generator.uniform(*radii)
        if not ids[ball].any():
            ids[ball] = number
    return ids


def write_objects(folder: Path, shape: tuple[int, ...], counts: tuple[int, ...] = (6, 9, 0)) -> Problem:
    """Writes a case of bright balls of two classes for each of `counts`, on a dim, noisy ground."""
    store, cases = Store(folder), []
    for index, count in enumerate(counts):
        ids = draw_balls(shape, count, index)
        image = ((ids > 0) * 2.0 + np.random.default_rng(index).normal(0, 0.3, shape)).astype(np.float32)[None]
        classes = tuple(1 + number % 2 for number in range(count))
        voxels = tuple(tuple(int(i) for i in voxel) for voxel in np.argwhere(ids > 0)[::7])
        record = msgspec.structs.replace(
            make_prepared_case(f"case{index}", shape, (voxels,)),
            object_classes=classes,
            object_voxels=tuple(np.bincount(ids.ravel(), minlength=count + 1)[1:].tolist()),
        )
        store.write(record, image, ids)
        cases.append(record)
    return Problem(store, tuple(cases))
