"""The picture of found objects: the image with the outline of each, in colours that tell neighbours apart."""

import struct
import zlib

import numpy as np

LEAST_EDGE = 512  # pixels: smaller images are enlarged, so that outlines stay thin
MOST_FACTOR = 8
GAP = 8  # pixels between slices
GOLDEN = 0.618033988749895  # hues one golden section apart never come near each other soon


def draw_outlines(image: np.ndarray, ids: np.ndarray, spacing: tuple[float, ...]) -> bytes:
    """A PNG of the image (channel, y, x) or (channel, z, y, x) with the outlines of a label map on its voxels.

    Three channels are taken as colours, else the first is grey. Of a volume, per axis the slice that cuts most objects, in the proportions
    of `spacing` (array order).
    """
    return encode_png(paint_outlines(image, ids, spacing, find_busiest(ids)))


def paint_outlines(image: np.ndarray, ids: np.ndarray, spacing: tuple[float, ...], places: tuple[int, ...]) -> np.ndarray:
    """The picture as (y, x, colour) uint8; `places` is the slice shown along each axis of a volume."""
    shown = image if len(image) == 3 else image[:1]
    low, high = np.quantile(shown, (0.005, 0.995))
    grey = np.clip((shown - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    colours = np.broadcast_to(grey, (3, *ids.shape))
    slices = _cut(colours, ids, spacing, places)
    panels = [_draw_slice(np.moveaxis(flat, 0, -1), numbers, steps) for flat, numbers, steps in slices]
    height = max(len(panel) for panel in panels)
    framed = [np.pad(panel, ((0, height - len(panel)), (0, GAP), (0, 0))) for panel in panels]
    return np.concatenate(framed, axis=1)[:, :-GAP]


def find_busiest(ids: np.ndarray) -> tuple[int, ...]:
    """For each axis of a map of ids the slice that cuts most objects, the middle one of equals."""
    chosen = []
    for axis in range(ids.ndim):
        counts = np.array([np.count_nonzero(np.bincount(one.ravel())[1:]) for one in np.moveaxis(ids, axis, 0)])
        best = np.flatnonzero(counts == counts.max())
        chosen.append(int(best[len(best) // 2]))
    return tuple(chosen)


def _cut(
    image: np.ndarray, ids: np.ndarray, spacing: tuple[float, ...], places: tuple[int, ...]
) -> list[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Slices of image and ids with their spacing: one per axis of a volume, a flat image as it is."""
    if ids.ndim == 2:
        return [(image, ids, spacing)]
    slices = []
    for axis, index in enumerate(places):
        steps = tuple(step for other, step in enumerate(spacing) if other != axis)
        slices.append((image.take(index, axis=axis + 1), ids.take(index, axis=axis), steps))
    return slices


def _draw_slice(image: np.ndarray, ids: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """(y, x, colour) uint8, enlarged in the proportions of the spacing, with outlines a pixel wide."""
    finest = min(spacing)
    sides = [size * step / finest for size, step in zip(ids.shape, spacing)]
    factor = min(MOST_FACTOR, max(1, int(np.ceil(LEAST_EDGE / max(sides)))))
    edges = [round(side * factor) for side in sides]
    places = [np.minimum(np.arange(edge) * size // edge, size - 1) for edge, size in zip(edges, ids.shape)]
    picture, numbers = image[np.ix_(*places)].copy(), ids[np.ix_(*places)]
    border = find_outlines(numbers)
    picture[border] = make_colours(int(ids.max()))[numbers[border]]
    return picture


def find_outlines(ids: np.ndarray) -> np.ndarray:
    """The voxels of objects that have another number beside them: bool.

    >>> find_outlines(np.array([[0, 1, 1, 1, 0]])).astype(int).tolist()
    [[0, 1, 0, 1, 0]]
    """
    outline = np.zeros(ids.shape, dtype=bool)
    for axis in range(ids.ndim):
        moved, marked = np.moveaxis(ids, axis, 0), np.moveaxis(outline, axis, 0)
        differ = moved[1:] != moved[:-1]
        marked[1:] |= differ
        marked[:-1] |= differ
    return outline & (ids > 0)


def make_colours(count: int) -> np.ndarray:
    """(count + 1, 3) uint8: strong colours, the hue of each a golden section from the last."""
    hue = (np.arange(count + 1)[:, None] * GOLDEN + np.array([0, 1 / 3, 2 / 3])) % 1
    return (255 * np.clip(np.abs(hue * 6 - 3) - 1, 0, 1)).astype(np.uint8)


def encode_png(picture: np.ndarray) -> bytes:
    """(y, x, 3) uint8 as a PNG (ISO/IEC 15948): every row unfiltered, all in one chunk."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
