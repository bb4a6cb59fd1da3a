"""Records: there and back through JSON, what is refused and how it is named, and digests."""

import re
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg import __version__
from autoseg.errors import InputError, RecordError
from autoseg.records.agenda import Agenda
from autoseg.records.base import FORMAT_VERSION, Record, SavedRecord, compute_digest, decode, digest_of, encode
from autoseg.records.choice import Choice
from autoseg.records.comparison import Comparison
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.grid import Grid
from autoseg.records.kept import KeptProbabilities
from autoseg.records.machine import Machine
from autoseg.records.objects import CaseObjects
from autoseg.records.plan import Plan
from autoseg.records.predictions import Predictions
from autoseg.records.prepared import PreparedCase
from autoseg.records.profile import Profile
from autoseg.records.request import PlanRequest
from autoseg.records.scores import CaseScore, InstanceScores, Scores
from autoseg.records.splits import Splits
from autoseg.records.training import Course, ModelHeader, TrainingSettings, TrainingStatus

SAVED = [
    Dataset,
    Fingerprint,
    Machine,
    Plan,
    Predictions,
    PreparedCase,
    Profile,
    Scores,
    InstanceScores,
    CaseObjects,
    Choice,
    Comparison,
    KeptProbabilities,
    Splits,
    Course,
    ModelHeader,
    TrainingSettings,
    TrainingStatus,
    Agenda,
    PlanRequest,
]

DATASET = Dataset(
    root="/data",
    dimension=3,
    unit="mm",
    layout="paired",
    channels=(Channel(name="CT", pattern="images/{case}.nii.gz"),),
    classes=(ClassLabel(name="liver", values=(1,)), ClassLabel(name="tumour", values=(2, 3))),
    cases=(Case(id="a", images=("images/a.nii.gz",), label="labels/a.nii.gz"),),
)
LEAVES = {
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(codec="utf-8"), max_size=6),
    bool: st.booleans(),
    bytes: st.binary(max_size=6),
    type(None): st.none(),
}


def values_of(kind):
    """A strategy for any type that occurs in a record."""
    if kind in LEAVES:
        return LEAVES[kind]
    if isinstance(kind, type) and issubclass(kind, Record):
        hints = get_type_hints(kind)
        fields = {name: values_of(hint) for name, hint in hints.items() if name not in ("format_version", "__match_args__")}
        return st.builds(kind, **{name: fields[name] for name in kind.__struct_fields__ if name in fields})
    arguments = get_args(kind)
    match get_origin(kind):
        case origin if origin is Literal:
            return st.sampled_from(arguments)
        case origin if origin in (Union, UnionType):
            return st.one_of([values_of(argument) for argument in arguments])
        case origin if origin is dict:
            return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)
        case origin if origin is tuple and arguments[-1] is Ellipsis:
            return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
        case origin if origin is tuple:
            return st.tuples(*map(values_of, arguments))
    raise TypeError(f"no strategy for {kind}")


@pytest.mark.parametrize("kind", [*SAVED, Grid], ids=lambda kind: kind.__name__)
def test_every_record_returns_from_its_json_unchanged(kind):
    @settings(deadline=None, derandomize=True, max_examples=10)
    @given(values_of(kind))
    def check(record):
        data = encode(record)
        assert decode(kind, data, "x.json") == record
        assert encode(decode(kind, data, "x.json")) == data

    check()


def test_every_saved_record_is_among_those_tried():
    assert {kind for kind in SavedRecord.__subclasses__() if kind.__module__.startswith("autoseg.")} == set(SAVED)


def test_json_is_readable_and_ends_with_a_line_break():
    text = encode(DATASET).decode()
    assert text.endswith("}\n")
    assert '\n "root": "/data",\n' in text


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        DATASET.root = "/elsewhere"


