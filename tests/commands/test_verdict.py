"""Lights and findings after `evaluate`, and at the end of a run with what its folds and logs show."""

import json

import msgspec
import numpy as np
import pytest
from made_up_scores import make_scores
from whole_way import write_scan

from autoseg.commands.verdict import NO_CLAIM, choose_limits, format_verdict, judge, judge_run
from autoseg.errors import InputError
from autoseg.io.files import load_record, write_bytes
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Silent
from autoseg.records.scores import Scores


def draw(columns):
    """A block, `columns` wide."""
    label = np.zeros((4, 12, 20), np.uint8)
    label[:, :8, :columns] = 1
    return label


@pytest.fixture
def folders(tmp_path):
    for case in "ab":
        write_scan(tmp_path / "masks" / f"{case}.nii.gz", draw(8))
        write_scan(tmp_path / "references" / f"{case}.nii.gz", draw(10))
    return tmp_path / "masks", tmp_path / "references"


def test_evaluate_tells_and_keeps_the_verdict(autoseg, folders):
    answer = autoseg("evaluate", *folders)
    assert "green 0.889 (2/0/0)" in answer.out
    assert "volume (dice > 0.8 and iou > 0.75): label_1 yes" in answer.out
    assert NO_CLAIM in answer.out
    assert "There are too few cases" in answer.out
    saved = load_record(Scores, folders[0] / "scores.json")
    assert {light.colour for light in saved.lights if light.metric == "dice"} == {"green"}
    assert [finding.name for finding in saved.findings] == ["few cases"]


def test_quiet_shows_the_table_alone(autoseg, folders):
    answer = autoseg("evaluate", *folders, "-q")
    assert "label_1" in answer.out
    assert "Traffic" not in answer.out


def test_other_limits_are_typed(autoseg, folders):
    answer = autoseg("evaluate", *folders, "--limits", "dice=.95:.88")
    assert "amber 0.889 (0/2/0)" in answer.out
    wrong = autoseg("evaluate", *folders, "--limits", "dice=.95")
    assert (wrong.code, "METRIC=GREEN:AMBER" in wrong.err) == (2, True)
    assert "lights for dice, iou" in autoseg("evaluate", *folders, "--limits", "nsd=.9:.8").err


@pytest.mark.parametrize("changes", [("dice", 0.7, 0.8), ("hausdorff", 10.0, 5.0)])
def test_an_amber_better_than_green_is_refused(changes):
    with pytest.raises(InputError, match="amber is better"):
        choose_limits([changes])


def test_a_missed_case_is_told_beside_its_light():
    rows = [{"hausdorff_mm": 2.0}] * 11 + [{"hausdorff_mm": None, "voxels_predicted": 0, "dice": 0.0}]
    text = format_verdict(judge(make_scores(liver=rows)))
    assert "amber 2 (11/0/1)" in text
    assert "liver: 1 cases have no distance" in text


def test_a_run_is_judged_with_its_folds_and_logs(planned_copy):
    run = RunFolder(planned_copy)
    fold = run.fold(run.load_plan().default_configuration, 0)
    for path in (fold.model, fold.weights):
        write_bytes(path, b"")
    header = "epoch,step,seconds,learning_rate,loss,validation_dice,validation_dice_body,validation_dice_head,predicted_foreground"
    lines = [f"{k},{2 * k},1.0,1e-3,{2 - 0.3 * k:.1f},0.7,0.7,0.7,0.1" for k in range(1, 7)]
    write_bytes(fold.log, "\n".join([header, *lines, ""]).encode())
    cases = [case.id for case in run.load_dataset().cases]
    scores = make_scores(body=[{}] * len(cases), head=[{}] * len(cases))
    unseen = set(run.load_splits().folds[0].validation)
    rows = [msgspec.structs.replace(row, case=cases[int(row.case[1:])]) for row in scores.cases]
    rows = [msgspec.structs.replace(row, voxels_reference=0) if row.class_name == "head" and row.case in unseen else row for row in rows]
    judged = judge_run(run, msgspec.structs.replace(scores, cases=tuple(rows)), Silent())
    names = [finding.name for finding in judged.findings]
    assert {"absent from a fold", "gap", "few cases"} <= set(names)
    assert json.loads(run.scores.read_text())["findings"][0]["name"] == names[0]
