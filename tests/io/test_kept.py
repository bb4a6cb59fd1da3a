"""Kept probabilities: whole or absent, and only beside the mask that they belong to."""

import numpy as np
import pytest

from autoseg.errors import InputError
from autoseg.io.kept import find_kept, get_kept_paths, read_kept, remove_kept, write_kept
from autoseg.records.dataset import ClassLabel
from autoseg.records.kept import KeptProbabilities
from autoseg.records.prepared import Geometry

SHAPE = (5, 70, 9)


def make_record() -> KeptProbabilities:
    return KeptProbabilities(
        case="a",
        configuration="2d",
        geometry=Geometry(shape=SHAPE, box=((0, 5), (0, 70), (0, 9)), prepared_shape=SHAPE),
        spacing=(1.0, 2.0, 3.0),
        target=(1.0, 2.0, 3.0),
        axes=(0, 1, 2),
        orientation="LPS",
        classes=(ClassLabel(name="a", values=(1,)), ClassLabel(name="b", values=(2,))),
        background_value=0,
        mask_digest="right",
    )


@pytest.fixture
def packed(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    write_kept(tmp_path, make_record(), array)
    return array


def test_what_is_kept_comes_back_bit_by_bit(packed, tmp_path):
    record = find_kept(tmp_path, "a", "right")
    assert record == make_record()
    assert np.array_equal(read_kept(tmp_path, record), packed)


def test_what_belongs_to_another_mask_or_is_not_whole_counts_as_absent(packed, tmp_path):
    assert find_kept(tmp_path, "a", "wrong") is None
    assert find_kept(tmp_path, "b", "right") is None
    array, paper = get_kept_paths(tmp_path, "a")
    text = paper.read_text()
    paper.write_text(text[:50])
    assert find_kept(tmp_path, "a", "right") is None
    paper.write_text(text)
    array.unlink()
    assert find_kept(tmp_path, "a", "right") is None


def test_a_damaged_array_is_named(packed, tmp_path):
    array, _ = get_kept_paths(tmp_path, "a")
    array.write_bytes(array.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a_probabilities\.b2nd is damaged"):
        read_kept(tmp_path, make_record())


def test_an_array_is_never_there_with_the_record_of_an_earlier_one(packed, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.io.kept.save_record", fail)
    with pytest.raises(OSError, match="No space"):
        write_kept(tmp_path, make_record(), packed)
    assert find_kept(tmp_path, "a", "right") is None


def test_removing_leaves_nothing(packed, tmp_path):
    remove_kept(tmp_path, "a")
    remove_kept(tmp_path, "a")
    assert not list(tmp_path.iterdir())
