"""How channels are normalised: by name, by what cropping leaves, and by intensities where the name says nothing."""

import msgspec
import numpy as np
import pytest

from autoseg.arrays.intensities import measure_intensities
from autoseg.io.profiles import read_profile
from autoseg.planning.normalization import decide_normalization, measure_kept, pool_foreground
from autoseg.records.fingerprint import ChannelIntensities, PooledIntensities, Summary

ROW = (3, (1.0, 1.0, 1.0), (30, 30, 30))
EVIDENCE, NAMES = read_profile("autoseg"), read_profile("nnunet")
POOLED = PooledIntensities(mean=50.0, median=40.0, std=30.0, minimum=-900.0, maximum=2000.0, low=-80.0, high=210.0)
SUMMARY = Summary(kept=0.7, channels=(POOLED,))


def decide(data, profile=EVIDENCE):
    return decide_normalization(*data, profile)


@pytest.mark.parametrize("profile", [EVIDENCE, NAMES])
@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("T1", "zscore"),
        ("zscore", "zscore"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "rescale"),
        ("RGB_to_0_1", "rgb"),
        ("CT contrast", "zscore"),
    ],
)
def test_the_name_of_the_channel_decides_whatever_its_case(describe, name, scheme, profile):
    (chosen,), reason = decide(describe([ROW], channels=(name,)), profile)
    assert chosen.scheme == scheme
    assert reason.startswith(f"{name}:")


def test_a_channel_called_none_is_left_alone_only_where_names_need_not_mean_what_they_do_in_the_reference(describe):
    data = describe([ROW], channels=("None",))
    assert decide(data, EVIDENCE)[0][0].scheme == "none"
    assert decide(data, NAMES)[0][0].scheme == "zscore"


def test_every_channel_has_its_own(describe):
    chosen, reason = decide(describe([ROW], channels=("CT", "PET", "nonorm")))
    assert [normalization.scheme for normalization in chosen] == ["ct", "zscore", "none"]
    assert reason.count(";") >= 2


@pytest.mark.parametrize(("edge", "masked"), [(30, False), (40, False), (41, True), (90, True)])
def test_zscore_counts_the_inside_only_where_cropping_keeps_less_than_three_quarters(describe, edge, masked):
    data = describe([ROW], channels=("T1", "CT"), shape=(edge, 30, 30))
    chosen, _ = decide(data)
    assert (chosen[0].mask, chosen[1].mask) == (masked, False)
    assert measure_kept(data[1]) == pytest.approx(30 / edge)


def test_what_cropping_leaves_is_the_median_over_cases(describe):
    dataset, fingerprint = describe([(2, (1.0,) * 3, (30, 30, 30)), (1, (1.0,) * 3, (10, 10, 15))], shape=(30, 30, 60))
    assert measure_kept(fingerprint) == 0.5
    assert decide((dataset, fingerprint))[0][0].mask


def test_ct_takes_mean_deviation_and_clip_from_the_foreground_of_all_cases(describe):
    values = np.random.default_rng(0).integers(-100, 200, 5000)
    data = describe([ROW], channels=("CT",), foreground=measure_intensities(values))
    (chosen,), _ = decide(data)
    assert (chosen.mean, chosen.std) == pytest.approx((values.mean(), values.std()))
    assert (chosen.low, chosen.high) == pytest.approx(tuple(np.quantile(values, (0.005, 0.995))))
    pooled = pool_foreground(data[1], 0)
    assert (pooled.mean, pooled.std, pooled.low, pooled.high) == (chosen.mean, chosen.std, chosen.low, chosen.high)


def with_channel(data, wholes, foregrounds=None):
    """The data with one channel per case of these values."""
    dataset, fingerprint = data
    foregrounds = foregrounds or [np.array([0.0])] * len(wholes)
    cases = tuple(
        msgspec.structs.replace(
            case, channels=(ChannelIntensities(whole=measure_intensities(whole), foreground=measure_intensities(foreground)),)
        )
        for case, whole, foreground in zip(fingerprint.cases, wholes, foregrounds, strict=True)
    )
    return dataset, msgspec.structs.replace(fingerprint, cases=cases)


def test_the_foreground_of_all_cases_is_pooled_as_if_it_were_one_set(describe):
    generator = np.random.default_rng(1)
    parts = [generator.integers(low, low + 100, 4000) for low in (-500, 0, 30)]
    _, fingerprint = with_channel(describe([(4, *ROW[1:])]), [np.zeros(1)] * 4, [*parts, np.array([])])
    pooled, every = pool_foreground(fingerprint, 0), np.concatenate(parts)
    assert (pooled.mean, pooled.std) == pytest.approx((every.mean(), every.std()))
    assert (pooled.minimum, pooled.maximum) == (every.min(), every.max())
    assert (pooled.low, pooled.median, pooled.high) == pytest.approx(tuple(np.quantile(every, (0.005, 0.5, 0.995))), abs=5)


