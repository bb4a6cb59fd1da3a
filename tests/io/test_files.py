"""Files are whole or absent, and folders are listed without what operating systems leave in them."""

import errno
import hashlib

import pytest

from autoseg.errors import CasesFailed, InputError, RecordError
from autoseg.io.files import (
    digest_files,
    list_files,
    load_record,
    name_full_disk,
    remove_partials,
    save_record,
    stamp_files,
    write_aside,
    write_bytes,
)
from autoseg.records.dataset import ClassLabel
from autoseg.records.splits import Fold, Splits


def test_write_aside_keeps_the_ending_and_leaves_only_the_finished_file(tmp_path):
    path = tmp_path / "folder" / "mask.nii.gz"
    with write_aside(path) as partial:
        assert partial.parent == path.parent
        assert partial.name.endswith("mask.nii.gz")
        assert not path.exists()
        partial.write_bytes(b"whole")
    assert [entry.name for entry in path.parent.iterdir()] == ["mask.nii.gz"]
    assert path.read_bytes() == b"whole"


def test_a_failure_while_writing_leaves_the_old_file_and_no_partial(tmp_path):
    path = tmp_path / "record.json"
    write_bytes(path, b"old")

    def fail():
        with write_aside(path) as partial:
            partial.write_bytes(b"ha")
            raise OSError("torn off")

    with pytest.raises(OSError, match="torn off"):
        fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_remove_partials_clears_what_a_killed_process_left_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    left = tmp_path / "deep" / ".partial-123-mask.nii.gz"
    left.write_bytes(b"ha")
    kept = tmp_path / "deep" / "mask.nii.gz"
    kept.write_bytes(b"whole")
    remove_partials(tmp_path)
    assert not left.exists()
    assert kept.exists()


def test_list_files_is_sorted_and_skips_hidden_files_and_macosx(tmp_path):
    for name in ("b.nii", "a/c.nii", ".DS_Store", "a/._c.nii", "__MACOSX/a/c.nii", ".git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == ["a/c.nii", "b.nii"]


def test_digest_follows_contents_and_order_and_not_names(tmp_path):
    one, two, copy = tmp_path / "one", tmp_path / "two", tmp_path / "copy"
    one.write_bytes(b"x" * 3_000_000)
    two.write_bytes(b"y")
    copy.write_bytes(one.read_bytes())
    assert digest_files([one, two]) == digest_files([copy, two])
    assert digest_files([one, two]) != digest_files([two, one])
    inner = hashlib.sha256(b"y").digest()
    assert digest_files([two]) == hashlib.sha256(inner).hexdigest()


def test_stamps_tell_size_and_time_and_change_with_the_file(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(b"123")
    (before,) = stamp_files([path])
    assert (before.path, before.size) == (str(path), 3)
    path.write_bytes(b"1234")
    assert stamp_files([path]) != (before,)


def test_a_record_is_read_back_as_it_was_saved(tmp_path):
    splits = Splits(folds=(Fold(training=("a", "b"), validation=("c",)),))
    save_record(tmp_path / "splits.json", splits)
    assert load_record(Splits, tmp_path / "splits.json") == splits


def test_a_missing_record_and_a_wrong_one_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.json does not exist"):
        load_record(ClassLabel, tmp_path / "absent.json")
    (tmp_path / "label.json").write_text('{"name": "a", "values": [1, "two"]}')
    with pytest.raises(RecordError, match=r"label.json cannot be read") as caught:
        load_record(ClassLabel, tmp_path / "label.json")
    assert "values[1]" in caught.value.why


def test_a_full_disk_is_named_and_other_errors_pass(tmp_path):
    with pytest.raises(CasesFailed, match="no space left") as caught, name_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    assert str(tmp_path) in caught.value.what
    with pytest.raises(OSError, match="other"), name_full_disk(tmp_path):
        raise OSError(errno.EACCES, "other")
