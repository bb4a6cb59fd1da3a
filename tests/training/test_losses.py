"""Every loss against a slow oracle in float64 that goes voxel by voxel, in values and in numerical gradients."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.records.plan import LossSpec
from autoseg.training.loss_terms import SMOOTH, SoftmaxSums, compute_soft_dice, gather_classes, measure_signed_distance
from autoseg.training.losses import LOSSES, compute_loss

torch.set_num_threads(1)

REGIONS = torch.tensor([[0, 1, 1], [0, 0, 1]]).bool()  # of labels 0, 1, 2: the first region holds the second
SPECS = {name: LossSpec(name=name, dice_weight=0.7, cross_entropy_weight=1.3, topk_share=0.3, boundary_weight=0.2) for name in LOSSES}
SPECS["class_weights"] = LossSpec(name="weighted_ce", class_weights=(0.2, 1.0, 3.0))
SPECS["other numbers"] = LossSpec(name="unified_focal", unified_delta=0.8, unified_gamma=0.2, unified_lambda=0.3)
SPECS["focal, gamma 0.5"] = LossSpec(name="focal", focal_gamma=0.5)


class Oracle:
    """One problem of classes that exclude each other: probabilities (sample, class, …) in float64, target (sample, …)."""

    def __init__(self, probabilities, target, spec, batch_dice):
        self.p, self.target, self.spec = probabilities, target, spec
        self.places = [place for place in np.ndindex(target.shape) if target[place] != -1]
        samples = range(len(target))
        self.groups = [list(samples)] if batch_dice else [[sample] for sample in samples]
        self.classes = range(probabilities.shape[1])

    def own(self, place):
        return self.p[(place[0], self.target[place], *place[1:])]

    def mean(self, values):
        return sum(values) / max(1, len(self.places))

    def overlaps(self, number):
        """(hits, false positives, misses) of a class in every group of samples."""
        for group in self.groups:
            hit = false = missed = 0.0
            for place in self.places:
                if place[0] in group:
                    p, own = self.p[(place[0], number, *place[1:])], self.target[place] == number
                    hit, false, missed = hit + p * own, false + p * (not own), missed + (1 - p) * own
            yield hit, false, missed

    def tversky(self, number, alpha, beta):
        return [(2 * hit + SMOOTH) / (2 * (hit + alpha * false + beta * missed) + SMOOTH) for hit, false, missed in self.overlaps(number)]

    def dice(self):
        return np.mean([self.tversky(number, 0.5, 0.5) for number in self.classes if number])

    def cross_entropy(self):
        return self.mean(-math.log(self.own(place)) for place in self.places)

    def dice_ce(self):
        return self.spec.dice_weight * (1 - self.dice()) + self.spec.cross_entropy_weight * self.cross_entropy()

    def weighted_ce(self):
        weights = self.spec.class_weights or (1,) * len(self.classes)
        total = sum(weights[self.target[place]] for place in self.places)
        return sum(-math.log(self.own(place)) * weights[self.target[place]] for place in self.places) / (total or 1)

    def topk_ce(self):
        errors = sorted((-math.log(self.own(place)) for place in self.places), reverse=True)
        kept = errors[: max(1, round(self.spec.topk_share * len(errors)))]
        return sum(kept) / max(1, len(kept))

    def focal(self):
        return self.mean(-((1 - self.own(place)) ** self.spec.focal_gamma) * math.log(self.own(place)) for place in self.places)

    def dice_focal(self):
        return self.spec.dice_weight * (1 - self.dice()) + self.spec.cross_entropy_weight * self.focal()

    def tversky_loss(self):
        spec = self.spec
        return 1 - np.mean([self.tversky(number, spec.tversky_alpha, spec.tversky_beta) for number in self.classes if number])

    def unified_focal(self):
        if not self.places:
            return 0.0
        delta, gamma = self.spec.unified_delta, self.spec.unified_gamma
        focal = 0.0
        for place in self.places:
            p = self.own(place)
            focal -= math.log(p) * (delta if self.target[place] else (1 - delta) * (1 - p) ** gamma)
        miss = [[1 - index for index in self.tversky(number, 1 - delta, delta)] for number in self.classes]
        tversky = np.mean([[value ** (1 - gamma if number else 1) for value in miss[number]] for number in self.classes])
        return self.spec.unified_lambda * self.mean([focal]) + (1 - self.spec.unified_lambda) * tversky

    def boundary(self):
        total = 0.0
        for sample, number in product(range(len(self.target)), [number for number in self.classes if number]):
            distances = measure_slowly(self.target[sample] == number)
            total += sum(
                self.p[(sample, number, *place)] * distances[place]
                for place in np.ndindex(distances.shape)
                if self.target[(sample, *place)] != -1
            )
        return self.dice_ce() + self.spec.boundary_weight * self.mean([total]) / (len(self.classes) - 1)


def measure_slowly(mask):
    """Signed distance by looking at every voxel of the other side."""
    places, sides = list(np.ndindex(mask.shape)), {True: [], False: []}
    for place in places:
        sides[bool(mask[place])].append(place)
    if not sides[True] or not sides[False]:
        return np.zeros(mask.shape)
    nearest = [min(math.dist(place, other) for other in sides[not mask[place]]) for place in places]
    return np.array([-far if mask[place] else far for far, place in zip(nearest, places)]).reshape(mask.shape)


ORACLES = {name: getattr(Oracle, "tversky_loss" if name == "tversky" else name) for name in LOSSES}


def compute_slowly(logits, target, spec, batch_dice, regions=None):
    """The loss at one resolution."""
    logits = logits.astype(np.float64)
    if regions is None:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return ORACLES[spec.name](Oracle(shares / shares.sum(axis=1, keepdims=True), target, spec, batch_dice))
    parts = []
    for number, members in enumerate(regions.numpy()):
        p = 1 / (1 + np.exp(-logits[:, number]))
        inside = np.where(target == -1, -1, members[target])
        parts.append(ORACLES[spec.name](Oracle(np.stack([1 - p, p], axis=1), inside, spec, batch_dice)))
    return np.mean(parts)


def draw(seed, samples, classes, shape, labels=None):
    """Logits (sample, class, …) float32, and a target of `labels` numbers, by default as many as classes, some to be ignored."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (samples, classes, *shape)).astype(np.float32)
    return logits, generator.integers(-1, labels or classes, (samples, *shape))


