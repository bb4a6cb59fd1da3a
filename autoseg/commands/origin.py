"""`--init`: another model's weights as a start."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.commands.job import Job
from autoseg.errors import InputError
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.io.weights import load_tensors, load_weights
from autoseg.networks.build import build_network
from autoseg.networks.detector import Detector
from autoseg.networks.resnet import map_public_names
from autoseg.networks.unet import UNet
from autoseg.records.dataset import Dataset
from autoseg.records.training import ModelHeader, Origin
from autoseg.training.transfer import HEADS, Names, copy_weights

ENCODER = "encoder."


@dataclass(frozen=True)
class Source:
    """A finished fold to start from."""

    folder: FoldFolder
    header: ModelHeader

    @property
    def names(self) -> Names:
        return _get_names(self.header)


def _get_names(described: ModelHeader | Dataset) -> Names:
    return Names(tuple(channel.name for channel in described.channels), tuple(label.name for label in described.classes))


def find_source(path: Path, configuration: str, fold: int) -> Source:
    """A fold folder, or of a run the same configuration and fold, if it has them: another fold may have seen this one's validation cases.

    Raises InputError where nothing is finished.
    """
    folder = FoldFolder(path)
    if not folder.model.is_file():
        run = RunFolder(path)
        plan = run.load_plan()
        name = configuration if run.finished_folds(configuration) else plan.default_configuration
        finished = run.finished_folds(name)
        if not finished:
            raise InputError(f"{path} has no finished fold to start from.", todo=f"autoseg train {path} --fold 0")
        folder = run.fold(name, fold if fold in finished else finished[0])
    return Source(folder, folder.load_model())


def try_source(job: Job, path: Path) -> Origin:
    """What of a model fits the job's network, told to the user. Raises InputError where nothing does."""
    if path.suffix == ".safetensors":
        return _try_public(job, path)
    source = find_source(path, job.configuration.name, job.number)
    network = _build(job)
    weights = load_weights(source.folder.weights, source.header.weights_digest)
    names = _get_names(job.dataset)
    transfer = copy_weights(network, names, weights, source.names)
    if all(name.startswith(HEADS) for name in transfer.copied):
        raise InputError(
            f"Nothing of {source.folder.path} fits the network of {job.configuration.name}.",
            f"Its features are {source.header.configuration.network.features}, here they are {job.configuration.network.features}.",
            todo="Give another model, or leave --init out.",
        )
    job.progress.say(
        f"Starting from {source.folder.path}: {transfer.describe(names, source.names)}. The learning rate is the plan's.",
        event="init",
        copied=len(transfer.copied),
        left=list(transfer.left),
    )
    return Origin(
        source=str(source.folder.path.resolve()),
        weights_digest=source.header.weights_digest,
        copied=len(transfer.copied),
        tensors=len(transfer.copied) + len(transfer.left),
    )


def _build(job: Job) -> UNet | Detector:
    configuration = job.configuration
    return build_network(configuration.network, job.channels, job.classes, detection=configuration.detection)


def _try_public(job: Job, path: Path) -> Origin:
    """What of public weights, without a header of ours, fits the job's encoder. Raises InputError where not all of it is there."""
    if job.configuration.network.kind != "resnet50":
        raise InputError(
            f"{path} can start no network of kind {job.configuration.network.kind}.",
            "Public weights are for an encoder of kind resnet50; other kinds start from a model of autoseg.",
            todo=f"Plan one: autoseg plan {job.run.path} --set configurations.instance_2d.network.kind=resnet50",
        )
    tensors, _ = load_tensors(path)
    weights, names, network = map_public_names(tensors, job.channels), _get_names(job.dataset), _build(job)
    transfer = copy_weights(network, names, weights, names)
    left = [name for name in transfer.left if name.startswith(ENCODER)]
    if left:
        count = sum(name.startswith(ENCODER) for name in network.state_dict())
        raise InputError(
            f"{path} does not hold the weights of a ResNet-50.",
            f"{count - len(left)} of the encoder's {count} tensors fit; the first that does not is {left[0]}.",
            todo="Give one with torchvision's names (conv1.weight, layer1.0.conv1.weight, … or backbone.body.…), or leave --init out.",
        )
    job.progress.say(
        f"Starting from {path}: all {len(transfer.copied)} tensors of the encoder fitted, {len(transfer.left)} others start fresh; "
        f"{len(tensors)} were in the file. Weights for other than {job.channels} channels are summed and shared out evenly.",
        event="init",
        copied=len(transfer.copied),
        left=list(transfer.left),
    )
    digest, count = hashlib.sha256(path.read_bytes()).hexdigest(), len(network.state_dict())
    return Origin(source=str(path.resolve()), weights_digest=digest, copied=len(transfer.copied), tensors=count)


def copy_origin(job: Job, origin: Origin, network: torch.nn.Module) -> None:
    """Copies the weights that the settings name. Raises InputError where they are not there any more."""
    path, names = Path(origin.source), _get_names(job.dataset)
    if path.suffix == ".safetensors":
        copy_weights(network, names, map_public_names(load_weights(path, origin.weights_digest), job.channels), names)
        return
    source = find_source(path, job.configuration.name, job.number)
    copy_weights(network, names, load_weights(source.folder.weights, origin.weights_digest), source.names)
