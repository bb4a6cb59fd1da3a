"""What a network of objects shall answer, made from one map of numbers per patch, never from one mask per object."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -1
LEAST_VOXELS = 4  # of an object in a patch, below which it is left out
LEAST_VISIBLE = 0.25  # share of an object in a patch, below which it is ignored
SUBSAMPLES = 2  # per axis of a mask's cell, so that its share of the object is soft

Tables = tuple[Tensor, ...]


@dataclass(frozen=True)
class Objects:
    """The M objects of a batch, sorted by image and number.

    boxes (M, 2·D) float32, `[lo…, hi…]` in voxel edges of the patch; images (M,), ids (M,) in the label map, classes (M,) 1 … N, int64.
    """

    boxes: Tensor
    images: Tensor
    ids: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


def find_boxes(ids: Tensor, tables: Tables, voxels: Tables | None = None) -> tuple[Objects, Tensor]:
    """The objects of label maps ids (n, *patch) int64, and the maps with those ignored (-1) of which little is to be seen.

    tables: the class of each number, (numbers,) int64 per image, [0] the background's. voxels: how many voxels of a patch a whole object
    takes, (numbers,) float32 per image, 0 where that is not known. Objects of fewer than 4 voxels in the patch are left out.
    """
    slots = _find_slots(ids, tables)
    count = sum(len(table) for table in tables)
    inside = ids > 0
    own = slots[inside]
    places = inside.nonzero()[:, 1:]
    seen = torch.bincount(own, minlength=count)
    lows, highs = places.new_full((2, ids.ndim - 1, count), 0)
    for axis, place in enumerate(places.unbind(1)):
        lows[axis].scatter_reduce_(0, own, place, "amin", include_self=False)
        highs[axis].scatter_reduce_(0, own, place + 1, "amax", include_self=False)
    hidden = seen < LEAST_VISIBLE * torch.cat(voxels) if voxels is not None else torch.zeros_like(seen, dtype=torch.bool)
    kept = ((seen >= LEAST_VOXELS) & ~hidden).nonzero()[:, 0]
    numbers = torch.cat([torch.arange(len(table), device=ids.device) for table in tables])
    images = torch.cat([torch.full_like(table, image) for image, table in enumerate(tables)])
    boxes = torch.cat([lows, highs]).T[kept].float()
    objects = Objects(boxes, images[kept], numbers[kept], torch.cat(tables)[kept])
    return objects, torch.where(hidden[slots] & inside, IGNORE, ids)


def _find_slots(ids: Tensor, tables: Tables) -> Tensor:
    """A number for every voxel (n, *patch) that tells the objects of all images apart: its place in the joined tables."""
    lengths = torch.tensor([0, *(len(table) for table in tables[:-1])], device=ids.device)
    return ids.clamp(min=0) + lengths.cumsum(0).view(-1, *(1,) * (ids.ndim - 1))


def make_boundary_labels(ids: Tensor, tables: Tables, classes: int) -> Tensor:
    """Labels of a boundary network (n, *patch) int64 from label maps of objects: 0 background, 1 … N the inside of an object of the class,

    N + 1 the boundary: an object's voxels with background or another object among their 3^D neighbours (Caicedo 2019, Cytometry A 95). An
    object that would be all boundary is all inside, so that none has no seed. What is to be ignored stays so and bounds nothing.
    """
    slots = _find_slots(ids, tables)
    highest = _look_around(ids, torch.maximum)
    lowest = _look_around(torch.where(ids < 0, ids.amax() + 1, ids), torch.minimum)
    edge = (ids > 0) & ((highest > ids) | (lowest < ids))
    inner = torch.bincount(slots[(ids > 0) & ~edge], minlength=sum(len(table) for table in tables))
    labels = torch.where(edge & (inner > 0)[slots], classes + 1, torch.cat(tables)[slots])
    return torch.where(ids < 0, IGNORE, labels)


def _look_around(values: Tensor, take: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of every voxel's 3^D neighbours in values (n, *patch), one axis after the other."""
    for axis in range(1, values.ndim):
        size = values.shape[axis]
        found = values.clone()
        for here, there in ((0, 1), (1, 0)):
            part = found.narrow(axis, here, size - 1)
            part.copy_(take(part, values.narrow(axis, there, size - 1)))
        values = found
    return values


def sample_mask_targets(ids: Tensor, boxes: Tensor, images: Tensor, numbers: Tensor, size: tuple[int, ...]) -> Tensor:
    """Which share of each cell of a box belongs to its object: (K, *size) float32, in steps of 1 / 2^D.

    ids (n, *patch); boxes (K, 2·D) in voxel edges, images (K,), numbers (K,) of the objects. Each cell is looked at in 2^D points by the
    nearest voxel, beyond the patch too, as RoIAlign looks at features.
    """
    dimension, count = len(size), len(boxes)
    index = [images.view(-1, *(1,) * dimension)]
    for axis, cells in enumerate(size):
        points = SUBSAMPLES * cells
        shares = (torch.arange(points, device=boxes.device) + 0.5) / points
        low, high = boxes[:, axis, None], boxes[:, dimension + axis, None]
        voxel = (low + (high - low) * shares).floor().long().clamp(0, ids.shape[axis + 1] - 1)
        index.append(voxel.view(count, *(points if other == axis else 1 for other in range(dimension))))
    own = (ids[tuple(index)] == numbers.view(-1, *(1,) * dimension)).float()
    halves = own.view(count, *(part for cells in size for part in (cells, SUBSAMPLES)))
    return halves.mean(dim=tuple(range(2, 2 * dimension + 1, 2)))


def measure_ignored(ids: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
    """The share of each box (K, 2·D) in its image (K,) that is to be ignored (-1 in ids), (K,) float32: from sums over corners.

    Boxes are taken to whole voxels; of those beyond the patch only the part inside counts.
    """
    dimension = ids.ndim - 1
    sums = (ids < 0).int()
    for axis in range(1, dimension + 1):
        sums = sums.cumsum(axis)
    sums = torch.nn.functional.pad(sums, (1, 0) * dimension)
    limits = torch.tensor(ids.shape[1:], device=ids.device)
    lows, highs = (part.round().long().clamp(min=0).minimum(limits) for part in boxes.split(dimension, dim=1))
    total = torch.zeros(len(boxes), device=ids.device)
    for corner in range(2**dimension):
        upper = [bool(corner >> axis & 1) for axis in range(dimension)]
        index = [(highs if high else lows)[:, axis] for axis, high in enumerate(upper)]
        total += (-1) ** (dimension - sum(upper)) * sums[(images, *index)]
    return total / (highs - lows).prod(dim=1).clamp(min=1)
