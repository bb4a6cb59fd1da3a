"""The profiles that are installed, and those of one's own."""

import json

import pytest

from autoseg.errors import InputError
from autoseg.io.profiles import list_profiles, read_profile
from autoseg.records.base import encode


def test_there_is_a_profile_for_gpus_and_one_for_cpus():
    assert {"autoseg", "autoseg-cpu"} <= set(list_profiles())
    assert read_profile("autoseg").budget == "memory"
    assert read_profile("autoseg-cpu").budget == "operations"


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_is_read_strictly_and_carries_its_file_name(name):
    assert read_profile(name).name == name


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(InputError, match="no profile 'nnunet2'") as caught:
        read_profile("nnunet2")
    assert all(name in caught.value.why for name in list_profiles())


@pytest.fixture
def write_own(tmp_path):
    """A copy of an installed profile with changes, as a file."""

    def write(**changes):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(json.loads(encode(read_profile("nnunet"))) | changes))
        return str(path)

    return write


def test_a_file_of_ones_own_is_a_profile(write_own):
    assert read_profile(write_own(name="mine", base_features=24)).base_features == 24


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_feature": 24}, "base_feature"),
        ({"base_features": "24"}, "base_features"),
        ({"maximum_features": [1, 2, 3]}, "maximum_features"),
        ({"base_features": 0}, "base_features"),
        ({"encoder_convolutions": []}, "encoder_convolutions"),
        ({"network": "residual_encoder"}, "encoder_blocks"),
        ({"dataset_share": 5}, "dataset_share"),
        ({"reference_batch": [0, 2]}, "reference_batch"),
        ({"budget": "operations"}, "steps"),
        ({"detection": {"minimum_batch": [4, 2], "maximum_batch": [2, 4]}}, "detection.maximum_batch"),
        ({"detection": {"minimum_batch": [0, 2]}}, "detection.maximum_batch"),
    ],
)
def test_a_profile_that_cannot_be_names_file_and_field(write_own, changes, field):
    with pytest.raises(InputError) as caught:
        read_profile(write_own(**changes))
    text = f"{caught.value.what} {caught.value.why}"
    assert "mine.json" in text
    assert field in text


def test_a_profile_file_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_profile("nowhere.json")
