"""One model, one scan, one mask: however the scan is handed over."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from builders import make_image
from models_for_tests import CLASSES, SPACING, make_array, write_model

from autoseg.errors import InputError
from autoseg.inference.predictor import load_predictor
from autoseg.io.scans import make_volume_of_array
from autoseg.records.dataset import ClassLabel

torch.set_num_threads(1)


def write_scan(path: Path, array: np.ndarray, direction: np.ndarray) -> Path:
    sitk.WriteImage(make_image(array, SPACING[::-1], (1.0, -2.0, 3.0), direction), str(path))
    return path


def test_path_image_and_array_give_the_same_mask(tmp_path):
    predictor = load_predictor([write_model(tmp_path / "fold_0")], "cpu")
    array = make_array()
    path = write_scan(tmp_path / "scan.nii.gz", array, np.eye(3))
    of_array = predictor.predict((array, SPACING))
    assert of_array.dtype == np.uint8
    assert set(np.unique(of_array)) <= {0, 2, 7}
    assert len(np.unique(of_array)) > 1
    for given in (path, str(path), [path], sitk.ReadImage(str(path))):
        mask = predictor.predict(given)
        assert np.array_equal(sitk.GetArrayFromImage(mask), of_array)
    assert np.array_equal(predictor.predict((array[None], SPACING)), of_array)


def test_a_scan_stored_in_another_orientation_gets_the_same_mask_on_its_own_grid(tmp_path):
    predictor = load_predictor([write_model(tmp_path / "fold_0")], "cpu")
    image = sitk.ReadImage(str(write_scan(tmp_path / "scan.nrrd", make_array(), np.eye(3))))
    turned = sitk.DICOMOrient(image, "RSA")
    mask = predictor.predict(turned)
    assert mask.GetSize() == turned.GetSize()
    assert mask.GetDirection() == turned.GetDirection()
    assert mask.GetOrigin() == turned.GetOrigin()
    expected = sitk.GetArrayFromImage(predictor.predict(image))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(mask, "LPS")), expected)


def test_regions_are_predicted_by_sigmoids_averaged_over_folds_and_painted(tmp_path):
    names = (("whole", (4, 5, 6)), ("core", (5, 6)), ("rim", (6,)))
    regions = tuple(ClassLabel(name=name, values=values) for name, values in names)
    folds = [write_model(tmp_path / f"fold_{seed}", seed, classes=regions) for seed in range(2)]
    both = load_predictor(folds, "cpu")
    volume = make_volume_of_array(make_array()[None], SPACING)
    parts = [load_predictor([fold], "cpu").run(volume)[0].probabilities for fold in folds]
    assert parts[0].sum(dim=0).max() > 1.1  # no softmax
    torch.testing.assert_close(both.run(volume)[0].probabilities, sum(parts) / 2)
    probabilities = both.make_probabilities(both.run(volume))
    assert probabilities.shape == (3, *volume.grid.shape)
    painted = np.zeros(volume.grid.shape, np.uint8)
    for value, region in zip((4, 5, 6), probabilities):
        painted[region > 0.5] = value
    assert len(np.unique(painted)) > 2
    np.testing.assert_array_equal(both.make_mask(both.run(volume)), painted)


def test_folds_are_averaged(tmp_path):
    folds = [write_model(tmp_path / f"fold_{seed}", seed) for seed in range(2)]
    volume = (make_array(), SPACING)
    alone = [load_predictor([fold], "cpu") for fold in folds]
    both = load_predictor(folds, "cpu")
    assert len({predictor.digest for predictor in (*alone, both)}) == 3
    image = sitk.ReadImage(str(write_scan(tmp_path / "scan.nrrd", volume[0], np.eye(3))))
    assert sitk.GetArrayFromImage(both.predict(image)).shape == volume[0].shape
    canonical = make_volume_of_array(volume[0][None], SPACING)
    parts = [predictor.run(canonical)[0].probabilities for predictor in alone]
    torch.testing.assert_close(both.run(canonical)[0].probabilities, sum(parts) / 2)
    probabilities = both.make_probabilities(both.run(canonical))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-4)


def test_several_channels_come_as_a_list_of_paths_or_channels_first(tmp_path):
    predictor = load_predictor([write_model(tmp_path / "fold_0", channels=2)], "cpu")
    arrays = np.stack([make_array(), make_array() ** 2])
    paths = [write_scan(tmp_path / f"{index}.nrrd", array, np.eye(3)) for index, array in enumerate(arrays)]
    assert np.array_equal(sitk.GetArrayFromImage(predictor.predict(paths)), predictor.predict((arrays, SPACING)))


def test_what_does_not_fit_the_model_is_refused(tmp_path):
    predictor = load_predictor([write_model(tmp_path / "fold_0")], "cpu")
    with pytest.raises(InputError, match="1 channels, the array 2"):
        predictor.predict((np.zeros((2, 9, 9, 9)), SPACING))
    flat = tmp_path / "flat.png"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 9), np.uint8)), str(flat))
    with pytest.raises(InputError, match="trained on 3D scans, this one is 2D"):
        predictor.predict(flat)


def test_no_fold_and_folds_of_different_kinds_are_refused(tmp_path):
    with pytest.raises(InputError, match="no model"):
        load_predictor([], "cpu")
    folds = [write_model(tmp_path / "a"), write_model(tmp_path / "b", classes=tuple(reversed(CLASSES)))]
    with pytest.raises(InputError, match="cannot be averaged"):
        load_predictor(folds, "cpu")
