"""The loss against a slow oracle with one-hot maps in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.records.plan import LossSpec
from autoseg.training.losses import SMOOTH, compute_dice_cross_entropy, compute_loss, compute_soft_dice

torch.set_num_threads(1)


def compute_slowly(logits: np.ndarray, target: np.ndarray, batch_dice: bool) -> tuple[float, float]:
    """(soft Dice, cross-entropy) voxel by voxel."""
    logits = np.moveaxis(logits.astype(np.float64), 1, -1)
    classes = logits.shape[-1]
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    entropy = [-np.log(probabilities[(*place, target[place])]) for place in np.ndindex(target.shape) if target[place] != -1]
    groups = [list(range(len(target)))] if batch_dice else [[sample] for sample in range(len(target))]
    dice = []
    for group in groups:
        for number in range(1, classes):
            intersection = predicted = reference = 0.0
            for sample in group:
                counted = target[sample] != -1
                truth = (target[sample] == number)[counted].astype(np.float64)
                share = probabilities[sample][..., number][counted]
                intersection += (truth * share).sum()
                predicted += share.sum()
                reference += truth.sum()
            dice.append((2 * intersection + SMOOTH) / (predicted + reference + SMOOTH))
    return float(np.mean(dice)), float(np.mean(entropy))


def draw(seed: int, samples: int, classes: int, shape: tuple[int, ...], ignore: bool = True) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (samples, classes, *shape)).astype(np.float32)
    return logits, generator.integers(-1 if ignore else 0, classes, (samples, *shape))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 4), st.sampled_from([(3, 4), (2, 3, 4)]), st.booleans(), st.booleans())
def test_dice_and_cross_entropy_equal_the_oracle(seed, samples, classes, shape, batch_dice, ignore):
    logits, target = draw(seed, samples, classes, shape, ignore)
    dice, entropy = compute_slowly(logits, target, batch_dice)
    tensors = torch.from_numpy(logits), torch.from_numpy(target)
    assert compute_soft_dice(*tensors, batch_dice).item() == pytest.approx(dice, rel=1e-4, abs=1e-5)
    spec = LossSpec(dice_weight=0.7, cross_entropy_weight=1.3)
    expected = 0.7 * (1 - dice) + 1.3 * entropy
    assert compute_dice_cross_entropy(*tensors, spec, batch_dice).item() == pytest.approx(expected, rel=1e-4)


def test_ignored_voxels_have_no_influence_and_no_gradient():
    logits, target = draw(1, 2, 3, (3, 4, 5))
    one = torch.from_numpy(logits).requires_grad_()
    loss = compute_loss([one], torch.from_numpy(target), LossSpec(), True)
    loss.backward()
    ignored = torch.from_numpy(target == -1)
    assert not one.grad.movedim(1, -1)[ignored].any()
    other = np.where((target == -1)[:, None], 50.0, logits).astype(np.float32)
    assert compute_loss([torch.from_numpy(other)], torch.from_numpy(target), LossSpec(), True).item() == pytest.approx(
        loss.item(), rel=1e-6
    )


def test_a_batch_of_ignored_voxels_alone_costs_nothing_and_has_zero_gradients():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = compute_loss([logits], torch.full((2, 4, 4), -1), LossSpec(), True)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    target = torch.from_numpy(draw(2, 1, 3, (4, 4), ignore=False)[1])
    perfect = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float() * 100
    assert compute_loss([perfect], target, LossSpec(), True).item() == pytest.approx(0, abs=1e-4)
    assert compute_loss([-perfect], target, LossSpec(), True).item() > 10


def test_coarser_heads_count_half_of_the_next_finer_and_all_sum_to_one():
    target = torch.from_numpy(draw(3, 2, 3, (8, 8))[1])
    heads = [torch.randn(2, 3, size, size) for size in (8, 4, 2)]
    shrunk = [target, target[:, 1::2, 1::2], target[:, 2::4, 2::4]]  # nearest-exact takes the voxel that holds the centre
    parts = [compute_dice_cross_entropy(head, part, LossSpec(), True) for head, part in zip(heads, shrunk)]
    expected = (4 * parts[0] + 2 * parts[1] + parts[2]) / 7
    torch.testing.assert_close(compute_loss(heads, target, LossSpec(), True), expected)
    alone = compute_loss(heads, target, LossSpec(deep_supervision=False), True)
    torch.testing.assert_close(alone, parts[0])


def test_half_precision_logits_are_summed_in_single_precision():
    logits, target = draw(4, 1, 2, (40, 40, 40), ignore=False)
    half = torch.from_numpy(logits).bfloat16()
    loss = compute_loss([half], torch.from_numpy(target), LossSpec(), True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(compute_loss([half.float()], torch.from_numpy(target), LossSpec(), True).item(), rel=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_the_loss_of_regions_equals_region_after_region(batch_dice):
    """Of the minimal version: goes with it."""
    generator = np.random.default_rng(5)
    logits, target = generator.normal(0, 2, (2, 2, 3, 4)), generator.integers(-1, 3, (2, 3, 4))
    members = {0: (1, 2), 1: (2,)}
    entropy, dice = [], []
    for region, numbers in members.items():
        sums = np.zeros((2, 3))
        for place in np.ndindex(target.shape):
            if target[place] == -1:
                continue
            truth, share = target[place] in numbers, 1 / (1 + np.exp(-logits[place[0], region, place[1], place[2]]))
            entropy.append(-np.log(share if truth else 1 - share))
            sums[place[0]] += (truth * share, share, truth)
        sums = sums.sum(axis=0, keepdims=True) if batch_dice else sums
        dice += [(2 * both + SMOOTH) / (predicted + reference + SMOOTH) for both, predicted, reference in sums]
    table = torch.tensor([[False, True, True], [False, False, True]])
    loss = compute_loss([torch.from_numpy(logits).float()], torch.from_numpy(target), LossSpec(), batch_dice, table)
    assert loss.item() == pytest.approx(1 - np.mean(dice) + np.mean(entropy), rel=1e-4)
