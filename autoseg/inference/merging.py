"""Objects seen by overlapping tiles joined into those of the whole image: every tile answers for its core, larger objects are put together.

Rules and the simulation behind them: shared/spec/instance.md, 6.10.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from autoseg.arrays.boxes import drop_weaker, find_pairs, order_by_score
from autoseg.arrays.cropping import Box, crop
from autoseg.arrays.masks import FoundObject, count_common, cut_out, intersect, list_edges
from autoseg.arrays.tiles import make_cores, make_positions

FACE = 2.0  # voxels: what comes as near to a face within the image may go on beyond it
SLACK = 4.0  # voxels by which a core is grown: two tiles may see a centre on either side of their border
OWN_SHARE = 0.25  # of a fragment that must lie in the core of its tile
COVERED = 0.5  # of an object: beyond that it was seen already
AGREEMENT = 0.5  # IoU of two fragments where both of their tiles look


@dataclass(frozen=True)
class Tile:
    """Half-open voxels of the image: what the tile sees (without padding), and the core that it answers for."""

    box: Box
    core: Box


@dataclass(frozen=True)
class Candidate:
    """An object as one tile saw it: `mask` (bool) on found.box, its detection box `edges` (2D,) in the image, and its tile's number."""

    found: FoundObject
    mask: np.ndarray
    edges: np.ndarray
    tile: int

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))


def place_tiles(shape: tuple[int, ...], patch: tuple[int, ...], overlap: tuple[int, ...]) -> list[Tile]:
    """Evenly spread tiles over an image of `shape`, at least `overlap` voxels in common with their neighbours; the cores part the image.

    Where the image is smaller than the patch there is one tile, all of the image.
    """
    axes = []
    for size, edge, common in zip(shape, patch, overlap):
        starts = make_positions(size, edge, 1 - common / edge)
        cores = make_cores(size, edge, starts)
        axes.append([((start, min(start + edge, size)), core) for start, core in zip(starts, cores)])
    return [Tile(tuple(box for box, _ in parts), tuple(core for _, core in parts)) for parts in product(*axes)]


def merge_tiles(candidates: list[Candidate], tiles: list[Tile], shape: tuple[int, ...]) -> list[FoundObject]:
    """The objects of an image of `shape` from what its tiles saw; without tiles beside each other nothing is changed."""
    cut = [_is_cut(candidate, tiles[candidate.tile], shape) for candidate in candidates]
    whole = [c for c, is_cut in zip(candidates, cut) if not is_cut and _answers_for(c, tiles[c.tile])]
    fragments = [c for c, is_cut in zip(candidates, cut) if is_cut and _lies_in_core(c, tiles[c.tile])]
    whole = _drop_doubles(whole)
    covered = np.zeros(shape, dtype=bool)
    for candidate in whole:
        crop(covered, candidate.found.box)[...] |= candidate.mask
    fragments = [fragment for fragment in fragments if _share_covered(fragment, covered) <= COVERED]
    joined = [_join(group) for group in _link(fragments, tiles)]
    kept = [candidate.found for candidate in whole]
    for group in sorted(joined, key=lambda one: (-one.voxels, one.found.box)):
        if _share_covered(group, covered) <= COVERED:
            crop(covered, group.found.box)[...] |= group.mask
            kept.append(group.found)
    return kept


