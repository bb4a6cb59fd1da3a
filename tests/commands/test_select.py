"""`autoseg select` on made-up runs: masks drawn by hand as if folds had predicted them, so that the right choice is known."""

import json

import msgspec
import numpy as np
import pytest
from builders import make_configuration, make_object_configuration
from planned_runs import make_dataset, make_plan, write_run
from whole_way import write_scan

from autoseg.commands import ensemble
from autoseg.commands.evaluate import Wanted, evaluate
from autoseg.commands.select import select
from autoseg.errors import CasesFailed, InputError
from autoseg.io.files import load_record, save_record
from autoseg.io.run_folder import RunFolder
from autoseg.records.choice import Choice, Rule
from autoseg.records.dataset import Case, are_regions
from autoseg.records.detection import Thresholds
from autoseg.records.predictions import PredictedCase, Predictions
from autoseg.records.scores import InstanceScores, Scores, decode_scores
from autoseg.records.splits import Fold, Splits
from autoseg.records.training import ModelHeader, TrainingStatus

SHAPE = (4, 12, 12)
CASES = [f"case{number}" for number in range(4)]
FOLDS = (tuple(CASES[:2]), tuple(CASES[2:]))
FULL, FLAT = make_configuration(3), make_configuration(2)


def draw(**blocks):
    """A label map; `blocks` are classes c1, c2 … with the slices of their (y, x) rectangles."""
    label = np.zeros(SHAPE, np.uint8)
    for name, places in blocks.items():
        for rows, columns in places:
            label[:, slice(*rows), slice(*columns)] = int(name[1:])
    return label


def make_run(folder, references, masks, plan=None, dataset=None):
    """A run with a dataset, splits, and the finished folds that `masks` have: configuration → fold → case → mask."""
    dataset = dataset or make_dataset(cases=0)
    cases = tuple(Case(id=case, images=(f"{case}.nii.gz",), label=f"{case}.nii.gz") for case in references)
    dataset = msgspec.structs.replace(dataset, root=str(folder / "scans"), cases=cases)
    run = write_run(folder / "run", plan or make_plan(FULL, FLAT), dataset)
    for case, label in references.items():
        write_scan(folder / "scans" / f"{case}.nii.gz", label)
    splits = Splits(folds=tuple(Fold(training=(), validation=own) for own in FOLDS))
    save_record(run / "splits.json", splits)
    for name, folds in masks.items():
        for number, own in folds.items():
            finish_fold(RunFolder(run), name, number, own)
    return run


def finish_fold(run, name, number, masks, thresholds=None):
    """What training and final validation leave of a fold, as far as selection looks at it."""
    folder, dataset, plan = run.fold(name, number), run.load_dataset(), run.load_plan()
    for case, mask in masks.items():
        write_scan(folder.validation / f"{case}.nii.gz", mask)
    shared = {
        "classes": dataset.classes,
        "background_value": 0,
        "unit": dataset.unit,
        "label_pattern": "",
    }
    header = ModelHeader(
        fold=number,
        configuration=next(one for one in plan.configurations if one.name == name),
        orientation="LPS",
        axes=(0, 1, 2),
        dimension=3,
        channels=dataset.channels,
        weights_digest=f"{name}{number}",
        device="cpu",
        precision="fp32",
        channels_last=False,
        steps=1,
        training_cases=1,
        thresholds=thresholds,
        **shared,
    )
    cases = tuple(PredictedCase(case=case, scan="", mask=f"{case}.nii.gz", scan_digest="", mask_digest="", state="done") for case in masks)
    manifest = Predictions(task=dataset.task, model_digest="", folds=(number,), configuration=name, cases=cases, **shared)
    save_record(folder.model, header)
    folder.weights.write_bytes(b"")
    save_record(folder.status, TrainingStatus(state="finished", step=1, steps=1, seconds=1.0))
    save_record(folder.validation / "predictions.json", manifest)
    evaluate(folder.validation, dataset.root, workers=1, wanted=Wanted(dataset.task, only_predicted=True))


def split(masks):
    """Fold → case → mask."""
    return {number: {case: masks[case] for case in own if case in masks} for number, own in enumerate(FOLDS)}


@pytest.fixture
def average(monkeypatch):
    """Puts masks in place of those that averaged probabilities would give."""

    def put(masks):
        def write(run, configurations, folds, output, progress):
            return {case: write_scan(output / f"{case}.nii.gz", mask) for case, mask in masks.items()}

        monkeypatch.setattr(ensemble, "ensemble_validation", write)

    put({})
    return put


ORGAN = ((0, 6), (0, 6))
LESIONS = (((8, 11), (0, 3)), ((8, 11), (5, 7)))
SPECK = ((0, 2), (10, 11))


