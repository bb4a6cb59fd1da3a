"""Weights and their text come back as they were saved, and damage is noticed."""

import hashlib

import numpy as np
import pytest

from autoseg.errors import InputError
from autoseg.io.weights import load_tensors, save_tensors

TENSORS = {
    "a.weight": np.random.default_rng(0).normal(size=(3, 2, 1)).astype(np.float32),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def test_tensors_and_text_are_read_back_to_the_last_bit(tmp_path):
    digest = save_tensors(tmp_path / "w.safetensors", TENSORS, '{"ä": 1}')
    tensors, text = load_tensors(tmp_path / "w.safetensors")
    assert text == '{"ä": 1}'
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        assert np.array_equal(tensors[name], array)
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()


def test_no_text_is_an_empty_text(tmp_path):
    save_tensors(tmp_path / "w.safetensors", TENSORS)
    assert load_tensors(tmp_path / "w.safetensors")[1] == ""


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99])
def test_a_damaged_or_missing_file_is_named(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    save_tensors(path, TENSORS)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(InputError, match=r"w.safetensors is damaged or missing"):
        load_tensors(path)
    with pytest.raises(InputError, match=r"absent is damaged or missing"):
        load_tensors(tmp_path / "absent")
