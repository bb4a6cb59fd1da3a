"""The run folder: one path per record, one place that knows them."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from autoseg.errors import InputError
from autoseg.io.files import load_record, write_bytes
from autoseg.io.store import Store
from autoseg.records.base import compute_digest
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.plan import Configuration, Plan
from autoseg.records.request import PlanRequest
from autoseg.records.splits import Splits
from autoseg.records.training import ModelHeader


class LockHolder(msgspec.Struct):
    """Who holds a lock: the process, when it started (process numbers are used again), and its host."""

    pid: int
    started: float
    host: str


@dataclass(frozen=True)
class FoldFolder:
    """`models/NAME/fold_K`: everything about the training of one fold."""

    path: Path

    settings = property(lambda self: self.path / "settings.json")
    course = property(lambda self: self.path / "course.json")
    stop = property(lambda self: self.path / "stop")
    checkpoints = property(lambda self: self.path / "checkpoint")
    weights = property(lambda self: self.path / "weights.safetensors")
    model = property(lambda self: self.path / "model.json")
    log = property(lambda self: self.path / "log.csv")
    curves = property(lambda self: self.path / "curves.png")
    status = property(lambda self: self.path / "status.json")
    validation = property(lambda self: self.path / "validation")

    def is_finished(self) -> bool:
        """Whether there is a model to predict with."""
        return self.model.is_file() and self.weights.is_file()

    def load_model(self) -> ModelHeader:
        return load_record(ModelHeader, self.model)

    def find_holder(self) -> LockHolder | None:
        """The living process that trains or validates this fold, if any; one on another host counts as living."""
        return _find_living_holder(self.path / "lock")

    def is_held(self) -> bool:
        return self.find_holder() is not None

    def set_aside(self) -> None:
        """Moves what is here into a folder beside it (`fold_K.bak`, `.bak2`, …), so that a mistyped --overwrite loses nothing."""
        numbers = (f"{self.path.name}.bak{number if number > 1 else ''}" for number in range(1, 10_000))
        backup = next(self.path.with_name(name) for name in numbers if not self.path.with_name(name).exists())
        backup.mkdir()
        for path in self.path.iterdir():
            if path.name != "lock":
                path.rename(backup / path.name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second training of this fold out. Raises InputError that names the process which holds it; a dead one's is taken over."""
        path = self.path / "lock"
        self.path.mkdir(parents=True, exist_ok=True)
        _refuse_living_holder(path)
        this = psutil.Process()
        write_bytes(path, msgspec.json.encode(LockHolder(this.pid, this.create_time(), platform.node())))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _find_living_holder(path: Path) -> LockHolder | None:
    """Who holds the lock; None where nobody does, or a process of this host that is dead."""
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=LockHolder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if holder.host != platform.node():
        return holder
    try:
        return holder if abs(psutil.Process(holder.pid).create_time() - holder.started) < 1 else None
    except psutil.Error:
        return None


def _refuse_living_holder(path: Path) -> None:
    holder = _find_living_holder(path)
    if holder is not None:
        raise InputError(
            f"{path.parent} is being trained by process {holder.pid} on {holder.host}.",
            todo=f"Wait for it, train another fold, or delete {path} if that process is gone.",
        )


@dataclass(frozen=True)
class RunFolder:
    """A run: the folder that `autoseg plan -o` makes and every later command is given."""

    path: Path

    dataset = property(lambda self: self.path / "dataset.json")
    fingerprint = property(lambda self: self.path / "fingerprint.json")
    next_fingerprint = property(lambda self: self.path / "fingerprint.next.json")  # there while an update takes effect
    machine = property(lambda self: self.path / "machine.json")
    request = property(lambda self: self.path / "request.json")
    plan = property(lambda self: self.path / "plan.json")
    splits = property(lambda self: self.path / "splits.json")
    agenda = property(lambda self: self.path / "agenda.json")
    choice = property(lambda self: self.path / "choice.json")
    scores = property(lambda self: self.path / "scores.json")
    nnunet_plan = property(lambda self: self.path / "nnUNetPlans.json")

    def require_plan(self) -> None:
        """Raises InputError where the folder is no run."""
        if not self.plan.is_file():
            raise InputError(f"{self.path} is not a run: it has no plan.json.", todo=f"autoseg plan FOLDER_OF_SCANS -o {self.path}")

    def load_plan(self) -> Plan:
        self.require_plan()
        return load_record(Plan, self.plan)

    def load_dataset(self) -> Dataset:
        self.require_plan()
        return load_record(Dataset, self.dataset)

    def load_fingerprint(self) -> Fingerprint:
        """Raises InputError where it is not the one that the plan was made from.

        An update that was killed after it wrote the plan has left the new fingerprint beside the old one.
        """
        plan, fingerprint = self.load_plan(), load_record(Fingerprint, self.fingerprint)
        found = compute_digest(fingerprint)
        if found != plan.fingerprint_digest and self.next_fingerprint.is_file():
            fingerprint = load_record(Fingerprint, self.next_fingerprint)
            found = compute_digest(fingerprint)
        if found != plan.fingerprint_digest:
            raise InputError(
                f"{self.fingerprint} is not the one that {self.plan} was made from.",
                f"Its digest is {found[:12]}…, the plan's field fingerprint_digest is {plan.fingerprint_digest[:12]}….",
                todo=f"Put the former file back, or plan anew: autoseg plan FOLDER_OF_SCANS -o {self.path}",
            )
        return fingerprint

    def load_request(self) -> PlanRequest:
        """What the plan was asked for; nothing, where an older autoseg has not written it down."""
        return load_record(PlanRequest, self.request) if self.request.is_file() else PlanRequest()

    def load_splits(self) -> Splits:
        return load_record(Splits, self.splits)

    def store(self, configuration: str) -> Store:
        return Store(self.path / "prepared" / configuration)

    def fold(self, configuration: str, fold: int) -> FoldFolder:
        return FoldFolder(self.path / "models" / configuration / f"fold_{fold}")

    def finished_folds(self, configuration: str) -> list[int]:
        """Numbers of the folds that have a model."""
        folder = self.path / "models" / configuration
        numbers = [int(path.name.removeprefix("fold_")) for path in folder.glob("fold_*") if path.name.removeprefix("fold_").isdigit()]
        return sorted(number for number in numbers if self.fold(configuration, number).is_finished())


def choose_configuration(plan: Plan, name: str | None) -> Configuration:
    """The configuration asked for, else the plan's own choice. Raises InputError that lists the names there are."""
    wanted = name or plan.default_configuration
    for configuration in plan.configurations:
        if configuration.name == wanted:
            return configuration
    names = ", ".join(configuration.name for configuration in plan.configurations)
    raise InputError(f"The plan has no configuration '{wanted}'.", f"It has: {names}.")
