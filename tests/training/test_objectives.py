"""A step of Mask R-CNN and of a boundary network: finite on any batch, the same for the same seed, and it learns."""

import math
from dataclasses import replace

import pytest
import torch
from builders import draw_balls, make_configuration, make_object_configuration

from autoseg.networks.boxes import REFINED, clip_boxes, decode_boxes, grow_boxes
from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.training import examples as examples_module
from autoseg.training import objectives
from autoseg.training.examples import COPIES, draw_box_examples, jitter_boxes
from autoseg.training.loader import Batch
from autoseg.training.losses import compute_loss
from autoseg.training.objectives import Step, compute_objective
from autoseg.training.targets import find_boxes, make_boundary_labels

torch.set_num_threads(1)
CPU = Compute("cpu")
PATCH = {2: 32, 3: 16}


def make_batch(dimension, counts=(5, 7), seed=0):
    """Bright balls of class 1 and 2 by turns."""
    shape = (PATCH[dimension],) * dimension
    ids = torch.stack([torch.from_numpy(draw_balls(shape, count, seed + place, (3.0, 5.0))) for place, count in enumerate(counts)]).long()
    images = (ids > 0) * 2.0 + 0.3 * torch.randn(ids.shape, generator=torch.Generator().manual_seed(seed))
    tables = tuple(torch.tensor([0, *(1 + number % 2 for number in range(count))]) for count in counts)
    voxels = tuple(torch.bincount(own.flatten(), minlength=len(table)).float() for own, table in zip(ids, tables))
    return Batch(images[:, None].float(), ids, tuple("AB"[: len(counts)]), None, tables, voxels)


def build(configuration, classes=3):
    return build_network(configuration.network, 1, classes, 0, configuration.detection).train()


def compute(network, batch, configuration, seed=0, device=CPU):
    torch.manual_seed(seed)
    with device.autocast():
        answer = network(batch.images)
    return compute_objective(Step(network, answer, batch, configuration, device))


@pytest.mark.parametrize("counts", [(5, 7), (0, 4), (0, 0)])
@pytest.mark.parametrize("dimension", [2, 3])
def test_every_weight_has_a_finite_gradient_with_objects_and_without(dimension, counts):
    configuration = make_object_configuration(dimension, PATCH[dimension])
    network = build(configuration)
    loss = compute(network, make_batch(dimension, counts), configuration)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert not any(counts) or network.mask_head.masks.weight.grad.abs().sum() > 0  # from the first step on


def test_a_patch_that_is_all_to_be_ignored_is_finite():
    configuration = make_object_configuration()
    batch = make_batch(2)
    network = build(configuration)
    loss = compute(network, replace(batch, labels=torch.full_like(batch.labels, -1)), configuration)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_first_loss_of_proposals_is_that_of_a_coin(monkeypatch):
    found = []
    term = objectives.compute_proposal_loss

    def note(logits, deltas, anchors, matches, boxes):
        found.append((term(logits, deltas, anchors, torch.full_like(matches, -1), boxes).item(), len(matches), (matches >= 0).sum().item()))
        return term(logits, deltas, anchors, matches, boxes)

    monkeypatch.setattr(objectives, "compute_proposal_loss", note)
    configuration = make_object_configuration()
    compute(build(configuration), make_batch(2), configuration)
    ((loss, count, positive),) = found
    assert loss == pytest.approx(math.log(2), abs=0.05)
    assert count == 128
    assert 10 < positive <= 64


@pytest.mark.parametrize("dimension", [2, 3])
def test_equal_seeds_give_equal_losses(dimension):
    configuration = make_object_configuration(dimension, PATCH[dimension])
    network, batch = build(configuration), make_batch(dimension)
    first, again, other = (compute(network, batch, configuration, seed).item() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("dimension", [2, 3])
def test_sixteen_bits_give_nearly_the_same_loss(dimension):
    configuration = make_object_configuration(dimension, PATCH[dimension])
    network, batch = build(configuration), make_batch(dimension)
    assert compute(network, batch, configuration, device=Compute("cpu", "bf16")).item() == pytest.approx(
        compute(network, batch, configuration).item(), rel=0.1
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_boundary_network_learns_boundary_labels(dimension):
    configuration = make_object_configuration(dimension, PATCH[dimension], detection=None)
    network, batch = build(configuration, 4), make_batch(dimension)
    labels = make_boundary_labels(batch.labels, batch.object_classes, 2)
    assert labels.max() == 3
    expected = compute_loss(network(batch.images), labels, configuration.loss, configuration.batch_dice)
    assert torch.equal(compute(network, batch, configuration), expected)


def test_classes_are_learnt_as_before():
    configuration = make_configuration(2, 32)
    batch = make_batch(2)
    batch = replace(batch, labels=batch.labels.clamp(max=1))
    network = build(configuration, 2)
    expected = compute_loss(network(batch.images), batch.labels, configuration.loss, configuration.batch_dice)
    assert torch.equal(compute(network, batch, configuration), expected)


@pytest.mark.parametrize("dimension", [2, 3])
def test_examples_are_proposals_objects_and_copies_of_each_image(dimension, monkeypatch):
    monkeypatch.setattr(examples_module, "POSITIVE_SHARE", 0.5)
    batch = make_batch(dimension, (4, 0))
    objects, ids = find_boxes(batch.labels, batch.object_classes)
    detection = make_object_configuration(dimension).detection
    edge = PATCH[dimension]
    far = torch.tensor([[0.0] * dimension + [1.0] * dimension]).repeat(40, 1)
    torch.manual_seed(0)
    found = draw_box_examples([far, far], objects, ids, detection)
    assert torch.bincount(found.images).tolist() == [32, 32]
    assert (found.matches[found.images == 1] == -1).all()
    positive = found.select((found.matches >= 0).nonzero()[:, 0])
    assert len(positive.boxes) == min(16, len(objects) * (1 + COPIES))
    assert ((positive.boxes >= 0) & (positive.boxes <= edge)).all()
    wanted = objects.boxes[positive.matches]
    assert any(torch.equal(*pair) for pair in zip(positive.boxes, wanted))
    assert any(not torch.equal(*pair) for pair in zip(positive.boxes, wanted))
    masked = found.list_positive(2, 2)
    assert (masked.images.tolist(), (masked.matches >= 0).all().item()) == ([0, 0], True)


def test_boxes_over_what_is_to_be_ignored_are_left_out():
    ids = torch.zeros(1, 32, 32, dtype=torch.long)
    ids[0, :8] = -1
    proposals = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 28.0, 28.0], [3.0, 0.0, 12.0, 8.0], [5.0, 0.0, 12.0, 8.0]])
    objects, _ = find_boxes(ids, (torch.tensor([0]),))
    torch.manual_seed(0)
    found = draw_box_examples([proposals], objects, ids, make_object_configuration().detection)
    assert sorted(found.boxes[:, 0].tolist()) == [5.0, 20.0]


