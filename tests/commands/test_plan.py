"""`autoseg plan`: folders as people have them become a run; what does not fit is said."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from whole_way import MODEL, PLAN_WORDS, draw_case, make_folder, write_cases, write_scan

from autoseg.commands.job import TrainOptions
from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.prepare import prepare
from autoseg.commands.train import train
from autoseg.io.files import load_record
from autoseg.io.profiles import read_profile
from autoseg.io.run_folder import RunFolder
from autoseg.planning.plan import Request, make_plan
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.scores import Scores


def plan_folder(folder, run, **changes):
    """Plans and returns the run folder's records."""
    plan(folder, run, PlanOptions(**{"device": "cpu", "minutes": 0.1, "workers": 1, **changes}))
    return RunFolder(run)


def write_colour_masks(folder, names):
    """2D PNG: colour images, and masks saved as RGB with 0 and 255, as many programs do."""
    for seed, name in enumerate(names):
        image, label = draw_case(seed, (40, 48))
        colours = np.stack([image, image / 2, 255 - image], axis=-1).astype(np.uint8)
        write_scan(folder / f"{name}.png", colours)
        write_scan(folder / f"{name}_mask.png", np.repeat(255 * label[..., None], 3, axis=-1))
    return folder


def test_a_folder_of_volumes_becomes_a_run_of_readable_records(planned):
    run = RunFolder(planned)
    dataset = run.load_dataset()
    assert sorted(path.name for path in planned.glob("*.json")) == [
        "dataset.json",
        "fingerprint.json",
        "machine.json",
        "plan.json",
        "request.json",
        "splits.json",
    ]
    assert (dataset.dimension, dataset.unit, len(dataset.cases)) == (3, "mm", 6)
    assert [(label.name, label.values) for label in dataset.classes] == [("body", (1,)), ("head", (2,))]
    assert run.load_plan().default_configuration in [configuration.name for configuration in run.load_plan().configurations]
    assert all("format_version" in json.loads(path.read_text()) for path in planned.glob("*.json"))
    validated = [case for fold in run.load_splits().folds for case in fold.validation]
    assert sorted(validated) == [case.id for case in dataset.cases]


def test_2d_colour_images_with_masks_saved_as_rgb(tmp_path):
    run = plan_folder(write_colour_masks(tmp_path / "png", ["a", "b", "c"]), tmp_path / "run")
    dataset = run.load_dataset()
    assert (dataset.dimension, dataset.unit) == (2, "px")
    assert [channel.name for channel in dataset.channels] == ["red", "green", "blue"]
    assert [label.values for label in dataset.classes] == [(255,)]
    assert [case.id for case in dataset.cases] == ["a", "b", "c"]
    assert run.load_plan().default_configuration == "2d"
    assert [case.images for case in dataset.cases] == [(f"{name}.png",) * 3 for name in "abc"]


def test_every_colour_is_prepared_trained_and_predicted_and_grey_images_among_them_serve_for_all(tmp_path):
    folder = write_colour_masks(tmp_path / "png", ["a", "b", "c", "d"])
    grey = draw_case(9, (40, 48))[0].astype(np.uint8)
    write_scan(folder / "b.png", np.repeat(grey[..., None], 3, axis=-1))
    run = plan_folder(folder, tmp_path / "run")
    prepare(run.path, workers=1)
    for case in "abcd":
        image = run.store("2d").read_image(case, ((0, 40), (0, 48)))
        assert len(image) == len(run.store("2d").load(case).background) == 3
        assert np.array_equal(image[0], image[1]) == (case == "b")
    train(run.path, 0, options=TrainOptions(steps=2, device="cpu", workers=1))
    scores = load_record(Scores, run.fold("2d", 0).validation / "scores.json")
    assert len(scores.cases) == len(run.load_splits().folds[0].validation)


def test_the_volumes_of_a_4d_file_are_channels(tmp_path):
    for seed, name in enumerate("abc"):
        image, label = draw_case(seed)
        volumes = [sitk.GetImageFromArray(image * factor) for factor in (1, 2, 3, 4)]
        write_scan(tmp_path / "in" / "labels" / f"{name}.nii.gz", label)
        (tmp_path / "in" / "images").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.JoinSeries(volumes), str(tmp_path / "in" / "images" / f"{name}.nii.gz"))
    dataset = plan_folder(tmp_path / "in", tmp_path / "run").load_dataset()
    assert [channel.component for channel in dataset.channels] == [0, 1, 2, 3]
    assert dataset.dimension == 3
    assert [len(case.images) for case in dataset.cases] == [4, 4, 4]


