"""A perfect detector over any image gives back the map of ids: tiles, flips, folds, padding, spacing, crop and axes change nothing."""

import numpy as np
import pytest
import torch
from builders import make_configuration
from made_up_objects import Seer, draw_ellipsoids, make_detection

from autoseg.arrays.masks import FoundObject, paint_objects
from autoseg.arrays.preparation import prepare_image
from autoseg.errors import InputError
from autoseg.inference.clustering import Detections
from autoseg.inference.detection import detect
from autoseg.inference.merging import Tile
from autoseg.inference.objects import (
    Members,
    RawDetections,
    RawProbabilities,
    collect,
    find_objects,
    join_boundaries,
    restore_objects,
    settle,
)
from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.records.detection import Thresholds

torch.set_num_threads(1)
CPU = Compute("cpu")


def make_members(ids, patch, mirror=False, folds=1, classes=None, outputs=2, **changes):
    dimension = ids.ndim
    configuration = make_configuration(dimension, patch, detection=make_detection(dimension), thresholds=Thresholds(), **changes)
    table = {number: 1 for number in range(1, ids.max() + 1)} if classes is None else classes
    seers = tuple(Seer(table, outputs, (28,) * dimension) for _ in range(folds))
    return Members(seers, configuration, CPU, mirror)


def find_ids(members, ids):
    found = find_objects(members, ids[None].astype(np.float32), (0.0,), Thresholds())
    return paint_objects(found, ids.shape)


def compare(painted, ids, least=0.85):
    """Every object has one partner, of an IoU of at least `least`."""
    pairs = np.unique(np.stack([ids.ravel(), painted.ravel()]), axis=1, return_counts=True)
    assert painted.max() == ids.max()
    areas, others = np.bincount(ids.ravel()), np.bincount(painted.ravel())
    best = np.zeros(ids.max() + 1)
    for (a, b), common in zip(pairs[0].T, pairs[1]):
        if a and b:
            best[a] = max(best[a], common / (areas[a] + others[b] - common))
    assert best[1:].min() >= least


@pytest.mark.parametrize(
    ("shape", "patch", "mirror", "folds"),
    [((150, 170), 64, False, 1), ((90, 70), 64, True, 2), ((37, 150), 64, False, 2), ((20, 30), 64, True, 1), ((40, 46, 34), 24, True, 1)],
)
def test_the_ids_come_back(shape, patch, mirror, folds):
    ids = draw_ellipsoids(shape, 40, (4, 9), np.random.default_rng(sum(shape)))
    assert ids.max() > 1
    found = find_ids(make_members(ids, patch, mirror, folds), ids)
    compare(found.ids, ids)
    scores = [one.score for one in found.objects]
    assert scores == sorted(scores, reverse=True)


def test_an_object_larger_than_the_tiles_is_put_together():
    ids = np.zeros((200, 200), np.int32)
    y, x = np.mgrid[:200, :200] - 99.5
    ids[np.abs(np.hypot(y, x) - 80) < 8] = 1
    found = find_ids(make_members(ids, 96), ids)
    compare(found.ids, ids)
    assert [one.merged for one in found.objects] == [True]


def test_hundreds_of_objects_meet_no_cap():
    y, x = np.mgrid[:384, :384]
    column, row = x // 16, y // 16
    ids = (1 + column + 24 * row) * (np.hypot(x % 16 - 7.5, y % 16 - 7.5) < 5)
    found = find_ids(make_members(ids, 128), ids.astype(np.int32))
    assert ids.max() == 576
    compare(found.ids, ids, 0.9)


def test_an_empty_image_has_no_objects():
    ids = np.zeros((70, 90), np.int32)
    for mirror, folds in ((False, 1), (True, 2)):
        found = find_ids(make_members(ids, 64, mirror, folds), ids)
        assert found.ids.max() == 0
        assert found.objects == ()


def test_classes_are_kept():
    ids = draw_ellipsoids((100, 100), 30, (5, 9), np.random.default_rng(1))
    classes = {number: 1 + number % 3 for number in range(1, ids.max() + 1)}
    found = find_ids(make_members(ids, 64, folds=2, classes=classes, outputs=4), ids)
    compare(found.ids, ids)
    for number, one in enumerate(found.objects, 1):
        names, counts = np.unique(ids[found.ids == number], return_counts=True)
        assert one.class_number == classes[names[counts.argmax()]]