@pytest.mark.parametrize("dimension", [2, 3])
def test_copies_are_moved_and_stretched_a_little(dimension):
    boxes = torch.tensor([[10.0] * dimension + [20.0, 40.0, 30.0][:dimension]]).repeat(500, 1)
    torch.manual_seed(0)
    low, high = jitter_boxes(boxes).chunk(2, dim=1)
    side = (boxes[0, dimension:] - boxes[0, :dimension])[None]
    shift = ((low + high) / 2 - (boxes[:, :dimension] + boxes[:, dimension:]) / 2) / side
    stretch = (high - low) / side
    assert (shift.abs().amax(0) <= 0.1001).all()
    assert (shift.abs().amax(0) > 0.09).all()
    assert (stretch.amin(0) > 0.799).all()
    assert (stretch.amin(0) < 0.82).all()
    assert (stretch.amax(0) < 1.201).all()
    assert (stretch.amax(0) > 1.18).all()


def test_objects_hardly_to_be_seen_train_nothing():
    """An object that is cut to a corner is neither one nor background."""
    configuration = make_object_configuration()
    ids = torch.zeros(1, 32, 32, dtype=torch.long)
    ids[0, :4, :4] = 1
    table, images = (torch.tensor([0, 1]),), torch.zeros(1, 1, 32, 32)
    seen = Batch(images, ids, ("A",), None, table, (torch.tensor([0.0, 16.0]),))
    cut = Batch(images, ids, ("A",), None, table, (torch.tensor([0.0, 100.0]),))
    detection = configuration.detection
    for batch, expected in ((seen, {0, -1}), (cut, {-1})):
        objects, found = find_boxes(batch.labels, table, batch.object_voxels)
        own = torch.tensor([[0.0, 0.0, 4.0, 4.0], [9.0, 9.0, 14.0, 14.0]])
        drawn = draw_box_examples([own], objects, found, detection)
        assert set(drawn.matches.tolist()) == expected
        assert ([0.0, 0.0, 4.0, 4.0] in drawn.boxes.tolist()) == (batch is seen)
        assert compute(build(configuration), batch, configuration).isfinite()


def test_a_mask_r_cnn_learns_a_few_images_by_heart():
    configuration = make_object_configuration(2, 32)
    network, batch = build(configuration), make_batch(2, (4, 4, 3, 5))
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    losses = []
    for step in range(70):
        loss = compute(network, batch, configuration, step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    overlaps, classes = find_all(network.eval(), batch)
    assert overlaps.mean() > 0.75
    assert classes.float().mean() > 0.8


@torch.no_grad()
def find_all(network, batch):
    """Of every object the highest IoU of a mask with it, drawn in one of the eight best boxes, and whether that has its class."""
    objects, _ = find_boxes(batch.labels, batch.object_classes)
    dense, edge = network(batch.images), batch.labels.shape[-1]
    best, right = torch.zeros(len(objects)), torch.zeros(len(objects), dtype=torch.bool)
    for image, (proposals, _) in enumerate(network.propose(dense, (edge, edge))):
        own = torch.full((len(proposals),), image)
        logits, deltas = network.classify(dense.features, proposals, own)
        chosen = logits.softmax(1)[:, 0].argsort()[:24]
        boxes = clip_boxes(decode_boxes(deltas, proposals, REFINED), (edge, edge))[chosen]
        numbers = logits[chosen, 1:].argmax(1)
        masks = network.draw_masks(dense.features, grow_boxes(boxes), own[chosen])[torch.arange(len(chosen)), numbers] > 0
        for mask, box, number in zip(masks, grow_boxes(boxes), numbers + 1):
            whole = paste(mask, box, edge)
            for place in (objects.images == image).nonzero()[:, 0].tolist():
                target = batch.labels[image] == objects.ids[place]
                overlap = (whole & target).sum() / (whole | target).sum()
                if overlap > best[place]:
                    best[place], right[place] = overlap, number == objects.classes[place]
    return best, right


def paste(mask, box, edge):
    """The mask's cell at every voxel's middle; nothing beyond the box."""
    middles = torch.arange(edge) + 0.5
    rows, columns = ((middles - box[axis]) / (box[axis + 2] - box[axis]) * mask.shape[axis] for axis in (0, 1))
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    cells = mask[rows.long().clamp(0, mask.shape[0] - 1)[:, None], columns.long().clamp(0, mask.shape[1] - 1)]
    return cells & inside
