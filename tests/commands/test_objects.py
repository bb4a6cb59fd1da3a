"""Instance tasks from the folder to the fingerprint and the store: what is found, what is doubted, what is told."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from whole_way import PLAN_WORDS, write_scan

from autoseg.arrays.labels import unpack_voxels
from autoseg.arrays.objects import unpack_objects
from autoseg.commands.folds import group_alike, list_alike
from autoseg.commands.measure import describe_dataset, make_case_fingerprint, measure, report_objects
from autoseg.commands.prepare import prepare
from autoseg.errors import InputError
from autoseg.io.discovery import discover
from autoseg.io.files import save_record
from autoseg.io.run_folder import RunFolder
from autoseg.io.tasks import settle_task
from autoseg.progress import Silent
from autoseg.records.dataset import ClassLabel

SHAPE = (48, 40)
NAMES = tuple("abcdef")


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text, **event):
        self.said.append(text)

    warn = say


def draw_ids(seed: int, count: int = 4) -> np.ndarray:
    """Discs of radius 4 in one row each, so that none covers another; the first two touch."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    ids = np.zeros(SHAPE, np.uint16)
    for number in range(count):
        column = 12 if number < 2 else generator.integers(6, 34)
        ids[(rows - 6 - 9 * number) ** 2 + (columns - column) ** 2 <= 20] = number + 1
    return ids


def write_image(path: Path, ids: np.ndarray, seed: int) -> None:
    """Bright objects on blotches, which make every field another."""
    generator = np.random.default_rng(seed)
    blotches = np.kron(generator.uniform(20, 160, (8, 8)), np.ones((6, 5)))
    write_scan(path, (blotches + generator.normal(0, 5, SHAPE) + 60 * (ids > 0)).clip(1, 255).astype(np.uint8))


@pytest.fixture
def files(tmp_path):
    """Six images with one mask for each of four objects."""
    for seed, name in enumerate(NAMES):
        ids = draw_ids(seed)
        write_image(tmp_path / "in" / name / "images" / f"{name}.png", ids, seed)
        for number in range(1, 5):
            write_scan(tmp_path / "in" / name / "masks" / f"{number}.png", 255 * (ids == number).astype(np.uint8))
    return tmp_path / "in"


@pytest.fixture
def maps(tmp_path):
    """The same as id images."""
    for seed, name in enumerate(NAMES):
        ids = draw_ids(seed)
        write_image(tmp_path / "ids" / "images" / f"{name}.png", ids, seed)
        write_scan(tmp_path / "ids" / "labels" / f"{name}.png", ids * 10)
    return tmp_path / "ids"


def look_at(folder: Path, task: str = "", words: tuple[str, ...] = ()):
    discovery, names = settle_task(discover(folder), task, words)
    measurements, problems = measure(discovery, "LPS", 1, Silent())
    assert not problems
    dataset, problems = describe_dataset(discovery, measurements, names)
    return dataset, measurements, problems


def test_files_and_ids_of_the_same_objects_give_the_same_fingerprint(files, maps):
    found = []
    for folder, task in ((files, ""), (maps, "instance")):
        dataset, measurements, problems = look_at(folder, task)
        assert not problems
        found.append([msgspec.structs.replace(make_case_fingerprint(m, dataset), digest="") for m in measurements])
        assert (dataset.task, dataset.label_form) == ("instance", "files" if folder == files else "ids")
    assert found[0] == found[1]
    case = found[0][0]
    boxes, voxels, classes = unpack_objects(case.objects, 2)
    assert boxes[0].tolist() == [2, 8, 11, 17]
    assert (voxels.tolist(), classes.tolist()) == ([69] * 4, [1] * 4)
    assert case.objects.touching == 2
    assert (case.classes[0].name, case.classes[0].objects, case.classes[0].voxels) == ("object", 4, 276)


