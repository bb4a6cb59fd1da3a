"""`autoseg status`: reads where a run stands, and changes nothing."""

import json
import os
import shutil

import msgspec
import pytest
from whole_way import MODEL, STEPS

from autoseg.commands.status import format_status, status
from autoseg.io.files import load_record, save_record
from autoseg.io.run_folder import FoldFolder
from autoseg.records.agenda import Agenda, LeftOut, Training
from autoseg.records.choice import Choice
from autoseg.records.training import ModelHeader, TrainingSettings, TrainingStatus


def set_status(run, **changes):
    path = run / MODEL / "status.json"
    save_record(path, msgspec.structs.replace(load_record(TrainingStatus, path), **changes))


def save_agenda(run, **changes):
    trainings = tuple(Training(configuration="3d_fullres", fold=fold) for fold in range(5))
    left = LeftOut(configuration="2d", folds=(0, 1), reason="too long")
    agenda = Agenda(trainings=trainings, left_out=(left,), hours=0.5, minutes=5.4)
    save_record(run / "agenda.json", msgspec.structs.replace(agenda, **changes))


def save_choice(run, digest):
    choice = Choice(metric="dice", configurations=("3d_fullres",), folds=(0,), cases=2, weights_digests={"3d_fullres": (digest,)})
    save_record(run / "choice.json", choice)


def test_a_run_without_agenda_shows_the_default_configuration_and_writes_nothing(autoseg, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    answer = autoseg("status", trained)
    assert answer.code == 0
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    found = status(trained)
    assert [(fold.configuration, fold.fold, fold.state) for fold in found.folds] == [
        ("3d_fullres", number, "waiting" if number else "finished") for number in range(5)
    ]
    assert (found.folds[0].step, found.folds[0].minutes_left, found.selection, found.agenda) == (STEPS, 0, "not done", None)
    assert found.folds[0].score == load_record(TrainingStatus, trained / MODEL / "status.json").mean_dice
    assert found.folds[1].minutes_left == pytest.approx(0.1)
    assert f"{found.folds[0].score:.4f}" in answer.out
    assert f"Next: autoseg train {trained} --fold 1" in answer.out
    assert "Agenda" not in answer.out


def test_the_agenda_says_what_is_left_and_what_was_left_out(trained_copy, scans):
    save_agenda(trained_copy)
    found = status(trained_copy)
    assert found.minutes_left == pytest.approx(4 * 5.4)
    text = format_status(found)
    assert "1 of 5 trainings finished" in text
    assert "Left out: 2d (fold 0, 1): too long" in text
    assert "22 minutes of training are left;" in text
    assert f"Next: autoseg run {scans} -o {trained_copy}" in text
    save_agenda(trained_copy, steps=7, minutes=None)
    plan = json.loads((trained_copy / "plan.json").read_text())
    seconds = next(c["seconds_per_step"] for c in plan["configurations"] if c["name"] == "3d_fullres")
    assert status(trained_copy).minutes_left == (pytest.approx(4 * 7 * seconds / 60) if seconds else None)


def test_a_fold_at_work_is_named_with_its_process_and_one_without_it_was_interrupted(trained_copy):
    set_status(trained_copy, state="training", step=3, steps=STEPS, seconds=30.0, alarms=("The loss stands still.",), skipped=("case_1",))
    found = status(trained_copy).folds[0]
    assert (found.state, found.holder, found.minutes_left) == ("interrupted", None, pytest.approx(10 * (STEPS - 3) / 60))
    with FoldFolder(trained_copy / MODEL).lock():
        found = status(trained_copy)
        assert found.folds[0].state == "training"
        assert str(os.getpid()) in found.folds[0].holder
        text = format_status(found)
        assert f"training, step 3 of {STEPS} (process {os.getpid()}" in text
        assert "3d_fullres, fold 0: The loss stands still." in text
        assert "case_1" in text
        assert "Next: wait" in text
        set_status(trained_copy, state="validating", step=STEPS)
        assert status(trained_copy).folds[0].state == "validating"
        (trained_copy / MODEL / "status.json").unlink()
        assert status(trained_copy).folds[0].state == "starting"
    settings = load_record(TrainingSettings, trained_copy / MODEL / "settings.json")
    found = status(trained_copy).folds[0]
    assert (found.state, found.step, found.steps) == ("interrupted", 0, STEPS)
    assert found.minutes_left == pytest.approx(STEPS * settings.seconds_per_step / 60)


def test_a_choice_is_older_when_its_models_are_others_or_more(trained_copy):
    digest = load_record(ModelHeader, trained_copy / MODEL / "model.json").weights_digest
    save_agenda(trained_copy, trainings=(Training(configuration="3d_fullres", fold=0),))
    assert status(trained_copy).next.startswith("autoseg run")
    save_choice(trained_copy, digest)
    found = status(trained_copy)
    assert (found.selection, found.next) == ("done", f"autoseg predict {trained_copy} SCANS -o OUT")
    assert "all trainings are finished" in format_status(found)
    save_choice(trained_copy, "another")
    assert status(trained_copy).selection == "older than its models"
    save_choice(trained_copy, digest)
    shutil.copytree(trained_copy / MODEL, trained_copy / MODEL.with_name("fold_1"))
    assert status(trained_copy).selection == "older than its models"


def test_a_begun_fold_of_another_configuration_is_shown_too(trained_copy):
    shutil.copytree(trained_copy / MODEL, trained_copy / "models/2d/fold_3")
    assert [(fold.configuration, fold.fold) for fold in status(trained_copy).folds][5:] == [("2d", 3)]
    path = trained_copy / "models/2d/fold_3/status.json"
    save_record(path, msgspec.structs.replace(load_record(TrainingStatus, path), state="interrupted", step=1, seconds=60.0))
    save_agenda(trained_copy)
    found = status(trained_copy)
    assert found.folds[5].minutes_left == pytest.approx(STEPS - 1)
    assert found.minutes_left == pytest.approx(4 * 5.4)


def test_machines_get_the_record(autoseg, trained):
    answer = autoseg("status", trained, "--json")
    (event,) = [json.loads(line) for line in answer.out.splitlines()]
    assert event["event"] == "status"
    assert event["status"]["folds"][0]["state"] == "finished"
    assert event["status"]["agenda"] is None


def test_what_is_no_run_is_refused(autoseg, scans):
    answer = autoseg("status", scans)
    assert answer.code == 2
    assert "plan.json" in answer.err