def _split(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = len(edges) // 2
    return edges[:half], edges[half:]


def _is_cut(candidate: Candidate, tile: Tile, shape: tuple[int, ...]) -> bool:
    """Whether its box comes near a face of the tile that is none of the image."""
    lows, highs = _split(candidate.edges)
    for low, high, (start, stop), size in zip(lows, highs, tile.box, shape):
        if (start > 0 and low < start + FACE) or (stop < size and high > stop - FACE):
            return True
    return False


def _contains(core: Box, centre: np.ndarray, slack: float) -> bool:
    return all(low - slack <= place < high + slack for place, (low, high) in zip(centre, core))


def _answers_for(candidate: Candidate, tile: Tile) -> bool:
    """Whether a whole object is its tile's own, by its centre: what another tile sees whole, the one with its centre does too."""
    low, high = _split(candidate.edges)
    return _contains(tile.core, (low + high) / 2, SLACK)


def _lies_in_core(candidate: Candidate, tile: Tile) -> bool:
    own = cut_out(candidate.mask, candidate.found.box, intersect(candidate.found.box, tile.core))
    return int(np.count_nonzero(own)) >= OWN_SHARE * candidate.voxels


def _drop_doubles(whole: list[Candidate]) -> list[Candidate]:
    """The weaker of two objects of a class from different tiles goes where they share more than half of the smaller one."""
    if len({candidate.tile for candidate in whole}) < 2:
        return whole
    edges = list_edges([candidate.found for candidate in whole])
    voxels = [candidate.voxels for candidate in whole]
    doubles = []
    for i, j in find_pairs(edges):
        a, b = whole[i], whole[j]
        may_be = a.tile != b.tile and a.found.class_number == b.found.class_number
        if may_be and count_common(a.mask, a.found.box, b.mask, b.found.box) > COVERED * min(voxels[i], voxels[j]):
            doubles.append((i, j))
    order = order_by_score(np.array([candidate.found.score for candidate in whole]), edges)
    kept = drop_weaker(np.array(doubles, dtype=np.int64).reshape(-1, 2), order)
    return [candidate for candidate, stays in zip(whole, kept) if stays]


def _share_covered(candidate: Candidate, covered: np.ndarray) -> float:
    return np.count_nonzero(crop(covered, candidate.found.box) & candidate.mask) / max(candidate.voxels, 1)


def _agree(a: Candidate, b: Candidate, tiles: list[Tile]) -> bool:
    """Whether two fragments are the same object, judged where both tiles look."""
    common = intersect(tiles[a.tile].box, tiles[b.tile].box)
    boxes = [intersect(candidate.found.box, common) for candidate in (a, b)]
    parts = [cut_out(candidate.mask, candidate.found.box, box) for candidate, box in zip((a, b), boxes)]
    shared = count_common(parts[0], boxes[0], parts[1], boxes[1])
    union = sum(int(np.count_nonzero(part)) for part in parts) - shared
    return union > 0 and shared >= AGREEMENT * union


def _link(fragments: list[Candidate], tiles: list[Tile]) -> list[list[Candidate]]:
    """Groups of fragments that agree, one with the next (union-find)."""
    parents = list(range(len(fragments)))

    def find_root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for i, j in find_pairs(list_edges([fragment.found for fragment in fragments])):
        a, b = fragments[i], fragments[j]
        if a.tile != b.tile and a.found.class_number == b.found.class_number and _agree(a, b, tiles):
            parents[find_root(int(i))] = find_root(int(j))
    groups: dict[int, list[Candidate]] = {}
    for index, fragment in enumerate(fragments):
        groups.setdefault(find_root(index), []).append(fragment)
    return list(groups.values())


def _join(group: list[Candidate]) -> Candidate:
    """One object of its fragments: the union of masks, the largest probabilities, the mean score weighted by area."""
    if len(group) == 1:
        return group[0]
    edges = list_edges([fragment.found for fragment in group])
    half = edges.shape[1] // 2
    low, high = edges[:, :half].min(axis=0), edges[:, half:].max(axis=0)
    box = tuple((int(a), int(b)) for a, b in zip(low, high))
    probability = np.zeros(tuple(high - low), dtype=group[0].found.probability.dtype)
    mask = np.zeros(probability.shape, dtype=bool)
    for fragment in group:
        part = cut_out(probability, box, fragment.found.box)
        np.maximum(part, fragment.found.probability, out=part)
        cut_out(mask, box, fragment.found.box)[...] |= fragment.mask
    voxels = [fragment.voxels for fragment in group]
    score = float(np.average([fragment.found.score for fragment in group], weights=voxels))
    found = replace(group[0].found, box=box, probability=probability, score=score, merged=True)
    return Candidate(found, mask, np.array([*low, *high], dtype=np.float32), group[0].tile)
