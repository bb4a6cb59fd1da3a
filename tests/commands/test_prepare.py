"""`autoseg prepare`: what is there and still right is kept, what has changed is made again."""

import json
import os
import shutil

import msgspec
import pytest
import SimpleITK as sitk
from whole_way import STORE, list_partials

from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.prepare import prepare
from autoseg.errors import InputError
from autoseg.io.files import save_record
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Silent


class Heard(Silent):
    """Keeps what was warned of."""

    def __init__(self):
        self.warnings, self.done = [], []

    def warn(self, text, **event):
        self.warnings.append(text)

    def advance(self, note=""):
        self.done.append(note)


@pytest.fixture
def run(scans, tmp_path):
    """A run on scans of its own, prepared."""
    shutil.copytree(scans, tmp_path / "scans")
    plan(tmp_path / "scans", tmp_path / "run", PlanOptions(device="cpu", minutes=0.1, workers=1))
    prepare(tmp_path / "run", workers=1)
    return tmp_path / "run"


def note_times(run):
    return {path.name: path.stat().st_mtime_ns for path in (run / STORE).glob("*.b2nd")}


def prepare_again(run):
    """Names of the cases that were made again, and the warnings."""
    before, heard = note_times(run), Heard()
    prepare(run, workers=1, progress=heard)
    after = note_times(run)
    return {name.split(".")[0] for name in after if after[name] != before.get(name)}, heard.warnings


def test_every_case_has_image_label_and_record(run):
    endings = ("image.b2nd", "json", "label.b2nd")
    assert sorted(path.name for path in (run / STORE).iterdir()) == sorted(f"case_{n:02d}.{e}" for n in range(6) for e in endings)


def test_nothing_is_done_twice(run):
    assert prepare_again(run) == (set(), [])


def test_a_touched_file_is_not_made_again_and_not_read_a_second_time(run, tmp_path):
    os.utime(tmp_path / "scans" / "images" / "case_01.nii.gz", (1, 1))
    assert prepare_again(run) == (set(), [])
    record = json.loads((run / STORE / "case_01.json").read_text())
    assert 1_000_000_000 in [stamp["modified_ns"] for stamp in record["stamps"]]


@pytest.mark.parametrize("part", ["images", "labels"])
def test_only_a_case_whose_contents_changed_is_made_again(run, tmp_path, part):
    path = tmp_path / "scans" / part / "case_02.nii.gz"
    image = sitk.ReadImage(str(path))
    image[5, 5, 5] = 1
    sitk.WriteImage(image, str(path))
    changed, warnings = prepare_again(run)
    assert changed == {"case_02"}
    assert len(warnings) == 1
    assert "case_02" in warnings[0]
    assert prepare_again(run) == (set(), [])


def test_what_is_missing_comes_back_bit_by_bit(run):
    arrays = {path.name: path.read_bytes() for path in (run / STORE).glob("case_03*.b2nd")}
    for path in (run / STORE).glob("case_03*"):
        path.unlink()
    heard = Heard()
    prepare(run, workers=1, progress=heard)
    assert heard.done == ["case_03"]
    assert {path.name: path.read_bytes() for path in (run / STORE).glob("case_03*.b2nd")} == arrays


@pytest.mark.parametrize("ending", ["image.b2nd", "label.b2nd"])
def test_an_array_that_was_deleted_comes_back(run, ending):
    (run / STORE / f"case_03.{ending}").unlink()
    prepare(run, workers=1)
    assert (run / STORE / f"case_03.{ending}").is_file()


def test_another_decision_makes_all_cases_again(run):
    folder = RunFolder(run)
    made = folder.load_plan()
    wider = tuple(msgspec.structs.replace(c, spacing=tuple(2 * step for step in c.spacing)) for c in made.configurations)
    save_record(folder.plan, msgspec.structs.replace(made, configurations=wider))
    assert len(prepare_again(run)[0]) == 6


def test_processes_prepare_the_same_as_one(run):
    arrays = {path.name: path.read_bytes() for path in (run / STORE).glob("*.b2nd")}
    shutil.rmtree(run / STORE)
    prepare(run, workers=2)
    assert {path.name: path.read_bytes() for path in (run / STORE).glob("*.b2nd")} == arrays
    assert not list_partials(run)


def test_a_scan_that_broke_since_is_named_and_the_others_are_prepared(autoseg, run, tmp_path):
    shutil.rmtree(run / STORE)
    (tmp_path / "scans" / "images" / "case_04.nii.gz").write_bytes(b"broken")
    answer = autoseg("prepare", run, "--workers", "1")
    assert answer.code == 3
    assert "case_04" in answer.err
    assert "6 bytes" in answer.err
    assert len(list((run / STORE).glob("*.json"))) == 5


def test_labels_with_values_unknown_to_the_plan_are_named(autoseg, run, tmp_path):
    path = tmp_path / "scans" / "labels" / "case_04.nii.gz"
    image = sitk.ReadImage(str(path))
    image[5, 5, 5] = 9
    sitk.WriteImage(image, str(path))
    answer = autoseg("prepare", run, "--workers", "1")
    assert answer.code == 3
    assert "case_04" in answer.err
    assert "9" in answer.err
    assert "Plan the run again" in answer.err


def test_a_configuration_that_is_not_planned_lists_those_that_are(run):
    with pytest.raises(InputError, match="3d_huge") as caught:
        prepare(run, "3d_huge", workers=1)
    assert "3d_fullres" in caught.value.why


def test_a_folder_that_is_no_run_says_how_to_make_one(autoseg, tmp_path):
    answer = autoseg("prepare", tmp_path)
    assert answer.code == 2
    assert "no plan.json" in answer.err
    assert "autoseg plan" in answer.err
