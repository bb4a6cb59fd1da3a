"""What is given up where a step does not fit: first the batch, then the patch, never the network."""

import math

from builders import make_configuration

from autoseg.planning.fallback import step_down


def test_the_batch_is_halved_and_the_patches_per_update_stay():
    whole = make_configuration(batch_size=8)
    half = step_down(whole)
    assert (half.batch_size, half.accumulation) == (4, 2)
    assert (half.patch_size, half.network) == (whole.patch_size, whole.network)
    assert "8" in half.reasons["batch_size"]
    odd = step_down(make_configuration(batch_size=3))
    assert (odd.batch_size, odd.accumulation) == (1, 3)


def test_then_the_patch_loses_a_divisor_where_it_covers_most_of_the_scan():
    whole = make_configuration(batch_size=1, patch_size=(16, 32, 32), median_shape=(16.0, 64.0, 64.0))
    smaller = step_down(whole)
    assert smaller.patch_size == (14, 32, 32)
    assert smaller.network == whole.network
    assert "16x32x32" in smaller.reasons["patch_size"]


def test_in_the_end_nothing_is_left_and_every_patch_on_the_way_can_be_halved():
    configuration, steps = make_configuration(batch_size=4, patch_size=(16, 32, 32)), 0
    while (smaller := step_down(configuration)) is not None:
        before = configuration.batch_size * math.prod(configuration.patch_size)
        assert smaller.batch_size * math.prod(smaller.patch_size) < before
        assert all(edge % 2 == 0 and edge > 0 for edge in smaller.patch_size)
        configuration, steps = smaller, steps + 1
    assert steps > 5
    assert max(configuration.patch_size) <= 16