def test_classes_of_objects_are_measured_each(maps):
    for name in NAMES:
        (maps / "labels" / f"{name}.json").write_text(json.dumps({"instances": {"10": "b", "20": "a", "30": "a", "40": "a"}}))
    dataset, measurements, problems = look_at(maps)
    assert not problems
    assert dataset.classes == (ClassLabel(name="a", values=(1,)), ClassLabel(name="b", values=(2,)))
    fingerprint = make_case_fingerprint(measurements[0], dataset)
    assert [(own.name, own.objects) for own in fingerprint.classes] == [("a", 3), ("b", 1)]
    assert unpack_objects(fingerprint.objects, 2)[2].tolist() == [2, 1, 1, 1]


def test_many_numbered_objects_are_refused_with_both_ways_out(autoseg, maps, tmp_path):
    for seed, name in enumerate(NAMES):
        write_scan(maps / "labels" / f"{name}.png", (draw_ids(seed) + 10 * seed * (draw_ids(seed) > 0)).astype(np.uint16))
    for name in ("a", "b", "c"):  # more values still: one voxel each
        label = draw_ids(NAMES.index(name)) + 0
        label[-1, :8] = np.arange(8) + 200 + 10 * NAMES.index(name)
        write_scan(maps / "labels" / f"{name}.png", label)
    answer = autoseg("plan", maps, "-o", tmp_path / "run", *PLAN_WORDS)
    assert answer.code == 2
    assert "--task instance" in answer.err
    assert "--task semantic --classes" in answer.err
    assert not (tmp_path / "run" / "plan.json").exists()


def test_a_map_of_classes_is_not_taken_for_objects(maps):
    for seed, name in enumerate(NAMES):
        write_scan(maps / "labels" / f"{name}.png", 5 * (np.isin(draw_ids(seed), (1, 3))).astype(np.uint8))
    _, _, problems = look_at(maps, "instance")
    assert len(problems) == 1
    assert "6 of 6 label values have several parts, 1.0 values a case" in problems[0].text
    assert "--task semantic" in problems[0].text


def test_labels_without_any_object_are_refused(maps):
    for name in NAMES:
        write_scan(maps / "labels" / f"{name}.png", np.zeros(SHAPE, np.uint8))
    assert "every label is empty" in look_at(maps, "instance")[2][0].text


def test_one_image_without_objects_is_an_ordinary_image(maps):
    write_scan(maps / "labels" / "c.png", np.zeros(SHAPE, np.uint8))
    dataset, measurements, problems = look_at(maps, "instance")
    assert not problems
    assert make_case_fingerprint(measurements[2], dataset).objects.boxes == b""


def test_what_the_task_is_is_said_in_one_line(autoseg, files, maps, tmp_path):
    shown = autoseg("plan", maps, "-o", tmp_path / "a", *PLAN_WORDS)
    assert "--task instance takes every object apart" in shown.out + shown.err
    asked = autoseg("plan", maps, "-o", tmp_path / "b", *PLAN_WORDS, "--task", "semantic")
    assert "takes every object apart" not in asked.out + asked.err
    found = autoseg("plan", files, "-o", tmp_path / "c", *PLAN_WORDS)
    assert "Task: instance (every object has a file of its own" in found.out + found.err


def test_what_is_odd_about_objects_is_told_a_line_each(files):
    ids = draw_ids(1)
    write_scan(files / "b" / "masks" / "9.png", 255 * np.isin(ids, (1, 3)).astype(np.uint8))  # covered, its numbers 1 and 3 being smaller
    write_scan(files / "c" / "masks" / "9.png", np.pad(np.full((1, 1), 9, np.uint8), ((47, 0), (0, 39))))
    parted = np.zeros(SHAPE, np.uint8)
    parted[44:46, 2:4] = parted[44:46, 36:38] = 1
    write_scan(files / "d" / "masks" / "9.png", parted)
    _, measurements, _ = look_at(files)
    heard = Heard()
    report_objects(measurements, heard)
    assert [line.split(":")[0] for line in heard.said] == [
        "1 objects have several parts that do not touch",
        "1 objects are smaller than 4 voxels, too small to be learned",
        "138 voxels belong to several objects; each went to the smallest of them",
        "1 objects have no voxel left (empty files, or hidden by others)",
    ]
    assert [line.split(": ")[1] for line in heard.said] == [f"1 of 6 cases, first {name} ({n})." for name, n in zip("dcbb", (1, 1, 138, 1))]


