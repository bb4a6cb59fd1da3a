"""`--init` of public weights: what fits an encoder of kind resnet50 is copied and counted, all else is refused."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from builders import make_configuration, make_detection_spec
from planned_runs import make_dataset, make_plan

from autoseg.commands.job import Job, TrainOptions
from autoseg.commands.origin import copy_origin, try_source
from autoseg.errors import InputError
from autoseg.io.run_folder import RunFolder
from autoseg.io.store import Store
from autoseg.io.weights import save_tensors
from autoseg.networks.build import build_network, export_weights
from autoseg.records.plan import RESNET50
from autoseg.records.splits import Fold

SMALL = msgspec.structs.replace(RESNET50, features=(4, 8, 16, 16, 32, 32), blocks=(1, 1, 2, 1, 1, 2))


class Said:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, **event: object) -> None:
        self.lines.append(text)


def make_job(folder, network=SMALL) -> Job:
    configuration = make_configuration(2, patch=64, name="instance_2d", network=network, detection=make_detection_spec(2, (1, 2)))
    run = RunFolder(folder)
    return Job(
        run=run,
        plan=make_plan(configuration),
        dataset=make_dataset(2),
        configuration=configuration,
        number=0,
        fold=Fold(training=("case0",), validation=("case1",)),
        folder=run.fold("instance_2d", 0),
        store=Store(folder),
        options=TrainOptions(),
        progress=Said(),  # type: ignore[arg-type]
    )


def build(job: Job, seed: int) -> torch.nn.Module:
    return build_network(job.configuration.network, job.channels, job.classes, seed, job.configuration.detection)


def write_public(path, job: Job, prefix: str = "backbone.body.") -> dict[str, np.ndarray]:
    """An encoder of the job's sizes under torchvision's names, with three channels, beside tensors of other parts."""
    own = export_weights(build_network(job.configuration.network, 3, 2, 9, job.configuration.detection))
    public = {f"{prefix}fpn.layer.weight": np.ones(3, np.float32)}
    for name, value in own.items():
        if name.startswith("encoder."):
            _, stage, rest = name.split(".", 2)
            public[prefix + (rest if stage == "1" else f"layer{int(stage) - 1}.{rest}")] = value + 0.5
    save_tensors(path, public)
    return public


@pytest.mark.parametrize("prefix", ["", "backbone.body."])
def test_public_weights_are_copied_counted_and_found_again(tmp_path, prefix):
    job, path = make_job(tmp_path), tmp_path / "public.safetensors"
    public = write_public(path, job, prefix)
    origin = try_source(job, path)
    assert (origin.source, origin.copied) == (str(path.resolve()), len(public) - 1)
    assert origin.tensors == len(build(job, 0).state_dict())
    assert f"all {len(public) - 1} tensors of the encoder fitted" in job.progress.lines[0]  # type: ignore[attr-defined]
    network = build(job, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy_origin(job, origin, network)
    after = network.state_dict()
    torch.testing.assert_close(after["encoder.1.conv1.weight"], torch.from_numpy(public[f"{prefix}conv1.weight"]).sum(1, keepdim=True))
    assert torch.equal(after["encoder.4.0.bn2.running_var"], torch.from_numpy(public[f"{prefix}layer3.0.bn2.running_var"]))
    assert all(torch.equal(value, before[name]) for name, value in after.items() if not name.startswith("encoder."))


def test_public_weights_are_refused_for_other_kinds_and_when_they_do_not_fit(tmp_path):
    job, path = make_job(tmp_path), tmp_path / "public.safetensors"
    public = write_public(path, job)
    plain = make_configuration(2)
    with pytest.raises(InputError) as caught:
        try_source(replace(job, configuration=plain), path)
    assert "kind plain" in caught.value.what
    assert "resnet50" in caught.value.todo
    missing = {name: value for name, value in public.items() if "layer4" not in name}
    save_tensors(path, missing)
    with pytest.raises(InputError) as caught:
        try_source(job, path)
    assert "does not hold" in caught.value.what
    assert f"{len(missing) - 1} of the encoder's {len(public) - 1} tensors fit" in caught.value.why
    assert "encoder.5" in caught.value.why
    with pytest.raises(InputError):
        try_source(job, tmp_path / "absent.safetensors")


def test_a_start_that_has_changed_since_is_refused(tmp_path):
    job, path = make_job(tmp_path), tmp_path / "public.safetensors"
    write_public(path, job)
    origin = try_source(job, path)
    save_tensors(path, {"other": np.ones(3, np.float32)})
    with pytest.raises(InputError):
        copy_origin(job, origin, build(job, 0))
