"""`autoseg run`: the whole way with one command; killed and repeated it ends as one left alone."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from whole_way import kill, list_partials, make_folder, start_slowly, wait_until

from autoseg.commands import run as module
from autoseg.commands.run import describe_mean
from autoseg.errors import Diverged, OutOfMemory
from autoseg.io.files import load_record
from autoseg.records.agenda import Agenda
from autoseg.records.choice import Choice
from autoseg.records.scores import decode_scores

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS = ("--device", "cpu", "--steps", "4", "--precision", "fp32", "--workers", "1")
BRIEF = ("--device", "cpu", "--workers", "1")


def load_agenda(run):
    return load_record(Agenda, run / "agenda.json")


@pytest.fixture
def faked(trained, monkeypatch):
    """Trainings that copy a finished fold instead, or raise what is put into `fails`; what was asked of them is in `asked`."""
    asked, fails = [], {}

    def train(run, fold, configuration, options, progress):
        asked.append((configuration, fold, options))
        if (configuration, fold) in fails:
            raise fails[configuration, fold]
        shutil.copytree(trained / "models" / "3d_fullres" / "fold_0", run / "models" / configuration / f"fold_{fold}")

    monkeypatch.setattr(module, "train", train)
    train.asked, train.fails = asked, fails
    return train


@pytest.fixture
def chosen(monkeypatch, trained):
    """A selection that takes the first finished fold, scores and all; the list counts its calls."""
    calls = []

    def select(run, progress, workers):
        calls.append(run)
        shutil.copy(trained / "models/3d_fullres/fold_0/validation/scores.json", run / "scores.json")
        return Choice(metric="dice", configurations=("3d_fullres",), folds=(0,), cases=2)

    monkeypatch.setattr(module, "select", select)
    return calls


def test_a_killed_and_repeated_run_ends_as_one_left_alone(autoseg, tmp_path, monkeypatch):
    scans = make_folder(tmp_path / "scans", cases=4)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (scans / "images").iterdir())
    halves = [{"training": names[:2], "validation": names[2:]}, {"training": names[2:], "validation": names[:2]}]
    (tmp_path / "splits.json").write_text(json.dumps(halves))
    words = ("--classes", "body,head", "--splits", tmp_path / "splits.json", *WORDS)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    answer = autoseg("run", scans, "-o", whole, *words)
    assert answer.code == 0, answer.err
    trainings = [(each.configuration, each.fold) for each in load_agenda(whole).trainings]
    assert trainings == [("3d_fullres", 0), ("3d_fullres", 1), ("2d", 0), ("2d", 1)]
    scores = decode_scores((whole / "scores.json").read_bytes(), "")
    assert {row.case for row in scores.cases} == set(names)
    assert describe_mean(scores) in answer.out
    monkeypatch.syspath_prepend(BENCHMARKS)
    from whole_run import judge  # which counts Dice anew from masks and labels, with nothing of autoseg's

    judged = judge(whole)
    assert judged["mean_dice_from_files"] == pytest.approx(judged["mean_dice"], abs=1e-6)
    assert f"Next: autoseg predict {whole} SCANS -o OUT" in answer.out
    assert "Training, 3 of 4 finished: 2d, fold 1" in (whole / "log.txt").read_text()

    for path in [*whole.glob("*.json"), *whole.glob("models/*/fold_?/settings.json")]:  # settings: what was timed
        if path.name not in ("choice.json", "scores.json"):
            target = killed / path.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for arrived in ("models/3d_fullres/fold_1/checkpoint/step_*", "models/2d/fold_0/validation/*.nii.gz"):
        process = start_slowly("run", scans, "-o", killed, *words)
        wait_until(lambda pattern=arrived: list(killed.glob(pattern)), process, seconds=900)
        kill(process)
        assert not (killed / "choice.json").exists()
    answer = autoseg("run", scans, "-o", killed, *WORDS)
    assert answer.code == 0, answer.err
    assert "Training, 2 of 4 finished: 2d, fold 0" in answer.out
    for name in ("agenda.json", "choice.json", "scores.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert list_partials(killed) == []
    assert list(killed.rglob("lock")) == []


def test_the_time_is_shared_and_a_repetition_keeps_the_minutes(autoseg, scans, planned_copy, faked, chosen):
    answer = autoseg("run", scans, "-o", planned_copy, *BRIEF, "--hours", "0.5", "--seed", "3")
    assert answer.code == 0
    assert "5.4 minutes each, 27 minutes of training in the 30 minutes that were given" in answer.out
    agenda = load_agenda(planned_copy)
    assert agenda.minutes == pytest.approx(0.9 * 30 / 5)
    assert [(name, fold) for name, fold, _ in faked.asked] == [("3d_fullres", fold) for fold in range(5)]
    assert {(options.minutes, options.seed, options.steps) for *_, options in faked.asked} == {(agenda.minutes, 3, None)}
    assert [left.configuration for left in agenda.left_out] == ["2d"]

    shutil.rmtree(planned_copy / "models" / "3d_fullres" / "fold_2")
    faked.asked.clear()
    before = (planned_copy / "agenda.json").read_bytes()
    assert autoseg("run", scans, "-o", planned_copy, *BRIEF).code == 0
    assert [(fold, options.minutes, options.seed) for _, fold, options in faked.asked] == [(2, agenda.minutes, 3)]
    assert (planned_copy / "agenda.json").read_bytes() == before
    assert len(chosen) == 2
    for flag, value in (("--hours", "1"), ("--seed", "4"), ("--steps", "5"), ("--classes", "a,b")):
        answer = autoseg("run", scans, "-o", planned_copy, *BRIEF, flag, value)
        assert answer.code == 2
        assert f"{flag} {value}" in answer.err
        assert "agenda.json" in answer.err
    assert (planned_copy / "agenda.json").read_bytes() == before


def test_a_run_that_was_killed_between_plan_and_agenda_plans_for_the_same_flags_again(autoseg, scans, tmp_path, faked, chosen):
    run, words = tmp_path / "run", (*BRIEF, "--classes", "body,head", "--minutes", "4")
    assert autoseg("run", scans, "-o", run, *words).code == 0
    before = {name: (run / name).read_bytes() for name in ("plan.json", "agenda.json")}
    schedule = json.loads(before["plan.json"])["configurations"][0]["schedule"]
    assert schedule["minutes"] == pytest.approx(0.4, abs=0.01)
    shutil.rmtree(run / "models")
    (run / "agenda.json").unlink()
    assert autoseg("run", scans, "-o", run, *words).code == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    (run / "agenda.json").unlink()
    answer = autoseg("run", scans, "-o", run, *words)
    assert answer.code == 2
    assert "--classes would come too late" in answer.err


def test_what_fails_is_named_and_the_others_go_on(autoseg, scans, planned_copy, faked, chosen):
    faked.fails["3d_fullres", 1] = Diverged("The loss is not a number.")
    faked.fails["2d", 0] = OutOfMemory("A step does not fit.")
    answer = autoseg("run", scans, "-o", planned_copy, *WORDS)
    assert answer.code == 3
    assert "2 of 10 trainings failed" in answer.err
    assert "3d_fullres, fold 1: The loss is not a number." in answer.err
    assert "2d, fold 0: A step does not fit." in answer.err
    assert (len(faked.asked), len(chosen)) == (10, 1)
    assert "mean Dice over" in answer.out
    faked.fails.clear()
    assert autoseg("run", scans, "-o", planned_copy, *WORDS).code == 0
    assert [(name, fold) for name, fold, _ in faked.asked[10:]] == [("3d_fullres", 1), ("2d", 0)]


def test_where_everything_fails_nothing_is_selected(autoseg, scans, planned_copy, faked, chosen):
    faked.fails |= {(name, fold): Diverged("The loss is not a number.") for name in ("3d_fullres", "2d") for fold in range(5)}
    answer = autoseg("run", scans, "-o", planned_copy, *WORDS)
    assert answer.code == 3
    assert "nothing to select" in answer.err
    assert chosen == []


def test_ctrl_c_between_trainings_exits_75_and_the_same_command_goes_on(autoseg, scans, planned_copy, faked, chosen):
    faked.fails["3d_fullres", 2] = KeyboardInterrupt()
    answer = autoseg("run", scans, "-o", planned_copy, *WORDS)
    assert answer.code == 75
    assert "goes on from here" in answer.err
    faked.fails.clear()
    assert autoseg("run", scans, "-o", planned_copy, *WORDS).code == 0
    assert [fold for _, fold, _ in faked.asked[3:]] == [2, 3, 4, 0, 1, 2, 3, 4]


def test_a_run_of_other_scans_is_refused(autoseg, planned_copy, tmp_path):
    for _ in range(2):
        answer = autoseg("run", tmp_path, "-o", planned_copy, *WORDS)
        assert answer.code == 2
        assert "not of" in answer.err
        assert not (planned_copy / "agenda.json").exists()


def test_a_plan_changed_by_hand_is_gone_on_with_but_not_made_anew(autoseg, scans, planned_copy, faked, chosen):
    assert autoseg("plan", planned_copy, "--set", "configurations.2d.batch_size=3").code == 0
    before = (planned_copy / "plan.json").read_bytes()
    answer = autoseg("run", scans, "-o", planned_copy, *WORDS, "--spacing", "2,1,1")
    assert answer.code == 2
    assert "set by hand" in answer.err
    assert autoseg("run", scans, "-o", planned_copy, *WORDS).code == 0
    assert (planned_copy / "plan.json").read_bytes() == before


def test_the_mean_is_over_cases_and_knows_what_is_undefined(trained):
    scores = decode_scores((trained / "models/3d_fullres/fold_0/validation/scores.json").read_bytes(), "")
    rows = [msgspec.structs.replace(row, dice=value) for row, value in zip(scores.cases, (0.5, 1.0, 0.25, None), strict=False)]
    assert describe_mean(msgspec.structs.replace(scores, cases=tuple(rows[:4]))).startswith("mean Dice over 2 cases 0.5000 (95 %")
    assert describe_mean(msgspec.structs.replace(scores, cases=())) == "mean Dice not defined"
