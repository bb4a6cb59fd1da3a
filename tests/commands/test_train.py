"""`autoseg train`: a fold is trained once, goes on where it was stopped, and its score is the one that predict and evaluate give."""

import json
import platform
import shutil
import signal

import msgspec
import pytest
from whole_way import MODEL, STEPS, TRAIN_WORDS, list_partials, make_folder, read_array, start_slowly, wait_until

from autoseg.commands.evaluate import Wanted, evaluate
from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.predict import PredictOptions, predict
from autoseg.io.files import load_record
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.records.scores import Scores
from autoseg.records.training import ModelHeader, TrainingStatus


def read_settings(run):
    return json.loads((run / MODEL / "settings.json").read_text())


def test_a_trained_fold_explains_itself(trained):
    names = {path.name for path in (trained / MODEL).iterdir()}
    expected = {"settings.json", "checkpoint", "weights.safetensors", "model.json", "log.csv", "curves.png", "status.json", "validation"}
    assert names == expected
    status = load_record(TrainingStatus, trained / MODEL / "status.json")
    assert (status.state, status.step, status.steps) == ("finished", STEPS, STEPS)
    assert 0 <= status.mean_dice <= 1
    assert (trained / MODEL / "log.csv").read_text().splitlines()[-1].split(",")[1] == str(STEPS)
    assert read_settings(trained)["precision"] == "fp32"


def test_a_finished_fold_says_so_and_does_nothing(autoseg, trained_copy):
    before = {path: path.stat().st_mtime_ns for path in (trained_copy / MODEL).rglob("*") if path.is_file()}
    answer = autoseg("train", trained_copy, *TRAIN_WORDS)
    assert answer.code == 0
    assert "finished" in answer.out
    assert f"{STEPS} steps" in answer.out
    assert "--overwrite" in answer.out
    assert {path: path.stat().st_mtime_ns for path in (trained_copy / MODEL).rglob("*") if path.is_file()} == before


def test_overwriting_keeps_the_old_fold_beside_the_new_one(autoseg, trained_copy):
    old = (trained_copy / MODEL / "weights.safetensors").read_bytes()
    words = ("--fold", "0", "--device", "cpu", "--steps", "2", "--precision", "fp32", "--workers", "1", "--overwrite")
    assert autoseg("train", trained_copy, *words).code == 0
    assert read_settings(trained_copy)["steps"] == 2
    assert (trained_copy / MODEL.with_name("fold_0.bak") / "weights.safetensors").read_bytes() == old
    assert autoseg("train", trained_copy, *words).code == 0
    assert (trained_copy / MODEL.with_name("fold_0.bak2") / "weights.safetensors").is_file()
    assert (trained_copy / MODEL.with_name("fold_0.bak") / "weights.safetensors").read_bytes() == old
    assert RunFolder(trained_copy).finished_folds("3d_fullres") == [0]


def test_a_second_training_of_a_fold_is_refused_and_names_the_first(autoseg, planned_copy):
    with FoldFolder(planned_copy / MODEL).lock():
        holder = json.loads((planned_copy / MODEL / "lock").read_text())
        answer = autoseg("train", planned_copy, *TRAIN_WORDS)
    assert answer.code == 2
    assert f"process {holder['pid']} on {holder['host']}" in answer.err
    assert not (planned_copy / MODEL / "settings.json").exists()


def test_the_lock_of_a_dead_process_is_taken_over(autoseg, trained_copy):
    holder = {"pid": 2**22 - 1, "started": 1.0, "host": platform.node()}
    (trained_copy / MODEL / "lock").write_text(json.dumps(holder))
    assert autoseg("train", trained_copy, *TRAIN_WORDS).code == 0
    assert not (trained_copy / MODEL / "lock").exists()


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(autoseg, planned_copy):
    words = ("train", planned_copy, *TRAIN_WORDS, "--seed", "3")
    process = start_slowly(*words)
    wait_until((planned_copy / MODEL / "log.csv").is_file, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 75, text
    assert "checkpoint" in text
    status = load_record(TrainingStatus, planned_copy / MODEL / "status.json")
    assert status.state == "interrupted"
    assert 0 < status.step < STEPS
    assert list((planned_copy / MODEL / "checkpoint").glob(f"step_{status.step:09d}*"))
    assert not (planned_copy / MODEL / "lock").exists()
    settings = read_settings(planned_copy)
    answer = autoseg(*words)
    assert answer.code == 0
    assert f"Going on with fold 0 after step {status.step} of {STEPS}" in answer.out
    assert read_settings(planned_copy) == settings
    assert load_record(TrainingStatus, planned_copy / MODEL / "status.json").state == "finished"
    assert not list_partials(planned_copy)


def test_one_case_only_trains_and_says_that_there_is_no_score(autoseg, tmp_path):
    plan(make_folder(tmp_path / "scans", 1), tmp_path / "run", PlanOptions(device="cpu", minutes=0.1, workers=1))
    answer = autoseg("train", tmp_path / "run", "--fold", "0", "--device", "cpu", "--steps", "2", "--precision", "fp32")
    assert answer.code == 0
    assert "one case only" in answer.out
    assert "how good" in answer.out
    (folder,) = (tmp_path / "run" / "models").glob("*/fold_0")
    assert load_record(TrainingStatus, folder / "status.json").mean_dice is None
    assert not (folder / "validation").exists()
    assert autoseg("predict", tmp_path / "run", tmp_path / "scans" / "images", "-o", tmp_path / "out").code == 0


def test_the_score_of_a_fold_is_that_of_predicting_and_evaluating_its_cases(trained, scans, tmp_path):
    predict(trained, scans / "images", tmp_path / "out", PredictOptions(cases="fold:0", device="cpu"))
    later = evaluate(tmp_path / "out", scans / "labels", wanted=Wanted(only_predicted=True))
    validated = RunFolder(trained).load_splits().folds[0].validation
    unjudged = msgspec.structs.replace(later, lights=(), purposes=(), findings=())
    assert unjudged == load_record(Scores, trained / MODEL / "validation" / "scores.json")
    assert {row.case for row in later.cases} == set(validated)
    for case in validated:
        own = read_array(trained / MODEL / "validation" / f"{case}.nii.gz")
        assert (own == read_array(tmp_path / "out" / f"{case}.nii.gz")).all()


def test_an_equal_seed_gives_equal_weights(autoseg, trained, planned_copy):
    (planned_copy / MODEL).mkdir(parents=True)
    shutil.copy(trained / MODEL / "settings.json", planned_copy / MODEL)
    assert autoseg("train", planned_copy, *TRAIN_WORDS).code == 0
    first, second = (load_record(ModelHeader, run / MODEL / "model.json") for run in (trained, planned_copy))
    assert first.weights_digest == second.weights_digest


def test_another_plan_does_not_go_on_with_a_training_begun(autoseg, planned_copy, trained):
    (planned_copy / MODEL).mkdir(parents=True)
    settings = read_settings(trained) | {"configuration_digest": "0" * 64}
    (planned_copy / MODEL / "settings.json").write_text(json.dumps(settings))
    answer = autoseg("train", planned_copy, *TRAIN_WORDS)
    assert answer.code == 2
    assert "another plan" in answer.err
    assert "--overwrite" in answer.err


@pytest.mark.parametrize("fold", ["5", "-1", "first"])
def test_a_fold_that_does_not_exist_lists_those_that_do(autoseg, planned_copy, fold):
    answer = autoseg("train", planned_copy, f"--fold={fold}", "--steps", "2")
    assert answer.code == 2
    assert f"{fold}" in answer.err
    assert "0 … 4" in answer.err