def test_flips_are_undone_exactly():
    ids = draw_ellipsoids((64, 64), 20, (4, 12), np.random.default_rng(2))
    members = make_members(ids, 64)
    tiles = torch.from_numpy(ids[None, None].astype(np.float32))
    answers = [detect(members.networks[0], tiles, members.configuration, CPU, flip) for flip in ((), (0,), (1,), (0, 1))]
    plain, *others = [found[0] for found, _ in answers]
    assert len(plain) == ids.max()
    for _, parts in answers:
        np.testing.assert_allclose(parts, answers[0][1], atol=1e-6)
    for other in others:
        np.testing.assert_allclose(other.scores, plain.scores)
        np.testing.assert_allclose(other.boxes, plain.boxes, atol=1e-3)
        np.testing.assert_allclose(other.masks, plain.masks, atol=2e-2)


def make_raw(detections, shape=(64, 64), boundary=None):
    whole = tuple((0, size) for size in shape)
    boundary = np.zeros((3, *shape), np.float32) if boundary is None else boundary
    return RawDetections([Tile(whole, whole)], (0,) * len(shape), [detections], boundary)


def make_box(*edges, score=0.9, class_number=1, mask=None):
    return np.array(edges, np.float32), score, class_number, np.ones((8, 8), np.float16) if mask is None else mask


def stack(*parts):
    boxes, scores, classes, masks = zip(*parts)
    return Detections(np.stack(boxes), np.array(scores, np.float32), np.array(classes), np.stack(masks))


def test_a_boundary_network_of_any_classes_counts_like_the_own_head():
    generator = np.random.default_rng(0)
    own, other = generator.random((3, 9, 8), dtype=np.float32), generator.random((4, 9, 8), dtype=np.float32)
    raw = make_raw(stack(make_box(1, 1, 5, 5)), (9, 8), own)
    joined = join_boundaries(raw, [RawProbabilities(other)])
    expected = np.stack([own[0] + other[0], own[1] + other[1] + other[2], own[2] + other[3]]) / 2
    np.testing.assert_allclose(joined.boundary, expected, atol=1e-6)
    assert (joined.tiles, joined.detections) == (raw.tiles, raw.detections)
    twice = join_boundaries(raw, [RawProbabilities(other), RawProbabilities(np.concatenate([own[:2], 0 * own[:1], own[2:]]))])
    np.testing.assert_allclose(twice.boundary[0], (2 * own[0] + other[0]) / 3, atol=1e-6)


def test_one_object_of_two_classes_is_kept_once():
    raw = make_raw(stack(make_box(5, 5, 25, 25, score=0.8), make_box(6, 5, 25, 25, class_number=2), make_box(40, 40, 50, 50)))
    found = settle(raw, Thresholds())
    assert sorted((one.class_number, round(one.score, 2)) for one in found) == [(1, 0.9), (2, 0.9)]


def test_thresholds_decide_what_is_an_object():
    raw = make_raw(stack(make_box(5, 5, 25, 25), make_box(9, 5, 29, 25, score=0.6), make_box(40, 40, 44, 44, score=0.3)))
    assert len(settle(raw, Thresholds())) == 1
    assert len(settle(raw, Thresholds(nms=0.7))) == 2
    assert len(settle(raw, Thresholds(nms=0.7, score=0.2))) == 3
    assert len(settle(raw, Thresholds(nms=0.7, score=0.2, smallest=40))) == 2


def make_diagonal(offset, size=48):
    """A bar along the diagonal, off it by `offset`."""
    y, x = np.mgrid[:size, :size]
    return np.abs(y - x - offset) < 4


