"""How channels are normalised, by name and by what cropping leaves."""

import numpy as np
import pytest

from autoseg.arrays.intensities import measure_intensities
from autoseg.planning.normalization import decide_normalization

ROW = (3, (1.0, 1.0, 1.0), (30, 30, 30))


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
def test_the_name_of_the_channel_decides_whatever_its_case(describe, name, scheme):
    (chosen,), reason = decide_normalization(*describe([ROW], channels=(name,)))
    assert chosen.scheme == scheme
    assert reason.startswith(f"{name}:")


def test_every_channel_has_its_own(describe):
    chosen, reason = decide_normalization(*describe([ROW], channels=("CT", "PET", "nonorm")))
    assert [normalization.scheme for normalization in chosen] == ["ct", "zscore", "none"]
    assert reason.count(";") >= 2


@pytest.mark.parametrize(("edge", "masked"), [(30, False), (40, False), (41, True), (90, True)])
def test_zscore_counts_the_inside_only_where_cropping_keeps_less_than_three_quarters(describe, edge, masked):
    chosen, _ = decide_normalization(*describe([ROW], channels=("T1", "CT"), shape=(edge, 30, 30)))
    assert (chosen[0].mask, chosen[1].mask) == (masked, False)


def test_ct_takes_mean_deviation_and_clip_from_the_foreground_of_all_cases(describe):
    values = np.random.default_rng(0).integers(-100, 200, 5000)
    (chosen,), _ = decide_normalization(*describe([ROW], channels=("CT",), foreground=measure_intensities(values)))
    assert (chosen.mean, chosen.std) == pytest.approx((values.mean(), values.std()))
    assert (chosen.low, chosen.high) == pytest.approx(tuple(np.quantile(values, (0.005, 0.995))))