def alter(record, place, value):
    """JSON of a record with the value at `place` (keys and indices) set."""
    plain = msgspec.json.decode(encode(record))
    inner = plain
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return msgspec.json.encode(plain)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("rooot",), 1, ["dataset.json", "rooot"]),
        (("cases", 0, "colour"), "red", ["dataset.json", "cases[0]", "colour"]),
        (("classes", 1, "values"), "two", ["dataset.json", "classes[1].values", "array"]),
        (("dimension",), 4, ["dataset.json", "dimension", "4"]),
        (("dimension",), "3", ["dataset.json", "dimension"]),
        (("unit",), "inch", ["dataset.json", "unit", "inch"]),
        (("root",), None, ["dataset.json", "root", "null"]),
        (("background_value",), 0.5, ["dataset.json", "background_value"]),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_field(place, value, words):
    with pytest.raises(RecordError) as caught:
        decode(Dataset, alter(DATASET, place, value), "run/dataset.json")
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "$" not in message


def test_a_missing_field_is_named():
    plain = msgspec.json.decode(encode(DATASET))
    del plain["layout"]
    with pytest.raises(RecordError, match="layout"):
        decode(Dataset, msgspec.json.encode(plain), "dataset.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", encode(DATASET)[:-5]])
def test_what_is_no_record_is_refused_with_the_file(data):
    with pytest.raises(RecordError, match=r"dataset\.json cannot be read as a Dataset"):
        decode(Dataset, data, "dataset.json")


def test_a_tuple_of_the_wrong_length_is_refused():
    profile = msgspec.json.encode({"augmentation": {"rotation": [1.0, 2.0, 3.0]}})
    with pytest.raises(RecordError, match=r"augmentation\.rotation"):
        decode(Profile, profile, "profile.json")


def test_a_newer_format_is_refused_before_its_fields_are_looked_at():
    data = msgspec.json.encode({"format_version": FORMAT_VERSION + 1, "autoseg_version": "9.9", "unheard_of": True})
    with pytest.raises(RecordError, match=r"dataset\.json was written by a newer autoseg \(9\.9, format") as caught:
        decode(Dataset, data, "dataset.json")
    assert "Next" in str(caught.value)
    assert isinstance(caught.value, InputError)


def test_an_older_record_without_versions_is_read_as_of_today():
    plain = {key: value for key, value in msgspec.json.decode(encode(DATASET)).items() if not key.endswith("_version")}
    read = decode(Dataset, msgspec.json.encode(plain), "dataset.json")
    assert (read.format_version, read.autoseg_version) == (FORMAT_VERSION, __version__)


def test_scores_call_the_class_of_a_row_class():
    row = CaseScore(
        case="a",
        class_name="liver",
        dice=None,
        iou=None,
        precision=None,
        sensitivity=None,
        specificity=None,
        volume_reference_ml=None,
        volume_predicted_ml=None,
        voxels_reference=0,
        voxels_predicted=0,
    )
    assert b'"class": "liver"' in encode(row)
    assert decode(CaseScore, encode(row), "scores.json") == row


def turn(value):
    """The same plain value with the keys of all objects in reverse order."""
    if isinstance(value, dict):
        return {key: turn(value[key]) for key in reversed(value)}
    return [turn(item) for item in value] if isinstance(value, list | tuple) else value


def test_a_digest_is_64_hexadecimal_digits():
    assert re.fullmatch("[0-9a-f]{64}", compute_digest(DATASET))


def test_a_digest_ignores_the_versions_of_format_and_program():
    other = msgspec.structs.replace(DATASET, autoseg_version="7.7.7", format_version=0)
    assert compute_digest(other) == compute_digest(DATASET)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(values_of(Scores))
def test_a_digest_ignores_the_order_of_keys_in_the_file(scores):
    data = msgspec.json.encode(turn(msgspec.json.decode(encode(scores))))
    assert compute_digest(decode(Scores, data, "scores.json")) == compute_digest(scores)
    assert digest_of(turn(msgspec.to_builtins(scores))) == digest_of(scores)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(values_of(Machine), values_of(Machine))
def test_digests_differ_exactly_where_contents_do(one, other):
    strip = {"format_version": FORMAT_VERSION, "autoseg_version": ""}
    same = msgspec.structs.replace(one, **strip) == msgspec.structs.replace(other, **strip)
    assert (compute_digest(one) == compute_digest(other)) == same
    assert compute_digest(msgspec.structs.replace(one, cores=one.cores + 1)) != compute_digest(one)
