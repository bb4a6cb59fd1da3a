"""`--init`: another model's weights as a start."""

from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.commands.fold import Job
from autoseg.errors import InputError
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.io.weights import load_weights
from autoseg.networks.build import build_network
from autoseg.records.dataset import Dataset
from autoseg.records.training import ModelHeader, Origin
from autoseg.training.transfer import HEADS, Names, copy_weights


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
    source = find_source(path, job.configuration.name, job.number)
    network = build_network(job.configuration.network, job.channels, job.classes)
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


def copy_origin(job: Job, origin: Origin, network: torch.nn.Module) -> None:
    """Copies the weights that the settings name. Raises InputError where they are not there any more."""
    source = find_source(Path(origin.source), job.configuration.name, job.number)
    copy_weights(network, _get_names(job.dataset), load_weights(source.folder.weights, origin.weights_digest), source.names)
