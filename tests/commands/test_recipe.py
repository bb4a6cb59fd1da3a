"""`autoseg train --augmentation batchgenerators`: the reference recipe by command, recorded and kept."""

from whole_way import MODEL, TRAIN_WORDS

from autoseg.io.files import load_record
from autoseg.records.training import TrainingSettings


def test_the_recipe_asked_for_is_used_and_recorded(autoseg, planned_copy, trained):
    answer = autoseg("train", planned_copy, *TRAIN_WORDS, "--augmentation", "batchgenerators")
    assert answer.code == 0, answer.err
    one, other = (load_record(TrainingSettings, run / MODEL / "settings.json") for run in (planned_copy, trained))
    assert (one.recipe, other.recipe) == ("batchgenerators", "autoseg")
    logs = [[line.split(",")[4] for line in (run / MODEL / "log.csv").read_text().splitlines()] for run in (planned_copy, trained)]
    assert len(logs[0]) == len(logs[1])
    assert logs[0][1:] != logs[1][1:]


def test_what_the_reference_lacks_is_refused(autoseg, planned_copy):
    name = "configurations.3d_fullres.augmentation.elastic_probability=0.2"
    assert autoseg("plan", planned_copy, "--set", name).code == 0
    answer = autoseg("train", planned_copy, *TRAIN_WORDS, "--augmentation", "batchgenerators")
    assert answer.code == 2
    assert "elastic_probability" in answer.err
    assert not (planned_copy / MODEL / "settings.json").exists()
