"""Nothing is lost and nothing begun twice: ends brought forward, extensions, other models' weights, rescues, kills."""

import dataclasses
import math
import os
import shutil
import signal
import threading

import msgspec
import pytest
from whole_way import MODEL, STEPS, TRAIN_WORDS, kill, list_partials, start_slowly, wait_until

from autoseg.commands import fold as fold_module
from autoseg.io.files import load_record
from autoseg.io.run_folder import FoldFolder
from autoseg.records.training import Course, ModelHeader, TrainingSettings, TrainingStatus
from autoseg.training import trainer
from autoseg.training.loader import Loader
from autoseg.training.trainer import Validation

LONG = ("--fold", "0", "--device", "cpu", "--steps", "40", "--precision", "fp32", "--workers", "1")
CHECKPOINT = MODEL / "checkpoint"


def load(kind, run, name):
    return load_record(kind, run / MODEL / f"{name}.json")


def read_weights(run):
    return (run / MODEL / "weights.safetensors").read_bytes()


def act_at(monkeypatch, step, action):
    """Does something once, after `step` steps of a training."""
    finish, done = fold_module.FoldHooks.finish_step, []

    def finish_step(self, state, loss):
        finish(self, state, loss)
        if state.step == step and not done:
            done.append(step)
            action()

    monkeypatch.setattr(fold_module.FoldHooks, "finish_step", finish_step)


def interrupt():
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture
def quick(planned, trained, tmp_path):
    """A planned run whose settings are made, so that nothing is timed: 40 steps in epochs of 4, validated every tenth of them."""

    def make(name="run", **changes):
        run = shutil.copytree(planned, tmp_path / name)
        shutil.copytree(trained / "prepared", run / "prepared", dirs_exist_ok=True)
        settings = msgspec.structs.replace(load(TrainingSettings, trained, "settings"), **{"steps": 40, "steps_per_epoch": 4, **changes})
        (run / MODEL).mkdir(parents=True)
        (run / MODEL / "settings.json").write_bytes(msgspec.json.encode(settings))
        return run

    return make


def test_a_stopped_training_ends_early_with_a_whole_model_also_when_interrupted_on_the_way(autoseg, quick, monkeypatch):
    told = []

    def ask(run):
        from autoseg.cli import main

        told.append(main(["stop", str(run), "--fold", "0"]))

    whole = quick("whole", validations=0)
    with monkeypatch.context() as patch:
        act_at(patch, 13, lambda: ask(whole))
        answer = autoseg("train", whole, *LONG)
    assert (answer.code, told) == (0, [0])
    assert "the learning rate ends over 10 more steps (now 12 of 40)" in answer.out
    assert "10 more steps, to step 23" in answer.out
    assert [(leg.kind, leg.first, leg.last) for leg in load(Course, whole, "course").legs] == [("planned", 0, 40), ("ending", 13, 23)]
    assert load(ModelHeader, whole, "model").steps == 23
    assert load(TrainingStatus, whole, "status").state == "finished"
    assert not (whole / MODEL / "stop").exists()
    rates = [float(line.split(",")[3]) for line in (whole / MODEL / "log.csv").read_text().splitlines()[1:]]
    assert rates[-1] < 0.15 * max(rates)

    parts = quick("parts", validations=0)
    with monkeypatch.context() as patch:
        act_at(patch, 13, lambda: ask(parts))
        act_at(patch, 15, interrupt)
        assert autoseg("train", parts, *LONG).code == 75
    assert load(TrainingStatus, parts, "status").step == 15
    assert autoseg("train", parts, *LONG).code == 0
    assert read_weights(parts) == read_weights(whole)
    finished = autoseg("stop", parts, "--fold", "0")
    assert finished.code == 2
    assert "3d_fullres, fold 0 is finished (step 23 of 23)" in finished.err


def test_there_is_nothing_to_stop_where_nothing_is_trained(autoseg, planned_copy):
    answer = autoseg("stop", planned_copy)
    assert answer.code == 2
    assert "nothing to stop" in answer.err
    assert autoseg("stop", planned_copy / "nowhere").code == 2


