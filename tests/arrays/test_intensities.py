"""Intensity statistics against numpy on the pooled values, and the normalisations against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.intensities import measure_intensities, normalize_channel, pool_moments, pool_quantile
from autoseg.records.fingerprint import QUANTILE_LEVELS
from autoseg.records.plan import Normalization

seeds = st.integers(0, 9999)


def test_statistics_are_those_of_numpy_with_the_population_deviation():
    values = np.random.default_rng(1).normal(40, 12, (5, 6, 7)).astype(np.float32)
    measured = measure_intensities(values)
    assert measured.count == 210
    assert measured.mean == pytest.approx(values.astype(float).mean(), rel=1e-12)
    assert measured.std == pytest.approx(np.sqrt(((values.astype(float) - measured.mean) ** 2).mean()), rel=1e-12)
    assert measured.quantiles == pytest.approx(np.quantile(values.astype(float), QUANTILE_LEVELS))


def test_sums_do_not_overflow_narrow_integers():
    assert measure_intensities(np.full(1000, 30000, np.int16)).mean == 30000


def test_no_values_have_no_quantiles():
    measured = measure_intensities(np.empty(0))
    assert (measured.count, measured.quantiles) == (0, ())


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seeds, st.integers(1, 5))
def test_pooled_moments_are_those_of_equally_large_samples_put_together(seed, parts):
    generator = np.random.default_rng(seed)
    samples = [generator.normal(generator.uniform(-100, 100), generator.uniform(0.1, 30), 50) for _ in range(parts)]
    mean, std = pool_moments([measure_intensities(sample) for sample in samples])
    assert mean == pytest.approx(np.concatenate(samples).mean(), rel=1e-6, abs=1e-6)
    assert std == pytest.approx(np.concatenate(samples).std(), rel=1e-6, abs=1e-6)


def test_pooling_weighs_cases_alike_whatever_their_size_and_skips_empty_ones():
    parts = [measure_intensities(np.array(values)) for values in ([0.0] * 1000, [10.0], [])]
    assert pool_moments(parts) == pytest.approx((5.0, 5.0))
    assert pool_moments([parts[2]]) == (0.0, 1.0)
    assert pool_quantile([parts[2]], 0.5) == 0.0


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seeds, st.integers(1, 4))
def test_pooled_quantiles_come_close_to_those_of_the_samples_put_together(seed, parts):
    """Between stored levels the distribution is taken as linear: the answer must lie between neighbouring quantiles of the pool."""
    generator = np.random.default_rng(seed)
    samples = [generator.normal(generator.uniform(-50, 50), generator.uniform(5, 30), 2000) for _ in range(parts)]
    pool = np.concatenate(samples)
    for level, slack in ((0.005, 0.003), (0.5, 0.08), (0.995, 0.003)):
        low, high = np.quantile(pool, (level - slack, level + slack))
        assert low <= pool_quantile([measure_intensities(sample) for sample in samples], level) <= high


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seeds, st.sampled_from((2, 5, 30, 3000)), st.sampled_from(QUANTILE_LEVELS))
def test_the_quantile_of_one_case_is_exact_at_stored_levels_even_where_values_repeat(seed, distinct, level):
    values = np.random.default_rng(seed).integers(0, distinct, 500)
    part = measure_intensities(values)
    assert pool_quantile([part], level) == pytest.approx(np.quantile(values, level), abs=1e-9)
    assert pool_quantile([part, part], level) == pytest.approx(np.quantile(values, level), abs=1e-9)


def test_the_quantile_of_a_constant_is_the_constant():
    assert pool_quantile([measure_intensities(np.full(9, 7.5))], 0.995) == 7.5


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seeds)
def test_pooled_quantiles_never_fall_as_the_level_rises(seed):
    generator = np.random.default_rng(seed)
    parts = [measure_intensities(generator.integers(0, generator.integers(1, 40), 100)) for _ in range(3)]
    quantiles = [pool_quantile(parts, level) for level in np.linspace(0, 1, 41)]
    assert (np.diff(quantiles) >= -1e-9).all()


@pytest.fixture
def image():
    return np.random.default_rng(3).normal(100, 20, (4, 5, 6)).astype(np.float32)


@pytest.fixture
def mask():
    return np.random.default_rng(4).random((4, 5, 6)) < 0.6


def test_zscore_over_the_image_has_mean_0_and_deviation_1(image, mask):
    scaled = normalize_channel(image, Normalization(scheme="zscore"), mask)
    assert scaled.dtype == np.float32
    assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1), abs=1e-5)


def test_zscore_inside_a_mask_uses_the_inside_only_and_sets_the_outside_to_0(image, mask):
    image[~mask] = 5000
    scaled = normalize_channel(image, Normalization(scheme="zscore", mask=True), mask)
    assert (scaled[mask].mean(), scaled[mask].std()) == pytest.approx((0, 1), abs=1e-5)
    assert (scaled[~mask] == 0).all()


def test_ct_clips_then_scales_by_the_numbers_of_the_data_set(mask):
    image = np.array([-2000.0, -50.0, 30.0, 90.0, 3000.0], np.float32)
    scaled = normalize_channel(image, Normalization(scheme="ct", mean=20, std=10, low=-100, high=120), mask)
    np.testing.assert_allclose(scaled, [-12, -7, 1, 7, 10])


def test_rescale_reaches_from_0_to_1(image, mask):
    scaled = normalize_channel(image, Normalization(scheme="rescale"), mask)
    assert (scaled.min(), scaled.max()) == pytest.approx((0, 1))
    np.testing.assert_allclose(scaled, (image - image.min()) / (image.max() - image.min()), rtol=1e-4, atol=1e-6)


def test_rgb_divides_by_255_and_none_changes_nothing(image, mask):
    np.testing.assert_allclose(normalize_channel(image, Normalization(scheme="rgb"), mask), image / 255, rtol=1e-6)
    np.testing.assert_array_equal(normalize_channel(image, Normalization(scheme="none"), mask), image)


@pytest.mark.parametrize("scheme", ["zscore", "ct", "rescale", "rgb", "none"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_constant_image_stays_finite_and_float32(scheme, inside):
    image = np.full((3, 3), 0.1)
    scaled = normalize_channel(image, Normalization(scheme=scheme, mask=inside and scheme == "zscore"), np.zeros((3, 3), bool))
    assert scaled.dtype == np.float32
    assert np.isfinite(scaled).all()
    if scheme in ("zscore", "rescale"):
        assert (scaled == 0).all()
