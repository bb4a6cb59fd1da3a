"""nnU-Net's fingerprint is taken over exactly, and refused with file, field, value and what is allowed."""

import json

import pytest

from autoseg.errors import InputError
from autoseg.io.nnunet import read_nnunet_folder
from autoseg.records.fingerprint import PooledIntensities

PROPERTIES = {"max": 9.0, "mean": 4.0, "median": 3.0, "min": -2.0, "percentile_00_5": -1.0, "percentile_99_5": 8.0, "std": 1.5}


def make_fingerprint(**changes):
    """nnU-Net's file of two volumes of one channel."""
    return {
        "foreground_intensity_properties_per_channel": {"0": PROPERTIES},
        "median_relative_size_after_cropping": 0.7,
        "shapes_after_crop": [[9, 237, 208], [18, 237, 208]],
        "spacings": [[10.0, 1.5625, 1.5625], [5, 1.5625, 1.5625]],
        **changes,
    }


def make_description(**changes):
    """Its dataset.json, with the field that users add."""
    labels = {"background": 0, "left": 1, "right": 2}
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz", "citation": "none", **changes}


@pytest.fixture
def read(tmp_path):
    """(changes to dataset_fingerprint.json, changes to dataset.json) → what is read; a change to None leaves a field out."""

    def write_and_read(fingerprint=None, description=None):
        contents = {
            "dataset_fingerprint.json": make_fingerprint(**(fingerprint or {})),
            "dataset.json": make_description(**(description or {})),
        }
        for name, content in contents.items():
            (tmp_path / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return read_nnunet_folder(tmp_path)

    return write_and_read


def test_volumes_channels_classes_and_statistics_are_taken_over(read, tmp_path):
    dataset, fingerprint = read(description={"channel_names": {"1": "T1", "0": "CT"}}, fingerprint=two_channels())
    assert (dataset.root, dataset.layout, dataset.dimension, dataset.unit) == (str(tmp_path), "nnunet_fingerprint", 3, "mm")
    assert [channel.name for channel in dataset.channels] == ["CT", "T1"]
    assert [(label.name, label.values) for label in dataset.classes] == [("left", (1,)), ("right", (2,))]
    assert dataset.ignore_value is None
    assert [(case.id, case.images, case.label) for case in dataset.cases] == [("case_0000", (), None), ("case_0001", (), None)]
    assert [case.spacing for case in fingerprint.cases] == [(10.0, 1.5625, 1.5625), (5.0, 1.5625, 1.5625)]
    assert [case.cropped_shape for case in fingerprint.cases] == [(9, 237, 208), (18, 237, 208)]
    assert fingerprint.summary.kept == 0.7
    first = PooledIntensities(mean=4.0, median=3.0, std=1.5, minimum=-2.0, maximum=9.0, low=-1.0, high=8.0)
    assert fingerprint.summary.channels[0] == first
    assert fingerprint.summary.channels[1].mean == 5.0


def two_channels():
    return {"foreground_intensity_properties_per_channel": {"1": {**PROPERTIES, "mean": 5.0}, "0": PROPERTIES}}


def test_as_many_cases_as_declared_and_as_many_measurements_as_there_are(read):
    dataset, fingerprint = read(description={"numTraining": 12_000})
    assert len(dataset.cases) == 12_000
    assert [case.id for case in dataset.cases] == sorted(case.id for case in dataset.cases)
    assert len(fingerprint.cases) == 2


@pytest.mark.parametrize(
    ("labels", "values", "ignored"),
    [
        ({"background": 0, "b": 2, "a": 1}, [("a", (1,)), ("b", (2,))], None),
        ({"background": 0, "a": 1, "ignore": 2}, [("a", (1,))], 2),
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [("whole", (1, 2)), ("core", (2,))], 3),
    ],
)
def test_labels_regions_and_the_ignore_label_count_as_nnunet_counts_them(read, labels, values, ignored):
    dataset, _ = read(description={"labels": labels})
    assert [(label.name, label.values) for label in dataset.classes] == values
    assert dataset.ignore_value == ignored
    assert len(dataset.classes) + 1 + (ignored is not None) == len(labels)


