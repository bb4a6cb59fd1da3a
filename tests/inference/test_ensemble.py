"""Configurations of different voxels, averaged on the scan's grid, against a slow oracle in float64."""

import msgspec
import numpy as np
import pytest
import torch
from builders import make_configuration
from models_for_tests import SPACING, make_array, write_model
from scipy import ndimage

import autoseg.inference.export as export_module
from autoseg.arrays.labels import decode_labels
from autoseg.errors import InputError
from autoseg.inference.ensemble import apply_thresholds, describe_kept, join_predictors, list_configurations, pack, unpack
from autoseg.inference.export import restore_labels
from autoseg.inference.predictor import load_predictor
from autoseg.io.scans import make_volume_of_array
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel
from autoseg.records.detection import Thresholds
from autoseg.records.plan import Normalization

torch.set_num_threads(1)
NORMALIZATION = (Normalization(scheme="zscore"),)
FLAT = make_configuration(2, normalization=NORMALIZATION, spacing=(1.4, 1.1))
COARSE = make_configuration(3, normalization=NORMALIZATION, spacing=(1.7, 1.3, 2.0), name="3d_lowres")


@pytest.fixture
def pair(tmp_path):
    """A 2D model and a coarse 3D one, both untrained, of two classes."""
    folders = [write_model(tmp_path / "flat", 0, configuration=FLAT), write_model(tmp_path / "coarse", 1, configuration=COARSE)]
    return [load_predictor([folder], "cpu") for folder in folders]


def make_volume():
    array = make_array()[None]
    array[:, :2], array[..., -1:] = 0, 0  # a crop to undo
    return make_volume_of_array(array, SPACING)


def resample_slowly(prediction, axes):
    """Probabilities on the canonical grid in float64, by linear interpolation between the centres of voxels; background outside."""
    geometry, values = prediction.geometry, prediction.probabilities.double().numpy()
    cropped = [high - low for low, high in geometry.box]
    centres = [(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(values.shape[1:], cropped)]
    places = np.meshgrid(*centres, indexing="ij")
    whole = np.zeros((len(values), *geometry.shape))
    whole[0] = 1
    for source, target in zip(values, whole):
        target[tuple(slice(low, high) for low, high in geometry.box)] = ndimage.map_coordinates(source, places, order=1, mode="nearest")
    return np.stack([np.moveaxis(own, range(3), axes) for own in whole])


@pytest.mark.parametrize("values", [32_000_000, 300])
def test_two_configurations_are_averaged_on_the_scans_grid(pair, monkeypatch, values):
    monkeypatch.setattr(export_module, "SLAB_VALUES", values)
    both, volume = join_predictors(pair), make_volume()
    header = both.header
    parts = [resample_slowly(predictor.run(volume)[0], header.axes) for predictor in pair]
    assert parts[0].shape[1:] == volume.grid.shape
    mean = sum(parts) / 2
    answers = both.run(volume)
    assert len({answer.probabilities.shape for answer in answers}) == 2
    np.testing.assert_allclose(both.make_probabilities(answers), mean, atol=1e-3)
    expected = decode_labels(mean.argmax(axis=0), header.classes, 0)
    margin = np.diff(np.sort(mean, axis=0)[-2:], axis=0)[0]
    mask = both.make_mask(answers)
    assert np.array_equal(mask[margin > 2e-3], expected[margin > 2e-3])
    assert (margin > 2e-3).mean() > 0.95
    alone = [predictor.make_mask(predictor.run(volume)) for predictor in pair]
    assert all((mask != own).any() for own in alone)
    assert np.array_equal(both.segment(volume), mask)


def test_an_ensemble_of_one_is_the_model_itself(pair):
    assert join_predictors(pair[:1]) == pair[0]


def test_digests_tell_members_their_order_and_rules_apart(pair):
    rule = (Rule(kind="largest_component"),)
    made = [join_predictors(pair), join_predictors(pair[::-1]), join_predictors(pair, rule), join_predictors(pair[:1], rule), *pair]
    assert len({predictor.digest for predictor in made}) == 6
    assert list_configurations(made[0]) == ("2d", "3d_lowres")


def test_kept_probabilities_change_ties_only(pair):
    volume = make_volume()
    for predictor in pair:
        answers = predictor.run(volume)
        record = describe_kept(answers[0], predictor.header, "a", "digest")
        restored = [unpack(record, pack(answers[0], predictor.header))]
        assert restored[0].probabilities.dtype == torch.float16
        probabilities = predictor.make_probabilities(answers)
        margin = np.diff(np.sort(probabilities, axis=0)[-2:], axis=0)[0]
        mask, again = predictor.make_mask(answers), predictor.make_mask(restored)
        assert np.array_equal(mask[margin > 2.5 / 255], again[margin > 2.5 / 255])
        assert (mask != again).mean() < 0.02
        assert np.array_equal(restore_labels(restored, record.axes), restore_labels(restored * 2, record.axes))


def test_rules_see_label_numbers_and_the_scans_spacing(pair, monkeypatch):
    seen = []

    def apply(labels, rules, classes, spacing):
        seen.append((set(np.unique(labels)), rules, spacing))
        return np.where(labels == 2, 1, labels)

    monkeypatch.setattr("autoseg.inference.predictor.apply_rules", apply)
    rules, volume = (Rule(kind="fill_holes", class_name="core"),), make_volume()
    joined, plain = join_predictors(pair, rules), join_predictors(pair)
    mask, raw = joined.segment(volume), plain.segment(volume)
    assert seen == [({0, 1, 2}, rules, SPACING)]
    assert np.array_equal(mask, np.where(raw == 7, 2, raw))


def test_what_cannot_be_averaged_is_refused(pair, tmp_path):
    classes = (ClassLabel(name="edema", values=(2,)), ClassLabel(name="x", values=(7,)))
    other = load_predictor([write_model(tmp_path / "c", classes=classes)], "cpu")
    with pytest.raises(InputError, match="2d and 3d_fullres differ in their classes"):
        join_predictors([pair[0], other])
    turned = load_predictor([write_model(tmp_path / "d", axes=(0, 1, 2))], "cpu")
    with pytest.raises(InputError, match="differ in their axes"):
        join_predictors([pair[0], turned])


def test_chosen_thresholds_replace_the_models(pair):
    tuned = apply_thresholds(pair[0], Thresholds(score=0.7))
    assert tuned.thresholds.score == 0.7
    assert tuned.digest != pair[0].digest
    assert apply_thresholds(tuned, Thresholds(score=0.7)) is tuned
    assert msgspec.structs.replace(tuned.header, thresholds=None) == pair[0].header
