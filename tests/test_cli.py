"""The command line: what is mistyped is named, what is said can be read by machines, and exit codes tell what happened."""

import json
import subprocess
import sys

import pytest
from whole_way import write_cases

from autoseg import __version__, cli
from autoseg.errors import CasesFailed, Diverged, InputError, Interrupted, OutOfMemory


@pytest.mark.parametrize(
    ("typed", "meant"), [("pln", "plan"), ("trian", "train"), ("predcit", "predict"), ("eval", "evaluate"), ("Prepare", "prepare")]
)
def test_a_mistyped_command_names_the_nearest(autoseg, typed, meant):
    answer = autoseg(typed, "somewhere")
    assert answer.code == 2
    assert f"'{typed}'" in answer.err
    assert f"did you mean {meant}?" in answer.err


def test_a_command_like_no_other_gets_the_list_of_all(autoseg):
    answer = autoseg("xyzzy")
    assert answer.code == 2
    assert all(verb in answer.err for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["plan", "scans", "-o", "run", "--clases", "a"], "--classes"),
        (["plan", "scans", "--ouput", "run"], "--output"),
        (["train", "run", "--fold", "0", "--minuts", "3"], "--minutes"),
        (["train", "run", "--flod=0"], "--fold"),
        (["predict", "run", "scans", "-o", "out", "--probabilites"], "--probabilities"),
        (["evaluate", "a", "b", "--only-predict"], "--only-predicted"),
    ],
)
def test_a_mistyped_flag_names_the_nearest(autoseg, words, meant):
    answer = autoseg(*words)
    wrong = next(word.split("=")[0] for word in words if word.startswith("--") and word != "--fold")
    assert answer.code == 2
    assert f"no flag {wrong};" in answer.err
    assert f"did you mean {meant}?" in answer.err
    assert f"autoseg {words[0]} --help" in answer.err


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        (["plan", "s", "-o", "r", "--minutes", "0"], "'0'"),
        (["plan", "s", "-o", "r", "--minutes", "-5"], "--minutes"),
        (["plan", "s", "-o", "r", "--hours", "nan"], "'nan'"),
        (["plan", "s", "-o", "r", "--memory", "8XB"], "'8XB'"),
        (["plan", "s", "-o", "r", "--spacing", "1,0,1"], "'0'"),
        (["plan", "s", "-o", "r", "--channels", "mr=MR.nii.gz"], "mr=MR.nii.gz"),
        (["train", "r", "--fold", "0", "--steps", "0"], "'0'"),
        (["train", "r", "--fold", "0", "--steps", "5", "--minutes", "1"], "--minutes"),
        (["train", "r"], "--fold"),
        (["train", "r", "--fold", "0", "--workers", "two"], "'two'"),
        (["predict", "r", "s", "-o", "o", "--folds", "all"], "'all'"),
        (["plan", "s", "-o", "r", "--device", "gpu"], "'gpu'"),
        (["evaluate", "a"], "REFERENCES"),
        (["plan", "r", "--set", "batch_size"], "'batch_size'"),
        (["plan", "r", "--set", "=4"], "'=4'"),
        (["plan", "r", "--set"], "--set"),
        (["plan", "r", "--explain", "--set", "a=1"], "--explain"),
        (["plan", "s", "-o", "r", "--format", "nifti"], "'nifti'"),
    ],
)
def test_a_bad_value_is_named_and_exits_2(autoseg, words, bad):
    answer = autoseg(*words)
    assert answer.code == 2
    assert bad in answer.err
    assert "ERROR" in answer.err
    assert f"autoseg {words[0]} --help" in answer.err


def test_version_is_told(autoseg):
    answer = autoseg("--version")
    assert (answer.code, answer.out.strip()) == (0, f"autoseg {__version__}")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_help(autoseg, verb):
    answer = autoseg(verb, "--help")
    assert answer.code == 0
    assert all(flag in answer.out for flag in ("--json", "--quiet", "--workers"))