@pytest.fixture
def scattered(tmp_path):
    """The organ is one piece and its masks have specks; the lesions are two pieces, both found."""
    references = {case: draw(c1=[ORGAN], c2=LESIONS) for case in CASES}
    masks = {case: draw(c1=[ORGAN, SPECK], c2=LESIONS) for case in CASES}
    masks["case1"] = draw(c1=[((0, 6), (0, 5)), SPECK], c2=LESIONS)
    return make_run(tmp_path, references, {"3d_fullres": split(masks)})


def test_the_largest_component_is_kept_for_the_class_that_it_helps_alone(scattered):
    choice = select(scattered, workers=1)
    assert choice.rules == (Rule(kind="largest_component", class_name="organ"),)
    trials = {trial.what: trial for trial in choice.trials}
    assert not trials["all classes: largest component"].kept
    hurt = trials["lesion: largest component"]
    assert not hurt.kept
    assert hurt.difference == pytest.approx(2 * 36 / (36 + 60) - 1)  # 3 x 3 of (3 x 3 + 2 x 3) voxels in 4 slices
    scores = load_record(Scores, scattered / "scores.json")
    assert scores.classes["organ"]["dice"].mean == pytest.approx((3 + 2 * 30 / 66) / 4)
    assert scores.mean["dice"] == pytest.approx(((3 + 2 * 30 / 66) / 4 + 1) / 2)
    assert scores.folds == {"0": pytest.approx(((1 + 2 * 30 / 66) / 2 + 1) / 2), "1": pytest.approx(1.0)}


def test_the_choice_says_what_it_is_made_of_and_is_the_same_when_repeated(scattered, autoseg):
    answer = autoseg("select", scattered, "--workers", "1")
    written = (scattered / "choice.json").read_bytes(), (scattered / "scores.json").read_bytes()
    choice = load_record(Choice, scattered / "choice.json")
    assert (answer.code, choice.configurations, choice.folds, choice.cases) == (0, ("3d_fullres",), (0, 1), 4)
    assert choice.weights_digests == {"3d_fullres": ("3d_fullres0", "3d_fullres1")}
    assert any("rests on 4 cases only" in note for note in choice.notes)
    assert any(note == "2d is left out: no fold of it is finished." for note in choice.notes)
    assert "organ: largest component" in answer.out
    assert "from 0.9773 to 1.0000" in answer.out
    assert (scattered / "scores.csv").is_file()
    assert autoseg("select", scattered, "--workers", "1").code == 0
    assert written == ((scattered / "choice.json").read_bytes(), (scattered / "scores.json").read_bytes())


def test_holes_are_filled_and_small_components_dropped_where_that_helps(tmp_path):
    references = {case: draw(c1=[ORGAN, ((8, 12), (0, 4))]) for case in CASES}
    masks = {case: draw(c1=[ORGAN, ((8, 12), (0, 4)), ((0, 1), (10, 11))]) for case in CASES}
    for mask in masks.values():
        mask[1:3, 2:4, 2:4] = 0
    run = make_run(tmp_path, references, {"3d_fullres": split(masks)}, dataset=make_dataset(classes=("organ",), cases=0))
    choice = select(run, workers=1)
    assert choice.rules == (
        Rule(kind="fill_holes", class_name="organ"),
        Rule(kind="minimum_volume", class_name="organ", volume=32.0),  # half of the smaller reference component: 4 x 4 x 4 mm
    )
    assert load_record(Scores, run / "scores.json").mean["dice"] == 1


def make_two(tmp_path, full, flat, references=None):
    references = references or {case: draw(c1=[ORGAN], c2=LESIONS) for case in CASES}
    return make_run(tmp_path, references, {"3d_fullres": split(full), "2d": split(flat)})


def shorten(*rows):
    """Case by case masks that lack that many rows of the organ."""
    return {case: draw(c1=[((0, 6 - missing), (0, 6))], c2=LESIONS) for case, missing in zip(CASES, rows)}


def test_an_ensemble_that_helps_by_less_than_the_noise_is_not_kept(tmp_path, average):
    run = make_two(tmp_path, shorten(1, 2, 1, 2), shorten(2, 2, 2, 2))
    average(shorten(2, 0, 1, 2))
    choice = select(run, workers=1)
    pair = next(trial for trial in choice.trials if trial.what == "2d + 3d_fullres")
    assert 0 < pair.difference < pair.error
    assert choice.configurations == ("3d_fullres",)
    average(shorten(0, 1, 0, 1))
    assert select(run, workers=1).configurations == ("2d", "3d_fullres")
    assert load_record(Scores, run / "scores.json").classes["organ"]["dice"].mean == pytest.approx((1 + 2 * 30 / 66) / 2)