def compute(logits, target, spec, batch_dice=True, regions=None):
    return compute_loss([torch.from_numpy(logits)], torch.from_numpy(target), spec, batch_dice, regions).item()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 4), st.sampled_from([(3, 4), (2, 3, 4)]), st.booleans())
def test_dice_and_cross_entropy_equal_the_oracle(seed, samples, classes, shape, batch_dice):
    logits, target = draw(seed, samples, classes, shape)
    spec = SPECS["dice_ce"]
    assert compute(logits, target, spec, batch_dice) == pytest.approx(compute_slowly(logits, target, spec, batch_dice), rel=1e-4)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_every_loss_equals_its_oracle(name, batch_dice):
    for seed, samples, shape in [(0, 2, (3, 4)), (1, 1, (5, 5)), (2, 2, (2, 3, 3))]:
        logits, target = draw(seed, samples, 3, shape)
        for changed in (target, np.where(target == 2, 1, target), np.full_like(target, 1)):  # all classes, one absent, one alone
            expected = compute_slowly(logits, changed, SPECS[name], batch_dice)
            assert compute(logits, changed, SPECS[name], batch_dice) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("name", [name for name in SPECS if SPECS[name].name != "weighted_ce"])
def test_overlapping_regions_equal_the_oracle(name, batch_dice):
    for seed, shape in [(3, (3, 4)), (4, (2, 3, 3))]:
        logits, target = draw(seed, 2, 2, shape, labels=3)
        for changed in (target, np.where(target == 2, 1, target)):
            expected = compute_slowly(logits, changed, SPECS[name], batch_dice, REGIONS)
            assert compute(logits, changed, SPECS[name], batch_dice, REGIONS) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_binary_cross_entropy_is_a_mean_over_regions_with_ignored_voxels_and_without():
    logits, target = draw(5, 2, 2, (4, 4), labels=3)
    spec = LossSpec(dice_weight=0.0)
    for changed in (target, target.clip(0)):
        places = torch.from_numpy(changed != -1)
        truth = REGIONS[:, changed.clip(0)].movedim(0, 1).double()
        errors = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits).double(), truth, reduction="none")
        expected = errors.movedim(1, -1)[places].mean().item()
        assert compute(logits, changed, spec, regions=REGIONS) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("name", SPECS)
def test_gradients_are_the_numerical_ones(name, regions, batch_dice):
    logits, target = draw(6, 2, 3 if regions is None else 2, (3, 3), labels=3)
    if regions is not None and SPECS[name].name == "weighted_ce":
        pytest.skip("not offered for regions")
    inputs = torch.from_numpy(logits).double().requires_grad_()
    labels = torch.from_numpy(target)
    assert torch.autograd.gradcheck(lambda x: compute_loss([x], labels, SPECS[name], batch_dice, regions), inputs)


def test_the_gradient_of_the_sums_is_the_numerical_one():
    logits, target = draw(7, 2, 4, (3, 3))
    index, counted = torch.from_numpy(target).flatten(1).clamp(min=0), torch.from_numpy(target != -1).flatten(1).double()
    inputs = torch.from_numpy(logits).double().flatten(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: SoftmaxSums.apply(x, index, counted), inputs)


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("name", SPECS)
def test_ignored_voxels_have_no_influence_and_no_gradient(name, regions):
    logits, target = draw(1, 2, 3 if regions is None else 2, (3, 4, 5), labels=3)
    one = torch.from_numpy(logits).requires_grad_()
    loss = compute_loss([one], torch.from_numpy(target), SPECS[name], True, regions)
    loss.backward()
    assert torch.isfinite(one.grad).all()
    assert not one.grad.movedim(1, -1)[torch.from_numpy(target == -1)].any()
    other = np.where((target == -1)[:, None], 50.0, logits).astype(np.float32)
    assert compute(other, target, SPECS[name], True, regions) == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("name", SPECS)