def test_a_signal_while_preparing_or_validating_exits_75_and_the_same_command_goes_on(autoseg, trained_copy, monkeypatch):
    before = read_weights(trained_copy)
    (trained_copy / MODEL / "validation" / "scores.json").unlink()
    from autoseg.commands import validate as module

    predict_cases = module.predict_cases
    with monkeypatch.context() as patch:
        patch.setattr(module, "predict_cases", lambda *words: interrupt() or predict_cases(*words))
        answer = autoseg("train", trained_copy, *TRAIN_WORDS)
    assert answer.code == 75
    assert "goes on from here" in answer.err
    assert not (trained_copy / MODEL / "lock").exists()
    assert autoseg("train", trained_copy, *TRAIN_WORDS).code == 0
    assert (trained_copy / MODEL / "validation" / "scores.json").is_file()
    assert read_weights(trained_copy) == before


def test_a_signal_during_a_validation_on_the_way_costs_that_validation_only(autoseg, quick, monkeypatch):
    run = quick(validations=2)
    validate = fold_module.validate_cases
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "validate_cases", lambda *words: interrupt() or validate(*words))
        assert autoseg("train", run, *LONG).code == 75
    assert load(TrainingStatus, run, "status").step == 20
    steps = []
    with monkeypatch.context() as patch:
        act_at(patch, 21, lambda: steps.append([line.split(",")[6] != "" for line in log_rows(run)]))
        act_at(patch, 22, interrupt)
        assert autoseg("train", run, *LONG).code == 75
    assert steps == [[False] * 4 + [True]]


def log_rows(run):
    return (run / MODEL / "log.csv").read_text().splitlines()[1:]


def test_a_finished_fold_is_extended_once_and_keeps_its_model_until_then(autoseg, trained_copy, tmp_path, monkeypatch):
    whole, parts = trained_copy, shutil.copytree(trained_copy, tmp_path / "parts")
    before, words = read_weights(whole), ("--fold", "0", "--device", "cpu", "--workers", "1", "--extend", "8")
    assert autoseg("train", whole, *words).code == 0
    assert load(ModelHeader, whole, "model").steps == STEPS + 8
    assert load(TrainingStatus, whole, "status").step == STEPS + 8
    assert read_weights(whole) != before
    with monkeypatch.context() as patch:
        act_at(patch, STEPS + 3, interrupt)
        assert autoseg("train", parts, *words).code == 75
    assert read_weights(parts) == before
    assert load(ModelHeader, parts, "model").steps == STEPS
    answer = autoseg("train", parts, *words)
    assert answer.code == 0
    assert f"Going on with fold 0 after step {STEPS + 3} of {STEPS + 8}" in answer.out
    assert read_weights(parts) == read_weights(whole)
    assert len(load(Course, parts, "course").legs) == 2
    assert "finished" in autoseg("train", parts, *TRAIN_WORDS[:-2]).out
    shutil.rmtree(parts / CHECKPOINT)
    answer = autoseg("train", parts, *words)
    assert answer.code == 2
    assert f"step_{STEPS + 8:09d}.safetensors" in answer.err
    assert load(Course, parts, "course").end == STEPS + 8


def test_an_unfinished_fold_is_not_extended(autoseg, quick):
    answer = autoseg("train", quick(), *LONG[:4], "--extend", "5")
    assert answer.code == 2
    assert "not finished" in answer.err


def test_another_model_is_a_start_by_name_and_is_recorded(autoseg, trained, planned_copy):
    words = ("train", planned_copy, *TRAIN_WORDS[:4], "--steps", "2", "--precision", "fp32", "--workers", "1", "--init", trained)
    answer = autoseg(*words)
    assert answer.code == 0
    settings = load(TrainingSettings, planned_copy, "settings")
    assert settings.init.source == str((trained / MODEL).resolve())
    assert settings.init.weights_digest == load(ModelHeader, trained, "model").weights_digest
    assert settings.init.copied == settings.init.tensors
    assert f"copied {settings.init.copied} of {settings.init.copied} tensors; channels image ← image" in answer.out
    assert "body ← body, head ← head" in answer.out


def test_weights_of_a_start_are_verified(autoseg, trained_copy, planned, tmp_path):
    run = shutil.copytree(planned, tmp_path / "other")
    weights = trained_copy / MODEL / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    answer = autoseg("train", run, *TRAIN_WORDS, "--init", trained_copy / MODEL)
    assert answer.code == 2
    assert "SHA-256" in answer.err
    assert not (run / MODEL / "settings.json").exists()


def test_a_training_begun_from_nothing_does_not_take_another_model_later(autoseg, trained, quick):
    answer = autoseg("train", quick(), *LONG, "--init", trained)
    assert answer.code == 2
    assert "without --init" in answer.err


