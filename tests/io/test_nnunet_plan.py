"""Our plans in nnU-Net's form are what nnU-Net 2.8.1 itself wrote for the same data (nnunet_reference.jsonl, by reference_planner.py)."""

import json
from pathlib import Path

import msgspec
import pytest

from autoseg.io.nnunet import read_nnunet_folder
from autoseg.io.nnunet_plan import format_nnunet_plan
from autoseg.io.profiles import read_profile
from autoseg.planning.plan import Request, make_plan
from autoseg.records.dataset import Case
from autoseg.records.machine import Machine
from autoseg.records.plan import Normalization

GPU = Machine(device="cuda", name="GPU", memory=8 * 10**9, cores=8)
PAIRS = [json.loads(line) for line in Path(__file__).with_name("nnunet_reference.jsonl").read_text().splitlines()]
VOLUMES, IMAGES = PAIRS[0], PAIRS[2]


def plan(pair, folder):
    """Data set, fingerprint and plan of a pair's two files."""
    (folder / "dataset.json").write_text(json.dumps(pair["dataset"]))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(pair["fingerprint"]))
    dataset, fingerprint = read_nnunet_folder(folder)
    return dataset, fingerprint, make_plan(dataset, fingerprint, read_profile(pair["profile"]), GPU, Request())


def export(dataset, fingerprint, made, name="Parity"):
    return json.loads(format_nnunet_plan(dataset, fingerprint, made, fingerprint.summary.channels, name))


def drop_names(plans):
    """Without who planned, and without the folder of prepared data, which nnU-Net's planners share."""
    del plans["experiment_planner_used"], plans["plans_name"]
    for configuration in plans["configurations"].values():
        configuration.pop("data_identifier", None)
    return plans


@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_every_field_is_nnunets(index, tmp_path):
    theirs = drop_names(json.loads(json.dumps(PAIRS[index]["plans"])))
    assert drop_names(export(*plan(PAIRS[index], tmp_path))) == theirs


def test_the_reference_holds_a_cascade_moved_axes_images_and_both_networks():
    assert "3d_cascade_fullres" in VOLUMES["plans"]["configurations"]
    assert VOLUMES["plans"]["transpose_forward"] == [2, 0, 1]  # and back is another order
    assert [list(pair["plans"]["configurations"]) for pair in PAIRS[2:]] == [["2d"], ["2d"]]
    assert {pair["profile"] for pair in PAIRS} == {"nnunet", "nnunet-resenc-m"}


def test_prepared_data_of_configurations_lie_apart_under_the_name_of_the_file(tmp_path):
    plans = export(*plan(VOLUMES, tmp_path))
    assert plans["plans_name"] == "nnUNetPlans"
    found = {name: configuration.get("data_identifier") for name, configuration in plans["configurations"].items()}
    expected = {name: f"nnUNetPlans_{name}" for name in ("2d", "3d_fullres", "3d_lowres")}
    assert found == {**expected, "3d_cascade_fullres": None}


@pytest.mark.parametrize(
    ("scheme", "theirs"),
    [
        ("zscore", "ZScoreNormalization"),
        ("ct", "CTNormalization"),
        ("none", "NoNormalization"),
        ("rescale", "RescaleTo01Normalization"),
        ("rgb", "RGBTo01Normalization"),
    ],
)
def test_normalisations_have_nnunets_names_and_masks(scheme, theirs, tmp_path):
    dataset, fingerprint, made = plan(VOLUMES, tmp_path)
    channels = (Normalization(scheme=scheme, mask=scheme == "zscore"), Normalization(scheme="none"))
    changed = tuple(msgspec.structs.replace(configuration, normalization=channels) for configuration in made.configurations)
    plans = export(dataset, fingerprint, msgspec.structs.replace(made, configurations=changed))
    assert plans["configurations"]["2d"]["normalization_schemes"] == [theirs, "NoNormalization"]
    assert plans["configurations"]["2d"]["use_mask_for_norm"] == [scheme == "zscore", False]


@pytest.mark.parametrize(("activation", "theirs"), [("leaky_relu", "LeakyReLU"), ("relu", "ReLU"), ("prelu", "PReLU")])
def test_activation_and_dropout_have_nnunets_names(activation, theirs, tmp_path):
    dataset, fingerprint, made = plan(VOLUMES, tmp_path)
    network = msgspec.structs.replace(made.configurations[0].network, activation=activation, dropout=0.1)
    changed = msgspec.structs.replace(made.configurations[0], network=network)
    plans = export(dataset, fingerprint, msgspec.structs.replace(made, configurations=(changed,)))
    parameters = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert parameters["nonlin"] == f"torch.nn.{theirs}"
    assert parameters["dropout_op"] == "torch.nn.modules.dropout.Dropout2d"
    assert parameters["dropout_op_kwargs"] == {"p": 0.1}


@pytest.mark.parametrize(
    ("given", "root", "name"),
    [
        ("Liver", "/data/x", "Dataset001_Liver"),
        ("", "/data/my scans (2)", "Dataset001_my_scans_2"),
        ("", "/raw/Dataset027_ACDC", "Dataset027_ACDC"),
        ("", "/", "Dataset001_scans"),
    ],
)
def test_the_data_set_gets_a_numbered_name(given, root, name, tmp_path):
    dataset, fingerprint, made = plan(VOLUMES, tmp_path)
    assert export(msgspec.structs.replace(dataset, root=root), fingerprint, made, given)["dataset_name"] == name


@pytest.mark.parametrize(
    ("pair", "image", "reader"),
    [
        (VOLUMES, "a.nii.gz", "SimpleITKIO"),
        (VOLUMES, "a.tif", "Tiff3DIO"),
        (IMAGES, "a.tif", "NaturalImage2DIO"),
        (IMAGES, "a.png", "NaturalImage2DIO"),
        (IMAGES, "a.mha", "SimpleITKIO"),
    ],
)
def test_the_reader_is_that_of_the_files(pair, image, reader, tmp_path):
    dataset, fingerprint, made = plan(pair, tmp_path)
    described = msgspec.structs.replace(dataset, cases=(Case(id="a", images=(image,)),))
    assert export(described, fingerprint, made)["image_reader_writer"] == reader
