"""`plan RUN --explain`: every value of a plan is told with its reason, for any plan, in lines that fit a page."""

import msgspec
import numpy as np
import pytest
from builders import make_configuration, make_network_spec
from instances_for_tests import make_instances, spread_boxes
from planned_runs import make_dataset, make_plan, put, write_run

from autoseg.commands.explain import explain, format_duration
from autoseg.commands.plan import format_plan
from autoseg.errors import InputError
from autoseg.io.files import load_record, save_record
from autoseg.io.profiles import read_profile
from autoseg.io.run_folder import RunFolder
from autoseg.planning import plan as planner
from autoseg.planning.change import list_values
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import Normalization

NOT_TOLD = ("name", "reasons", "user_set", "network.blocks", "detection", "thresholds")  # the heading; and what this network has not


def find_line(text, *words):
    """The one line that has all the words."""
    (line,) = [line for line in text.splitlines() if all(word in line.split() for word in words)]
    return line


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_every_field_and_every_reason_is_told(planned, name):
    text = explain(planned, name)
    plan = RunFolder(planned).load_plan()
    configuration = next(c for c in plan.configurations if c.name == name)
    for field in list_values(configuration):
        if field not in NOT_TOLD and not field.startswith("normalization"):
            assert field.rpartition(".")[2] in text
    words = " ".join(text.split())
    for reason in configuration.reasons.values():
        assert " ".join(reason.split()) in words
    assert max(map(len, text.splitlines())) <= 140
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert "thresholds" not in text  # which only instance tasks have


def test_the_data_are_told(planned):
    text = explain(planned)
    dataset = RunFolder(planned).load_dataset()
    assert str(dataset.root) in text
    assert "cases      6, 3D" in text
    for axis in "zyx":
        assert f"along {axis}" in text
    assert "in 6 of 6 cases" in find_line(text, "class", "1", "body")
    assert "in 6 of 6 cases" in find_line(text, "class", "2", "head")
    cases = load_record(Fingerprint, planned / "fingerprint.json").cases
    volumes = [part.volume for case in cases for part in case.classes if part.name == "head"]
    scale = 1000 if np.median(volumes) >= 100 else 1  # ml from 100 mm³ up
    assert f", {min(volumes) / scale:.3g} … {max(volumes) / scale:.3g} " in find_line(text, "class", "2", "head")
    assert dataset.channels[0].name in text
    assert RunFolder(planned).load_plan().machine.name in text


def test_the_default_comes_first_with_its_reason_and_is_explained(planned):
    plan = RunFolder(planned).load_plan()
    text = explain(planned)
    assert f"the default: {plan.default_reason}" in " ".join(text.split())
    assert f"{plan.default_configuration}: EVERY VALUE, AND WHY" in text
    assert text == explain(planned, plan.default_configuration)
    other = next(c.name for c in plan.configurations if c.name != plan.default_configuration)
    assert f"{other}: EVERY VALUE, AND WHY" in explain(planned, other)


def test_a_configuration_that_is_not_there_lists_those_that_are(planned):
    with pytest.raises(InputError, match="no configuration '3d_lowres'") as caught:
        explain(planned, "3d_lowres")
    assert "3d_fullres" in caught.value.why


def test_a_folder_of_scans_is_told_what_to_type(scans, tmp_path):
    with pytest.raises(InputError, match=r"no plan\.json") as caught:
        explain(scans)
    assert f"autoseg plan {scans} -o RUN" in caught.value.todo
    assert "autoseg plan RUN --explain" in caught.value.todo
    with pytest.raises(InputError, match="There is no folder"):
        explain(tmp_path / "nowhere")


def test_the_network_is_drawn_stage_by_stage(tmp_path):
    network = msgspec.structs.replace(
        make_network_spec(3, (4, 8, 16)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        convolutions=(5, 6, 7),
        decoder_convolutions=(8, 9),
    )
    configuration = make_configuration(3, network=network, patch_size=(8, 16, 24), spacing=(3.0, 1.0, 0.5))
    text = explain(write_run(tmp_path, make_plan(configuration), make_dataset()))
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:3] == ["stage", "strides", "kernel_sizes"])
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["0", "1x1x1", "1x3x3", "4", "5", "8", "8x16x24", "3x1x0.5"],
        ["1", "1x2x2", "3x3x3", "8", "6", "9", "8x8x12", "3x2x1"],
        ["2", "2x2x2", "3x3x3", "16", "7", "4x4x6", "6x4x2"],
    ]


def test_what_the_user_set_is_marked_and_listed(tmp_path):
    reasons = {"batch_size": "set by the user (the planner had 2)", "spacing": "the median"}
    configuration = make_configuration(3, batch_size=3, user_set=("batch_size", "optimizer.learning_rate"), reasons=reasons)
    text = explain(write_run(tmp_path, make_plan(configuration), make_dataset()))
    marked = [line.split()[0] for line in text.splitlines() if line.lstrip().startswith("*")]
    assert marked == ["*batch_size", "*learning_rate"]
    assert "set by the user (the planner had 2)" in find_line(text, "*batch_size")
    assert "batch_size = 3" in text
    assert "optimizer.learning_rate = 0.01" in text
    assert "--set" not in text