def test_the_best_single_configuration_wins_whatever_the_plan_prefers(tmp_path, average):
    run = make_two(tmp_path, shorten(1, 2, 1, 2), shorten(1, 1, 1, 2))
    choice = select(run, workers=1)
    assert choice.configurations == ("2d",)
    assert [trial.kept for trial in choice.trials[:2]] == [False, True]
    assert any("ensemble of 2d and 3d_fullres is not tried: 4 cases" in note for note in choice.notes)


def test_an_ensemble_whose_cases_fail_is_left_out_with_the_reason(tmp_path, monkeypatch):
    def fail(*_):
        raise CasesFailed("2 of 4 cases could not be joined:\ncase0  case0.nii.gz was changed.\ncase1  case1.nii.gz was changed.")

    monkeypatch.setattr(ensemble, "ensemble_validation", fail)
    choice = select(make_two(tmp_path, shorten(1, 2, 1, 2), shorten(1, 1, 1, 2)), workers=1)
    assert choice.configurations == ("2d",)
    told = "not tried: 2 of 4 cases could not be joined: case0  case0.nii.gz was changed."
    assert any(note.endswith(told) for note in choice.notes)


def test_a_class_absent_everywhere_or_in_a_fold_stops_nothing(tmp_path, average):
    references = {case: draw(c1=[ORGAN]) for case in CASES}
    full = {case: draw(c1=[ORGAN, SPECK]) for case in CASES}
    full["case3"] = draw(c1=[ORGAN, SPECK], c2=[((10, 12), (10, 12))])  # seen where there is none: Dice 0
    run = make_two(tmp_path, full, {case: draw(c1=[((0, 1), (0, 1))]) for case in CASES}, references)
    choice = select(run, workers=1)
    assert choice.configurations == ("3d_fullres",)
    assert choice.rules == (Rule(kind="largest_component"),)
    scores = load_record(Scores, run / "scores.json")
    assert scores.classes["lesion"]["dice"].n == 0  # the rule has removed the only one
    assert scores.mean["dice"] == 1


def test_regions_only_know_rules_of_all_foreground(tmp_path):
    dataset = make_dataset(cases=0)
    whole, core = dataset.classes
    dataset = msgspec.structs.replace(dataset, classes=(msgspec.structs.replace(whole, values=(1, 2)), core))
    assert are_regions(dataset.classes)
    references = {case: draw(c1=[ORGAN], c2=[((2, 4), (2, 4))]) for case in CASES}
    masks = {case: draw(c1=[ORGAN, SPECK], c2=[((2, 4), (2, 4))]) for case in CASES}
    choice = select(make_run(tmp_path, references, {"3d_fullres": split(masks)}, dataset=dataset), workers=1)
    assert choice.rules == (Rule(kind="largest_component"),)
    assert len(choice.trials) == 2


def test_a_half_trained_configuration_is_left_out_unless_it_is_asked_for(tmp_path, average, autoseg):
    run = make_two(tmp_path, shorten(1, 1, 1, 1), shorten(0, 0, 0, 0))
    status = run / "models" / "2d" / "fold_1" / "status.json"
    save_record(status, TrainingStatus(state="training", step=1, steps=2, seconds=1.0))
    choice = select(run, workers=1)
    assert choice.configurations == ("3d_fullres",)
    command = f"autoseg train {run} --fold 1 --configuration 2d"
    assert f"2d is left out: it lacks fold 1 ({command})." in choice.notes
    (run / "choice.json").unlink()
    answer = autoseg("select", run, "--configurations", "2d,3d_fullres")
    assert answer.code == 2
    assert "2d lacks fold 1" in answer.err
    assert command in answer.err
    assert not (run / "choice.json").exists()
    alone = select(run, workers=1, configurations=("2d",))
    assert (alone.configurations, alone.folds, alone.cases) == (("2d",), (0,), 2)
    assert "Only fold 0 of 2: the choice rests on 2 of 4 cases." in alone.notes


def test_without_a_finished_fold_the_command_to_train_is_named(tmp_path):
    run = make_run(tmp_path, {case: draw(c1=[ORGAN]) for case in CASES}, {})
    with pytest.raises(InputError, match="no finished fold") as caught:
        select(run)
    assert caught.value.todo == f"autoseg train {run} --fold all"
    with pytest.raises(InputError, match="no configuration '4d'"):
        select(run, configurations=("4d",))
    with pytest.raises(InputError, match="is not a run"):
        select(tmp_path)


