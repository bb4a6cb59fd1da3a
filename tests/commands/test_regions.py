"""Overlapping classes the whole way: a tumour of three nested regions, as in BraTS, with and without voxels that nobody has labelled."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import read_array, write_scan

import autoseg as package
from autoseg.arrays.labels import unpack_voxels
from autoseg.io.files import load_record
from autoseg.io.store import Store
from autoseg.records.dataset import Dataset
from autoseg.records.predictions import Predictions
from autoseg.records.scores import Scores
from autoseg.records.training import ModelHeader

SHAPE = (20, 24, 24)
SETS = {"whole": (1, 2, 3), "core": (3, 2), "enhancing": (2,)}  # painted with the first; not in the order of the values
IGNORED = 4
STEPS = {False: 60, True: 15}  # enough to learn; enough to have something to write
WORDS = ("--device", "cpu", "--minutes", "0.5", "--workers", "1")


def draw_tumour(seed: int, ignore: bool) -> tuple[np.ndarray, np.ndarray]:
    """Three spheres, one in the other, brighter inwards; with `ignore` the first slices are not labelled."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(9, 12, 3)
    distance = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(np.ogrid[tuple(slice(size) for size in SHAPE)], centre)))
    label = sum((distance < radius).astype(np.uint8) for radius in (8, 5.5, 3))
    image = (100 * label + generator.normal(100, 10, SHAPE)).clip(1).astype(np.float32)
    label = np.array([0, 1, 3, 2], np.uint8)[label]
    if ignore:
        label[:8] = IGNORED
    return image, label


@pytest.fixture(scope="module", params=[False, True], ids=["labelled", "partly labelled"])
def run(request, tmp_path_factory):
    """(folder of scans as nnU-Net has them, a run of them with fold 0 trained, whether some voxels are to be ignored)."""
    from autoseg.cli import main

    ignore, folder = request.param, tmp_path_factory.mktemp("tumours")
    labels = {"background": 0, **{name: list(values) for name, values in SETS.items()}}
    declared = {"channel_names": {"0": "MR"}, "labels": labels | ({"ignore": IGNORED} if ignore else {}), "regions_class_order": [1, 3, 2]}
    for seed in range(4):
        image, label = draw_tumour(seed, ignore)
        write_scan(folder / "scans" / "imagesTr" / f"case{seed}_0000.nii.gz", image)
        write_scan(folder / "scans" / "labelsTr" / f"case{seed}.nii.gz", label)
    (folder / "scans" / "dataset.json").write_text(json.dumps(declared))
    assert main(["plan", str(folder / "scans"), "-o", str(folder / "run"), *WORDS]) == 0
    words = ("--fold", "0", "--device", "cpu", "--precision", "fp32", "--workers", "1", "--steps", str(STEPS[ignore]))
    assert main(["train", str(folder / "run"), *words]) == 0
    return folder / "scans", folder / "run", ignore


def test_the_run_knows_its_regions_and_measures_each_whole(run, autoseg):
    scans, folder, ignore = run
    dataset = load_record(Dataset, folder / "dataset.json")
    assert dataset.regions
    assert [(label.name, label.values) for label in dataset.classes] == list(SETS.items())
    assert dataset.ignore_value == (IGNORED if ignore else None)
    fingerprint = json.loads((folder / "fingerprint.json").read_text())
    for case in fingerprint["cases"]:
        label = read_array(scans / "labelsTr" / f"{case['case']}.nii.gz")
        assert [part["voxels"] for part in case["classes"]] == [int(np.isin(label, values).sum()) for values in SETS.values()]
        assert case["channels"][0]["foreground"]["count"] == int(np.isin(label, (1, 2, 3)).sum())
    told = autoseg("plan", folder, "--explain").out
    assert "core (2+3) as 3, enhancing (2) as 2" in " ".join(told.split())
    assert (f"value {IGNORED} in the labels" in told) == ignore


def test_the_store_lists_voxels_of_every_region_and_of_what_is_labelled(run):
    _, folder, ignore = run
    store = Store(folder / "prepared" / "3d_fullres")
    record = store.load("case0")
    label = store.read_label("case0", tuple((0, size) for size in record.geometry.prepared_shape))
    assert set(np.unique(label)) == ({-1, 0, 1, 2, 3} if ignore else {0, 1, 2, 3})
    for packed, objects, numbers in zip(record.foreground, record.objects, SETS.values(), strict=True):
        assert packed
        for part in (packed, *objects):
            assert all(label[tuple(voxel)] in numbers for voxel in unpack_voxels(part, 3))
    assert bool(record.labelled) == ignore
    assert all(label[tuple(voxel)] >= 0 for voxel in unpack_voxels(record.labelled, 3))


