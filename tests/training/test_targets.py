"""Boxes, masks and boundaries of objects, against loops over voxels."""

import itertools

import numpy as np
import pytest
import torch

from autoseg.training.targets import find_boxes, make_boundary_labels, measure_ignored, sample_mask_targets

SHAPES = [(17, 23), (6, 9, 11)]


def make_ids(shape, count=2, numbers=7, seed=0):
    """Label maps (n, *shape) of blocks that cut into each other, in whose tables some numbers are not to be seen."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((count, *shape), np.int64)
    for image in ids:
        for number in generator.permutation(numbers)[:-2] + 1:
            corner = generator.integers(0, np.array(shape) - 2)
            size = generator.integers(1, 8, len(shape))
            image[tuple(slice(low, low + edge) for low, edge in zip(corner, size))] = number
    classes = generator.integers(1, 4, (count, numbers + 1))
    classes[:, 0] = 0
    return torch.from_numpy(ids), tuple(torch.from_numpy(table) for table in classes)


def list_boxes(ids, tables):
    """Every object of four voxels or more: image, number, class, box."""
    found = []
    for image, table in enumerate(tables):
        for number in range(1, len(table)):
            voxels = np.argwhere(ids[image].numpy() == number)
            if len(voxels) >= 4:
                found.append((image, number, int(table[number]), [*voxels.min(0), *(voxels.max(0) + 1)]))
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_those_of_a_search_for_each_number(shape):
    ids, tables = make_ids(shape)
    tables = (tables[0], torch.cat([tables[1], torch.ones(3, dtype=torch.long)]))  # cases have as many objects as they have
    objects, same = find_boxes(ids, tables)
    rows = zip(objects.images.tolist(), objects.ids.tolist(), objects.classes.tolist(), objects.boxes.tolist())
    assert list(rows) == list_boxes(ids, tables)
    assert objects.boxes.dtype == torch.float32
    assert torch.equal(same, ids)


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_without_objects_have_no_boxes(shape):
    ids = torch.zeros((2, *shape), dtype=torch.long)
    ids[1] = -1
    tables = (torch.zeros(1, dtype=torch.long), torch.tensor([0, 1]))
    objects, same = find_boxes(ids, tables, (torch.zeros(1), torch.tensor([0.0, 9.0])))
    assert (len(objects), objects.boxes.shape) == (0, (0, 2 * len(shape)))
    assert torch.equal(same, ids)
    assert torch.equal(make_boundary_labels(ids, tables, 1), ids)


def test_objects_of_which_little_is_to_be_seen_are_ignored():
    ids = torch.zeros((2, 8, 8), dtype=torch.long)
    ids[:, :2, :4], ids[:, 4:, 4:], ids[:, 5, :2] = 1, 2, 3
    table = torch.tensor([0, 1, 1, 1])
    voxels = torch.tensor([0.0, 33.0, 64.0, 0.0]), torch.tensor([0.0, 32.0, 0.0, 9.0])
    objects, seen = find_boxes(ids, (table, table), voxels)
    assert list(zip(objects.images.tolist(), objects.ids.tolist())) == [(0, 2), (1, 1), (1, 2)]
    assert torch.equal(seen[0], torch.where(ids[0] == 1, -1, ids[0]))
    assert torch.equal(seen[1], torch.where(ids[1] == 3, -1, ids[1]))


@pytest.mark.parametrize("shape", SHAPES)
def test_boundaries_are_voxels_beside_others(shape):
    ids, tables = make_ids(shape, seed=3)
    ids[:, :3, -4:] = -1
    found = make_boundary_labels(ids, tables, 3)
    expected = torch.zeros_like(ids)
    for place in itertools.product(*map(range, ids.shape)):
        image, *voxel = place
        own = int(ids[place])
        window = ids[image][tuple(slice(max(0, index - 1), index + 2) for index in voxel)]
        expected[place] = own if own < 0 else int(tables[image][own])
        if own > 0 and bool(((window != own) & (window >= 0)).any()):
            expected[place] = 4
    for image, table in enumerate(tables):
        for number in range(1, len(table)):
            own = ids[image] == number
            if not (expected[image][own] < 4).any():
                expected[image][own] = table[number]
    assert torch.equal(found, expected)
    assert set(found.unique().tolist()) == {-1, 0, 1, 2, 3, 4}


@pytest.mark.parametrize(("shape", "size"), [((17, 23), (4, 6)), ((6, 9, 11), (2, 5, 4))])
def test_masks_in_boxes_are_shares_of_their_cells(shape, size):
    ids, tables = make_ids(shape, seed=1)
    objects, _ = find_boxes(ids, tables)
    generator = torch.Generator().manual_seed(0)
    boxes = objects.boxes + 2 * torch.rand(objects.boxes.shape, generator=generator) * torch.tensor([-1.0, 1.0]).repeat_interleave(
        len(shape)
    )
    found = sample_mask_targets(ids, boxes, objects.images, objects.ids, size)
    expected = torch.zeros(found.shape)
    for box, (image, number) in enumerate(zip(objects.images, objects.ids)):
        low, high = boxes[box].chunk(2)
        for cell in itertools.product(*map(range, size)):
            for half in itertools.product((0.25, 0.75), repeat=len(size)):
                share = (torch.tensor(cell) + torch.tensor(half)) / torch.tensor(size)
                voxel = (low + (high - low) * share).floor().long()
                voxel = voxel.clamp(min=0).minimum(torch.tensor(shape) - 1)
                expected[(box, *cell)] += float(ids[(image, *voxel)] == number) / 2 ** len(size)
    assert torch.equal(found, expected)
    assert 0 < ((found > 0) & (found < 1)).float().mean() < 1
    whole = sample_mask_targets(ids, objects.boxes, objects.images, objects.ids, shape)
    assert whole.flatten(1).mean(1).min() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_ignored_shares_are_those_of_a_count(shape):
    ids = make_ids(shape)[0]
    ids[ids % 2 == 1] = -1
    generator = torch.Generator().manual_seed(0)
    lows = torch.randint(-3, 9, (40, len(shape)), generator=generator)
    highs = lows + torch.randint(1, 9, (40, len(shape)), generator=generator)
    images = torch.randint(0, 2, (40,), generator=generator)
    found = measure_ignored(ids, torch.cat([lows, highs], dim=1) + 0.3, images)
    for box in range(40):
        part = ids[images[box]][tuple(slice(max(0, low), max(0, high)) for low, high in zip(lows[box], highs[box]))]
        assert found[box] == pytest.approx(float((part < 0).sum() / max(1, part.numel())), abs=1e-6)
    assert found.unique().numel() > 4