def test_json_gives_one_object_per_line(autoseg, tmp_path):
    scans = write_cases(tmp_path / "scans", ["a", "b", "c"])
    answer = autoseg("plan", scans, "-o", tmp_path / "run", "--device", "cpu", "--workers", "1", "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.code == 0
    assert answer.err == ""
    assert [event["event"] for event in events] == ["pairs", "task", "plan"]
    assert events[0]["count"] == 3
    assert events[2]["default_configuration"]


def test_json_tells_errors_too(autoseg, tmp_path):
    answer = autoseg("plan", tmp_path / "nowhere", "-o", tmp_path / "run", "--json")
    event = json.loads(answer.out.splitlines()[-1])
    assert answer.code == 2
    assert (event["event"], event["exit"]) == ("error", 2)
    assert "nowhere" in event["what"]
    assert "autoseg plan" in event["next"]


@pytest.mark.parametrize(
    ("error", "code"), [(InputError, 2), (CasesFailed, 3), (OutOfMemory, 4), (Diverged, 5), (Interrupted, 75), (KeyboardInterrupt, 75)]
)
def test_every_error_has_its_exit_code(autoseg, monkeypatch, error, code):
    def fail(arguments, progress):
        raise error("what happened")

    monkeypatch.setitem(cli.VERBS, "prepare", (*cli.VERBS["prepare"][:2], fail))
    assert autoseg("prepare", "run").code == code


def test_a_fault_of_ours_goes_to_the_log_and_not_to_the_screen(autoseg, monkeypatch, tmp_path):
    def fail(arguments, progress):
        raise ZeroDivisionError("something divided")

    monkeypatch.setitem(cli.VERBS, "prepare", (*cli.VERBS["prepare"][:2], fail))
    monkeypatch.delenv("AUTOSEG_TRACEBACK", raising=False)
    (tmp_path / "plan.json").touch()
    answer = autoseg("prepare", tmp_path)
    assert answer.code == 1
    assert "ZeroDivisionError: something divided" in answer.err
    assert "Traceback" not in answer.err
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert str(tmp_path / "log.txt") in answer.err


@pytest.mark.parametrize("words", [["select"], ["stop"], ["prepare"], ["train", "--fold", "0"]])
def test_scans_given_in_place_of_a_run_get_no_log(autoseg, scans, words):
    verb, *others = words
    assert autoseg(verb, scans, *others).code == 2
    assert not (scans / "log.txt").exists()


def test_quiet_says_the_result_only(autoseg, tmp_path):
    scans = write_cases(tmp_path / "scans", ["a", "b", "c"])
    answer = autoseg("plan", scans, "-o", tmp_path / "run", "--device", "cpu", "--workers", "1", "-q")
    assert answer.out.startswith("Plan for")
    assert "3 pairs of image and label" in (tmp_path / "run" / "log.txt").read_text() or not answer.err


def test_a_plan_without_a_run_folder_is_told_what_to_type(autoseg, scans):
    answer = autoseg("plan", scans)
    assert answer.code == 2
    assert f"autoseg plan {scans} -o RUN" in answer.err
    assert not (scans / "log.txt").exists()


@pytest.mark.parametrize("later", [["--explain"], ["--set", "default_configuration=2d"]])
@pytest.mark.parametrize(
    "flag",
    [
        *(["-o", "r"], ["--task", "semantic"], ["--profile", "autoseg"], ["--memory", "8GB"], ["--minutes", "3"], ["--hours", "3"]),
        *(["--device", "cpu"], ["--images", "i"], ["--labels", "l"], ["--channels", "a={case}.nii"], ["--classes", "a"]),
        *(["--stratify", "a.csv:b"], ["--folds", "3"]),
        *(["--spacing", "1,1,1"], ["--groups", "a"], ["--splits", "s"], ["--exclude", "a"], ["--format", "nnunet"]),
    ],
)
def test_flags_about_scans_do_not_go_with_a_run(autoseg, planned_copy, flag, later):
    before = (planned_copy / "plan.json").read_bytes()
    answer = autoseg("plan", planned_copy, *flag, *later)
    assert answer.code == 2
    assert f"{flag[0]} does not go with {later[0]}" in answer.err
    assert (planned_copy / "plan.json").read_bytes() == before


def test_every_flag_of_plan_is_about_scans_or_about_a_run():
    parser = cli.build_parser()
    plan = next(action for action in parser._actions if action.dest == "verb").choices["plan"]
    common = {"help", "quiet", "verbose", "json", "workers"}
    assert {action.dest for action in plan._actions} - common == {"dataset", "explain", "set", "update", *cli.SCAN_FLAGS}


@pytest.mark.parametrize("words", [["--explain"], ["--explain", "2d"], ["--explain", "-q"]])
def test_a_plan_is_explained(autoseg, planned, words):
    answer = autoseg("plan", planned, *words)
    assert (answer.code, answer.err) == (0, "")
    assert "EVERY VALUE, AND WHY" in answer.out
    assert ("2d: EVERY" in answer.out) == ("2d" in words)


def test_a_reader_that_goes_away_is_no_fault(planned):
    """As `autoseg plan RUN --explain | head -n 1` does it."""
    words = [sys.executable, "-m", "autoseg", "plan", str(planned), "--explain"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 75


def test_an_explanation_is_one_event(autoseg, planned):
    answer = autoseg("plan", planned, "--explain", "--json")
    (event,) = [json.loads(line) for line in answer.out.splitlines()]
    assert event["event"] == "explain"
    assert "CONFIGURATIONS" in event["text"]


def test_explaining_leaves_no_log_and_changing_does(autoseg, planned_copy, scans):
    (planned_copy / "log.txt").unlink(missing_ok=True)
    assert autoseg("plan", planned_copy, "--explain").code == 0
    assert not (planned_copy / "log.txt").exists()
    assert autoseg("plan", planned_copy, "--set", "default_configuration=2d", "configurations.2d.batch_size=3").code == 0
    assert "configurations.2d.batch_size" in (planned_copy / "log.txt").read_text()
    for words in (["--explain"], ["--set", "default_configuration=2d"]):
        answer = autoseg("plan", scans, *words)
        assert answer.code == 2
        assert f"autoseg plan {scans} -o RUN" in answer.err
        assert not (scans / "log.txt").exists()


def test_values_may_be_set_one_flag_at_a_time_but_not_twice(autoseg, planned_copy):
    answer = autoseg("plan", planned_copy, "--set", "configurations.2d.batch_size=3", "--set", "configurations.2d.accumulation=2")
    assert answer.code == 0
    assert "batch_size: " in answer.out
    assert "accumulation: 1 → 2" in answer.out
    answer = autoseg("plan", planned_copy, "--set", "configurations.2d.batch_size=3", "configurations.2d.batch_size=4")
    assert answer.code == 2
    assert "given twice" in answer.err