def test_validation_cases_without_a_mask_are_named(tmp_path):
    masks = split(shorten(0, 1, 0, 0))
    del masks[1]["case3"]
    run = make_run(tmp_path, {case: draw(c1=[ORGAN], c2=LESIONS) for case in CASES}, {"3d_fullres": masks})
    choice = select(run, workers=1)
    assert choice.cases == 3
    assert "1 validation cases have no mask yet and are left out: case3." in choice.notes


OBJECT_NAMES = ("boundary_3d", "instance_3d")


def make_object_run(folder, found):
    """A run of two configurations; `found` are the blocks of each one's masks of a case by its number."""
    plan = make_plan(*(make_object_configuration(3, name=name) for name in OBJECT_NAMES))
    plan = msgspec.structs.replace(
        plan, configurations=(msgspec.structs.replace(plan.configurations[0], detection=None), plan.configurations[1])
    )
    dataset = msgspec.structs.replace(make_dataset(classes=("cell",), cases=0), task="instance", label_form="ids")
    run = make_run(folder, {case: draw(c1=[ORGAN], c2=[LESIONS[0]]) for case in CASES}, {}, plan, dataset)
    for name in OBJECT_NAMES:
        for number, own in enumerate(FOLDS):
            finish_fold(RunFolder(run), name, number, {case: draw(**found[name](int(case[-1]))) for case in own}, Thresholds(score=0.4))
    return run


def test_a_mask_r_cnn_is_tried_with_the_help_of_the_boundary_network(tmp_path, monkeypatch):
    asked = []

    def predict(run, configurations, folds, output, progress):
        asked.append((configurations, folds, output.name))
        for case in CASES:
            write_scan(output / f"{case}.nii.gz", draw(c1=[ORGAN], c2=[LESIONS[0]]))
        return {case: output / f"{case}.nii.gz" for case in CASES}

    monkeypatch.setattr(ensemble, "predict_validation", predict)
    both = {"c1": [ORGAN], "c2": [LESIONS[0]]}
    found = {"boundary_3d": lambda number: {"c1": [ORGAN]}, "instance_3d": lambda number: {"c1": [ORGAN]} if number % 2 else both}
    run = make_object_run(tmp_path, found)
    choice = select(run, workers=1)
    assert asked == [(("instance_3d", "boundary_3d"), (0, 1), "instance_3d+boundary_3d")]
    assert choice.configurations == ("instance_3d", "boundary_3d")
    assert [trial.mean for trial in choice.trials] == [0.5, 0.75, 1.0]
    assert [trial.versus for trial in choice.trials][2] == "instance_3d"
    assert set(choice.weights_digests) == set(choice.configurations)
    assert decode_scores((run / "scores.json").read_bytes(), "").mean["ap_cell_50"] == 1


def test_where_the_boundary_network_cannot_help_the_note_says_why(tmp_path):
    run = make_object_run(tmp_path, dict.fromkeys(OBJECT_NAMES, lambda _: {"c1": [ORGAN]}))
    choice = select(run, workers=1)
    assert len(choice.configurations) == 1
    assert any(note.startswith("The ensemble of instance_3d and boundary_3d is not tried: ") for note in choice.notes)


def test_objects_choose_among_configurations_and_take_the_median_of_the_thresholds(tmp_path):
    names = ("instance_3d", "boundary_3d")
    plan = make_plan(*(make_object_configuration(3, name=name) for name in names))
    dataset = msgspec.structs.replace(make_dataset(classes=("cell",), cases=0), task="instance", label_form="ids")
    references = {case: draw(c1=[ORGAN], c2=[LESIONS[0]]) for case in CASES}
    run = make_run(tmp_path, references, {}, plan, dataset)
    for name, missed in zip(names, (True, False)):
        for number, own in enumerate(FOLDS):
            masks = {case: draw(c1=[ORGAN], **({} if missed else {"c2": [LESIONS[0]]})) for case in own}
            thresholds = Thresholds(score=0.25 + 0.5 * number, by_mask=number == 0, smallest=4.0)
            finish_fold(RunFolder(run), name, number, masks, thresholds)
    choice = select(run, workers=1)
    assert (choice.metric, choice.configurations, choice.rules) == ("ap_cell_50", ("boundary_3d",), ())
    assert choice.thresholds == dict.fromkeys(names, Thresholds(score=0.5, by_mask=False, smallest=4.0))
    assert any("flatters" in note and "median" in note for note in choice.notes)
    scores = decode_scores((run / "scores.json").read_bytes(), "")
    assert isinstance(scores, InstanceScores)
    assert scores.mean["ap_cell_50"] == 1
    assert scores.folds == {"0": 1.0, "1": 1.0}
    assert [trial.mean for trial in choice.trials] == [0.5, 1.0]
    assert json.loads((run / "choice.json").read_text())["thresholds"]["boundary_3d"]["score"] == 0.5