def test_full_8_bit_maps_and_unknown_objects_are_told(maps):
    full = np.zeros(SHAPE, np.uint8)
    full[:15, :17] = np.arange(1, 256).reshape(15, 17)
    write_scan(maps / "labels" / "a.png", full)
    (maps / "labels" / "b.json").write_text(json.dumps({"instances": {str(k): "object" for k in (10, 20, 30, 40, 50, 60)}}))
    heard = Heard()
    report_objects(look_at(maps)[1], heard)
    assert any("1 label maps have 8 bits and hold 255 objects" in line and "first a" in line for line in heard.said)
    assert any("2 objects of the class maps are not in the labels" in line and "first b (2)" in line for line in heard.said)


def test_near_duplicates_stay_in_one_fold(files, tmp_path, autoseg):
    (files / "e" / "images" / "e.png").write_bytes((files / "b" / "images" / "b.png").read_bytes())
    dataset, measurements, _ = look_at(files)
    heard = Heard()
    grouped = group_alike(dataset, list_alike(measurements), heard)
    assert [case.group for case in grouped.cases] == ["", "b", "", "", "b", ""]
    assert heard.said == ["2 images are near-duplicates of others, in 1 groups (first: b, e); each group stays in one fold."]


def test_nothing_is_grouped_where_nothing_is_alike(files):
    dataset, measurements, _ = look_at(files)
    assert group_alike(dataset, list_alike(measurements), Silent()) is dataset


@pytest.fixture
def run(autoseg, files, tmp_path):
    """A run of the files planned as classes, then told that it is an instance task: what the planner will say."""
    assert autoseg("plan", files, "-o", tmp_path / "run", *PLAN_WORDS, "--task", "semantic").code == 0
    folder = RunFolder(tmp_path / "run")
    dataset = folder.load_dataset()
    assert (dataset.task, dataset.label_form, dataset.classes[0].name) == ("semantic", "files", "foreground")
    save_record(folder.dataset, msgspec.structs.replace(dataset, task="instance"))
    return folder.path


def test_files_of_objects_train_as_one_class_where_that_is_asked_for(autoseg, files, tmp_path):
    assert autoseg("plan", files, "-o", tmp_path / "run", *PLAN_WORDS, "--task", "semantic").code == 0
    store = prepare(tmp_path / "run", workers=1)
    box = tuple((0, size) for size in SHAPE)
    np.testing.assert_array_equal(store.read_label("a", box), draw_ids(0) > 0)
    assert store.load("a").object_classes == ()


def test_prepared_objects_keep_their_numbers_and_voxels_of_each_are_drawn(run):
    store = prepare(run, workers=1)
    record = store.load("b")
    ids = store.read_label("b", tuple((0, size) for size in SHAPE))
    assert (ids.dtype, record.object_classes) == (np.int32, (1, 1, 1, 1))
    np.testing.assert_array_equal(ids, draw_ids(1))
    for number, packed in enumerate(record.objects[0], 1):
        voxels = unpack_voxels(packed, 2)
        assert len(voxels) == 8
        assert (ids[tuple(voxels.T)] == number).all()
    assert len(record.objects[0]) == 4
    assert (ids[tuple(unpack_voxels(record.foreground[0], 2).T)] > 0).all()


