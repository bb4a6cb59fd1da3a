"""Images that show nearly the same: consecutive frames, one field saved twice. A fold must not train on one and validate on the other."""

import numpy as np

CELLS = 16  # a signature has 16 x 16 means: fine enough to tell fields apart, coarse enough for small shifts between frames
ALIKE = {  # correlation at which two images, or volumes, are alike, by dimension
    2: 0.9,  # of 400 nuclei images one pair of frames has .98, of 119 ultrasound images two have .97 and .95; different ones .45 and .78
    3: 0.98,  # heads and chests look alike on a coarse grid (hippocampi .86), one scan saved twice does not differ
}
THIN = 64  # about as many voxels of a volume are looked at along each axis: a signature takes no time beside reading
FEW = 5  # a group of up to so many images is believed in any case
COMMON_SHARE = 0.2  # of all images: a larger group shares its lighting or its frame, not what it shows
ROWS_AT_ONCE = 1000


def make_signature(image: np.ndarray) -> np.ndarray:
    """The means of an image (channel, y, x) or volume (channel, z, y, x) in CELLS cells along each axis (fewer where it is smaller).

    With mean 0 and length 1: float32 (cells,); all 0 where the image is even.
    """
    if image.ndim == 4:
        image = image[(slice(None), *(slice(None, None, max(1, size // THIN)) for size in image.shape[1:]))]
    means = image.mean(axis=0, dtype=np.float64)
    for axis, size in enumerate(means.shape):
        cells = min(CELLS, size)
        starts = np.arange(cells) * size // cells
        counts = np.diff(np.append(starts, size))
        means = np.add.reduceat(means, starts, axis=axis) / counts.reshape([-1 if own == axis else 1 for own in range(means.ndim)])
    centred = (means - means.mean()).ravel()
    length = np.linalg.norm(centred)
    return (centred / length if length > 1e-6 * max(1.0, float(np.abs(means).max())) else np.zeros_like(centred)).astype(np.float32)


def find_duplicates(signatures: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[list[int]]:
    """Groups of two or more images of one shape that are alike, directly or through others: their places, ascending."""
    groups = []
    for shape in sorted(set(shapes)):
        places = np.flatnonzero([own == shape for own in shapes])
        if len(places) > 1:
            groups += [places[own].tolist() for own in _join(np.stack([signatures[place] for place in places]), ALIKE[len(shape)])]
    most = max(FEW, COMMON_SHARE * len(signatures))
    return sorted(group for group in groups if len(group) <= most)


def _join(signatures: np.ndarray, alike: float) -> list[np.ndarray]:
    """The connected groups of two or more among signatures (n, cells) that correlate by more than `alike`: indices."""
    starts = range(0, len(signatures), ROWS_AT_ONCE)
    pairs = [np.argwhere(signatures[start : start + ROWS_AT_ONCE] @ signatures.T > alike) + np.array([start, 0]) for start in starts]
    rows, columns = np.concatenate(pairs).T
    if (rows == columns).all():
        return []
    from scipy.sparse import coo_array  # late: most plans have no duplicates
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(signatures),) * 2), directed=False)
    groups = (np.flatnonzero(labels == label) for label in np.flatnonzero(np.bincount(labels, minlength=count) > 1))
    return list(groups)