def test_without_any_foreground_pooling_leaves_numbers_that_do_no_harm(describe):
    pooled = pool_foreground(describe([ROW])[1], 0)
    assert (pooled.mean, pooled.std, pooled.minimum, pooled.maximum) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("profile", [EVIDENCE, NAMES])
@pytest.mark.parametrize(("name", "scheme"), [("CT", "ct"), ("image", "zscore")])
def test_a_summary_stands_for_cases_that_were_not_measured_here(describe, name, scheme, profile):
    dataset, fingerprint = describe([ROW], channels=(name,))
    bare = tuple(msgspec.structs.replace(case, channels=(), classes=()) for case in fingerprint.cases)
    fingerprint = msgspec.structs.replace(fingerprint, cases=bare, summary=SUMMARY)
    assert (pool_foreground(fingerprint, 0), measure_kept(fingerprint)) == (POOLED, 0.7)
    (chosen,), _ = decide((dataset, fingerprint), profile)
    assert chosen.scheme == scheme
    if scheme == "ct":
        assert (chosen.mean, chosen.std, chosen.low, chosen.high) == (50.0, 30.0, -80.0, 210.0)
    else:
        assert chosen.mask


def make_ct(number, lowest=-1024.0, air=0.3):
    """Values of a scan: air, soft tissue and bone."""
    generator = np.random.default_rng(number)
    around = generator.normal(-995, 5, int(4000 * air))
    body = np.concatenate([generator.normal(40, 40, 4000 - around.size), generator.uniform(300, 1500, 200)])
    return np.concatenate([[lowest], np.clip(around, lowest, None), body])


def make_mr(number):
    generator = np.random.default_rng(number)
    return np.concatenate([np.abs(generator.normal(0, 5, 2000)), generator.normal(400, 150, 2000)])


TWENTY = (20, *ROW[1:])


@pytest.mark.parametrize("name", ["image", "Images", "channel_0", "0000", "0", "scan 1", "img_2", "data"])
def test_ct_is_recognised_where_the_name_says_nothing(describe, name):
    data = with_channel(describe([TWENTY], channels=(name,)), [make_ct(number) for number in range(20)], [np.arange(-50.0, 151.0)] * 20)
    (chosen,), reason = decide(data)
    assert chosen.scheme == "ct"
    assert (chosen.mean, chosen.low, chosen.high) == pytest.approx((50, -49, 149))
    assert all(part in reason for part in (name, "20 of 20", "-1024", "--channels mr="))
    assert decide(data, NAMES)[0][0].scheme == "zscore"


@pytest.mark.parametrize("name", ["MR", "mri", "T1", "t2", "flair", "PET", "CT contrast", "zscore", "imagery", "R"])
def test_a_name_that_says_something_is_believed(describe, name):
    data = with_channel(describe([TWENTY], channels=(name,)), [make_ct(number) for number in range(20)])
    assert decide(data)[0][0].scheme == "zscore"


@pytest.mark.parametrize(("others", "scheme"), [(0, "ct"), (2, "ct"), (3, "zscore"), (20, "zscore")])
def test_nine_tenths_of_the_scans_have_to_agree(describe, others, scheme):
    wholes = [make_mr(number) if number < others else make_ct(number) for number in range(20)]
    (chosen,), reason = decide(with_channel(describe([TWENTY], channels=("image",)), wholes))
    assert chosen.scheme == scheme
    if others == 2:
        assert "18 of 20" in reason


@pytest.mark.parametrize(
    ("what", "values", "scheme"),
    [
        ("zero of the scanner at -1000", make_ct(0, -1000.0), "ct"),
        ("padded around the field of view", np.concatenate([make_ct(0), np.full(900, -2000.0)]), "ct"),
        ("padded further", np.concatenate([make_ct(0), np.full(900, -3024.0)]), "ct"),
        ("MR", make_mr(0), "zscore"),
        ("stored without its offset", make_ct(0) + 1024, "zscore"),
        ("clipped to a window", np.clip(make_ct(0), -200, 300), "zscore"),
        ("no air but single voxels", make_ct(0, air=0.0), "zscore"),
        ("no soft tissue", np.concatenate([np.full(500, -1000.0), np.linspace(-1000, -400, 500)]), "zscore"),
        ("signed phase", np.linspace(-4096, 4095, 999), "zscore"),
        ("lowest between what scanners write", make_ct(0, -1500.0), "zscore"),
        ("nothing", np.array([]), "zscore"),
    ],
)
def test_hounsfield_units_are_air_and_soft_tissue_above_a_lowest_value_that_scanners_write(describe, what, values, scheme):
    (chosen,), _ = decide(with_channel(describe([ROW], channels=("image",)), [values] * 3))
    assert chosen.scheme == scheme, what
