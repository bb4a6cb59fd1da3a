"""Every distance against all pairs of surface voxels, one by one."""

import math

import numpy as np
import pytest

from autoseg.arrays.labels import make_membership
from autoseg.evaluation import surface
from autoseg.evaluation.surface import SurfaceDistances, list_shells, measure_surfaces, pack_layers, search_far
from autoseg.records.dataset import ClassLabel

CLASSES = tuple(ClassLabel(name=f"class {number}", values=(number,)) for number in range(1, 5))
REGIONS = tuple(
    ClassLabel(name=name, values=values) for name, values in (("whole", (1, 2, 3)), ("core", (2, 3)), ("rim", (3,)), ("no", (4,)))
)
NOTHING = SurfaceDistances(None, None, None, None)
MAPS = 200


def draw_pair(seed):
    """A small prediction and reference with spacing and tolerance: patches and noise, some empty, of one voxel, or with voxels ignored."""
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 8, generator.integers(2, 4)))
    reference = _draw(generator, shape)
    prediction = reference.copy() if seed % 3 else _draw(generator, shape)
    changed = generator.random(shape) < 0.1
    prediction[changed] = generator.integers(0, 5, changed.sum())
    if seed % 10 == 0:
        prediction[:] = 0
    if seed % 10 == 1:
        reference[:] = 0
        reference[tuple(size // 2 for size in shape)] = 1
    if seed % 4 == 0:
        reference[generator.random(shape) < 0.1] = -1
        prediction[generator.random(shape) < 0.05] = -1
    return (
        prediction,
        reference,
        tuple(generator.choice([0.5, 0.8, 1.0, 3.0], len(shape)).tolist()),
        float(generator.choice([0.0, 0.8, 1.0, 2.5])),
    )


def _draw(generator, shape):
    label = np.zeros(shape, np.int16)
    for number in range(1, 5):
        place = tuple(slice(start, start + generator.integers(1, 6)) for start in generator.integers(0, np.array(shape)))
        label[place] = number
    return label


def list_surface(mask):
    """Voxels of a mask with a face neighbour outside it; axes of one voxel are none."""
    found = []
    for place in np.argwhere(mask).tolist():
        for axis in [axis for axis, size in enumerate(mask.shape) if size > 1] or [0]:
            for step in (-1, 1):
                near = [*place[:axis], place[axis] + step, *place[axis + 1 :]]
                if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                    found.append(tuple(place))
    return sorted(set(found))


def list_distances(own, other, spacing):
    return [min(math.dist([a * s for a, s in zip(p, spacing)], [b * s for b, s in zip(q, spacing)]) for q in other) for p in own]


def compute_percentile(values, share):
    """Linear interpolation between the two nearest of the sorted values."""
    place = (len(values) - 1) * share
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def measure_slowly(predicted, true, spacing, tolerance):
    """The four measures of two masks by the definitions, as one would write them down."""
    own, other = list_surface(predicted), list_surface(true)
    if not own and not other:
        return NOTHING
    if not own or not other:
        return SurfaceDistances(None, None, None, 0.0)
    there, back = list_distances(own, other, spacing), list_distances(other, own, spacing)
    pooled = there + back
    close = sum(distance <= tolerance * (1 + 1e-6) for distance in pooled)
    tail = max(compute_percentile(there, 0.95), compute_percentile(back, 0.95))
    return SurfaceDistances(max(pooled), tail, sum(pooled) / len(pooled), close / len(pooled))


def assert_close(found, expected):
    for name in ("hausdorff", "hd95", "assd", "nsd"):
        value, true = getattr(found, name), getattr(expected, name)
        assert value == (None if true is None else pytest.approx(true, rel=1e-6, abs=1e-9)), name


@pytest.mark.parametrize("near", [4.0, 1.0])
@pytest.mark.parametrize("classes", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_distances_are_those_of_all_pairs_of_surface_voxels(monkeypatch, classes, near):
    monkeypatch.setattr(surface, "NEAR", dict.fromkeys((1, 2, 3), near))  # small: most voxels are searched for far away
    membership = make_membership(classes)
    kinds = set()
    for seed in range(MAPS // 2) if near == 4.0 else range(MAPS // 2, MAPS):
        prediction, reference, spacing, tolerance = draw_pair(seed)
        monkeypatch.setattr(surface, "TREE_COST", (0, 10**9)[seed % 2])
        found = measure_surfaces(prediction, reference, membership, spacing, tolerance)
        for label, own in zip(classes, found, strict=True):
            masks = [np.isin(side, label.values) & (reference >= 0) for side in (prediction, reference)]
            assert_close(own, measure_slowly(*masks, spacing, tolerance))
            kinds.add((own.hausdorff is None, own.nsd is None, own.nsd == 0, own.nsd == 1))
    assert len(kinds) >= 5  # absent, one-sided, far off, in between and equal


@pytest.mark.parametrize("spacing", [(1.0,), (0.5, 2.0), (3.0, 0.7, 0.7)])
@pytest.mark.parametrize("cost", [0, 10**9], ids=["tree", "transform"])
def test_far_points_are_found_by_a_tree_and_by_a_transform(monkeypatch, spacing, cost):
    monkeypatch.setattr(surface, "TREE_COST", cost)
    generator = np.random.default_rng(0)
    points, targets = (np.unique(generator.integers(0, 12, (count, len(spacing))), axis=0) for count in (9, 5))
    found = search_far(points, targets, spacing)
    np.testing.assert_allclose(found, list_distances(points.tolist(), targets.tolist(), spacing), rtol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0,), (0.8, 0.8), (5.0, 0.8, 0.8), (1.0, 1.1, 1.2)])
def test_shells_are_all_neighbours_by_distance(spacing):
    shells = list_shells(spacing)
    distances = [distance for distance, _ in shells]
    assert distances == sorted(distances)
    radius = surface.NEAR[len(spacing)] * math.prod(spacing) ** (1 / len(spacing))
    near = {
        place
        for place in np.ndindex(*(2 * int(radius / step) + 3 for step in spacing))
        if math.dist([(at - int(radius / step) - 1) * step for at, step in zip(place, spacing)], [0] * len(spacing)) <= radius
    }
    assert sum(len(offsets) for _, offsets in shells) == len(near)
    for distance, offsets in shells:
        np.testing.assert_allclose(np.linalg.norm(offsets * np.array(spacing), axis=1), distance)


def test_a_slice_with_a_depth_of_one_voxel_is_flat():
    generator = np.random.default_rng(1)
    prediction, reference = (generator.integers(0, 2, (9, 9)) for _ in range(2))
    flat = measure_surfaces(prediction, reference, make_membership(CLASSES[:1]), (0.5, 2.0), 1.0)
    assert measure_surfaces(prediction[None], reference[None], make_membership(CLASSES[:1]), (7.0, 0.5, 2.0), 1.0) == flat


def test_a_voxel_of_1_mm_as_files_store_it_lies_within_1_mm():
    line = np.zeros((1, 6), int)
    line[0, 2] = 1
    (found,) = measure_surfaces(np.roll(line, 1), line, make_membership(CLASSES[:1]), (1.0, 1.0000000149), 1.0)
    assert found.nsd == 1


def test_more_classes_than_a_byte_holds():
    classes = tuple(ClassLabel(name=str(number), values=(number,)) for number in range(1, 301))
    reference = np.arange(1, 301).reshape(1, 300)
    found = measure_surfaces(np.roll(reference, 2, axis=1), reference, make_membership(classes), (1.0, 0.5), 1.0)
    assert {own.hausdorff for own in found} == {1.0, 149.0}


def test_classes_that_share_nothing_are_one_layer():
    assert len(pack_layers(make_membership(CLASSES))) == 1
    assert [layer.tolist() for layer in pack_layers(np.array([[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1]], bool))] == [
        [0, 1, 1, 1],
        [0, 0, 2, 3],
    ]
