"""Ensembles of folders and of a run's validation cases, and what a run's choice changes for `predict`."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import on_one_core, read_array, write_scan

import autoseg as package
from autoseg.commands.ensemble import ensemble_validation
from autoseg.commands.train import TrainOptions, train
from autoseg.errors import InputError
from autoseg.inference.ensemble import join_predictors, unpack
from autoseg.inference.export import restore_labels
from autoseg.inference.predictor import load_predictor
from autoseg.io.files import digest_files, load_record, save_record
from autoseg.io.kept import find_kept, get_kept_paths, read_kept
from autoseg.io.run_folder import RunFolder
from autoseg.records.choice import Choice, Rule
from autoseg.records.dataset import ClassLabel
from autoseg.records.predictions import Predictions
from autoseg.records.scores import Scores

NAMES = ("3d_fullres", "2d")


@pytest.fixture(scope="module")
def pair(trained, tmp_path_factory):
    """The trained run with a fold 0 of its 2D configuration too; not to be changed."""
    run = tmp_path_factory.mktemp("pair") / "run"
    shutil.copytree(trained, run)
    with on_one_core():
        train(run, 0, "2d", TrainOptions(device="cpu", steps=6, precision="fp32", workers=1))
    return run


@pytest.fixture
def pair_copy(pair, tmp_path):
    return shutil.copytree(pair, tmp_path / "run")


def note_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}


def list_validation(run):
    return RunFolder(run).load_splits().folds[0].validation


def test_validation_keeps_what_its_masks_are_made_of(pair):
    for name in NAMES:
        folder = RunFolder(pair).fold(name, 0).validation
        for case in list_validation(pair):
            mask = folder / f"{case}.nii.gz"
            record = find_kept(folder, case, digest_files([mask]))
            assert record.configuration == name
            packed = read_kept(folder, record)
            numbers = restore_labels([unpack(record, packed)], record.axes)
            written = package.load(pair, "cpu").header
            assert record.classes == written.classes
            label = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(mask)), "LPS"))
            assert numbers.shape == label.shape
            assert (numbers == label).mean() > 0.99
            assert get_kept_paths(folder, case)[0].stat().st_size < packed.nbytes


def test_cases_of_a_run_are_averaged_over_its_configurations(pair, scans, tmp_path):
    run = RunFolder(pair)
    made = ensemble_validation(run, NAMES, (0,), tmp_path / "out")
    assert sorted(made) == sorted(list_validation(pair))
    predictor = join_predictors([load_predictor([run.fold(name, 0)], "cpu") for name in NAMES])
    for case, path in made.items():
        assert path.parent == tmp_path / "out"
        scan, mask = sitk.ReadImage(str(scans / "images" / path.name)), sitk.ReadImage(str(path))
        assert mask.GetSize() == scan.GetSize()
        np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-6)
        expected = sitk.GetArrayFromImage(predictor.predict(scan))
        assert (sitk.GetArrayFromImage(mask) == expected).mean() > 0.99, case
    before = note_times(tmp_path / "out")
    ensemble_validation(run, NAMES, (0,), tmp_path / "out")
    assert note_times(tmp_path / "out") == before


def test_of_one_configuration_the_masks_are_those_of_the_validation(pair, tmp_path):
    for case, path in ensemble_validation(RunFolder(pair), ("2d",), (0,), tmp_path / "out").items():
        assert np.array_equal(read_array(path), read_array(RunFolder(pair).fold("2d", 0).validation / f"{case}.nii.gz"))


def test_probabilities_that_are_missing_are_predicted_first(pair_copy, tmp_path):
    class Said(list):
        def say(self, text, **event):
            self.append(text)

        def ignore(self, *words): ...

        warn = detail = start = advance = finish = ignore

    folder, case = RunFolder(pair_copy).fold("2d", 0).validation, list_validation(pair_copy)[0]
    for path in get_kept_paths(folder, case):
        path.unlink()
    said = Said()
    ensemble_validation(RunFolder(pair_copy), NAMES, (0,), tmp_path / "out", said)
    assert said == ["Fold 0 of 2d has kept no probabilities of 1 validation cases: predicting them."]
    assert all(path.is_file() for path in get_kept_paths(folder, case))
    with pytest.raises(InputError, match="Fold 1 of 3d_fullres is not finished"):
        ensemble_validation(RunFolder(pair_copy), NAMES, (0, 1), tmp_path / "out")


def choose(run, **changes):
    folder = RunFolder(run)
    digests = {name: (folder.fold(name, 0).load_model().weights_digest,) for name in NAMES}
    plain = {"metric": "dice", "configurations": NAMES, "folds": (0,), "weights_digests": digests, "cases": 2}
    save_record(folder.choice, Choice(**plain | changes))


def read_manifest(folder):
    return load_record(Predictions, folder / "predictions.json")


def test_predict_obeys_the_choice_unless_told_otherwise(autoseg, pair_copy, scans, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.inference.predictor.apply_rules", lambda labels, *others: np.where(labels == 2, 1, labels))
    scan = scans / "images" / "case_00.nii.gz"
    words = ("predict", pair_copy, scan, "-o", tmp_path / "out", "--device", "cpu")
    assert "choice.json" not in autoseg(*words).out
    plain = read_manifest(tmp_path / "out")
    assert plain.configurations == (plain.configuration,)
    choose(pair_copy, rules=(Rule(kind="fill_holes", class_name="head"),))
    answer = autoseg(*words)
    assert answer.code == 0
    assert "3d_fullres + 2d, then fill holes of head" in answer.out
    assert "WARNING" not in answer.out
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.configurations, manifest.folds, len(manifest.rules)) == (NAMES, (0,), 1)
    assert manifest.model_digest != plain.model_digest
    mask = sitk.ReadImage(str(tmp_path / "out" / scan.name))
    assert 2 not in sitk.GetArrayFromImage(mask)
    assert np.array_equal(sitk.GetArrayFromImage(package.load(pair_copy, "cpu").predict(scan)), sitk.GetArrayFromImage(mask))
    before = note_times(tmp_path / "out")
    assert autoseg(*words).code == 0
    assert note_times(tmp_path / "out") == before
    for flags in (("--configuration", "3d_fullres"), ("--folds", "0")):
        other = autoseg(*words, *flags)
        assert f"choice.json is not applied: {flags[0]}" in other.out
        assert read_manifest(tmp_path / "out").rules == ()
    model = autoseg("predict", pair_copy / "models/2d/fold_0", scan, "-o", tmp_path / "out", "--device", "cpu")
    assert "choice.json is not applied: this is one of its models" in model.out
    assert read_manifest(tmp_path / "out").configurations == ("2d",)


def test_a_choice_of_other_weights_is_named_and_one_of_absent_folds_refused(autoseg, pair_copy, scans, tmp_path):
    words = ("predict", pair_copy, scans / "images", "--cases", "fold:0", "-o", tmp_path / "out", "--device", "cpu")
    choose(pair_copy, weights_digests={"2d": ("other",)})
    answer = autoseg(*words)
    assert answer.code == 0
    assert f"Fold 0 of 2d was trained anew since the choice: autoseg select {pair_copy}" in " ".join(answer.out.split())
    assert sorted(note_times(tmp_path / "out")) == sorted(f"{case}.nii.gz" for case in list_validation(pair_copy))
    choose(pair_copy, folds=(0, 1))
    refused = autoseg("predict", pair_copy, scans / "images", "-o", tmp_path / "out")
    assert refused.code == 2
    assert "Fold 1 of 3d_fullres" in refused.err
    assert "autoseg select" in refused.err


def test_folders_of_kept_probabilities_are_averaged_and_can_be_scored(autoseg, pair, scans, tmp_path):
    folders = [RunFolder(pair).fold(name, 0).validation for name in NAMES]
    answer = autoseg("ensemble", *folders, "-o", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "Mean of kept probabilities" in answer.out
    for case, path in ensemble_validation(RunFolder(pair), NAMES, (0,), tmp_path / "run").items():
        assert np.array_equal(read_array(tmp_path / "out" / f"{case}.nii.gz"), read_array(path))
    assert autoseg("evaluate", tmp_path / "out", scans / "labels", "--only-predicted").code == 0
    assert list(load_record(Scores, tmp_path / "out" / "scores.json").classes) == ["body", "head"]
    before = note_times(tmp_path / "out")
    assert autoseg("ensemble", *folders, "-o", tmp_path / "out").code == 0
    assert note_times(tmp_path / "out") == before


def test_written_probabilities_are_averaged_and_a_mixture_is_voted(autoseg, pair, scans, tmp_path):
    scan = scans / "images" / "case_01.nii.gz"
    for name in NAMES:
        words = ("predict", pair, scan, "-o", tmp_path / name, "--configuration", name, "--device", "cpu", "--probabilities")
        assert autoseg(*words).code == 0
    answer = autoseg("ensemble", tmp_path / NAMES[0], tmp_path / NAMES[1], "-o", tmp_path / "mean")
    assert "Mean of written probabilities" in answer.out
    mean = sum(read_array(tmp_path / name / "case_01_probabilities.nii.gz").astype(np.float64) for name in NAMES) / 2
    assert (read_array(tmp_path / "mean" / scan.name) == mean.argmax(axis=-1)).mean() > 0.999
    (tmp_path / NAMES[1] / "case_01_probabilities.nii.gz").unlink()
    voted = autoseg("ensemble", tmp_path / NAMES[0], tmp_path / NAMES[1], "-o", tmp_path / "mean")
    assert "Votes on label maps" in voted.out
    assert "2d: label maps only" in voted.out
    assert np.array_equal(read_array(tmp_path / "mean" / scan.name), read_array(tmp_path / NAMES[0] / scan.name))


@pytest.fixture
def voters(tmp_path):
    """Three folders of two masks that nothing is known about."""
    for seed, folder in enumerate("abc"):
        for case in ("p", "q"):
            label = np.random.default_rng([seed, ord(case)]).choice([0, 3, 300], (4, 5, 6)).astype(np.uint16)
            write_scan(tmp_path / folder / f"{case}.nii.gz", label, (3.0, 1.0, 1.0))
    return [tmp_path / folder for folder in "abc"]


def test_masks_without_a_manifest_are_voted_voxel_by_voxel(autoseg, voters, tmp_path):
    answer = autoseg("ensemble", *voters, "-o", tmp_path / "out")
    assert answer.code == 0, answer.err
    for case in ("p", "q"):
        said = np.stack([read_array(folder / f"{case}.nii.gz") for folder in voters]).reshape(3, -1).T.tolist()
        expected = [max(votes, key=lambda value, votes=votes: (votes.count(value), -votes.index(value))) for votes in said]
        assert read_array(tmp_path / "out" / f"{case}.nii.gz").ravel().tolist() == expected
    assert [label.values for label in read_manifest(tmp_path / "out").classes] == [(3,), (300,)]
    assert autoseg("evaluate", tmp_path / "out", voters[0]).code == 0


def write_manifest(folder, classes):
    cases = [{"case": c, "scan": "", "mask": f"{c}.nii.gz", "scan_digest": "", "mask_digest": "", "state": "done"} for c in "pq"]
    plain = {
        "model_digest": "",
        "folds": [],
        "configuration": "x",
        "background_value": 0,
        "unit": "mm",
        "label_pattern": "",
        "cases": cases,
    }
    labels = [{"name": label.name, "values": list(label.values)} for label in classes]
    (folder / "predictions.json").write_text(json.dumps(plain | {"classes": labels, "cases": cases}))


def test_regions_are_voted_one_by_one(autoseg, voters, tmp_path):
    regions = (ClassLabel(name="whole", values=(300, 3)), ClassLabel(name="core", values=(3,)))
    for folder in voters:
        write_manifest(folder, regions)
    assert autoseg("ensemble", *voters, "-o", tmp_path / "out").code == 0
    maps = [read_array(folder / "p.nii.gz") for folder in voters]
    whole, core = (sum(np.isin(own, label.values).astype(int) for own in maps) > 1.5 for label in regions)
    assert np.array_equal(read_array(tmp_path / "out" / "p.nii.gz"), np.where(core, 3, np.where(whole, 300, 0)))


def test_folders_that_do_not_fit_each_other_are_refused(autoseg, voters, tmp_path):
    first, second, third = voters

    def refuse(*words, code=2):
        answer = autoseg("ensemble", *words, "-o", tmp_path / "out")
        assert answer.code == code
        return answer.err

    assert "two folders or more" in refuse(first)
    assert "is given twice" in refuse(first, second, first)
    assert "one of the folders to be joined" in autoseg("ensemble", first, second, "-o", first).err
    write_manifest(second, (ClassLabel(name="a", values=(3,)), ClassLabel(name="b", values=(300,))))
    write_manifest(third, (ClassLabel(name="a", values=(3,)), ClassLabel(name="c", values=(300,))))
    assert "different classes" in refuse(first, second, third)
    (third / "predictions.json").unlink()
    label = read_array(third / "p.nii.gz")
    write_scan(third / "p.nii.gz", label, (3.0, 1.0, 2.0))
    told = refuse(*voters, code=3)
    assert "1 of 2 cases" in told
    assert "different grids: spacing" in told
    write_scan(third / "p.nii.gz", label[1:], (3.0, 1.0, 1.0))
    assert "(3, 5, 6) voxels" in refuse(*voters, code=3)
    (third / "p.nii.gz").unlink()
    assert f"{third} has no mask of 1 of 2 cases: p" in refuse(*voters)
