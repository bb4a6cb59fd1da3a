"""`plan RUN --update`: the data set grows and shrinks, old folds stay, and a kill between two files leaves a valid run."""

import shutil

import msgspec
import pytest
from whole_way import draw_case, list_partials, write_cases, write_scan

from autoseg.commands import update as command
from autoseg.commands.explain import explain
from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.update import update
from autoseg.errors import InputError
from autoseg.io.files import save_record
from autoseg.io.run_folder import RunFolder
from autoseg.planning.splits import check_splits
from autoseg.progress import Silent
from autoseg.records.base import compute_digest

OLD = [f"c{number}" for number in range(6)]
SHAPE = (8, 10, 10)


class Heard(Silent):
    def __init__(self):
        self.text = ""

    def say(self, text, **event):
        self.text += text + "\n"

    warn = say


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A data set and its run; not to be changed."""
    folder = tmp_path_factory.mktemp("first")
    write_cases(folder / "in", OLD, SHAPE)
    plan(folder / "in", folder / "run", PlanOptions(device="cpu", minutes=0.1, workers=1, folds=3, exclude=("c5",)))
    return folder


@pytest.fixture
def grown(first, tmp_path):
    """A copy that has lost c0, whose c1 has changed, and which has two new cases; the run's root is the copy."""
    shutil.copytree(first, tmp_path / "all")
    folder = tmp_path / "all"
    run = RunFolder(folder / "run")
    plain = run.dataset.read_text().replace(str(first / "in"), str(folder / "in"))
    run.dataset.write_text(plain)
    for number, name in ((11, "c1"), (12, "n1"), (13, "n2")):
        image, label = draw_case(number, SHAPE)
        write_scan(folder / "in" / "images" / f"{name}.nii.gz", image)
        write_scan(folder / "in" / "labels" / f"{name}.nii.gz", label)
    for part in ("images", "labels"):
        (folder / "in" / part / "c0.nii.gz").unlink()
    return run


def check_run(run):
    """Whether what later commands rely on holds."""
    dataset = run.load_dataset()
    check_splits(run.load_splits(), dataset)
    run.load_fingerprint()
    explain(run.path)


def hear(run):
    heard = Heard()
    update(run.path, workers=1, progress=heard)
    return heard.text


def test_cases_come_change_and_go_and_the_others_stay_in_their_folds(grown):
    before, kept = grown.load_splits(), grown.load_plan()
    told = hear(grown)
    after, dataset, made = grown.load_splits(), grown.load_dataset(), grown.load_plan()
    assert [case.id for case in dataset.cases] == ["c1", "c2", "c3", "c4", "n1", "n2"]
    assert made.configurations == kept.configurations
    assert (made.dataset_digest, made.fingerprint_digest) == (compute_digest(dataset), compute_digest(grown.load_fingerprint()))
    for old, new in zip(before.folds, after.folds, strict=True):
        assert set(new.validation) - {"n1", "n2"} == set(old.validation) - {"c0"}
        assert sorted(new.training + new.validation) == [case.id for case in dataset.cases]
    assert [len(fold.validation) for fold in after.folds] == [2, 2, 2]
    assert "6 cases: 2 new, 1 changed, 1 gone" in told
    assert "taken out of the folds: c0" in told
    assert "prepared again by the next training: c1" in told
    check_run(grown)
    assert list_partials(grown.path) == []
    assert "Nothing has changed: 6 cases" in hear(grown)


def test_a_new_image_that_is_nearly_an_old_one_comes_to_its_fold(grown):
    for part in ("images", "labels"):
        folder = grown.path.parent / "in" / part
        shutil.copy(folder / "c3.nii.gz", folder / "n3.nii.gz")
    told = hear(grown)
    for fold in grown.load_splits().folds:
        assert ("c3" in fold.validation) == ("n3" in fold.validation)
    assert "torn apart" not in told


def test_a_new_image_that_is_nearly_an_old_one_is_told_where_the_folds_are_ones_own(grown):
    save_record(grown.request, msgspec.structs.replace(grown.load_request(), splits="own.json"))
    for name in ("n3", "n4", "n5"):  # dealt to different folds
        for part in ("images", "labels"):
            folder = grown.path.parent / "in" / part
            shutil.copy(folder / "c3.nii.gz", folder / f"{name}.nii.gz")
    assert "1 groups of near-duplicate images are torn apart, so that scores will be too good" in hear(grown)


def test_a_kill_between_any_two_files_leaves_a_valid_run_that_the_same_command_completes(grown, tmp_path, monkeypatch):
    shutil.copytree(grown.path, tmp_path / "straight")
    straight = RunFolder(tmp_path / "straight")
    hear(straight)
    start = shutil.copytree(grown.path, tmp_path / "start")
    for written in range(7):
        shutil.rmtree(grown.path)
        shutil.copytree(start, grown.path)
        saved = []

        def save(path, record, saved=saved, most=written):
            if len(saved) == most:
                raise KeyboardInterrupt
            saved.append(path)
            save_record(path, record)

        monkeypatch.setattr(command, "save_record", save)
        if written < 6:
            with pytest.raises(KeyboardInterrupt):
                hear(grown)
        else:  # killed before the last renaming
            hear(grown)
            shutil.copy(grown.fingerprint, grown.next_fingerprint)
            shutil.copy(start / "fingerprint.json", grown.fingerprint)
        monkeypatch.setattr(command, "save_record", save_record)
        check_run(grown)
        hear(grown)
        check_run(grown)
        for name in ("dataset", "splits", "fingerprint", "plan", "request"):
            assert (grown.path / f"{name}.json").read_bytes() == (straight.path / f"{name}.json").read_bytes()
        assert not grown.next_fingerprint.exists()


def test_bad_cases_are_listed_and_nothing_is_written(grown, autoseg):
    _, label = draw_case(3, SHAPE)
    write_scan(grown.path.parent / "in" / "labels" / "n1.nii.gz", 7 * label)
    (grown.path.parent / "in" / "images" / "n2.nii.gz").unlink()
    before = {path.name: path.read_bytes() for path in grown.path.glob("*.json")}
    answer = autoseg("plan", grown.path, "--update", "--workers", "1")
    assert answer.code == 2
    assert "2 problems" in answer.err
    assert "[7] are not among the run's classes [1]" in answer.err
    assert "the label labels/n2.nii.gz has no image" in answer.err
    assert {path.name: path.read_bytes() for path in grown.path.glob("*.json")} == before
    assert autoseg("plan", grown.path, "--update", "--workers", "1", "--exclude", "n1,n2").code == 0
    assert grown.load_request().exclude == ("c5", "n1", "n2")


def test_scans_that_are_not_there_any_more_are_told(grown):
    shutil.rmtree(grown.path.parent / "in")
    with pytest.raises(InputError, match="not there any more"):
        update(grown.path)
