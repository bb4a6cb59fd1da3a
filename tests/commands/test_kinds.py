"""Every kind of network and configuration that is planned is trained and predicts: residual encoders, the low-resolution stage, 2D."""

import json

import pytest
from whole_way import PLAN_WORDS, list_partials

WORDS = ("--fold", "0", "--device", "cpu", "--steps", "2", "--precision", "fp32", "--workers", "1")


@pytest.fixture
def kinds(planned_copy):
    """The planned run with a residual encoder at full resolution, and a low-resolution stage of half the voxels per axis."""
    path = planned_copy / "plan.json"
    plan = json.loads(path.read_text())
    full = next(c for c in plan["configurations"] if c["name"] == "3d_fullres")
    low = json.loads(json.dumps(full)) | {"name": "3d_lowres"}
    low["spacing"] = [2 * step for step in full["spacing"]]
    low["median_shape"] = [size / 2 for size in full["median_shape"]]
    stages = len(full["network"]["strides"])
    full["network"] |= {"kind": "residual_encoder", "blocks": [1] * stages, "convolutions": []}
    plan["configurations"].append(low)
    path.write_text(json.dumps(plan))
    return planned_copy


@pytest.mark.parametrize("configuration", ["2d", "3d_lowres", "3d_fullres"])
def test_a_configuration_trains_and_predicts(autoseg, kinds, scans, tmp_path, configuration):
    assert autoseg("train", kinds, *WORDS, "--configuration", configuration).code == 0
    settings = json.loads((kinds / "models" / configuration / "fold_0" / "settings.json").read_text())
    assert settings["configuration"]["network"]["kind"] == ("residual_encoder" if configuration == "3d_fullres" else "plain")
    answer = autoseg("predict", kinds, scans / "images", "-o", tmp_path / "out", "--configuration", configuration, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == len(list((scans / "images").iterdir()))
    assert not list_partials(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: plan["configurations"][1].update(patch_size=[7, 23, 23]), ("patch_size", "multiple of")),
        (lambda plan: plan["configurations"][1].update(spacing=[0.0, 1.0, 1.0]), ("spacing", "0")),
        (lambda plan: plan["configurations"][1].update(batchsize=2), ("plan.json", "batchsize")),
        (lambda plan: plan["configurations"][1].update(batch_size="2"), ("plan.json", "batch_size")),
        (lambda plan: plan["configurations"][1].update(patch_size=[24, 24]), ("patch_size", "3 entries")),
        (lambda plan: plan["configurations"][1]["network"].update(kind="transformer"), ("plan.json", "network.kind")),
    ],
)
def test_a_plan_edited_by_hand_is_checked_before_anything_is_done(autoseg, planned_copy, change, words):
    path = planned_copy / "plan.json"
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))
    answer = autoseg("train", planned_copy, *WORDS)
    assert answer.code == 2
    assert all(word in answer.err for word in words), answer.err
    assert not (planned_copy / "prepared").exists()


def test_a_fingerprint_of_another_data_set_is_refused(autoseg, planned_copy):
    path = planned_copy / "fingerprint.json"
    fingerprint = json.loads(path.read_text())
    fingerprint["cases"][0]["spacing"][0] = 9.0
    path.write_text(json.dumps(fingerprint))
    answer = autoseg("plan", planned_copy, "--explain")
    assert answer.code == 2
    assert "fingerprint.json is not the one that" in answer.err
    assert "fingerprint_digest" in answer.err


def test_too_little_memory_for_any_plan_is_said_with_what_would_do(autoseg, scans, tmp_path):
    answer = autoseg("plan", scans, "-o", tmp_path / "run", "--memory", "1MB", "--workers", "1")
    assert answer.code == 2
    assert "No plan fits 0.001 GB" in answer.err
    assert "--memory" in answer.err
    assert not (tmp_path / "run").exists()


def test_a_plan_for_a_gpu_says_its_memory_and_what_to_expect(autoseg, scans, tmp_path):
    answer = autoseg("plan", scans, "-o", tmp_path / "run", "--memory", "8GB", "--workers", "1")
    assert answer.code == 0, answer.err
    assert "Expect per fold:" in answer.out
    assert "--explain" in answer.out
    made = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert made["profile"] == "autoseg"
    assert all(c["memory"]["training_bytes"] <= 0.95 * 8e9 for c in made["configurations"])


def test_the_default_profile_by_name_is_the_cpus_on_a_cpu(autoseg, scans, tmp_path):
    assert autoseg("plan", scans, "-o", tmp_path / "run", "--profile", "autoseg", *PLAN_WORDS).code == 0
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["profile"] == "autoseg-cpu"


@pytest.fixture
def nnunet_folder(tmp_path):
    """What nnU-Net leaves behind, without scans."""
    folder = tmp_path / "nnunet"
    folder.mkdir()
    values = {"mean": 9.0, "median": 8.0, "std": 3.0, "min": 0.0, "max": 20.0, "percentile_00_5": 1.0, "percentile_99_5": 19.0}
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * 260,
        "shapes_after_crop": [[36, 50, 35]] * 260,
        "foreground_intensity_properties_per_channel": {"0": values},
        "median_relative_size_after_cropping": 1.0,
    }
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 260, "file_ending": ".nii.gz"}
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def test_nnunets_fingerprint_is_planned_without_scans_and_written_for_nnunet(autoseg, nnunet_folder, tmp_path):
    answer = autoseg("plan", nnunet_folder, "-o", tmp_path / "run", "--profile", "nnunet", "--format", "nnunet")
    assert answer.code == 0, answer.err
    written = json.loads((tmp_path / "run" / "nnUNetPlans.json").read_text())["configurations"]["3d_fullres"]
    assert (written["patch_size"], written["batch_size"]) == ([40, 56, 40], 9)  # the reference's golden row
    refused = autoseg("train", tmp_path / "run", *WORDS)
    assert refused.code == 2
    assert "from a fingerprint alone" in refused.err
