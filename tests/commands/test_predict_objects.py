"""`autoseg predict` with a model of objects: maps of ids, lists and a table, on each scan's own grid."""

import csv
import json
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from builders import make_configuration
from made_up_objects import Seer, draw_ellipsoids, make_detection
from planned_runs import make_dataset, make_plan, write_run
from whole_way import read_array, write_scan

import autoseg as package
from autoseg.commands.ensemble import predict_validation
from autoseg.commands.models import Models, load_models
from autoseg.errors import CasesFailed, InputError
from autoseg.inference.ensemble import join_predictors
from autoseg.inference.predictor import Predictor
from autoseg.io.files import load_record, save_record
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.io.weights import save_tensors
from autoseg.networks.build import build_network, export_weights
from autoseg.networks.devices import Compute
from autoseg.records.choice import Choice
from autoseg.records.dataset import Case, Channel, ClassLabel
from autoseg.records.detection import Thresholds
from autoseg.records.predictions import Predictions
from autoseg.records.splits import Fold, Splits
from autoseg.records.training import ModelHeader

NAMES = ("cell", "debris")


def make_header(dimension, **changes):
    configuration = make_configuration(dimension, 64 if dimension == 2 else 32, thresholds=Thresholds(), **changes)
    return ModelHeader(
        fold=0,
        configuration=configuration,
        orientation="LPS",
        axes=tuple(range(dimension)),
        dimension=dimension,
        channels=(Channel(name="image", pattern="{case}.png"),),
        classes=tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(NAMES, 1)),
        background_value=0,
        unit="px" if dimension == 2 else "mm",
        label_pattern="",
        weights_digest="",
        device="cpu",
        precision="fp32",
        channels_last=False,
        steps=1,
        training_cases=1,
    )


def write_model(folder, dimension=2, with_detection=True, **changes):
    """An untrained model in a folder."""
    header = make_header(dimension, detection=make_detection(dimension, mask_bins=(4,) * dimension) if with_detection else None, **changes)
    fold, configuration = FoldFolder(folder), header.configuration
    outputs = 3 if with_detection else 4
    network = build_network(configuration.network, 1, outputs, detection=configuration.detection)
    save_tensors(fold.weights, export_weights(network))
    save_record(fold.model, header)
    return folder


def make_seeing(dimension=2):
    """A predictor that reads the numbers of objects off the image; even ones are debris."""
    classes = {number: 1 + (number % 2 == 0) for number in range(1, 500)}
    return Predictor(
        make_header(dimension, detection=make_detection(dimension)), (Seer(classes, 3, (28,) * dimension),), Compute("cpu"), False, "d"
    )


@pytest.fixture
def seeing(monkeypatch, tmp_path):
    """The command line loads a predictor that sees, whatever the model."""
    predictor = make_seeing()
    monkeypatch.setattr("autoseg.commands.models.load_predictor", lambda *arguments: predictor)
    return write_model(tmp_path / "model")


@pytest.fixture
def cells(tmp_path):
    """Two images of numbers and an empty one."""
    truth = {name: draw_ellipsoids((90, 110), 25, (5, 9), np.random.default_rng(seed)) for seed, name in enumerate("ab")}
    truth["empty"] = np.zeros((70, 80), np.int32)
    for name, ids in truth.items():
        write_scan(tmp_path / "in" / f"{name}.png", ids.astype(np.uint8))
    return tmp_path / "in", truth


def check_map(found, truth):
    """Every object of the truth has its own number, nearly voxel by voxel."""
    assert found.shape == truth.shape
    assert found.max() == truth.max()
    for number in range(1, truth.max() + 1):
        names, counts = np.unique(found[truth == number], return_counts=True)
        best = names[counts.argmax()]
        assert best > 0
        assert ((found == best) & (truth == number)).sum() > 0.85 * ((found == best) | (truth == number)).sum()


def read_list(folder, case):
    return json.loads((folder / f"{case}_objects.json").read_text())


