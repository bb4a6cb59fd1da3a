"""A column of a user's table: a word for every case, or one clear error."""

import pytest

from autoseg.errors import InputError
from autoseg.io.tables import read_column


def write(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    return f"{tmp_path / 't.csv'}:site"


@pytest.mark.parametrize(
    "text",
    [
        "case,site\na,north\nb,south\n",
        "\ufeffscan;site\r\nb; south\r\na ;north\r\n;\r\n",
        'site\tsubject\tID\n"north"\tx\ta\nsouth\ty\tb\n',
    ],
)
def test_tables_as_programs_write_them(tmp_path, text):
    column = read_column(write(tmp_path, text), "--stratify", ["b", "a"])
    assert column.words == {"a": "north", "b": "south"}
    assert column.unknown == ()


def test_missing_cases_are_named_with_the_rows_that_may_be_meant(tmp_path):
    with pytest.raises(InputError) as caught:
        read_column(write(tmp_path, "case,site\na,north\nB,south\nc,\n"), "--groups", ["a", "b", "c"])
    assert "2 of 3 cases: b, c" in caught.value.what
    assert "B" in caught.value.why
    assert "--exclude b,c" in caught.value.todo


def test_rows_of_other_cases_alone_are_no_error(tmp_path):
    assert read_column(write(tmp_path, "case,site\na,north\nz,south\n"), "--groups", ["a"]).unknown == ("z",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("case,place\na,x\n", "no column 'site'"), ("", "is empty"), ("case,site\na,x\na,y\n", "case a 'x' and, in row 3, 'y'")],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_column(write(tmp_path, text), "--groups", ["a"])


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_column(f"{tmp_path}/none.csv:site", "--groups", ["a"])
