"""`plan RUN --set`: plan.json is rewritten whole or not at all, and what follows is told."""

import msgspec
import pytest
from builders import make_configuration
from planned_runs import make_dataset, make_plan, put, write_run
from whole_way import list_partials

from autoseg.commands.change import change
from autoseg.errors import InputError
from autoseg.io.files import load_record
from autoseg.progress import Silent
from autoseg.records.plan import MemoryEstimate, Plan

BATCH = "configurations.3d_fullres.batch_size"


class Heard(Silent):
    """Keeps what was said and warned of."""

    def __init__(self):
        self.said, self.warnings = "", []

    def say(self, text, **event):
        self.said += text

    def warn(self, text, **event):
        self.warnings.append(text)


@pytest.fixture
def run(tmp_path):
    memory = MemoryEstimate(training_bytes=10**7, prediction_bytes=10**6, prepared_bytes=10**9)
    schedule = msgspec.structs.replace(make_configuration(3).schedule, epochs=100)
    full = make_configuration(3, memory=memory, seconds_per_step=0.5, steps_per_epoch=250, schedule=schedule)
    return write_run(tmp_path / "run", make_plan(full, make_configuration(2)), make_dataset())


def hear(run, settings):
    heard = Heard()
    return change(run, settings, heard), heard


def test_the_plan_is_rewritten(run):
    made, heard = hear(run, {BATCH: "4"})
    assert load_record(Plan, run / "plan.json") == made
    assert made.configurations[0].batch_size == 4
    assert list_partials(run) == []
    assert f"{BATCH}: 2 → 4" in heard.said
    assert "memory to train: 10 MB → " in heard.said
    assert "a step: 0.5 s → 1 s" in heard.said
    assert "a fold: 25000 steps, about 3.47 hours → 25000 steps, about 6.94 hours" in heard.said
    assert f"Next: autoseg train {run} --fold 0" in heard.said
    assert "--configuration" not in heard.said
    assert "prepared anew" not in heard.said
    assert "--overwrite" not in heard.said
    assert heard.warnings == []


def test_a_refused_value_leaves_the_file_as_it_is(run):
    before = (run / "plan.json").read_bytes()
    for name, text in ((BATCH, "0"), (BATCH, "many"), ("axes", "0,1,2"), ("batch", "3")):
        with pytest.raises(InputError):
            change(run, {"configurations.2d.batch_size": "3", name: text})
    assert (run / "plan.json").read_bytes() == before


def test_the_value_that_is_there_already_changes_nothing(run):
    before = (run / "plan.json").stat().st_mtime_ns
    _, heard = hear(run, {BATCH: "2"})
    assert "Nothing changes" in heard.said
    assert (run / "plan.json").stat().st_mtime_ns == before


def test_what_another_spacing_entails_is_told(run):
    _, heard = hear(run, {"configurations.3d_fullres.spacing": "2x1x1"})
    assert "spacing: 1x1x1 → 2x1x1" in heard.said
    assert "median scan (voxels): 12x12x12 → 6x12x12" in heard.said
    assert "prepared scans: 1 GB → 500 MB" in heard.said
    assert "scans are prepared anew" in heard.said


def test_trained_folds_are_named(run):
    for name in ("3d_fullres/fold_0", "3d_fullres/fold_2", "3d_fullres/fold_0.bak", "2d/fold_1"):
        (run / "models" / name).mkdir(parents=True)
    _, heard = hear(run, {BATCH: "4"})
    (line,) = [line for line in heard.said.splitlines() if "--overwrite" in line]
    assert "models/3d_fullres: fold_0, fold_2 trained with the former plan" in line
    assert "2d" not in heard.said


def test_another_configuration_than_the_default_is_named_in_what_comes_next(run):
    _, heard = hear(run, {"configurations.2d.batch_size": "4"})
    assert f"autoseg train {run} --fold 0 --configuration 2d" in heard.said
    _, heard = hear(run, {"default_configuration": "2d"})
    assert "default_configuration: 3d_fullres → 2d" in heard.said
    assert "--configuration" not in heard.said.replace("default_configuration", "")


def test_nearly_all_memory_is_warned_of(run):
    needed = {batch: hear(run, {BATCH: str(batch)})[0].configurations[0].memory.training_bytes for batch in (4, 8)}
    each = (needed[8] - needed[4]) / 4
    _, heard = hear(run, {BATCH: str(int(4 + (0.98 * 10**9 - needed[4]) / each))})
    assert len(heard.warnings) == 1
    assert "may run out of memory" in heard.warnings[0]


def test_a_plan_broken_by_hand_can_be_set_right(run):
    plan = load_record(Plan, run / "plan.json")
    broken = put(plan.configurations[0], {"patch_size": [8, 8, 9]})
    write_run(run, make_plan(broken, plan.configurations[1]), make_dataset())
    with pytest.raises(InputError, match="8x8x9"):
        change(run, {BATCH: "4"})
    assert change(run, {"configurations.3d_fullres.patch_size": "8x8x8"}).configurations[0].patch_size == (8, 8, 8)


def test_a_folder_that_is_no_run_is_told(scans):
    with pytest.raises(InputError, match=r"no plan\.json") as caught:
        change(scans, {BATCH: "4"})
    assert "autoseg plan RUN --set" in caught.value.todo


def test_a_real_run_is_changed_and_still_explains_itself(autoseg, planned_copy):
    name = load_record(Plan, planned_copy / "plan.json").default_configuration
    answer = autoseg("plan", planned_copy, "--set", f"configurations.{name}.batch_size=1")
    assert answer.code == 0
    assert "→ 1" in answer.out
    told = autoseg("plan", planned_copy, "--explain")
    assert "*batch_size" in told.out
    assert "set by the user (the planner had" in told.out