def test_a_batch_of_ignored_voxels_alone_costs_nothing_and_has_zero_gradients(name, regions, batch_dice):
    logits = torch.randn(2, 3 if regions is None else 2, 4, 4, requires_grad=True)
    loss = compute_loss([logits], torch.full((2, 4, 4), -1), SPECS[name], batch_dice, regions)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("name", [name for name in SPECS if name != "boundary"])
def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much(name, regions):
    target = torch.from_numpy(draw(2, 1, 3, (6, 6))[1]).clamp(min=0)
    truth = (torch.eye(3).bool() if regions is None else regions)[:, target].movedim(0, 1)
    perfect = (200.0 * truth - 100).requires_grad_()
    loss = compute_loss([perfect], target, SPECS[name], True, regions)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert torch.isfinite(perfect.grad).all()
    assert compute_loss([-perfect], target, SPECS[name], True, regions).item() > 0.5


def test_tversky_of_equal_weights_is_dice_and_focal_of_gamma_0_cross_entropy():
    logits, target = draw(8, 2, 3, (4, 5))
    half = LossSpec(name="tversky", tversky_alpha=0.5, tversky_beta=0.5)
    assert compute(logits, target, half) == pytest.approx(compute(logits, target, LossSpec(cross_entropy_weight=0.0)), rel=1e-6)
    entropy = compute(logits, target, LossSpec(dice_weight=0.0))
    assert compute(logits, target, LossSpec(name="focal", focal_gamma=0.0)) == pytest.approx(entropy, rel=1e-6)
    assert compute(logits, target, LossSpec(name="topk_ce", topk_share=1.0)) == pytest.approx(entropy, rel=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.8, 1.0])
def test_signed_distances_are_those_to_the_nearest_voxel_of_the_other_side(density):
    mask = np.random.default_rng(9).random((4, 5, 3)) < density
    np.testing.assert_allclose(measure_signed_distance(mask), measure_slowly(mask), rtol=1e-6)


def test_coarser_heads_count_half_of_the_next_finer_and_all_sum_to_one():
    target = torch.from_numpy(draw(3, 2, 3, (8, 8))[1])
    heads = [torch.randn(2, 3, size, size) for size in (8, 4, 2)]
    shrunk = [target, target[:, 1::2, 1::2], target[:, 2::4, 2::4]]  # nearest-exact takes the voxel that holds the centre
    parts = [compute_loss([head], part, LossSpec(), True) for head, part in zip(heads, shrunk)]
    expected = (4 * parts[0] + 2 * parts[1] + parts[2]) / 7
    torch.testing.assert_close(compute_loss(heads, target, LossSpec(), True), expected)
    without = compute_loss(heads, target, LossSpec(coarsest_head=False), True)
    torch.testing.assert_close(without, (2 * parts[0] + parts[1]) / 3)
    alone = compute_loss(heads, target, LossSpec(deep_supervision=False), True)
    torch.testing.assert_close(alone, parts[0])


def test_the_distances_count_at_full_resolution_alone():
    target = torch.from_numpy(draw(3, 2, 3, (8, 8))[1])
    heads = [torch.randn(2, 3, size, size) for size in (8, 4)]
    weighted, plain = (compute_loss(heads, target, LossSpec(name="boundary", boundary_weight=weight), True) for weight in (0.5, 0.0))
    alone, without = (compute_loss(heads[:1], target, LossSpec(name="boundary", boundary_weight=weight), True) for weight in (0.5, 0.0))
    torch.testing.assert_close(weighted - plain, alone - without)


@pytest.mark.parametrize(
    ("spec", "count", "weights"),
    [
        (LossSpec(), 3, (4 / 7, 2 / 7, 1 / 7)),
        (LossSpec(coarsest_head=False), 3, (2 / 3, 1 / 3, 0)),
        (LossSpec(coarsest_head=False), 1, (1,)),
        (LossSpec(deep_supervision=False), 2, (1, 0)),
        (LossSpec(deep_supervision=False, coarsest_head=False), 1, (1,)),
    ],
)
def test_weights_of_heads(spec, count, weights):
    assert spec.weigh_heads(count) == pytest.approx(weights)


def test_half_precision_logits_are_summed_in_single_precision():
    logits, target = draw(4, 1, 2, (40, 40, 40))
    half, target = torch.from_numpy(logits).bfloat16(), torch.from_numpy(target)
    loss = compute_loss([half], target, LossSpec(), True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(compute_loss([half.float()], target, LossSpec(), True).item(), rel=1e-6)
    assert compute_soft_dice(gather_classes(half, target), True).dtype == torch.float32