def test_parallel_diagonal_bars_need_masks_to_be_told_apart():
    """Their boxes overlap by more than .7."""
    parts = []
    for offset in (-5, 5):
        bar = make_diagonal(offset).astype(np.float16)
        parts.append(make_box(0, 0, 48, 48, score=0.9 + offset / 100, mask=bar))
    raw = make_raw(stack(*parts), (48, 48))
    assert len(settle(raw, Thresholds(nms=0.5))) == 1
    both = settle(raw, Thresholds(nms=0.5, by_mask=True))
    assert len(both) == 2
    assert paint_objects(both, (48, 48)).ids.max() == 2
    doubled = make_raw(stack(*parts, parts[0]), (48, 48))
    assert len(settle(doubled, Thresholds(nms=0.5, by_mask=True))) == 2


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_objects_come_back_to_the_grid_of_the_scan(axes):
    """Cropped, transposed and resampled to another spacing, then back."""
    generator = np.random.default_rng(0)
    ids = np.zeros((24, 60, 50), np.int32)
    part = draw_ellipsoids((20, 52, 40), 12, (4, 8), generator)
    ids[2:22, 5:57, 6:46] = part
    image = np.zeros((1, *ids.shape), np.float32)
    image[0, 2:22, 5:57, 6:46] = generator.uniform(1, 2, part.shape)
    spacing = (2.0, 1.0, 1.0)
    for target in ((2.0, 1.0, 1.0), (1.0, 0.7, 0.8)):
        configuration = make_configuration(3, 8, spacing=tuple(target[axis] for axis in axes))
        _, geometry = prepare_image(image, spacing, axes, configuration)
        moved = part.transpose(axes)
        objects = [shrink(moved == number, geometry.prepared_shape, number) for number in range(1, part.max() + 1)]
        own = tuple(spacing[axis] for axis in axes)
        back = restore_objects(objects, geometry, own, axes, configuration, 0.5)
        compare(paint_objects(back, ids.shape).ids, ids, 1.0 if target == spacing else 0.7)


