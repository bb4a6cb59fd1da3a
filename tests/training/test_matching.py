"""Anchors and objects, against a comparison of all with all."""

import pytest
import torch

from autoseg.networks.anchors import make_anchors
from autoseg.training import matching
from autoseg.training.matching import IGNORED, NEGATIVE, Grid, draw_examples, match_anchors, match_proposals, measure_overlaps
from autoseg.training.targets import Objects

LEVELS = {
    2: ((64, 48), [(2, 2), (4, 4), (16, 8)], [(8.0, 8.0), (5.0, 11.0), (30.0, 3.0)]),
    3: ((16, 32, 24), [(1, 2, 2), (2, 4, 4)], [(4.0, 8.0, 8.0), (2.0, 5.0, 12.0)]),
}


def make_grids(dimension):
    shape, strides, shapes = LEVELS[dimension]
    grids = []
    for stride in strides:
        size = tuple(-(-edge // step) for edge, step in zip(shape, stride))
        own = [tuple(side * stride[-1] / 2 for side in sides) for sides in shapes]
        grids.append(Grid(make_anchors(size, stride, own), size, stride))
    return grids, shape


def make_objects(shape, count, images=2, seed=0):
    """Boxes of all sizes in whole voxels, three of them alike."""
    generator = torch.Generator().manual_seed(seed)
    limits = torch.tensor(shape)
    lows = (torch.rand(count, len(shape), generator=generator) * (limits - 2)).floor()
    sides = (1 + torch.rand(count, len(shape), generator=generator) ** 3 * limits).floor()
    boxes = torch.cat([lows, (lows + sides).minimum(limits)], dim=1)
    boxes[1:4:2] = boxes[:1]
    where = torch.arange(count) * images // max(1, count)
    return Objects(boxes, where, torch.arange(count) + 1, torch.ones(count, dtype=torch.long))


def match_slowly(anchors, objects, count, positive, negative):
    overlaps = measure_overlaps(anchors[:, None], objects.boxes[None])
    distances = (anchors[:, None] - objects.boxes).unflatten(2, (2, -1)).mean(2).square().sum(2)
    answer = torch.full((count, len(anchors)), NEGATIVE)
    for image in range(count):
        own = (objects.images == image).nonzero()[:, 0]
        tops = overlaps[:, own].amax(dim=1) if len(own) else torch.zeros(len(anchors))
        forced = {}
        for place in own.tolist():
            column = overlaps[:, place]
            for anchor in (column == column.max()).nonzero()[:, 0].tolist():
                if tops[anchor] < positive and distances[anchor, place] == distances[column == column.max(), place].min():
                    forced.setdefault(anchor, []).append((-float(column[anchor]), place))
        answer[image, tops >= negative] = IGNORED
        for anchor in (tops >= positive).nonzero()[:, 0].tolist():
            answer[image, anchor] = min((-float(overlaps[anchor, place]), place) for place in own.tolist())[1]
        for anchor, rivals in forced.items():
            answer[image, anchor] = min(rivals)[1]
    return answer


@pytest.mark.parametrize("block", [10, 2**21])
@pytest.mark.parametrize("limits", [(0.5, 0.35), (0.35, 0.1)])
@pytest.mark.parametrize("dimension", [2, 3])
def test_anchors_are_matched_as_by_comparing_all(dimension, limits, block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    grids, shape = make_grids(dimension)
    for seed in range(2):
        objects = make_objects(shape, 25, seed=seed)
        found = match_anchors(grids, objects, 3, *limits)
        expected = match_slowly(torch.cat([grid.anchors for grid in grids]), objects, 3, *limits)
        assert torch.equal(found, expected)
        assert {NEGATIVE, IGNORED} < set(found.unique().tolist())
        assert (found[2] == NEGATIVE).all()
        assert len(set(found.unique().tolist())) > 18  # nearly every object has anchors


@pytest.mark.parametrize("dimension", [2, 3])
def test_without_objects_all_is_negative(dimension):
    grids, shape = make_grids(dimension)
    objects = make_objects(shape, 0)
    assert (match_anchors(grids, objects, 2, 0.5, 0.3) == NEGATIVE).all()
    assert (match_proposals(grids[0].anchors, torch.zeros(len(grids[0].anchors)), objects, 0.5, 0.3) == NEGATIVE).all()


@pytest.mark.parametrize("block", [50, 2**21])
@pytest.mark.parametrize("dimension", [2, 3])
def test_proposals_are_matched_as_by_comparing_all(dimension, block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    shape = LEVELS[dimension][0]
    objects, proposals = make_objects(shape, 20, images=2), make_objects(shape, 60, images=3, seed=1)
    proposals.boxes[:10] = objects.boxes[:10] + 0.5
    found = match_proposals(proposals.boxes, proposals.images, objects, 0.5, 0.2).tolist()
    for box, image, place in zip(proposals.boxes, proposals.images, found):
        overlaps = measure_overlaps(box[None], objects.boxes) * (objects.images == image)
        expected = NEGATIVE if overlaps.max() < 0.2 else IGNORED if overlaps.max() < 0.5 else int(overlaps.argmax())
        assert place == expected or (place >= 0 and overlaps[place] == overlaps.max() >= 0.5)
    assert {NEGATIVE, IGNORED} < set(found)


def test_a_share_is_positive_and_half_the_negatives_are_hard():
    torch.manual_seed(0)
    matches = torch.full((10_000,), NEGATIVE)
    matches[:40], matches[40:1000] = torch.arange(40), IGNORED
    scores = torch.arange(10_000).float()
    chosen = draw_examples(matches, 64, 0.25, scores)
    assert len(chosen.unique()) == 64
    assert (matches[chosen] >= 0).tolist() == [True] * 16 + [False] * 48
    assert (matches[chosen[16:]] == NEGATIVE).all()
    assert (chosen[16:40] >= 10_000 - 20 * 24).all()
    assert (chosen[16:40] < 10_000 - 24).any()
    assert (chosen[40:] < 10_000 - 20 * 24).any()


def test_what_is_there_is_taken_where_there_is_little():
    matches = torch.tensor([IGNORED, 3, NEGATIVE, IGNORED, NEGATIVE])
    for scores in (None, torch.rand(5)):
        assert sorted(draw_examples(matches, 64, 0.5, scores).tolist()) == [1, 2, 4]
    assert draw_examples(matches[:1], 64, 0.5).tolist() == []
    torch.manual_seed(3)
    first = draw_examples(torch.full((999,), NEGATIVE), 5, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, draw_examples(torch.full((999,), NEGATIVE), 5, 0.5))
