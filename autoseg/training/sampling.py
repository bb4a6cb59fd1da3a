"""Which patch a sample is: drawn from (seed, number of the sample) alone, so that threads and resumptions change nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from autoseg.arrays.cropping import Box
from autoseg.arrays.labels import unpack_voxels
from autoseg.records.plan import Configuration
from autoseg.records.prepared import PreparedCase
from autoseg.training.recipe import Intensity, draw_displacements, draw_intensity, draw_matrix, make_generator

KEPT_RECORDS = 256  # of cases, in memory


@dataclass(frozen=True)
class Sample:
    """Where a patch lies and what is done to it.

    A patch voxel at offset o from the patch's centre lies at `centre` + `matrix` · o + its displacement in the prepared array (voxels; the
    last axes for a 2D patch of a volume, whose slice is `slice_index`). `on_voxels`: matrix 1 and no displacement, so nothing is
    interpolated. `box` is the part of the array that is read, `flips` are the axes mirrored at the end, `seed` drives the noise.
    """

    case: str
    slice_index: int | None
    centre: tuple[float, ...]
    matrix: np.ndarray
    displacements: np.ndarray | None
    on_voxels: bool
    flips: tuple[int, ...]
    box: Box
    background: tuple[float, ...]
    intensity: Intensity
    seed: int


class Sampler:
    """Draws samples of a fold: cases in a new random order every pass, patches evenly or around foreground.

    `load` gives the record of a case; only the last used are kept, so that the memory does not grow with the number of cases.
    """

    def __init__(self, cases: tuple[str, ...], load: Callable[[str], PreparedCase], configuration: Configuration, seed: int) -> None:
        self.cases = cases
        self.configuration = configuration
        self.seed = seed
        self.load = lru_cache(KEPT_RECORDS)(load)
        self.shuffle = lru_cache(2)(self._shuffle)

    def _shuffle(self, turn: int) -> np.ndarray:
        return make_generator(self.seed, 1, turn).permutation(len(self.cases))

    def draw(self, number: int) -> Sample:
        """The sample with this number (counted over the whole training)."""
        turn, place = divmod(number, len(self.cases))
        case = self.load(self.cases[int(self.shuffle(turn)[place])])
        generator = make_generator(self.seed, 2, number)
        configuration = self.configuration
        spec, patch = configuration.augmentation, configuration.patch_size
        slice_index, centre = _draw_centre(generator, case, configuration)
        matrix, unchanged = draw_matrix(generator, spec, configuration.spacing)
        displacements = draw_displacements(generator, spec, patch, configuration.spacing)
        reach = 0.0 if displacements is None else float(np.abs(displacements).max())
        centre = _put_on_voxels(centre, matrix, patch)
        return Sample(
            case=case.case,
            slice_index=slice_index,
            centre=centre,
            matrix=matrix,
            displacements=displacements,
            on_voxels=unchanged and displacements is None,
            flips=tuple(axis for axis in configuration.mirror_axes if generator.random() < 0.5),
            box=compute_touched_box(centre, matrix, patch, case.geometry.prepared_shape[-configuration.dimension :], reach),
            background=case.background,
            intensity=draw_intensity(generator, spec, len(case.background), configuration.dimension),
            seed=int(generator.integers(2**62)),
        )


def _draw_centre(generator: np.random.Generator, case: PreparedCase, configuration: Configuration) -> tuple[int | None, tuple[float, ...]]:
    """Slice (for a 2D patch of a volume) and centre of a patch: inside the image, or the image inside the patch where that is larger.

    A patch lies around a voxel of a class, by chance of each alike, or anywhere; where voxels are to be ignored, around one that is not.
    """
    shape = case.geometry.prepared_shape
    dimension = configuration.dimension
    position = [generator.uniform(0, size - 1) if size > 1 else 0.0 for size in shape]
    spec = configuration.augmentation
    anchored = generator.random() < spec.foreground_probability
    by_object = generator.random() < spec.object_probability
    chosen = _draw_voxel(generator, case, anchored, by_object)
    if chosen is not None:
        position = [float(index) for index in chosen]
    centre = []
    for axis in range(len(shape) - dimension, len(shape)):
        size, edge = shape[axis], configuration.patch_size[axis - len(shape) + dimension]
        low, high = sorted(((edge - 1) / 2, size - 1 - (edge - 1) / 2))
        free = generator.uniform(low, high)
        centre.append(min(max(position[axis], low), high) if chosen is not None else float(free))
    return (round(position[0]) if len(shape) > dimension else None), tuple(centre)


def _draw_voxel(generator: np.random.Generator, case: PreparedCase, anchored: bool, by_object: bool) -> np.ndarray | None:
    """A voxel of a class drawn evenly among those of the case, with `by_object` of one of its objects, drawn evenly as well.

    Not `anchored`, or without any class: a voxel that is not to be ignored, or None where there are no others.
    """
    places = [place for place in range(len(case.foreground)) if case.foreground[place]] if anchored else []
    packed = case.labelled
    if places:
        place = places[generator.integers(len(places))]
        objects = case.objects[place] if by_object and case.objects else ()
        packed = objects[generator.integers(len(objects))] if objects else case.foreground[place]
    voxels = unpack_voxels(packed, len(case.geometry.prepared_shape))
    return voxels[generator.integers(len(voxels))] if len(voxels) else None


def _put_on_voxels(centre: tuple[float, ...], matrix: np.ndarray, patch: tuple[int, ...]) -> tuple[float, ...]:
    """The centre moved by up to half a voxel along the axes that the matrix leaves alone, so that nothing is interpolated along them."""
    alone = (matrix == np.eye(len(patch))).all(axis=1)
    half = [(edge - 1) / 2 for edge in patch]
    return tuple(round(c - h) + h if still else c for c, h, still in zip(centre, half, alone))


def compute_touched_box(
    centre: tuple[float, ...], matrix: np.ndarray, patch: tuple[int, ...], shape: tuple[int, ...], margin: float = 0.0
) -> Box:
    """The voxels of the array that linear interpolation at the patch's voxels reads, and `margin` around; at least one voxel per axis,

    inside `shape`.
    """
    reach = np.abs(matrix) @ ((np.array(patch) - 1) / 2) + margin
    box = []
    for middle, extent, size in zip(centre, reach.tolist(), shape):
        low = min(max(math.floor(middle - extent), 0), size - 1)
        box.append((low, min(max(math.ceil(middle + extent) + 1, low + 1), size)))
    return tuple(box)