@pytest.mark.parametrize(
    ("spacings", "unit", "pixels"),
    [
        ([[999.0, 1.0, 1.0], [999.0, 1.0, 1.0]], "px", (1.0, 1.0)),
        ([[999.0 * 0.3, 0.3, 0.05], [999.0 * 0.3, 0.1, 0.3]], "mm", (0.3, 0.05)),
        ([[999.0, 2.0, 1.0], [999.0, 2.0, 1.0]], "mm", (2.0, 1.0)),
    ],
)
def test_single_slices_at_a_fake_distance_are_images(read, spacings, unit, pixels):
    dataset, fingerprint = read({"spacings": spacings, "shapes_after_crop": [[1, 400, 300], [1, 500, 300]]})
    assert (dataset.dimension, dataset.unit) == (2, unit)
    assert fingerprint.cases[0].spacing == pixels
    assert fingerprint.cases[1].cropped_shape == fingerprint.cases[1].shape == (500, 300)


@pytest.mark.parametrize(
    ("spacings", "shapes"),
    [
        ([[5.0, 1.0, 1.0], [999.0, 1.0, 1.0]], [[1, 400, 400], [1, 400, 400]]),
        ([[999.0, 1.0, 1.0], [999.0, 1.0, 1.0]], [[1, 400, 400], [2, 400, 400]]),
        ([[150.0, 0.1, 0.2], [150.0, 0.1, 0.2]], [[1, 400, 400], [1, 400, 400]]),
        ([[999.0 * 0.1, 0.1, 0.1], [999.0 * 0.3, 0.3, 0.3]], [[1, 400, 400], [1, 400, 400]]),  # images that nnU-Net resamples across
    ],
)
def test_other_single_slices_stay_volumes(read, spacings, shapes):
    dataset, fingerprint = read({"spacings": spacings, "shapes_after_crop": shapes})
    assert dataset.dimension == 3
    assert [list(case.spacing) for case in fingerprint.cases] == spacings


def test_the_older_name_of_the_channels_is_read(read):
    dataset, _ = read(description={"channel_names": None, "modality": {"0": "MRI"}})
    assert [channel.name for channel in dataset.channels] == ["MRI"]


def test_folders_without_a_fingerprint_or_with_scans_are_left_to_others(read, tmp_path):
    assert read_nnunet_folder(tmp_path) is None
    read()
    (tmp_path / "gt_segmentations").mkdir()
    (tmp_path / "gt_segmentations" / "a.nii.gz").touch()
    assert read_nnunet_folder(tmp_path) is not None
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    assert read_nnunet_folder(tmp_path) is None


def test_a_fingerprint_alone_says_what_is_missing(read, tmp_path):
    read()
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset_fingerprint\.json, but no dataset\.json"):
        read_nnunet_folder(tmp_path)


