"""What is drawn for a patch: its place in space and its intensities, as numbers; nothing is applied here."""

import math
from dataclasses import dataclass

import numpy as np

from autoseg.records.plan import AugmentationSpec

FAR = 2.5  # standard deviations beyond which a displacement is cut
STREAK_RAYS = (4, 24)  # pairs of bright and dark rays around a piece of metal
STREAK_REACH = (0.1, 0.5)  # of the patch's edge, over which streaks fade
EQUAL_SPACING = 1.05  # a plane is turned by 90° where its spacings differ less


@dataclass(frozen=True)
class Streaks:
    """Rays around a point in the plane of the last two axes: `centre` as shares of the patch's edges, `reach` as a share of the longer."""

    strength: float
    centre: tuple[float, float]
    rays: int
    phase: float
    reach: float


@dataclass(frozen=True)
class Intensity:
    """Drawn intensity changes. Arrays hold one row or number per channel: `blur` a width per axis in voxels, 0 where it is off; factors

    and exponents are 1 where they are off. `occlusion` is the box (low, high) per axis, as shares of the patch's edges, that is blanked.
    """

    noise_std: float
    blur: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    zoom: np.ndarray
    inverted_gamma: np.ndarray
    gamma: np.ndarray
    streaks: Streaks | None
    occlusion: tuple[tuple[float, float], ...]


def make_generator(seed: int, *counters: int) -> np.random.Generator:
    """A generator that depends on the seed and the counters alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *counters))))


def draw_matrix(generator: np.random.Generator, spec: AugmentationSpec, spacing: tuple[float, ...]) -> tuple[np.ndarray, bool]:
    """Rotation, scaling and turns in physical space, as a matrix on voxel offsets; True where it is the identity.

    With S the diagonal of the spacing the matrix is S⁻¹ · R · S · z, so that a rotation on anisotropic voxels does not shear. A zoom z > 1
    shows objects smaller.
    """
    dimension = len(spacing)
    planes = [(0, 1)] if dimension == 2 else [(1, 2), (0, 2), (0, 1)]
    rotation = np.eye(dimension)
    rotate, scale, turn = (generator.random() < p for p in (spec.rotation_probability, spec.scaling_probability, spec.turn_probability))
    if rotate:
        limits = (spec.rotation[0],) if dimension == 2 else (spec.rotation[0], spec.rotation[1], spec.rotation[1])
        for plane, limit in zip(planes, limits):
            rotation = rotation @ _make_rotation(dimension, plane, math.radians(generator.uniform(-limit, limit)))
    zoom = math.exp(generator.uniform(*np.log(spec.scaling))) if scale else 1.0
    if turn:
        equal = [(a, b) for a, b in planes if max(spacing[a], spacing[b]) < EQUAL_SPACING * min(spacing[a], spacing[b])]
        for plane in equal:
            rotation = rotation @ _make_quarter_turns(dimension, plane, int(generator.integers(4)))
    scales = np.array(spacing)
    matrix = rotation * scales[None, :] / scales[:, None] * zoom
    return matrix, bool(np.array_equal(matrix, np.eye(dimension)))


def _make_rotation(dimension: int, plane: tuple[int, int], angle: float) -> np.ndarray:
    a, b = plane
    turn = np.eye(dimension)
    turn[a, a] = turn[b, b] = math.cos(angle)
    turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
    return turn


def _make_quarter_turns(dimension: int, plane: tuple[int, int], count: int) -> np.ndarray:
    return np.rint(_make_rotation(dimension, plane, math.pi / 2 * count))


def draw_displacements(
    generator: np.random.Generator, spec: AugmentationSpec, patch: tuple[int, ...], spacing: tuple[float, ...]
) -> np.ndarray | None:
    """Elastic deformation (Simard 2003, ICDAR): displacements in voxels at the points of a coarse grid over the patch, or None.

    float32 (dimension, *grid); between the points they are interpolated linearly. Millimetres are the same along all axes.
    """
    if not generator.random() < spec.elastic_probability:
        return None
    finest = min(spacing)
    grid = [max(2, round(edge * step / finest / spec.elastic_scale) + 1) for edge, step in zip(patch, spacing)]
    drawn = np.clip(generator.standard_normal((len(patch), *grid)), -FAR, FAR) * generator.uniform(*spec.elastic)
    return (drawn * (finest / np.array(spacing)).reshape(-1, *(1,) * len(patch))).astype(np.float32)


def draw_intensity(generator: np.random.Generator, spec: AugmentationSpec, channels: int, dimension: int) -> Intensity:
    """Each change on or off with its probability, its strength from its range (below and above 1 equally often for factors)."""

    def strike(probability: float, each: float = 1.0) -> np.ndarray:
        return (generator.random() < probability) & (generator.random(channels) < each)

    def factors(probability: float, limits: tuple[float, float]) -> np.ndarray:
        low, high = limits
        drawn, below = generator.random(channels), generator.random(channels) < 0.5
        return np.where(strike(probability), np.where(below, low + drawn * (1 - low), 1 + drawn * (high - 1)), 1.0)

    on, std = generator.random() < spec.noise_probability, generator.uniform(*spec.noise_std)
    widths = generator.uniform(*spec.blur_sigma, (channels, dimension))
    struck = strike(spec.blur_probability, spec.blur_channel_probability)
    zoom = generator.uniform(*spec.low_resolution, channels)
    return Intensity(
        noise_std=std if on else 0.0,
        blur=np.where(struck[:, None], widths, 0.0),
        brightness=factors(spec.brightness_probability, spec.brightness),
        contrast=factors(spec.contrast_probability, spec.contrast),
        zoom=np.where(strike(spec.low_resolution_probability, spec.low_resolution_channel_probability), zoom, 1.0),
        inverted_gamma=factors(spec.inverted_gamma_probability, spec.gamma),
        gamma=factors(spec.gamma_probability, spec.gamma),
        streaks=_draw_streaks(generator, spec),
        occlusion=_draw_occlusion(generator, spec, dimension),
    )


def _draw_streaks(generator: np.random.Generator, spec: AugmentationSpec) -> Streaks | None:
    if not generator.random() < spec.streak_probability:
        return None
    y, x = generator.uniform(0, 1, 2)
    return Streaks(
        strength=float(generator.uniform(*spec.streaks)),
        centre=(float(y), float(x)),
        rays=int(generator.integers(*STREAK_RAYS)),
        phase=float(generator.uniform(0, 2 * math.pi)),
        reach=float(generator.uniform(*STREAK_REACH)),
    )


def _draw_occlusion(generator: np.random.Generator, spec: AugmentationSpec, dimension: int) -> tuple[tuple[float, float], ...]:
    if not generator.random() < spec.occlusion_probability:
        return ()
    edges = generator.uniform(*spec.occlusion, dimension)
    lows = generator.uniform(0, 1 - edges)
    return tuple((float(low), float(low + edge)) for low, edge in zip(lows, edges))