def test_maps_lists_and_the_table_agree(autoseg, seeing, cells, tmp_path):
    folder, truth = cells
    answer = autoseg("predict", seeing, folder, "-o", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").open()))
    for case, ids in truth.items():
        found = read_array(tmp_path / "out" / f"{case}.png")
        assert found.dtype == np.uint16
        check_map(found, ids)
        listed = read_list(tmp_path / "out", case)
        assert [one["id"] for one in listed["objects"]] == list(range(1, ids.max() + 1))
        assert (listed["shape"], listed["unit"]) == (list(ids.shape), "px")
        own = [row for row in rows if row["case"] == case]
        assert len(own) == len(listed["objects"])
        for one, row in zip(listed["objects"], own):
            places = np.argwhere(found == one["id"])
            assert one["box"] == [*places.min(0).tolist(), *(places.max(0) + 1).tolist()]
            assert one["voxels"] == len(places) == int(row["voxels"])
            np.testing.assert_allclose(one["centroid"], places.mean(0) + 0.5, atol=1e-3)
            number = ids[found == one["id"]].max()
            assert one["class"] == row["class"] == NAMES[1 - number % 2]
            assert float(row["centroid_x"]) == one["centroid"][1]
            assert float(row["area_px"]) == one["size"]
            assert one["touches_border"] == bool((places == 0).any() or (places == np.array(ids.shape) - 1).any())
    assert read_list(tmp_path / "out", "empty")["objects"] == []
    assert not read_array(tmp_path / "out" / "empty.png").any()
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["task"] == "instance"


def test_what_is_done_is_kept_and_a_missing_list_is_made_again(autoseg, seeing, cells, tmp_path):
    folder, _ = cells
    words = ("predict", seeing, folder, "-o", tmp_path / "out", "--device", "cpu")
    assert autoseg(*words).code == 0
    table = (tmp_path / "out" / "objects.csv").read_text()
    times = {name: (tmp_path / "out" / f"{name}.png").stat().st_mtime_ns for name in "ab"}
    (tmp_path / "out" / "a_objects.json").unlink()
    (tmp_path / "out" / "objects.csv").unlink()
    assert autoseg(*words).code == 0
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns != times["a"]
    assert (tmp_path / "out" / "b.png").stat().st_mtime_ns == times["b"]
    assert (tmp_path / "out" / "objects.csv").read_text() == table


def test_the_list_of_a_scan_that_broke_is_not_left(autoseg, seeing, cells, tmp_path):
    folder, truth = cells
    words = ("predict", seeing, folder, "-o", tmp_path / "out", "--device", "cpu")
    assert autoseg(*words).code == 0
    (folder / "a.png").write_bytes(b"broken since")
    assert autoseg(*words).code == 3
    assert not list((tmp_path / "out").glob("a*"))
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").open()))
    assert len(rows) == truth["b"].max()


def test_a_preview_outlines_every_object(autoseg, seeing, cells, tmp_path):
    folder, truth = cells
    assert autoseg("predict", seeing, folder, "-o", tmp_path / "out", "--device", "cpu", "--preview").code == 0
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a_preview.png")))
    assert picture.shape[2] == 3
    coloured = picture.max(axis=2) != picture.min(axis=2)
    factor = picture.shape[0] // truth["a"].shape[0]
    for number in range(1, truth["a"].max() + 1):
        y, x = np.argwhere(truth["a"] == number).T
        assert coloured[y.min() * factor : y.max() * factor + factor, x.min() * factor : x.max() * factor + factor].any()


def test_a_preview_that_is_wanted_later_is_made_and_no_old_one_is_left(autoseg, seeing, cells, tmp_path):
    folder, _ = cells
    words, out = ("predict", seeing, folder, "-o", tmp_path / "out", "--device", "cpu"), tmp_path / "out"
    assert autoseg(*words).code == 0
    assert not (out / "a_preview.png").exists()
    assert autoseg(*words, "--preview").code == 0
    files = [path for path in out.iterdir() if path.suffix == ".png"]
    assert {path.name for path in files} == {f"{case}{part}.png" for case in ("a", "b", "empty") for part in ("", "_preview")}
    times = {path: path.stat().st_mtime_ns for path in files}
    assert autoseg(*words, "--preview").code == 0
    assert {path: path.stat().st_mtime_ns for path in files} == times
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    assert autoseg(*words).code == 0
    assert not (out / "a_preview.png").exists()
    assert (out / "b_preview.png").stat().st_mtime_ns == times[out / "b_preview.png"]


def test_probabilities_of_classes_are_refused(autoseg, seeing, cells, tmp_path):
    answer = autoseg("predict", seeing, cells[0], "-o", tmp_path / "out", "--device", "cpu", "--probabilities")
    assert answer.code == 2
    assert "finds objects" in answer.err
    assert not (tmp_path / "out").exists()


def test_python_gets_the_ids_in_kind(cells):
    folder, truth = cells
    predictor = make_seeing()
    image = predictor.predict(folder / "a.png")
    assert isinstance(image, sitk.Image)
    ids = sitk.GetArrayFromImage(image)
    check_map(ids, truth["a"])
    array = predictor.predict((truth["a"].astype(np.float32), (1.0, 1.0)))
    np.testing.assert_array_equal(array, ids)
    assert array.dtype == np.uint16


def test_lists_of_a_volume_stored_the_other_way_round_are_on_its_own_grid(autoseg, monkeypatch, tmp_path):
    monkeypatch.setattr("autoseg.commands.models.load_predictor", lambda *arguments: make_seeing(3))
    model = write_model(tmp_path / "model", 3)
    ids = draw_ellipsoids((20, 40, 44), 12, (4, 8), np.random.default_rng(0))
    image = sitk.GetImageFromArray(ids.astype(np.float32))
    image.SetSpacing((1.0, 1.0, 1.0))
    image.SetOrigin((5.0, -3.0, 2.0))
    (tmp_path / "in").mkdir()
    for name in ("LPS", "RAI", "SRP"):
        sitk.WriteImage(sitk.DICOMOrient(image, name), str(tmp_path / "in" / f"{name}.nii.gz"))
    assert autoseg("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu").code == 0
    worlds = {}
    for name in ("LPS", "RAI", "SRP"):
        scan, mask = (sitk.ReadImage(str(tmp_path / where / f"{name}.nii.gz")) for where in ("in", "out"))
        assert (mask.GetSize(), mask.GetDirection(), mask.GetOrigin()) == (scan.GetSize(), scan.GetDirection(), scan.GetOrigin())
        found = sitk.GetArrayFromImage(mask)
        listed = read_list(tmp_path / "out", name)
        assert listed["unit"] == "mm"
        for one in listed["objects"]:
            places = np.argwhere(found == one["id"])
            assert one["box"] == [*places.min(0).tolist(), *(places.max(0) + 1).tolist()]
            index = (places.mean(0))[::-1].tolist()
            np.testing.assert_allclose(one["world"], mask.TransformContinuousIndexToPhysicalPoint(index), atol=1e-3)
        worlds[name] = sorted(tuple(np.round(one["world"], 2)) for one in listed["objects"])
    assert worlds["LPS"] == worlds["RAI"] == worlds["SRP"]
    heading = (tmp_path / "out" / "objects.csv").read_text().splitlines()[0]
    assert "low_z_mm" in heading
    assert "volume_mm3" in heading


@pytest.mark.parametrize("with_detection", [True, False])
def test_an_untrained_model_of_either_kind_is_loaded_and_predicts(autoseg, cells, tmp_path, with_detection):
    folder, _ = cells
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    model = write_model(tmp_path / "model", with_detection=with_detection)
    assert autoseg("predict", model, folder / "a.png", "-o", tmp_path / "out", "--device", "cpu").code == 0
    found = read_array(tmp_path / "out" / "a.png")
    assert found.max() == len(read_list(tmp_path / "out", "a")["objects"])
    assert package.load(model, device="cpu").finds_objects


def test_thresholds_of_the_model_come_before_the_plans_and_are_part_of_it(tmp_path):
    model = write_model(tmp_path / "model")
    before = package.load(model, device="cpu")
    fold = FoldFolder(model)
    header = fold.load_model()
    save_record(fold.model, msgspec.structs.replace(header, thresholds=Thresholds(score=0.9)))
    after = package.load(model, device="cpu")
    assert (before.thresholds.score, after.thresholds.score) == (0.5, 0.9)
    assert before.digest != after.digest


def test_thresholds_of_a_runs_choice_come_before_the_models(tmp_path):
    fold = FoldFolder(write_model(tmp_path / "models" / "instance_2d" / "fold_0"))
    save_record(fold.model, msgspec.structs.replace(fold.load_model(), thresholds=Thresholds(score=0.9)))
    choice = Choice(
        metric="ap_cell_50", configurations=("instance_2d",), folds=(0,), thresholds={"instance_2d": Thresholds(score=0.3)}, cases=4
    )
    tuned = load_models(Models(((fold,),), (0,), None, choice), "cpu", mirror=False)
    plain = load_models(Models(((fold,),), (0,), None), "cpu", mirror=False)
    assert (tuned.thresholds.score, plain.thresholds.score) == (0.3, 0.9)
    assert tuned.digest != plain.digest


class Trimmer(torch.nn.Module):
    """A boundary network that sees background where objects have numbers from 10 on, and the inside of the first class elsewhere."""

    def forward(self, images):
        far = images[:, 0] >= 10
        return [torch.stack([far * 40.0 - 20, ~far * 40.0 - 20, far * 0.0 - 20, far * 0.0 - 20], dim=1)]


def make_trimmer(**changes):
    return Predictor(make_header(2, name="boundary_2d", detection=None, **changes), (Trimmer(),), Compute("cpu"), False, "t")


def test_a_boundary_network_helps_a_mask_r_cnn_to_its_outlines(cells):
    """Where half of all that is known says background the mean is one half, and its root with a mask of 1 below the threshold."""
    seeing, ids = make_seeing(), cells[1]["a"].astype(np.float32)
    seeing = replace(seeing, header=msgspec.structs.replace(seeing.header, thresholds=Thresholds(mask=0.8)))
    pairs = (seeing, make_trimmer()), (make_trimmer(), seeing)
    alone, *joined = (one.predict((ids, (1.0, 1.0))) for one in (seeing, *map(join_predictors, pairs)))
    known = (ids > 0) & (ids < 10)
    assert ids.max() >= 12
    assert (alone[ids >= 10] > 0).mean() > 0.9
    assert not joined[0][ids >= 10].any()
    assert (joined[0][known] > 0).mean() > 0.9
    assert np.array_equal(*joined)


def test_only_boundary_networks_of_the_same_image_help(cells):
    seeing = make_seeing()
    for pair in ((seeing, seeing), (make_trimmer(), make_trimmer()), (seeing, make_trimmer(spacing=(2.0, 2.0)))):
        with pytest.raises(InputError, match="cannot be averaged") as caught:
            join_predictors(pair)
        assert "boundary networks of its own spacing" in caught.value.why


def test_the_pair_predicts_the_images_that_its_fold_has_not_seen_once(cells, tmp_path):
    names, (scans, truth) = ("instance_2d", "boundary_2d"), cells
    header = make_header(2)
    listed = tuple(Case(id=case, images=(f"{case}.png",), label=f"{case}.png") for case in sorted(truth))
    dataset = msgspec.structs.replace(
        make_dataset(cases=0), root=str(scans), dimension=2, task="instance", cases=listed, channels=header.channels
    )
    run = RunFolder(write_run(tmp_path / "run", make_plan(), dataset))
    save_record(
        run.path / "splits.json", Splits(folds=(Fold(training=("b",), validation=("a", "empty")), Fold(training=("a",), validation=("b",))))
    )
    for fold in (0, 1):
        for name in names:
            write_model(run.fold(name, fold).path, with_detection=name == "instance_2d", name=name)
    masks = predict_validation(run, names, (0, 1), tmp_path / "out")
    assert sorted(masks) == sorted(truth)
    assert {case: read_array(path).shape for case, path in masks.items()} == {case: ids.shape for case, ids in truth.items()}
    manifests = [load_record(Predictions, tmp_path / "out" / f"fold_{fold}" / "predictions.json") for fold in (0, 1)]
    assert [one.configurations for one in manifests] == [names, names]
    times = {case: path.stat().st_mtime_ns for case, path in masks.items()}
    assert {case: path.stat().st_mtime_ns for case, path in predict_validation(run, names, (0, 1), tmp_path / "out").items()} == times
    (scans / "b.png").write_bytes(b"no image")
    with pytest.raises(CasesFailed, match="1 validation cases could not be predicted: b "):
        predict_validation(run, names, (0, 1), tmp_path / "out")