def test_every_region_is_learnt_and_scored_and_the_network_has_no_background(run):
    _, folder, ignore = run
    fold = folder / "models" / "3d_fullres" / "fold_0"
    scores = load_record(Scores, fold / "validation" / "scores.json")
    assert list(scores.classes) == list(SETS)
    least = 0.02 if ignore else 0.35
    assert all(intervals["dice"].mean > least for intervals in scores.classes.values()), scores.mean
    header = load_record(ModelHeader, fold / "model.json")
    assert header.regions
    followed = (fold / "log.csv").read_text().splitlines()
    assert followed[0].endswith("validation_dice_whole,validation_dice_core,validation_dice_enhancing,predicted_foreground")
    last = [float(value) for value in followed[-1].split(",")[-4:-1]]
    assert min(last) > least


def test_masks_are_label_maps_again_and_probabilities_are_per_region(run, autoseg, tmp_path):
    scans, folder, _ = run
    answer = autoseg("predict", folder, scans / "imagesTr", "-o", tmp_path, "--probabilities", "--device", "cpu", "--tta")
    assert answer.code == 0, answer.err
    mask = read_array(tmp_path / "case1.nii.gz")
    assert set(np.unique(mask)) <= {0, 1, 2, 3}
    assert (mask == 3).any()
    probabilities = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case1_probabilities.nii.gz")))
    assert probabilities.shape == (*SHAPE, 3)
    painted = np.zeros(SHAPE, int)
    for value, channel in zip((1, 3, 2), np.moveaxis(probabilities, -1, 0), strict=True):
        painted[channel > 0.5] = value
    np.testing.assert_array_equal(mask, painted)
    assert load_record(Predictions, tmp_path / "predictions.json").classes == load_record(Dataset, folder / "dataset.json").classes
    assert autoseg("evaluate", tmp_path, scans / "labelsTr").code == 0
    rows = {(row.case, row.class_name): row for row in load_record(Scores, tmp_path / "scores.json").cases}
    reference = read_array(scans / "labelsTr" / "case1.nii.gz")
    counted = reference != IGNORED
    for name, values in SETS.items():
        truth, found = np.isin(reference, values) & counted, np.isin(mask, values) & counted
        assert rows["case1", name].dice == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
        assert rows["case1", name].voxels_reference == truth.sum()


def test_a_loaded_model_gives_the_mask_of_the_command(run):
    scans, folder, _ = run
    image = read_array(scans / "imagesTr" / "case2_0000.nii.gz")
    mask = package.load(folder, "cpu").predict((image, (1.0, 1.0, 1.0)))
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1, 2, 3}
    assert (mask == 3).any()


def test_typed_regions_plan_as_declared_ones(run, autoseg, tmp_path):
    scans, folder, ignore = run
    shutil.copytree(scans, tmp_path / "scans")
    (tmp_path / "scans" / "dataset.json").unlink()
    typed = "enhancing=2,whole=1+2+3,core=2+3" + (f",ignore={IGNORED}" if ignore else "")
    answer = autoseg("plan", tmp_path / "scans", "-o", tmp_path / "run", *WORDS, "--classes", typed)
    assert answer.code == 0, answer.err
    assert "whole (1+2+3) as 1, core (2+3) as 3" in answer.out
    ours, declared = (load_record(Dataset, path / "dataset.json") for path in (tmp_path / "run", folder))
    assert (ours.classes, ours.ignore_value) == (declared.classes, declared.ignore_value)
    assert (
        json.loads((tmp_path / "run/fingerprint.json").read_text())["cases"]
        == json.loads((folder / "fingerprint.json").read_text())["cases"]
    )


def test_values_that_nobody_typed_are_listed_before_anything_is_written(run, autoseg, tmp_path):
    scans, _, _ = run
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *WORDS, "--classes", "whole=1+2,core=2")
    assert answer.code == 2
    assert "case0  label values [3" in answer.err
    assert not (tmp_path / "run").exists()