BAD_FINGERPRINTS = {
    "an unknown key": ({"spacing": []}, ["dataset_fingerprint.json", "unknown field `spacing`"]),
    "a missing key": ({"spacings": None}, ["dataset_fingerprint.json", "missing required field `spacings`"]),
    "lists of different lengths": ({"spacings": [[1, 1, 1]]}, ["spacings has 1 entries", "shapes_after_crop 2"]),
    "no cases": ({"spacings": [], "shapes_after_crop": []}, ["spacings has 0 entries", "one case at least"]),
    "a spacing of zero": ({"spacings": [[1, 1, 1], [0, 1, 1]]}, ["spacings[1] is [0.0,1.0,1.0]", "positive"]),
    "a negative spacing": ({"spacings": [[1, 1, -2.5], [1, 1, 1]]}, ["spacings[0] is [1.0,1.0,-2.5]", "positive"]),
    "a spacing of two numbers": ({"spacings": [[1, 1, 1], [1, 1]]}, ["Field spacings[1]", "length 3"]),
    "a spacing of words": ({"spacings": [[1, 1, 1], [1, "1", 1]]}, ["Field spacings[1][1]", "Expected `float`, got `str`"]),
    "an empty shape": ({"shapes_after_crop": [[9, 0, 9], [9, 9, 9]]}, ["shapes_after_crop[0] is [9,0,9]", "1 or more"]),
    "a broken voxel": ({"shapes_after_crop": [[9, 9.5, 9], [9, 9, 9]]}, ["Field shapes_after_crop[0][1]", "Expected `int`"]),
    "a missing percentile": (
        {"foreground_intensity_properties_per_channel": {"0": {k: v for k, v in PROPERTIES.items() if k != "percentile_99_5"}}},
        ["Field foreground_intensity_properties_per_channel", "missing required field `percentile_99_5`"],
    ),
    "a channel not measured": ({"foreground_intensity_properties_per_channel": {}}, ["(its keys) is []", "the channels 0"]),
    "a channel not named": ({"foreground_intensity_properties_per_channel": {"0": PROPERTIES, "1": PROPERTIES}}, ['is ["0","1"]']),
    "a share above 1": ({"median_relative_size_after_cropping": 1.2}, ["median_relative_size_after_cropping is 1.2", "at most 1"]),
    "a share of 0": ({"median_relative_size_after_cropping": 0}, ["median_relative_size_after_cropping is 0.0", "more than 0"]),
}
BAD_DESCRIPTIONS = {
    "no channel names": ({"channel_names": None}, ["channel_names is missing", '{"0": "CT"}']),
    "a gap between channels": ({"channel_names": {"0": "CT", "2": "MRI"}}, ["channel_names is", "from 0 on"]),
    "a nameless channel": ({"channel_names": {"0": " "}}, ["channel_names.0 is", "has a name"]),
    "no labels": ({"labels": None}, ["missing required field `labels`"]),
    "a nameless label": ({"labels": {"background": 0, "": 1}}, ['labels is {"":1}', "A label has a name"]),
    "a negative label": ({"labels": {"background": 0, "a": -1}}, ['labels is {"a":-1}', "0 or more"]),
    "a label of words": ({"labels": {"background": 0, "a": "1"}}, ["Field labels", "got `str`"]),
    "an empty region": ({"labels": {"background": 0, "a": []}}, ['labels is {"a":[]}']),
    "two labels of one value": ({"labels": {"background": 0, "a": 1, "b": 1}}, ['labels is {"a":1,"b":1}', "same value"]),
    "no background": ({"labels": {"a": 1, "b": 2}}, ['labels is {"a":1,"b":2}', "background of value 0"]),
    "nothing to find": ({"labels": {"background": 0}}, ['labels is {"background":0}', "one class at least"]),
    "a region to ignore": ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, ['labels is {"ignore":[2,3]}', "one value"]),
    "cases in words": ({"numTraining": "2"}, ["dataset.json", "Field numTraining", "Expected `int`, got `str`"]),
    "no cases": ({"numTraining": 0}, ["numTraining is 0", "1 or more"]),
    "cases not counted": ({"numTraining": None}, ["missing required field `numTraining`"]),
}


@pytest.mark.parametrize("case", BAD_FINGERPRINTS)
def test_a_bad_fingerprint_is_refused(read, case):
    changes, texts = BAD_FINGERPRINTS[case]
    with pytest.raises(InputError) as caught:
        read(fingerprint=changes)
    assert all(text in str(caught.value) for text in ["dataset_fingerprint.json", *texts]), str(caught.value)


@pytest.mark.parametrize("case", BAD_DESCRIPTIONS)
def test_a_bad_description_is_refused(read, case):
    changes, texts = BAD_DESCRIPTIONS[case]
    with pytest.raises(InputError) as caught:
        read(description=changes)
    assert all(text in str(caught.value) for text in ["dataset.json", *texts]), str(caught.value)


def test_a_file_that_is_no_json_is_refused(read, tmp_path):
    read()
    (tmp_path / "dataset_fingerprint.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_fingerprint\.json cannot be read"):
        read_nnunet_folder(tmp_path)