def shrink(mask, shape, number):
    """A mask on another grid, as probability in its box."""
    from scipy import ndimage

    factors = [new / old for new, old in zip(shape, mask.shape)]
    values = (
        mask.astype(np.float32)
        if mask.shape == shape
        else ndimage.zoom(mask.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    )
    place = ndimage.find_objects((values > 0).astype(np.int8))[0]
    return FoundObject(tuple((p.start, p.stop) for p in place), values[place], 1 / number, 1)


def test_a_mask_is_resampled_as_a_whole_and_its_neighbour_leaves_no_gap():
    configuration = make_configuration(2, 8, spacing=(2.0, 2.0))
    image = np.ones((1, 20, 20), np.float32)
    _, geometry = prepare_image(image, (1.0, 1.0), (0, 1), configuration)
    left, right = np.ones((10, 5), bool), np.ones((10, 5), bool)
    objects = [FoundObject(((0, 10), (0, 5)), left, 0.9, 1), FoundObject(((0, 10), (5, 10)), right, 0.8, 1)]
    back = restore_objects(objects, geometry, (1.0, 1.0), (0, 1), configuration, 0.9)
    ids = paint_objects(back, (20, 20)).ids
    assert (ids > 0).all()
    assert set(ids[:, :9].ravel()) == {1}
    assert set(ids[:, 11:].ravel()) == {2}


class Painter(torch.nn.Module):
    """A boundary U-Net that reads the ids off the image: sure of the background, of insides by class, and of borders."""

    def __init__(self, classes, count):
        super().__init__()
        self.classes, self.count = classes, count

    def forward(self, images):
        logits = torch.zeros(len(images), self.count + 2, *images.shape[2:])
        for place, image in enumerate(images[:, 0]):
            border = torch.zeros(image.shape, dtype=torch.bool)
            for axis in range(image.ndim):
                for step in (-1, 1):
                    other = image.roll(step, axis)
                    border |= (other != image) & (image > 0)
            logits[place, 0][image == 0] = 8
            for number, class_number in self.classes.items():
                logits[place, class_number][(image == number) & ~border] = 8
            logits[place, -1][border] = 8
        return [logits]


@pytest.mark.parametrize(("shape", "mirror"), [((70, 90), False), ((70, 90), True), ((20, 30, 28), False)])
def test_a_boundary_network_gives_touching_objects(shape, mirror):
    blocks = np.stack(np.meshgrid(*[np.arange(size) // 10 for size in shape], indexing="ij"))
    ids = 1 + np.ravel_multi_index(tuple(blocks), tuple(int(b.max()) + 1 for b in blocks)).astype(np.int32)
    ids[blocks.sum(axis=0) % 3 == 0] = 0
    ids = np.unique(ids, return_inverse=True)[1].reshape(shape).astype(np.int32)
    classes = {number: 1 + number % 2 for number in range(1, ids.max() + 1)}
    configuration = make_configuration(len(shape), 20, thresholds=Thresholds())
    found = find_ids(Members((Painter(classes, 2),) * 2, configuration, CPU, mirror), ids)
    compare(found.ids, ids)
    for number, one in enumerate(found.objects, 1):
        names, counts = np.unique(ids[found.ids == number], return_counts=True)
        assert one.class_number == classes[names[counts.argmax()]]
        assert one.probability.dtype == bool


def test_a_network_of_classes_finds_no_objects():
    with pytest.raises(ValueError, match="classes"):
        collect(Members((), make_configuration(2), CPU), np.zeros((1, 9, 9), np.float32), (0.0,))


def test_a_flat_detector_refuses_a_volume():
    members = make_members(np.ones((9, 9), np.int32), 8)
    with pytest.raises(InputError, match="2D images, this one is 3D"):
        collect(members, np.zeros((1, 4, 9, 9), np.float32), (0.0,))


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_real_network_runs_untrained(dimension):
    """Whatever it says, all of it lies in the image, and little is left of it by high thresholds."""
    detection = make_detection(dimension, detections=20, mask_bins=(4,) * dimension, box_bins=(3,) * dimension)
    configuration = make_configuration(dimension, 16, detection=detection, thresholds=Thresholds(), mirror_axes=(1,))
    network = build_network(configuration.network, 1, 3, detection=configuration.detection).eval()
    members = Members((network, network), configuration, CPU, True)
    image = np.random.default_rng(0).normal(0, 1, (1, *(20, 13, 17)[:dimension])).astype(np.float32)
    raw = collect(members, image, (0.0,))
    assert raw.shape == image.shape[1:]
    assert sum(map(len, raw.detections)) > 0
    for one in settle(raw, Thresholds(score=0.0)):
        assert all(0 <= low < high <= size for (low, high), size in zip(one.box, raw.shape))
        assert one.probability.shape == tuple(high - low for low, high in one.box)
    assert settle(raw, Thresholds(score=0.999)) == []


def test_settling_probabilities_needs_no_network():
    values = np.zeros((3, 20, 20), np.float32)
    values[0] = 1
    values[:, 5:15, 5:15] = np.array([0.1, 0.8, 0.1])[:, None, None]
    assert len(settle(RawProbabilities(values), Thresholds())) == 1
    assert settle(RawProbabilities(values), Thresholds(score=0.95)) == []
    assert settle(RawProbabilities(values), Thresholds(smallest=101)) == []
    assert settle(RawProbabilities(values), Thresholds(seed=0.9)) == []
    assert settle(RawProbabilities(values), Thresholds(mask=0.95)) == []


def test_the_head_of_full_resolution_sees_where_a_coarse_mask_ends_and_what_is_no_object():
    boundary = np.zeros((3, 64, 64), np.float32)
    boundary[0] = 1
    boundary[:, 10:30, 10:30] = np.array([0.0, 1.0, 0.0])[:, None, None]
    boundary[:, 40:60, 40:60] = np.array([0.75, 0.25, 0.0])[:, None, None]
    loose = np.full((8, 8), 0.64, np.float16)  # as wide as its frame: 2 voxels beyond the box on every side
    raw = make_raw(stack(make_box(10, 10, 30, 30, mask=loose), make_box(40, 40, 60, 60, mask=loose)), boundary=boundary)
    sure, doubtful = sorted(settle(raw, Thresholds(score=0.1, mask=0.35)), key=lambda one: -one.score)
    assert np.count_nonzero(sure.select(0.35)) == 20 * 20
    assert sure.score == pytest.approx(0.9 * 0.64, abs=2e-3)
    assert doubtful.score == pytest.approx(0.9 * 0.64 * 0.25, abs=2e-3)
    assert len(settle(raw, Thresholds(score=0.3, mask=0.35))) == 1
    assert len(settle(raw, Thresholds(score=0.1, mask=0.5))) == 1


def test_proposals_that_hold_nothing_are_not_looked_at():
    ids = draw_ellipsoids((64, 64), 20, (4, 12), np.random.default_rng(2))
    members = make_members(ids, 64)
    seer, looked = members.networks[0], []

    def propose(dense, shape, times):
        (boxes, scores), *_ = Seer.propose(seer, dense, shape)
        return [(boxes, torch.where(torch.arange(len(scores)) % 2 == 0, scores, 0.04))]

    def classify(features, boxes, images):
        looked.append(len(boxes))
        return Seer.classify(seer, features, boxes, images)

    seer.propose, seer.classify = propose, classify
    (found,), _ = detect(seer, torch.from_numpy(ids[None, None].astype(np.float32)), members.configuration, CPU, ())
    assert looked == [len(found)] == [(ids.max() + 1) // 2]
