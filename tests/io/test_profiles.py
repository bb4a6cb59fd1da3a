"""The profiles that are installed."""

import pytest

from autoseg.errors import InputError
from autoseg.io.profiles import list_profiles, read_profile


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