def write_patients(folder, names):
    for seed, name in enumerate(names):
        image, label = draw_case(seed)
        write_scan(folder / name / "MR_T1_image.nii.gz", image)
        write_scan(folder / name / "PET_image.nii.gz", image[:, ::-1].copy())
        write_scan(folder / name / "PET_mask.nii.gz", label)
    return folder


def test_channel_patterns_join_two_files_of_one_folder_per_case(autoseg, tmp_path):
    scans = write_patients(tmp_path / "in", ["P1", "P2", "P3"])
    answer = autoseg(
        *("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS),
        *("--channels", "mr={case}/MR_T1_image.nii.gz", "pet={case}/PET_image.nii.gz", "--labels", "{case}/PET_mask.nii.gz"),
    )
    dataset = RunFolder(tmp_path / "run").load_dataset()
    assert answer.code == 0
    assert [channel.name for channel in dataset.channels] == ["mr", "pet"]
    assert dataset.cases[0].images == ("P1/MR_T1_image.nii.gz", "P1/PET_image.nii.gz")
    assert "P1/PET_mask.nii.gz" in answer.out


def test_a_case_that_lacks_one_channel_is_named(autoseg, tmp_path):
    scans = write_patients(tmp_path / "in", ["P1", "P2", "P3"])
    (scans / "P2" / "PET_image.nii.gz").unlink()
    answer = autoseg(
        *("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS),
        *("--channels", "mr={case}/MR_T1_image.nii.gz", "pet={case}/PET_image.nii.gz", "--labels", "{case}/PET_mask.nii.gz"),
    )
    assert answer.code == 2
    assert "P2  no file for channel pet" in answer.err
    assert "--exclude P2" in answer.err


def test_groups_keep_the_scans_of_a_patient_together(tmp_path):
    names = [f"{patient}_{visit}" for patient in ("p1", "p2", "p3") for visit in ("a", "b", "c")]
    run = plan_folder(write_cases(tmp_path / "in", names, (6, 8, 8)), tmp_path / "run", groups=r"^(p\d)_")
    assert {case.group for case in run.load_dataset().cases} == {"p1", "p2", "p3"}
    folds = run.load_splits().folds
    assert len(folds) == 3
    for fold in folds:
        assert not {name[:2] for name in fold.training} & {name[:2] for name in fold.validation}


def test_a_name_that_does_not_fit_the_groups_is_named(autoseg, tmp_path):
    scans = write_cases(tmp_path / "in", ["p1_a", "p2_a", "x"], (6, 8, 8))
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS, "--groups", r"^(p\d)_")
    assert answer.code == 2
    assert "x" in answer.err
    assert "--groups" in answer.err


@pytest.mark.parametrize("keys", [("training", "validation"), ("train", "val")])
def test_splits_of_ones_own_are_taken(autoseg, scans, tmp_path, keys):
    folds = [{keys[0]: ["case_00", "case_01"], keys[1]: ["case_05"]}]
    (tmp_path / "splits.json").write_text(json.dumps(folds))
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS, "--splits", tmp_path / "splits.json")
    (fold,) = RunFolder(tmp_path / "run").load_splits().folds
    assert answer.code == 0
    assert (fold.training, fold.validation) == (("case_00", "case_01"), ("case_05",))


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([{"training": ["case_00", "case_77"], "validation": ["case_01"]}], ["Fold 0", "case_77", "not in the data set"]),
        ([{"training": ["case_00", "case_01"], "validation": ["case_01"]}], ["Fold 0", "case_01", "trains and validates"]),
        ([{"training": [], "validation": ["case_01"]}], ["Fold 0", "nothing"]),
        ([], ["no folds"]),
        ({"folds": []}, ["splits.json", "holds no folds"]),
    ],
)
def test_splits_that_cannot_be_are_refused_and_nothing_is_written(autoseg, scans, tmp_path, folds, words):
    (tmp_path / "splits.json").write_text(json.dumps(folds))
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS, "--splits", tmp_path / "splits.json")
    assert answer.code == 2
    assert all(word in answer.err for word in words)
    assert not (tmp_path / "run").exists()


