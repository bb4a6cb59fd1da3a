"""Made-up cells: balls that touch but do not overlap, with a picture of them, in 2 and 3 dimensions."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

TRIES = 200  # places tried for a ball before it is left out
NEIGHBOURLY = 0.5  # share of the balls that are placed against another one


@dataclass(frozen=True)
class Balls:
    """How many balls (at least, at most), and their radii in mm (smallest, largest)."""

    count: tuple[int, int] = (20, 60)
    radius: tuple[float, float] = (4.0, 20.0)


def draw_balls(
    generator: np.random.Generator, shape: tuple[int, ...], spacing: tuple[float, ...], balls: Balls = Balls()
) -> tuple[np.ndarray, np.ndarray]:
    """Image (float32, about 0 … 1) and label map of objects 1 … M (int32), both of `shape` voxels; spacing in mm, array order.

    Balls lie whole or in part in the image; half of them touch another. Those for which no place is found are left out.
    """
    ids = np.zeros(shape, dtype=np.int32)
    extent = np.array(shape) * np.array(spacing)
    placed: list[tuple[np.ndarray, float]] = []
    for radius in sorted(generator.uniform(*balls.radius, int(generator.integers(balls.count[0], balls.count[1] + 1))), reverse=True):
        centre = _find_place(generator, extent, placed, radius)
        if centre is not None and _paint(ids, centre, radius, np.array(spacing), len(placed) + 1):
            placed.append((centre, radius))
    return _draw_picture(generator, ids), ids


def _find_place(
    generator: np.random.Generator, extent: np.ndarray, placed: list[tuple[np.ndarray, float]], radius: float
) -> np.ndarray | None:
    """A centre (mm) inside the image at which the ball overlaps none of those placed, often next to one of them."""
    centres = np.array([centre for centre, _ in placed]).reshape(-1, len(extent))
    radii = np.array([other for _, other in placed])
    for _ in range(TRIES):
        if placed and generator.random() < NEIGHBOURLY:
            index = int(generator.integers(len(placed)))
            direction = generator.normal(size=len(extent))
            centre = centres[index] + direction / np.linalg.norm(direction) * (radii[index] + radius) * 1.001
        else:
            centre = generator.uniform(0, extent)
        inside = ((centre >= 0) & (centre < extent)).all()
        if inside and (np.linalg.norm(centres - centre, axis=1) >= radii + radius).all():
            return centre
    return None


def _paint(ids: np.ndarray, centre: np.ndarray, radius: float, spacing: np.ndarray, number: int) -> bool:
    """Writes one ball; False where it covers no voxel's centre."""
    low = np.maximum(np.floor((centre - radius) / spacing), 0).astype(int)
    high = np.minimum(np.ceil((centre + radius) / spacing), ids.shape).astype(int)
    axes = [(np.arange(start, stop) + 0.5) * step - middle for start, stop, step, middle in zip(low, high, spacing, centre)]
    inside = sum(np.square(grid) for grid in np.meshgrid(*axes, indexing="ij", sparse=True)) < radius**2
    part = ids[tuple(slice(start, stop) for start, stop in zip(low, high))]
    free = inside & (part == 0)
    part[free] = number
    return bool(free.any())


def _draw_picture(generator: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """Every object of its own brightness on an uneven dark ground, blurred, with noise."""
    brightness = np.concatenate([[0.1], generator.uniform(0.4, 0.9, int(ids.max()))])
    image = ndimage.gaussian_filter(brightness[ids], 0.7)
    ground = ndimage.gaussian_filter(generator.normal(size=ids.shape), 0.1 * max(ids.shape))
    image += 0.1 * ground / max(float(np.abs(ground).max()), 1e-9) + generator.normal(0, 0.08, ids.shape)
    return image.astype(np.float32)
