"""Cropped masks: pasting without rounding, resampling, and painting in any order."""

import numpy as np
import pytest

from autoseg.arrays.masks import FoundObject, count_common, intersect, keep_largest, paint_objects, paste_mask, resample_masks


def paste_slowly(mask, frame, shape):
    """Every voxel by itself."""
    dimension = len(shape)
    whole = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        place, inside = [], True
        for axis, index in enumerate(voxel):
            share = (index + 0.5 - frame[axis]) / (frame[dimension + axis] - frame[axis])
            inside &= 0 <= share <= 1
            place.append(np.clip(share * mask.shape[axis] - 0.5, 0, mask.shape[axis] - 1))
        if not inside:
            continue
        for corner in np.ndindex(*(2,) * dimension):
            weight, index = 1.0, []
            for where, step, size in zip(place, corner, mask.shape):
                low = min(int(where), size - 1)
                weight *= where - low if step else 1 - (where - low)
                index.append(min(low + step, size - 1))
            whole[voxel] += weight * mask[tuple(index)]
    return whole


@pytest.mark.parametrize(
    ("bins", "frame", "shape"),
    [
        ((5, 7), (2.3, 1.7, 9.1, 14.2), (12, 16)),
        ((5, 7), (-3.2, -1.0, 5.5, 20.0), (9, 16)),
        ((4, 4), (3.2, 3.2, 4.1, 3.4), (8, 8)),
        ((3, 4, 2), (0.4, -2.0, 1.1, 5.7, 6.0, 7.3), (7, 5, 8)),
        ((1, 3), (1.0, 1.0, 5.0, 7.0), (8, 8)),
    ],
)
def test_a_pasted_mask_is_sampled_at_the_centres_of_voxels(bins, frame, shape):
    mask = np.random.default_rng(0).uniform(0, 1, bins)
    box, values = paste_mask(mask, np.array(frame), shape)
    whole = np.zeros(shape)
    whole[tuple(slice(low, high) for low, high in box)] = values
    np.testing.assert_allclose(whole, paste_slowly(mask, frame, shape), atol=1e-6)


@pytest.mark.parametrize("frame", [(20.0, 0.0, 25.0, 4.0), (-9.0, 0.0, -2.0, 4.0), (2.6, 2.0, 3.4, 5.0)])
def test_a_frame_without_a_voxel_is_empty(frame):
    box, values = paste_mask(np.ones((4, 4)), np.array(frame), (8, 8))
    assert values.size == 0
    assert all(0 <= low <= high <= 8 for low, high in box)


def test_masks_on_other_frames_are_the_same_masks():
    """A smooth function seen through one frame, resampled to another, is the function there."""
    generator = np.random.default_rng(0)
    frames = generator.uniform(0, 2, (6, 4)) + np.array([0, 0, 20, 30])
    others = frames + generator.uniform(0.1, 0.5, (6, 4)) * [1, 1, -1, -1]

    def view(boxes):
        y, x = (boxes[:, axis, None] + (np.arange(20) + 0.5) / 20 * (boxes[:, 2 + axis] - boxes[:, axis])[:, None] for axis in (0, 1))
        return 0.02 * y[:, :, None] + 0.01 * x[:, None, :]

    np.testing.assert_allclose(resample_masks(view(frames), frames, others)[:, 1:-1, 1:-1], view(others)[:, 1:-1, 1:-1], atol=1e-5)
    np.testing.assert_allclose(resample_masks(view(frames), frames, frames), view(frames), atol=1e-6)


def test_common_voxels_are_those_of_whole_masks():
    generator = np.random.default_rng(1)
    for _ in range(20):
        masks, boxes, whole = [], [], np.zeros((2, 9, 10), bool)
        for one in whole:
            low = generator.integers(0, 5, 2)
            high = low + generator.integers(1, 5, 2)
            box = tuple(zip(low.tolist(), high.tolist()))
            mask = generator.random(tuple(high - low)) < 0.6
            one[tuple(slice(*edge) for edge in box)] = mask
            masks.append(mask)
            boxes.append(box)
        assert count_common(masks[0], boxes[0], masks[1], boxes[1]) == (whole[0] & whole[1]).sum()
        assert count_common(masks[1], boxes[1], masks[0], boxes[0]) == (whole[0] & whole[1]).sum()
    assert intersect(((0, 2), (0, 9)), ((5, 9), (3, 4))) == ((5, 5), (3, 4))


def test_the_largest_part_is_kept_and_corners_join():
    mask = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    mask[2, 0] = True
    assert keep_largest(mask).astype(int).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert not keep_largest(np.zeros((3, 3), bool)).any()


def make_object(low, high, score, number=1, mask=None):
    size = tuple(b - a for a, b in zip(low, high))
    return FoundObject(tuple(zip(low, high)), np.ones(size, bool) if mask is None else mask, score, number)


def test_the_stronger_is_painted_and_who_loses_half_is_gone():
    objects = [
        make_object((0, 0), (6, 6), 0.6),
        make_object((0, 4), (6, 9), 0.9, 2),
        make_object((0, 3), (6, 6), 0.5),
        make_object((8, 0), (9, 1), 0.1),
    ]
    painted = paint_objects(objects, (10, 10))
    assert [round(one.score, 1) for one in painted.objects] == [0.9, 0.6, 0.1]
    assert [one.class_number for one in painted.objects] == [2, 1, 1]
    assert (painted.ids[:6, 4:9] == 1).all()
    assert (painted.ids[:6, :4] == 2).all()
    assert np.bincount(painted.ids.ravel()).tolist() == [45, 30, 24, 1]
    assert painted.objects[1].select(0.5).sum() == 36


def test_only_the_largest_part_of_what_remains_is_painted():
    cross = [make_object((4, 0), (6, 20), 0.9), make_object((0, 5), (20, 7), 0.8)]
    ids = paint_objects(cross, (20, 20)).ids
    assert np.bincount(ids.ravel())[1:].tolist() == [40, 28]
    assert not ids[:4, 5:7].any()


def test_the_map_does_not_depend_on_the_order_even_with_ties():
    generator = np.random.default_rng(0)
    objects = []
    for _ in range(60):
        low = generator.integers(0, 40, 2)
        objects.append(make_object(tuple(low.tolist()), tuple((low + generator.integers(2, 12, 2)).tolist()), generator.integers(1, 4) / 4))
    first = paint_objects(objects, (60, 60))
    for _ in range(5):
        mixed = [objects[index] for index in generator.permutation(60)]
        np.testing.assert_array_equal(paint_objects(mixed, (60, 60)).ids, first.ids)


def test_probabilities_are_cut_at_the_threshold_and_boxes_made_tight():
    values = np.array([[0.1, 0.4, 0.6, 0.2]], np.float32)
    found = FoundObject(((2, 3), (1, 5)), values, 0.9, 1)
    assert paint_objects([found], (4, 8), 0.5).objects[0].box == ((2, 3), (3, 4))
    assert paint_objects([found], (4, 8), 0.3).objects[0].box == ((2, 3), (2, 4))
    assert paint_objects([found], (4, 8), 0.7).objects == ()


def test_more_than_65535_objects_keep_their_numbers():
    y, x = np.divmod(np.arange(70_000), 300)
    objects = [make_object((int(a), int(b)), (int(a) + 1, int(b) + 1), 0.5) for a, b in zip(y, x)]
    painted = paint_objects(objects, (240, 300))
    assert painted.ids.max() == 70_000
    assert painted.make_label_map().dtype == np.uint32
    assert painted.make_label_map().max() == 70_000
    assert paint_objects(objects[:9], (240, 300)).make_label_map().dtype == np.uint16
