"""Mask R-CNN's network: shapes for any size and number of boxes, gradients everywhere, proposals, 16 bits, seeds."""

import msgspec
import pytest
import torch
from builders import make_detection_spec, make_network_spec

from autoseg.networks.boxes import compute_box_sizes, compute_overlaps, decode_boxes
from autoseg.networks.build import build_network, export_weights, import_weights
from autoseg.networks.detector import Detector
from autoseg.networks.roi_align import Regions, align_rois
from autoseg.records.plan import NetworkSpec

THIN = NetworkSpec(
    kind="plain",
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 2)),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3), (1, 3, 3)),
    features=(4, 8, 8, 8),
    convolutions=(1, 1, 2, 1),
    decoder_convolutions=(2, 1, 1),
)
RESIDUAL = msgspec.structs.replace(make_network_spec(2, (4, 8, 8, 8)), kind="residual_encoder", blocks=(1,) * 4, convolutions=())
CASES = {  # network, levels, size of the image, sizes of the levels' maps
    "2d": (make_network_spec(2, (4, 8, 8)), (1, 2), (32, 48), [(16, 24), (8, 12)]),
    "2d, odd sizes": (RESIDUAL, (1, 2, 3), (37, 53), [(19, 27), (10, 14), (5, 7)]),
    "2d, from stride 1": (make_network_spec(2, (4, 8)), (0, 1), (21, 16), [(21, 16), (11, 8)]),
    "2d, from stride 4": (make_network_spec(2, (4, 8, 8)), (2,), (30, 31), [(8, 8)]),
    "3d, thin and odd": (THIN, (1, 2), (7, 65, 66), [(7, 33, 33), (4, 17, 17)]),
    "3d, one slice": (THIN, (1, 2, 3), (1, 37, 53), [(1, 19, 27), (1, 10, 14), (1, 5, 7)]),
}


def make_problem(name: str) -> tuple[Detector, torch.Tensor]:
    spec, levels, size, _ = CASES[name]
    network = build_network(spec, 2, 4, detection=make_detection_spec(len(size), levels))
    return network, torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))


def ask(network: Detector, images: torch.Tensor, count: int):
    """All answers for `count` boxes."""
    dense = network(images)
    found = network.propose(dense, tuple(images.shape[2:]))
    boxes = torch.cat([boxes for boxes, _ in found])[:count]
    numbers = torch.cat([torch.full((len(boxes),), place) for place, (boxes, _) in enumerate(found)])[:count]
    return dense, *network.classify(dense.features, boxes, numbers), network.draw_masks(dense.features, boxes, numbers)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [0, 1, 9])
def test_shapes_and_gradients_for_any_number_of_boxes(name, count):
    network, images = make_problem(name)
    size, maps, dimension = images.shape[2:], CASES[name][3], images.ndim - 2
    dense, logits, deltas, masks = ask(network, images, count)
    assert [tuple(x.shape[2:]) for x in dense.features.maps] == maps
    assert dense.features.fine.shape[2:] == size
    assert dense.boundary.shape == (2, 3, *size)
    for x, anchors, objectness, moves in zip(maps, network.list_anchors(dense), dense.objectness, dense.deltas):
        total = 2 * torch.Size(x).numel()  # two shapes a cell
        assert anchors.shape == (total, 2 * dimension)
        assert objectness.shape == (2, total)
        assert moves.shape == (2, total, 2 * dimension)
    assert logits.shape == (count, 4)
    assert deltas.shape == (count, 2 * dimension)
    assert masks.shape == (count, 3, *(10,) * dimension)
    answers = [*dense.objectness, *dense.deltas, dense.boundary, logits, deltas, masks]
    sum(x.square().sum() + x.sum() for x in answers).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.isfinite().all()] == []
    heads = [value for part in (network.box_head, network.mask_head) for value in part.parameters()]
    assert any((value.grad != 0).any() for value in heads) == bool(count)


def test_the_strides_of_the_levels_are_products():
    network, _ = make_problem("3d, one slice")
    assert network.strides == [(1, 2, 2), (2, 4, 4), (2, 8, 8)]


