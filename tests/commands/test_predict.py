"""`autoseg predict`: a mask on each scan's own grid with the labels' own values; what is done is kept, what failed is named."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import MODEL, draw_case, read_array, write_scan

import autoseg as package
from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.train import TrainOptions, train
from autoseg.errors import InputError
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import write_mask

TINY = TrainOptions(device="cpu", steps=2, precision="fp32", workers=1)


@pytest.fixture
def some_scans(scans, tmp_path):
    """Two scans to predict: one stored left to right, one not."""
    (tmp_path / "scans").mkdir()
    for name in find_both_kinds(scans):
        shutil.copy(scans / "images" / name, tmp_path / "scans")
    return tmp_path / "scans"


def find_both_kinds(scans):
    names = {}
    for path in sorted((scans / "images").iterdir()):
        names.setdefault(sitk.ReadImage(str(path)).GetDirection()[0] > 0, path.name)
    assert len(names) == 2
    return sorted(names.values())


def read_manifest(folder):
    return json.loads((folder / "predictions.json").read_text())


def note_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}


def test_every_scan_of_a_folder_gets_a_mask_on_its_own_grid(autoseg, trained, scans, tmp_path):
    answer = autoseg("predict", trained, scans / "images", "-o", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0
    assert "6 masks" in answer.out
    for path in (scans / "images").iterdir():
        scan, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "out" / path.name))
        assert mask.GetSize() == scan.GetSize()
        for part in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(mask, part)(), getattr(scan, part)(), atol=1e-6)
        assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1, 2}
    assert {case["state"] for case in read_manifest(tmp_path / "out")["cases"]} == {"done"}


def test_a_scan_stored_the_other_way_round_gets_the_same_mask(trained, scans):
    model = package.load(trained, device="cpu")
    scan = sitk.ReadImage(str(scans / "images" / "case_00.nii.gz"))
    flipped = sitk.Flip(scan, [True, True, False])
    assert flipped.GetDirection() != scan.GetDirection()
    mask, other = model.predict(scan), model.predict(flipped)
    assert sitk.GetArrayFromImage(mask).any()
    assert other.GetDirection() == pytest.approx(flipped.GetDirection())
    there = sitk.Resample(other, mask, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.mean(sitk.GetArrayFromImage(there) == sitk.GetArrayFromImage(mask)) == 1


def test_masks_hold_the_values_of_the_training_labels(autoseg, tmp_path):
    for seed, name in enumerate("abc"):
        image, label = draw_case(seed)
        write_scan(tmp_path / "in" / "images" / f"{name}.nii.gz", image)
        write_scan(tmp_path / "in" / "labels" / f"{name}.nii.gz", (205 * label).astype(np.uint8))
    plan(tmp_path / "in", tmp_path / "run", PlanOptions(device="cpu", minutes=0.1, workers=1))
    train(tmp_path / "run", 0, options=TrainOptions(device="cpu", steps=8, precision="fp32", workers=1))
    assert autoseg("predict", tmp_path / "run", tmp_path / "in" / "images", "-o", tmp_path / "out").code == 0
    values = {value for path in (tmp_path / "out").glob("*.nii.gz") for value in np.unique(read_array(path))}
    assert values == {0, 205}


@pytest.mark.parametrize("kind", ["a file", "a folder", "a pattern"])
def test_scans_are_a_file_a_folder_or_a_pattern(autoseg, trained, scans, tmp_path, kind):
    (tmp_path / "in" / "P7").mkdir(parents=True)
    file = shutil.copy(scans / "images" / "case_01.nii.gz", tmp_path / "in" / "P7" / "brain.nii.gz")
    words = {"a file": file, "a folder": tmp_path / "in" / "P7", "a pattern": tmp_path / "in" / "{case}" / "brain.nii.gz"}
    answer = autoseg("predict", trained, words[kind], "-o", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["P7.nii.gz" if kind == "a pattern" else "brain.nii.gz"]


def test_a_broken_scan_is_named_and_the_others_are_done(autoseg, trained, some_scans, tmp_path):
    (some_scans / "broken.nii.gz").write_bytes(b"no scan at all")
    answer = autoseg("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu")
    assert answer.code == 3
    assert "1 of 3" in answer.err
    assert "broken" in answer.err
    assert "14 bytes" in answer.err
    assert len(note_times(tmp_path / "out")) == 2
    assert {case["case"]: case["state"] for case in read_manifest(tmp_path / "out")["cases"]}["broken"] == "failed"


def test_a_mask_is_not_left_from_before_when_its_scan_breaks(autoseg, trained, some_scans, tmp_path):
    words = ("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu")
    assert autoseg(*words).code == 0
    first = sorted(some_scans.iterdir())[0]
    first.write_bytes(b"broken since")
    assert autoseg(*words).code == 3
    assert not (tmp_path / "out" / first.name).exists()
    assert len(note_times(tmp_path / "out")) == 1


def test_finished_masks_are_kept_and_those_of_changed_scans_are_made_again(autoseg, trained, some_scans, tmp_path):
    words = ("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu")
    assert autoseg(*words).code == 0
    before = note_times(tmp_path / "out")
    assert autoseg(*words).code == 0
    assert note_times(tmp_path / "out") == before
    first, second = sorted(path.name for path in some_scans.iterdir())
    scan = sitk.ReadImage(str(some_scans / second))
    sitk.WriteImage(scan + 1, str(some_scans / second))
    assert autoseg(*words).code == 0
    after = note_times(tmp_path / "out")
    assert after[first] == before[first]
    assert after[second] != before[second]


def test_masks_of_another_model_are_made_again(autoseg, trained, planned_copy, some_scans, tmp_path):
    train(planned_copy, 0, options=TINY)
    assert autoseg("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu").code == 0
    before, digest = note_times(tmp_path / "out"), read_manifest(tmp_path / "out")["model_digest"]
    assert autoseg("predict", planned_copy, some_scans, "-o", tmp_path / "out", "--device", "cpu").code == 0
    after = note_times(tmp_path / "out")
    assert all(after[name] != before[name] for name in before)
    assert read_manifest(tmp_path / "out")["model_digest"] != digest


def test_a_mask_that_was_touched_by_hand_is_made_again(autoseg, trained, some_scans, tmp_path):
    words = ("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu")
    autoseg(*words)
    first = sorted((tmp_path / "out").glob("*.nii.gz"))[0]
    good = read_array(first)
    sitk.WriteImage(sitk.ReadImage(str(first)) * 0, str(first))
    assert autoseg(*words).code == 0
    assert (read_array(first) == good).all()


def test_probabilities_sum_to_one_and_agree_with_the_mask(autoseg, trained, some_scans, tmp_path):
    assert autoseg("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu", "--probabilities").code == 0
    for path in some_scans.iterdir():
        case = path.name.removesuffix(".nii.gz")
        probabilities, mask = (read_array(tmp_path / "out" / f"{case}{end}.nii.gz") for end in ("_probabilities", ""))
        assert probabilities.shape == (*mask.shape, 3)
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-4)
        assert np.mean(probabilities.argmax(axis=-1) == mask) > 0.99


def test_masks_are_scored_against_references(autoseg, trained, scans, some_scans, tmp_path):
    words = ("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu", "--reference", scans / "labels")
    answer = autoseg(*words)
    assert answer.code == 0
    assert "dice" in answer.out
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())["cases"]) == 4


def test_one_fold_of_a_run_is_a_model_too(autoseg, trained, some_scans, tmp_path):
    assert autoseg("predict", trained / MODEL, some_scans, "-o", tmp_path / "out", "--device", "cpu").code == 0
    assert len(note_times(tmp_path / "out")) == 2


def test_only_the_cases_of_a_fold_are_predicted(autoseg, trained, scans, tmp_path):
    assert autoseg("predict", trained, scans / "images", "-o", tmp_path / "out", "--cases", "fold:0", "--device", "cpu").code == 0
    validated = RunFolder(trained).load_splits().folds[0].validation
    assert sorted(note_times(tmp_path / "out")) == sorted(f"{case}.nii.gz" for case in validated)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folds", "0,3"), ["Fold 3", "not finished", "Finished: 0"]),
        (("--cases", "fold:9"), ["fold:9", "0 … 4"]),
        (("--cases", "nobody"), ["nobody"]),
        (("--configuration", "4d"), ["'4d'", "3d_fullres"]),
    ],
)
def test_what_is_not_there_is_named_with_what_is(autoseg, trained, scans, tmp_path, words, said):
    answer = autoseg("predict", trained, scans / "images", "-o", tmp_path / "out", *words)
    assert answer.code == 2
    assert all(word in answer.err for word in said)


def test_a_run_without_a_model_says_how_to_train_one(autoseg, planned, scans, tmp_path):
    answer = autoseg("predict", planned, scans / "images", "-o", tmp_path / "out")
    assert answer.code == 2
    assert f"autoseg train {planned} --fold 0" in answer.err


def test_scans_that_do_not_exist_are_named(autoseg, trained, tmp_path):
    answer = autoseg("predict", trained, tmp_path / "absent", "-o", tmp_path / "out")
    assert answer.code == 2
    assert "absent does not exist" in answer.err


def test_python_predicts_paths_images_and_arrays_alike(trained, scans):
    model = package.load(trained, device="cpu")
    path = next(p for p in sorted((scans / "images").iterdir()) if sitk.ReadImage(str(p)).GetDirection()[0] > 0)
    from_path, from_image = model.predict(path), model.predict(sitk.ReadImage(str(path)))
    assert isinstance(from_path, sitk.Image)
    assert (sitk.GetArrayFromImage(from_path) == sitk.GetArrayFromImage(from_image)).all()
    spacing = sitk.ReadImage(str(path)).GetSpacing()[::-1]
    mask = model.predict((read_array(path), spacing))
    assert isinstance(mask, np.ndarray)
    assert (mask == sitk.GetArrayFromImage(from_path)).all()
    with pytest.raises(InputError, match="1 channels, the array 2"):
        model.predict((np.zeros((2, 8, 8, 8), np.float32), spacing))


@pytest.fixture(scope="module")
def trained_2d(tmp_path_factory):
    """A run on grey PNGs with masks of 0 and 255, trained for a few steps."""
    folder = tmp_path_factory.mktemp("flat")
    for seed, name in enumerate("abcd"):
        image, label = draw_case(seed, (40, 48))
        write_scan(folder / "in" / "images" / f"{name}.png", image.astype(np.uint8))
        write_scan(folder / "in" / "masks" / f"{name}.png", 255 * label)
    plan(folder / "in", folder / "run", PlanOptions(device="cpu", minutes=0.1, workers=1))
    train(folder / "run", 0, options=TrainOptions(device="cpu", steps=8, precision="fp32", workers=1))
    return folder / "run"


def test_png_and_jpeg_get_png_masks(autoseg, trained_2d, tmp_path):
    image, _ = draw_case(9, (40, 48))
    for name in ("p.png", "j.jpg"):
        write_scan(tmp_path / "in" / name, image.astype(np.uint8))
    assert autoseg("predict", trained_2d, tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu").code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["j.png", "p.png"]
    assert not list((tmp_path / "out").glob("*.jpg"))
    for name in ("j.png", "p.png"):
        mask = read_array(tmp_path / "out" / name)
        assert mask.shape == (40, 48)
        assert set(np.unique(mask)) <= {0, 255}


def test_a_volume_is_refused_by_a_2d_model(autoseg, trained_2d, scans, tmp_path):
    answer = autoseg("predict", trained_2d, scans / "images" / "case_00.nii.gz", "-o", tmp_path / "out", "--device", "cpu")
    assert answer.code == 3
    assert "2D" in answer.err
    assert "3D" in answer.err


def test_a_full_disk_stops_with_what_is_done(autoseg, trained, some_scans, tmp_path, monkeypatch):
    calls = []

    def fail_later(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        write_mask(*arguments)

    words = ("predict", trained, some_scans, "-o", tmp_path / "out", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr("autoseg.commands.predict.write_mask", fail_later)
        answer = autoseg(*words)
    assert answer.code == 3
    assert "no space left" in answer.err
    assert str(tmp_path / "out") in answer.err
    before = note_times(tmp_path / "out")
    assert len(before) == 1
    assert autoseg(*words).code == 0
    after = note_times(tmp_path / "out")
    assert len(after) == 2
    assert all(after[name] == before[name] for name in before)
