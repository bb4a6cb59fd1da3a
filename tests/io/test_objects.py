"""Objects as people number and file them are read as one map; what cannot be meant is refused with the file's name."""

import json
from pathlib import Path

import numpy as np
import pytest
from whole_way import write_scan

from autoseg.errors import InputError
from autoseg.io.objects import list_case_files, list_object_files, read_class_map, read_labels, read_objects
from autoseg.records.dataset import Case, ClassLabel

ONE = (ClassLabel(name="cell", values=(1,)),)
TWO = (ClassLabel(name="b", values=(1,)), ClassLabel(name="a", values=(2,)))


def square(low: int, high: int, shape: tuple[int, ...] = (9, 11)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[(slice(low, high),) * len(shape)] = 255
    return mask


def write_map(folder: Path, instances: dict[str, object]) -> Path:
    path = folder / "map.json"
    path.write_text(json.dumps({"instances": instances, "other": [1]}))
    return path


def test_a_folder_of_masks_becomes_one_map_in_natural_order(tmp_path):
    for name, mask in (("10.png", square(6, 8)), ("2.png", square(3, 5)), ("1.png", square(0, 2) // 255)):
        write_scan(tmp_path / name, mask)
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in list_object_files(tmp_path)] == ["1.png", "2.png", "10.png"]
    found = read_objects(tmp_path, "files", ONE)
    expected = sum(number * (square(*edges) > 0) for number, edges in ((1, (0, 2)), (2, (3, 5)), (3, (6, 8))))
    np.testing.assert_array_equal(found.ids, expected)
    assert (found.ids.dtype, found.classes, found.overlapping, found.lost, found.grid.shape) == (np.int32, (1, 1, 1), 0, 0, (9, 11))


def test_overlaps_are_settled_and_counted_and_hidden_objects_too(tmp_path):
    write_scan(tmp_path / "large.png", square(0, 5))
    write_scan(tmp_path / "small.png", square(4, 6))
    write_scan(tmp_path / "twin.png", square(4, 6))
    write_scan(tmp_path / "void.png", square(0, 0))
    found = read_objects(tmp_path, "files", ONE)
    assert (found.overlapping, found.lost, found.classes) == (4, 2, (1, 1))
    np.testing.assert_array_equal(found.ids, np.where(square(4, 6), 2, np.where(square(0, 5), 1, 0)))


def test_one_empty_mask_is_an_image_without_objects(tmp_path):
    write_scan(tmp_path / "none.png", square(0, 0))
    found = read_objects(tmp_path, "files", ONE)
    assert (found.ids.any(), found.classes, found.lost) == (False, (), 0)


def test_colours_are_masks_but_the_alpha_channel_is_none(tmp_path):
    mask, none = square(2, 4), np.zeros((9, 11), np.uint8)
    write_scan(tmp_path / "a.png", np.stack([none, mask, none, none + 255], axis=-1))
    np.testing.assert_array_equal(read_objects(tmp_path, "files", ONE).ids, mask > 0)


def test_a_mask_of_another_shape_is_named(tmp_path):
    write_scan(tmp_path / "a.png", square(0, 2))
    write_scan(tmp_path / "b.png", square(0, 2, (9, 10)))
    with pytest.raises(InputError, match=r"b\.png has 9x10 voxels, but a\.png beside it has 9x11"):
        read_objects(tmp_path, "files", ONE)


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no masks"):
        read_objects(tmp_path, "files", ONE)


def test_ids_are_numbered_anew_in_ascending_order(tmp_path):
    values = np.array([[0, 7, 70_000], [7, 3, 0]], np.uint32)
    found = read_objects(write_scan(tmp_path / "a.tif", values), "ids", ONE)
    assert (found.ids.tolist(), found.classes, found.overflow) == ([[0, 2, 3], [2, 1, 0]], (1, 1, 1), False)


def test_what_is_to_be_ignored_is_no_object(tmp_path):
    path = write_scan(tmp_path / "a.nii.gz", np.array([[[0, 7], [-1, 255]]], np.int16))
    assert read_objects(path, "ids", ONE, ignore=255).ids.tolist() == [[[0, 1], [-1, -1]]]
    assert read_objects(path, "ids", ONE).ids.tolist() == [[[0, 1], [-1, 2]]]


def test_negative_ids_and_fractions_are_refused(tmp_path):
    path = write_scan(tmp_path / "a.nii.gz", np.array([[[0, 7], [-5, 1]]], np.int16))
    with pytest.raises(InputError, match=r"a\.nii\.gz holds negative numbers of objects, such as -5"):
        read_objects(path, "ids", ONE)
    assert read_objects(path, "ids", ONE, ignore=-5).ids.tolist() == [[[0, 2], [-1, 1]]]
    with pytest.raises(InputError, match=r"not integers, such as 1\.5"):
        read_objects(write_scan(tmp_path / "b.nii.gz", np.array([[[0, 1.5]]], np.float32)), "ids", ONE)
    whole = write_scan(tmp_path / "c.nii.gz", np.array([[[0.0, 4.0]]], np.float32))
    assert read_objects(whole, "ids", ONE).ids.tolist() == [[[0, 1]]]


def test_colour_coded_ids_are_refused(tmp_path):
    path = write_scan(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (5, 5, 3)).astype(np.uint8))
    with pytest.raises(InputError, match="colour image, not a label map"):
        read_objects(path, "ids", ONE)


@pytest.mark.parametrize(("kind", "full"), [(np.uint8, True), (np.uint16, False)])
def test_an_8_bit_map_with_all_the_ids_that_it_can_hold_is_noticed(tmp_path, kind, full):
    values = np.arange(256).reshape(16, 16).astype(kind)
    assert read_objects(write_scan(tmp_path / "a.png", values), "ids", ONE).overflow is full
    assert not read_objects(write_scan(tmp_path / "b.png", np.where(values == 9, 0, values).astype(kind)), "ids", ONE).overflow


def test_class_maps_name_classes_or_number_them_from_0(tmp_path):
    label = write_scan(tmp_path / "a.png", np.array([[0, 7, 9], [7, 3, 0]], np.uint8))
    named = read_objects(label, "ids", TWO, object_classes=write_map(tmp_path, {"3": "a", "7": "b", "9": "a", "12": "a"}))
    assert (named.classes, named.absent) == ((2, 1, 2), ("12",))
    numbered = read_objects(label, "ids", TWO, object_classes=write_map(tmp_path, {"3": 1, "7": 0, "9": 1}))
    assert (numbered.classes, numbered.absent) == ((2, 1, 2), ())


def test_a_class_map_names_files_without_their_ending(tmp_path):
    folder = tmp_path / "masks"
    write_scan(folder / "one.png", square(0, 2))
    write_scan(folder / "two.png", square(3, 5))
    assert read_objects(folder, "files", TWO, object_classes=write_map(tmp_path, {"one": "a", "two": "b"})).classes == (2, 1)


def test_objects_without_a_class_and_classes_that_nobody_knows_are_refused(tmp_path):
    label = write_scan(tmp_path / "a.png", np.array([[0, 7], [9, 3]], np.uint8))
    with pytest.raises(InputError, match=r"map\.json names no class for 2 of 3 objects: 7, 9"):
        read_objects(label, "ids", TWO, object_classes=write_map(tmp_path, {"3": "a"}))
    for unknown in ("c", 2, -1):
        with pytest.raises(InputError, match=f"class {unknown!r} is none of b, a"):
            read_objects(label, "ids", TWO, object_classes=write_map(tmp_path, {"3": "a", "7": "a", "9": unknown}))


def test_of_several_classes_every_label_needs_a_class_map_unless_it_is_empty(tmp_path):
    with pytest.raises(InputError, match=r"which objects of .*a\.png are b and which a"):
        read_objects(write_scan(tmp_path / "a.png", np.array([[0, 7]], np.uint8)), "ids", TWO)
    assert read_objects(write_scan(tmp_path / "b.png", np.array([[0, 0]], np.uint8)), "ids", TWO).classes == ()


def test_only_a_class_map_is_one(tmp_path):
    path = tmp_path / "a.json"
    for text in ('{"EchoTime": 3}', "{", "[]"):
        path.write_text(text)
        assert read_class_map(path) is None
    path.write_text('{"instances": {"1": [2]}}')
    with pytest.raises(InputError, match=r"a\.json is no class map"):
        read_class_map(path)


def test_3d_ids_are_read_in_canonical_orientation(tmp_path):
    import SimpleITK as sitk

    values = np.arange(24).reshape(2, 3, 4).astype(np.uint16)
    image = sitk.DICOMOrient(sitk.GetImageFromArray(values), "RAS")
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(read_objects(tmp_path / "a.nii.gz", "ids", ONE).ids, values)
    np.testing.assert_array_equal(read_objects(tmp_path / "a.nii.gz", "ids", ONE, "stored").ids, values[:, ::-1, ::-1])


def test_all_files_of_a_case_are_listed_once(tmp_path):
    for name in ("i.png", "masks/10.png", "masks/9.png"):
        write_scan(tmp_path / name, square(0, 2))
    case = Case(id="A", images=("i.png", "i.png"), label="masks", object_classes="A.json")
    assert list_case_files(case, tmp_path) == [tmp_path / name for name in ("i.png", "masks/9.png", "masks/10.png", "A.json")]
    assert list_case_files(Case(id="A", images=("i.png",), label="masks/9.png"), tmp_path) == [tmp_path / "i.png", tmp_path / "masks/9.png"]


def test_as_classes_a_folder_of_masks_is_their_union(tmp_path):
    write_scan(tmp_path / "masks" / "a.png", square(0, 3))
    write_scan(tmp_path / "masks" / "b.png", square(2, 5))
    label, grid = read_labels(tmp_path / "masks")
    np.testing.assert_array_equal(label, (square(0, 3) | square(2, 5)) > 0)
    assert grid.shape == (9, 11)
    assert read_labels(write_scan(tmp_path / "c.png", square(1, 2)))[0].max() == 255


def test_the_nuclei_are_read_with_their_overlaps(real_scans):
    case = real_scans / "nuclei" / "1609b1b8480ee52652a644403b3f7d5511410a016750aa3b9a4c8ddb3e893e8e"
    found = read_objects(case / "masks", "files", ONE)
    assert len(found.classes) == len(list_object_files(case / "masks")) == found.ids.max()
    assert (found.overlapping, found.lost) == (1, 0)