def poison(monkeypatch, times):
    """Every batch holds NaN, as often as said, from the seventh step on."""
    make, left = Loader.make_batch, [times]

    def make_batch(self, parts):
        batch = make(self, parts)
        left.append(left[-1] - 1 if len(left) > 6 else left[-1])
        bad = len(left) > 7 and left[-1] >= 0
        return dataclasses.replace(batch, images=batch.images * (math.nan if bad else 1))

    monkeypatch.setattr(Loader, "make_batch", make_batch)


def test_a_training_that_is_not_finite_goes_on_at_half_the_rate_and_a_resumption_repeats_that(autoseg, quick, monkeypatch):
    run = quick(validations=0)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        poison(patch, 3)
        act_at(patch, 15, interrupt)
        answer = autoseg("train", run, *LONG)
    assert answer.code == 75, answer.err
    assert "Going back to step 6 and on with half the learning rate" in answer.out
    rescue = load(Course, run, "course").rescue
    assert (rescue.step, rescue.precision, rescue.rate) == (6, "fp32", 0.5)
    skipped = load(TrainingStatus, run, "status").skipped
    assert skipped
    assert set(rescue.cases) == set(skipped)
    assert skipped[0] in (run / "log.txt").read_text()
    assert autoseg("train", run, *LONG).code == 0
    settings = load(TrainingSettings, run, "settings")
    rates = [float(line.split(",")[3]) for line in log_rows(run)]
    assert max(rates[2:]) <= settings.configuration.optimizer.learning_rate / 2
    assert load(ModelHeader, run, "model").steps == 40


def test_a_training_that_is_never_finite_again_has_diverged(autoseg, quick, monkeypatch):
    poison(monkeypatch, 10**6)
    run = quick(validations=0)
    answer = autoseg("train", run, *LONG)
    assert answer.code == 5
    assert "3 times in a row" in answer.err
    assert "case_" in answer.err
    assert not (run / MODEL / "model.json").exists()


def test_patience_ends_a_training_and_alarms_are_told_once(autoseg, quick, monkeypatch):
    run = quick(validations=10, patience=3)
    monkeypatch.setattr(fold_module, "validate_cases", lambda *words: Validation({"body": 0.5, "head": 0.0}, 0.1))
    with monkeypatch.context() as patch:
        act_at(patch, 15, interrupt)
        first = autoseg("train", run, *LONG)
    assert first.code == 75
    answer = autoseg("train", run, *LONG)
    assert answer.code == 0
    assert load(ModelHeader, run, "model").steps == 16 + 10
    text = first.out + answer.out
    assert text.count("'head' has scored zero") == 1
    (alarm,) = load(TrainingStatus, run, "status").alarms
    assert "'head'" in alarm
    assert text.count("After 20 steps") == 0  # neither process took as many


def test_the_pace_is_told_with_its_end(autoseg, quick):
    run = quick(validations=0, seconds_per_step=100.0)
    answer = autoseg("train", run, *LONG)
    (line,) = [line for line in answer.out.splitlines() if line.startswith("After 20 steps")]
    assert "% of it waiting for data (planned: 100 s); ends at " in line
    assert "then validation" in line


def test_three_kills_leave_the_weights_of_a_training_that_was_not_killed(autoseg, quick):
    killed, whole = quick("killed", steps=STEPS, validations=0), quick("whole", steps=STEPS, validations=0)
    words = ("train", killed, *TRAIN_WORDS)
    for number in (3, 6, 10):
        process = start_slowly(*words)
        wait_until(lambda number=number: latest_step(killed) >= number and list_partials(killed / MODEL), process)
        kill(process)
    assert autoseg(*words).code == 0
    assert autoseg("train", whole, *TRAIN_WORDS).code == 0
    assert read_weights(killed) == read_weights(whole)
    scores = [(run / MODEL / "validation" / "scores.json").read_bytes() for run in (killed, whole)]
    assert scores[0] == scores[1]
    assert not list_partials(killed)
    assert len(list((killed / CHECKPOINT).iterdir())) == 2
    assert {path.name for path in (killed / MODEL).iterdir()} == {path.name for path in (whole / MODEL).iterdir()}


def latest_step(run):
    return max((int(path.stem.removeprefix("step_")) for path in (run / CHECKPOINT).glob("step_*")), default=0)


def test_a_training_outside_the_main_thread_hears_no_signals(trained_copy):
    from autoseg.commands.train import TrainOptions, train

    errors = []

    def work():
        try:
            train(trained_copy, 0, options=TrainOptions(device="cpu", workers=1))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert not FoldFolder(trained_copy / MODEL).is_held()