@pytest.mark.parametrize("name", ["2d, odd sizes", "3d, thin and odd"])
def test_proposals_are_the_best_anchors_moved_clipped_and_apart(name):
    """Against the same done box by box."""
    network, images = make_problem(name)
    detection, size = msgspec.structs.replace(network.detection, proposal_nms=0.3), tuple(images.shape[2:])
    network.detection = detection  # at 0.3 boxes of two levels overlap, and both stay
    with torch.no_grad():
        for value in network.proposal_head.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    for training in (True, False):
        dense = network.train(training)(images)
        before, after = (counts[0 if training else 1] for counts in (detection.proposals_per_level, detection.proposals))
        for place, (boxes, scores) in enumerate(network.propose(dense, size)):
            assert not boxes.requires_grad
            expected = []
            for anchors, logits, deltas in zip(network.list_anchors(dense), dense.objectness, dense.deltas):
                decoded = decode_boxes(deltas[place], anchors)
                kept = []
                for index in logits[place].argsort(descending=True, stable=True)[:before]:
                    box = torch.minimum(decoded[index].clamp(min=0), torch.tensor(size * 2))
                    rivals = torch.stack([other for _, other in kept]) if kept else torch.zeros(0, len(box))
                    if (compute_box_sizes(box) > 0).all() and not (compute_overlaps(box[None], rivals) > detection.proposal_nms).any():
                        kept.append((logits[place, index].sigmoid().item(), box))
                expected += kept
            expected = sorted(expected, key=lambda found: -found[0])[:after]
            torch.testing.assert_close(scores, torch.tensor([score for score, _ in expected]))
            torch.testing.assert_close(boxes, torch.stack([box for _, box in expected]).detach())


def test_no_box_has_a_side_of_nothing():
    network, images = make_problem("2d")
    dense = network.eval()(images)
    for deltas in dense.deltas:
        deltas.data[..., 0] = -1e3  # far above the image
    assert [len(boxes) for boxes, _ in network.propose(dense, (32, 48))] == [0, 0]
    logits, _ = network.classify(dense.features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert logits.shape == (0, 4)


def test_every_box_is_read_from_its_own_image():
    network, images = make_problem("2d")
    dense = network.eval()(images)
    box = torch.tensor([[4.0, 4, 20, 20]] * 2)
    both, _ = network.classify(dense.features, box, torch.tensor([0, 1]))
    alone, _ = network.classify(network(images[1:]).features, box[:1], torch.tensor([0]))
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])
    crop = align_rois(dense.features.flat, Regions(box, torch.tensor([0, 1]), torch.tensor([0, 1])), (5, 5), 2)
    assert crop.shape == (2, 8, 5, 5)


def test_a_look_without_gradients_leaves_those_of_later_answers():
    network, images = make_problem("2d")
    dense, box, number = network(images), torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([0])
    with torch.no_grad():
        network.classify(dense.features, box, number)
    network.draw_masks(dense.features, box, number).sum().backward()
    assert (network.encoder[0][0][0].weight.grad != 0).any()


@pytest.mark.parametrize("name", ["2d, odd sizes", "3d, thin and odd"])
def test_16_bits_leave_boxes_and_answers_in_32(name):
    network, images = make_problem(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense, logits, deltas, masks = ask(network, images, 9)
        found = network.propose(dense, tuple(images.shape[2:]))
    answers = [*dense.objectness, *dense.deltas, dense.boundary, logits, deltas, masks, *(x for pair in found for x in pair)]
    assert {x.dtype for x in answers} == {torch.float32}
    sum(x.square().sum() for x in answers if x.requires_grad).backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())
    torch.testing.assert_close(dense.boundary, network(images).boundary, rtol=0.1, atol=0.1)


def test_the_same_seed_gives_the_same_weights_and_they_go_out_and_in():
    spec, levels, _, _ = CASES["2d"]
    detection = make_detection_spec(2, levels)
    one, same, other = (build_network(spec, 2, 4, seed, detection).eval() for seed in (1, 1, 2))
    weights = export_weights(one)
    assert all((value == weights[name]).all() for name, value in export_weights(same).items())
    images = torch.randn(1, 2, 32, 48)
    assert not torch.equal(one(images).objectness[0], other(images).objectness[0])
    import_weights(other, weights, "here")
    assert torch.equal(one(images).objectness[0], other(images).objectness[0])


def test_answers_start_near_nothing():
    network, images = make_problem("2d")
    dense, logits, deltas, masks = ask(network, images, 9)
    for x in (*dense.objectness, *dense.deltas, logits, deltas, masks):
        assert x.abs().max() < 1, (x.shape, x.abs().max())
    assert (network.proposal_head.objectness.bias == 0).all()
