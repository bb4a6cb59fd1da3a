"""Which patch a sample is: drawn from (seed, number of the sample) alone, so that threads and resumptions change nothing."""

from dataclasses import dataclass

import numpy as np

from autoseg.arrays.cropping import Box
from autoseg.records.plan import AugmentationSpec, Configuration
from autoseg.records.prepared import PreparedCase


@dataclass(frozen=True)
class Intensity:
    """Drawn intensity changes; None where one is off. The order is that of the fields."""

    noise_std: float | None
    blur_sigma: float | None
    brightness: float | None
    contrast: float | None
    low_resolution: float | None
    inverted_gamma: float | None
    gamma: float | None


@dataclass(frozen=True)
class Sample:
    """Where a patch lies and what is done to it.

    A patch voxel at offset o from the patch's centre lies at `centre` + `matrix` · o in the prepared array (voxels; the last axes for a
    2D patch of a volume, whose slice is `slice_index`). `box` is the part of the array that these voxels touch, `seed` drives the noise.
    """

    case: str
    slice_index: int | None
    centre: tuple[float, ...]
    matrix: np.ndarray
    identity: bool
    flips: tuple[int, ...]
    box: Box
    background: tuple[float, ...]
    intensity: Intensity
    seed: int


def make_generator(seed: int, *counters: int) -> np.random.Generator:
    """A generator that depends on the seed and the counters alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *counters))))


@dataclass(frozen=True)
class Sampler:
    """Draws samples of a fold: cases in a new random order every pass, patches evenly or around foreground."""

    cases: tuple[PreparedCase, ...]
    configuration: Configuration
    seed: int

    def draw(self, number: int) -> Sample:
        """The sample with this number (counted over the whole training)."""
        turn, place = divmod(number, len(self.cases))
        order = make_generator(self.seed, 1, turn).permutation(len(self.cases))
        generator = make_generator(self.seed, 2, number)
        case = self.cases[int(order[place])]
        spec = self.configuration.augmentation
        slice_index, centre = _draw_centre(generator, case, self.configuration)
        matrix, identity = draw_matrix(generator, spec, self.configuration.spacing)
        flips = tuple(axis for axis in self.configuration.mirror_axes if generator.random() < 0.5)
        shape = case.geometry.prepared_shape[-self.configuration.dimension :]
        if identity:  # on whole voxels, so that nothing is interpolated
            half = [(edge - 1) / 2 for edge in self.configuration.patch_size]
            centre = tuple(round(c - h) + h for c, h in zip(centre, half))
        return Sample(
            case=case.case,
            slice_index=slice_index,
            centre=centre,
            matrix=matrix,
            identity=identity,
            flips=flips,
            box=compute_touched_box(centre, matrix, self.configuration.patch_size, shape),
            background=case.background,
            intensity=draw_intensity(generator, spec),
            seed=int(generator.integers(2**62)),
        )


def _draw_centre(generator: np.random.Generator, case: PreparedCase, configuration: Configuration) -> tuple[int | None, tuple[float, ...]]:
    """Slice (for a 2D patch of a volume) and centre of a patch: inside the image, or the image inside the patch where that is larger.

    A patch lies around a voxel of a class, by chance of each alike, or anywhere; where voxels are to be ignored, around one that is not.
    """
    shape = case.geometry.prepared_shape
    dimension = configuration.dimension
    position = [generator.uniform(0, size - 1) if size > 1 else 0.0 for size in shape]
    anchored = generator.random() < configuration.augmentation.foreground_probability
    present = [voxels for voxels in case.foreground if voxels]
    voxels = present[generator.integers(len(present))] if anchored and present else case.labelled
    if voxels:
        position = [float(index) for index in voxels[generator.integers(len(voxels))]]
    centre = []
    for axis in range(len(shape) - dimension, len(shape)):
        size, edge = shape[axis], configuration.patch_size[axis - len(shape) + dimension]
        low, high = sorted(((edge - 1) / 2, size - 1 - (edge - 1) / 2))
        free = generator.uniform(low, high)
        centre.append(float(np.clip(position[axis], low, high)) if voxels else float(free))
    return (round(position[0]) if len(shape) > dimension else None), tuple(centre)


def draw_matrix(generator: np.random.Generator, spec: AugmentationSpec, spacing: tuple[float, ...]) -> tuple[np.ndarray, bool]:
    """A rotation and scaling in physical space, as a matrix on voxel offsets; True where it is the identity.

    With S the diagonal of the spacing the matrix is S⁻¹ · R · S · z, so that a rotation on anisotropic voxels does not shear. A zoom z > 1
    shows objects smaller.
    """
    dimension = len(spacing)
    rotate, scale = generator.random() < spec.rotation_probability, generator.random() < spec.scaling_probability
    rotation = np.eye(dimension)
    if rotate:
        planes = [(0, 1)] if dimension == 2 else [(1, 2), (0, 2), (0, 1)]
        limits = (spec.rotation[0],) if dimension == 2 else (spec.rotation[0], spec.rotation[1], spec.rotation[1])
        for (a, b), limit in zip(planes, limits):
            angle = np.deg2rad(generator.uniform(-limit, limit))
            turn = np.eye(dimension)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            rotation = rotation @ turn
    zoom = float(np.exp(generator.uniform(*np.log(spec.scaling)))) if scale else 1.0
    scales = np.array(spacing)
    return rotation * scales[None, :] / scales[:, None] * zoom, not (rotate or scale)


def compute_touched_box(centre: tuple[float, ...], matrix: np.ndarray, patch: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """The voxels of the array that linear interpolation at the patch's voxels reads; at least one voxel per axis, inside `shape`."""
    reach = np.abs(matrix) @ ((np.array(patch) - 1) / 2)
    box = []
    for middle, extent, size in zip(centre, reach, shape):
        low = int(np.clip(np.floor(middle - extent), 0, size - 1))
        high = int(np.clip(np.ceil(middle + extent) + 1, low + 1, size))
        box.append((low, high))
    return tuple(box)


def draw_intensity(generator: np.random.Generator, spec: AugmentationSpec) -> Intensity:
    """Each change on or off with its probability, its strength from its range (below and above 1 equally often for factors)."""

    def draw(probability: float, limits: tuple[float, float], balanced: bool = False) -> float | None:
        on, value, below = generator.random() < probability, generator.random(), generator.random() < 0.5
        low, high = limits
        if balanced:
            low, high = (low, 1.0) if below else (1.0, high)
        return low + value * (high - low) if on else None

    return Intensity(
        noise_std=draw(spec.noise_probability, spec.noise_std),
        blur_sigma=draw(spec.blur_probability, spec.blur_sigma),
        brightness=draw(spec.brightness_probability, spec.brightness, balanced=True),
        contrast=draw(spec.contrast_probability, spec.contrast, balanced=True),
        low_resolution=draw(spec.low_resolution_probability, spec.low_resolution),
        inverted_gamma=draw(spec.inverted_gamma_probability, spec.gamma, balanced=True),
        gamma=draw(spec.gamma_probability, spec.gamma, balanced=True),
    )