def test_the_plan_is_a_pure_function_of_the_saved_records(planned):
    run = RunFolder(planned)
    made = run.load_plan()
    machine = load_record(Machine, run.machine)
    again = [
        make_plan(run.load_dataset(), load_record(Fingerprint, run.fingerprint), read_profile(made.profile), machine, Request(0.1, None))
        for _ in range(2)
    ]
    assert again == [made, made]


def test_planning_twice_gives_the_same_files(planned, scans, tmp_path):
    plan_folder(scans, tmp_path / "run", classes=("body", "head"), workers=2)
    for path in planned.glob("*.json"):
        assert path.read_bytes() == (tmp_path / "run" / path.name).read_bytes()


def test_what_is_asked_of_the_plan_is_in_it(autoseg, scans, tmp_path):
    words = ("--memory", "8GB", "--spacing", "2,1.5,1.5", "--classes", "trunk,top")
    answer = autoseg("plan", scans, "-o", tmp_path / "run", "--workers", "1", *words)
    run = RunFolder(tmp_path / "run")
    made = run.load_plan()
    assert answer.code == 0
    assert (made.machine.device, made.machine.memory) == ("cuda", 8_000_000_000)
    assert [label.name for label in run.load_dataset().classes] == ["trunk", "top"]
    assert next(c for c in made.configurations if c.name == "3d_fullres").spacing == (2.0, 1.5, 1.5)
    assert f"autoseg train {tmp_path / 'run'} --fold 0" in answer.out


def test_a_wrong_number_of_class_names_is_told_with_the_values(autoseg, scans, tmp_path):
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS, "--classes", "only")
    assert answer.code == 2
    assert "names 1 classes" in answer.err
    assert "[1, 2]" in answer.err


def test_classes_declared_in_the_folder_keep_their_names(tmp_path):
    folder = write_cases(tmp_path / "in", ["a", "b", "c"])
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    (folder / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lump"}}))
    dataset = plan_folder(folder, tmp_path / "run").load_dataset()
    assert [label.name for label in dataset.classes] == ["lump"]
    assert [channel.name for channel in dataset.channels] == ["MRI"]


def test_an_excluded_case_that_is_not_there_is_a_mistake(autoseg, scans, tmp_path):
    answer = autoseg("plan", scans, "-o", tmp_path / "run", *PLAN_WORDS, "--exclude", "case_99")
    assert answer.code == 2
    assert "case_99" in answer.err


def test_a_run_with_models_is_not_planned_over_by_another_folder(autoseg, trained_copy, tmp_path):
    other = make_folder(tmp_path / "other", 3)
    answer = autoseg("plan", other, "-o", trained_copy, *PLAN_WORDS)
    assert answer.code == 2
    assert "holds models" in answer.err
    assert (trained_copy / MODEL / "model.json").is_file()


def test_hidden_files_are_no_scans(tmp_path):
    folder = write_cases(tmp_path / "in", ["a", "b", "c"])
    (folder / "images" / "._a.nii.gz").write_bytes(b"resource fork")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "d.nii.gz").write_bytes(b"")
    assert len(plan_folder(folder, tmp_path / "run").load_dataset().cases) == 3


@pytest.mark.scans
def test_the_real_hippocampi_are_planned(autoseg, real_scans, tmp_path):
    folder = tmp_path / "in"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for path in sorted((real_scans / "hippocampus" / part).glob("[!.]*.nii.gz"))[:6]:
            (folder / part / path.name).symlink_to(path)
    answer = autoseg("plan", folder, "-o", tmp_path / "run", *PLAN_WORDS)
    assert answer.code == 0
    assert RunFolder(tmp_path / "run").load_plan().default_configuration == "3d_fullres"


@pytest.mark.scans
def test_the_real_sarcomas_are_planned_by_patterns(autoseg, real_scans, tmp_path):
    words = ("--images", "{case}/MR_T1_image.nii.gz", "--labels", "{case}/MR_T1_mask.nii.gz")
    answer = autoseg("plan", real_scans / "sarcoma", "-o", tmp_path / "run", *PLAN_WORDS, *words)
    assert answer.code == 0
    assert "5 pairs" in answer.out