def test_a_plan_that_is_the_planners_shows_how_to_change_it(tmp_path):
    run = write_run(tmp_path, make_plan(), make_dataset())
    assert f"autoseg plan {run} --set configurations.3d_fullres.batch_size=3" in explain(run)


def test_residual_encoders_single_stages_and_cascades_are_told(tmp_path):
    residual = put(make_configuration(3), {"network.kind": "residual_encoder", "network.blocks": [1, 2], "network.convolutions": []})
    single = make_configuration(3, name="3d_lowres", network=make_network_spec(3, (4,)))
    cascade = make_configuration(3, name="3d_cascade", previous="3d_lowres")
    run = write_run(tmp_path, make_plan(residual, single, cascade), make_dataset())
    assert "kind residual_encoder" in explain(run, "3d_fullres")
    assert find_line(explain(run, "3d_fullres"), "stage", "blocks")
    assert "0  " in explain(run, "3d_lowres")
    assert "goes on from the masks of 3d_lowres" in explain(run)


def test_long_names_many_classes_and_every_scheme_stay_on_the_page(tmp_path):
    schemes = (
        Normalization(scheme="zscore", mask=True),
        Normalization(scheme="ct", mean=12.5, std=99.0, low=-1024.0, high=3071.0),
        Normalization(scheme="rgb"),
    )
    reasons = {"spacing": "because " * 60, "normalization": "as " * 80, "network": "n " * 100}
    configuration = make_configuration(3, normalization=schemes, reasons=reasons)
    dataset = make_dataset(channels=3, classes=tuple(f"a class of a rather long name {number}" for number in range(60)))
    text = explain(write_run(tmp_path, make_plan(configuration), dataset))
    assert max(map(len, text.splitlines())) <= 140
    assert "and 20 classes more" in text
    assert "a rather long name 39" in text
    assert "a rather long name 40" not in text
    assert "zscore inside the object" in text
    assert "clipped to -1024 … 3071" in text


def test_time_disk_and_memory_to_expect_are_told(tmp_path):
    memory = msgspec.structs.replace(make_configuration(3).memory, training_bytes=5 * 10**8, prepared_bytes=2 * 10**9)
    schedule = msgspec.structs.replace(make_configuration(3).schedule, epochs=10)
    timed = make_configuration(3, memory=memory, seconds_per_step=3.0, steps_per_epoch=100, schedule=schedule, mirror_axes=(0, 1))
    clock = make_configuration(2, seconds_per_step=3.0, schedule=msgspec.structs.replace(schedule, minutes=30.0))
    unknown = make_configuration(3, name="3d_lowres")
    run = write_run(tmp_path, make_plan(timed, clock, unknown), make_dataset())
    text = explain(run)
    assert "500 MB of 1 GB (50%)" in text
    assert "2 GB" in find_line(text, "memory.prepared_bytes")
    assert "50 minutes" in find_line(text, "training", "fold")  # 10 epochs of 100 steps of 3 s
    # 12³ in patches of 8³: 2 per axis, 8 in all, each a third of half a step (batch 2)
    assert "about 4 s" in find_line(text, "predicting")
    assert "8 patches; 4 times that with --tta" in text
    assert "30 minutes" in find_line(explain(run, "2d"), "training", "fold")
    assert "about 600 steps" in explain(run, "2d")
    assert "4 patches in each of 12 slices" in explain(run, "2d")
    assert "not known" in find_line(explain(run, "3d_lowres"), "seconds_per_step")


def test_durations_are_told_in_the_unit_that_suits_them():
    seconds = (0.04, 90, 1800, 36000, 1e6)
    assert [format_duration(value) for value in seconds] == ["0.04 s", "90 s", "30 minutes", "10 hours", "11.6 days"]


def test_nothing_is_written(planned_copy):
    before = {path: path.read_bytes() for path in planned_copy.rglob("*") if path.is_file()}
    explain(planned_copy)
    assert {path: path.read_bytes() for path in planned_copy.rglob("*") if path.is_file()} == before


def test_instance_plans_are_told_with_their_objects(tmp_path):
    data = make_instances([spread_boxes((128, 128), 30, (8, 45), (1.0, 1.0))] * 3, (128, 128), (1.0, 1.0))
    machine = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=120e9, flops_source="measured")
    plan = planner.make_plan(*data, read_profile("autoseg-cpu"), machine)
    for name, record in (("dataset", data[0]), ("fingerprint", data[1]), ("plan", plan)):
        save_record(tmp_path / f"{name}.json", record)
    for configuration in plan.configurations:
        text = explain(tmp_path, configuration.name)
        words = " ".join(text.split())
        told = [reason for field, reason in configuration.reasons.items() if field != "zoom"]  # which is part of the spacing's
        assert [reason for reason in told if " ".join(reason.split()) not in words] == []
        present = [field for field in list_values(configuration) if field not in NOT_TOLD and not field.startswith("normalization")]
        assert [field for field in present if field.rpartition(".")[2] not in text] == []
        assert max(map(len, text.splitlines())) <= 140
    assert "Mask R-CNN on an encoder of kind residual_encoder" in explain(tmp_path)
    table = format_plan(plan, "RUN")
    assert "levels        strides 2x2, 4x4, 8x8" in table
    assert "mean best overlap" in table
    assert "Also planned: boundary_2d" in table
