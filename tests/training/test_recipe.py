"""What is drawn for a patch: physical rotations and zooms, and changes as often and as strong as planned."""

import msgspec
import numpy as np
import pytest
from builders import STILL

from autoseg.records.plan import AugmentationSpec
from autoseg.training.recipe import draw_displacements, draw_intensity, draw_matrix, make_generator

LIVELY = AugmentationSpec(rotation_probability=0.5, scaling_probability=0.5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0, 1.0), (5.0, 0.7, 0.9)])
def test_a_rotation_preserves_physical_lengths_and_angles(spacing):
    scale = np.diag(spacing)
    for number in range(20):
        matrix, unchanged = draw_matrix(
            make_generator(number), msgspec.structs.replace(LIVELY, rotation_probability=1.0, scaling_probability=0.0), spacing
        )
        assert not unchanged
        turn = scale @ matrix @ np.linalg.inv(scale)
        np.testing.assert_allclose(turn @ turn.T, np.eye(len(spacing)), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_a_zoom_scales_all_axes_alike_within_its_range():
    spec = msgspec.structs.replace(LIVELY, rotation_probability=0.0, scaling_probability=1.0)
    zooms = []
    for number in range(200):
        matrix, _ = draw_matrix(make_generator(number), spec, (5.0, 1.0, 1.0))
        np.testing.assert_allclose(matrix, np.eye(3) * matrix[0, 0], atol=1e-12)
        zooms.append(matrix[0, 0])
    assert 0.7 <= min(zooms) < 0.75
    assert 1.3 < max(zooms) <= 1.4


def test_no_rotation_and_no_zoom_is_the_identity():
    matrix, unchanged = draw_matrix(make_generator(0), STILL, (5.0, 1.0, 1.0))
    assert unchanged
    assert np.array_equal(matrix, np.eye(3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (1.0, 1.0)])
def test_quarter_turns_stay_on_the_axes_and_in_planes_of_equal_spacing(spacing):
    spec = msgspec.structs.replace(STILL, turn_probability=1.0)
    found = set()
    for number in range(200):
        matrix, unchanged = draw_matrix(make_generator(number), spec, spacing)
        assert set(np.unique(np.abs(matrix))) <= {0.0, 1.0}
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert unchanged == np.array_equal(matrix, np.eye(len(spacing)))
        if spacing[0] == 5.0:
            assert matrix[0, 0] == 1
        found.add(matrix.tobytes())
    assert len(found) == (24 if spacing == (1.0, 1.0, 1.0) else 4)


def test_displacements_have_their_deviation_in_millimetres_and_their_distance():
    spec = msgspec.structs.replace(STILL, elastic_probability=1.0, elastic=(2.0, 2.0), elastic_scale=8.0)
    drawn = [draw_displacements(make_generator(number), spec, (16, 64, 64), (3.0, 1.0, 1.0)) for number in range(30)]
    assert {one.shape for one in drawn} == {(3, 7, 9, 9)}
    deviations = np.stack(drawn).std(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(deviations, (2 / 3, 2.0, 2.0), rtol=0.06)
    assert draw_displacements(make_generator(0), STILL, (16, 64, 64), (3.0, 1.0, 1.0)) is None


def test_intensity_changes_come_as_often_as_planned_and_within_their_ranges():
    spec = AugmentationSpec()
    drawn = [draw_intensity(make_generator(number), spec, 3, 2) for number in range(1500)]
    factors = {
        "brightness": (spec.brightness_probability, spec.brightness),
        "contrast": (spec.contrast_probability, spec.contrast),
        "inverted_gamma": (spec.inverted_gamma_probability, spec.gamma),
        "gamma": (spec.gamma_probability, spec.gamma),
        "zoom": (spec.low_resolution_probability, spec.low_resolution),
    }
    for name, (probability, (low, high)) in factors.items():
        table = np.array([getattr(one, name) for one in drawn])
        struck = (table != 1).any(axis=1)
        each = spec.low_resolution_channel_probability if name == "zoom" else 1.0
        assert struck.mean() == pytest.approx(probability * (1 - (1 - each) ** 3), abs=0.04), name
        assert (table[struck] != 1).mean() == pytest.approx(each / (1 - (1 - each) ** 3), abs=0.06), name
        values = table[table != 1]
        assert low <= values.min() < values.max() <= high, name
        if name != "zoom":
            assert (values < 1).mean() == pytest.approx(0.5, abs=0.12), name
    noise = np.array([one.noise_std for one in drawn])
    assert (noise > 0).mean() == pytest.approx(spec.noise_probability, abs=0.03)
    assert noise.max() <= spec.noise_std[1]
    blur = np.array([one.blur for one in drawn])
    assert (blur > 0).all(axis=2).mean() == pytest.approx(spec.blur_probability * 0.5, abs=0.03)
    assert spec.blur_sigma[0] <= blur[blur > 0].min() < blur.max() <= spec.blur_sigma[1]
    assert all(one.streaks is None and one.occlusion == () for one in drawn)


def test_occlusions_and_streaks_lie_inside_the_patch():
    spec = msgspec.structs.replace(STILL, occlusion_probability=0.5, streak_probability=0.5)
    drawn = [draw_intensity(make_generator(number), spec, 1, 3) for number in range(400)]
    boxes = np.array([one.occlusion for one in drawn if one.occlusion])
    assert len(boxes) / len(drawn) == pytest.approx(0.5, abs=0.08)
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    edges = boxes[..., 1] - boxes[..., 0]
    assert spec.occlusion[0] <= edges.min() < edges.max() <= spec.occlusion[1]
    streaks = [one.streaks for one in drawn if one.streaks]
    assert len(streaks) / len(drawn) == pytest.approx(0.5, abs=0.08)
    assert all(0 <= share <= 1 for one in streaks for share in one.centre)