def test_objects_are_drawn_class_by_class(run, files):
    for name in NAMES:
        (files / name / f"{name}.json").write_text(json.dumps({"instances": {"1": "x", "2": "y", "3": "y", "4": "x"}}))
    folder = RunFolder(run)
    dataset = folder.load_dataset()
    classes = tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate("xy", 1))
    cases = tuple(msgspec.structs.replace(case, object_classes=f"{case.id}/{case.id}.json") for case in dataset.cases)
    save_record(folder.dataset, msgspec.structs.replace(dataset, classes=classes, cases=cases))
    record = prepare(run, workers=1).load("b")
    assert record.object_classes == (1, 2, 2, 1)
    drawn = [[sorted({int(draw_ids(1)[tuple(v)]) for v in unpack_voxels(packed, 2)}) for packed in own] for own in record.objects]
    assert drawn == [[[1], [4]], [[2], [3]]]
    foreground = [{int(draw_ids(1)[tuple(v)]) for v in unpack_voxels(packed, 2)} for packed in record.foreground]
    assert foreground == [{1, 4}, {2, 3}]


def test_the_digest_of_a_case_covers_every_mask_and_the_class_map(files):
    def digest() -> str:
        return look_at(files)[1][0].case.digest

    seen = [digest()]
    write_scan(files / "a" / "masks" / "3.png", 255 * (draw_ids(0) == 3).astype(np.uint8)[::-1])
    seen.append(digest())
    for text in ('{"instances": {"1": "o", "2": "o", "3": "o", "4": "o"}}', '{"instances": {"1":"o", "2": "o", "3": "o", "4": "o"}}'):
        (files / "a" / "a.json").write_text(text)
        seen.append(digest())
    assert len(set(seen)) == 4


def test_a_changed_mask_is_prepared_again(run, files):
    prepare(run, workers=1)
    write_scan(files / "b" / "masks" / "7.png", np.pad(np.full((2, 2), 255, np.uint8), ((46, 0), (38, 0))))
    heard = Heard()
    store = prepare(run, workers=1, progress=heard)
    assert [line for line in heard.said if "have changed" in line] == [
        "The files of b have changed since they were prepared; they are prepared again."
    ]
    assert store.load("b").object_classes == (1,) * 5


def test_objects_that_preparing_loses_are_told(run, files):
    pair = np.zeros(SHAPE, np.uint8)
    for place in range(2):
        write_scan(files / "c" / "masks" / f"x{place}.png", np.where(np.arange(48 * 40).reshape(SHAPE) == 1918 + place, 255, pair))
    folder = RunFolder(run)
    plan = folder.load_plan()
    coarse = tuple(msgspec.structs.replace(c, spacing=(4.0, 4.0)) for c in plan.configurations)
    save_record(folder.plan, msgspec.structs.replace(plan, configurations=coarse))
    heard = Heard()
    store = prepare(run, workers=1, progress=heard)
    assert any("1 objects of 1 cases have no voxel" in line and "first: c, 1" in line for line in heard.said)
    ids = store.read_label("c", ((0, 12), (0, 10)))
    assert len(np.unique(ids)) == 6
    assert len(store.load("c").object_classes) == 6


def test_a_broken_mask_is_named(files):
    (files / "b" / "masks" / "2.png").write_bytes(b"broken")
    discovery, _ = settle_task(discover(files), "", ())
    _, problems = measure(discovery, "LPS", 1, Silent())
    assert [problem.case for problem in problems] == ["b"]
    assert "2.png cannot be read (6 bytes)" in problems[0].text


def test_the_real_3d_objects_are_measured(real_scans):
    discovery, _ = settle_task(
        discover(real_scans / "instances_small" / "stardist", {"": "img{case}.tif"}, "mask{case}.tif", exclude=("2d",)), "instance", ()
    )
    measurements, _ = measure(discovery, "LPS", 1, Silent())
    boxes, voxels, _ = unpack_objects(measurements[0].measured, 3)
    assert len(boxes) == 51
    assert (boxes >= 0).all()
    assert (boxes[:, 3:] <= measurements[0].shape).all()
    assert (voxels <= (boxes[:, 3:] - boxes[:, :3]).prod(axis=1)).all()


def test_classes_with_values_are_refused_for_objects(files):
    with pytest.raises(InputError, match="gives values"):
        look_at(files, "", ("a=1",))
