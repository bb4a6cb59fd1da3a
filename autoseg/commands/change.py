"""`autoseg plan RUN --set`: the user's own values in a plan, checked and marked as theirs."""

from pathlib import Path

from autoseg.commands.explain import describe_training, format_bytes, format_duration, open_run
from autoseg.io.files import load_record, name_full_disk, save_record
from autoseg.io.run_folder import RunFolder
from autoseg.planning.change import list_changed, list_values, set_fields
from autoseg.planning.check import describe_tight_memory
from autoseg.planning.faults import format_value
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Configuration, Plan, preparation_digest


def change(run: str | Path, settings: dict[str, str], progress: Progress = Silent()) -> Plan:
    """Sets values of a run's plan, each as text under its dotted name, and rewrites plan.json.

    Raises InputError, with nothing written, for an unknown or fixed field, a value of the wrong type, and a plan that could not be trained.
    """
    folder = open_run(run, "--set")
    plan, dataset = load_record(Plan, folder.plan), load_record(Dataset, folder.dataset)  # unchecked: what is wrong can be set right
    changed = set_fields(plan, settings, dataset)
    if changed == plan:
        progress.say("Nothing changes: the plan has these values already.", event="change", changed=0)
        return plan
    with name_full_disk(folder.path):
        save_record(folder.plan, changed)
    progress.say(format_change(plan, changed, dataset, folder), event="change", changed=len(settings))
    for line in describe_tight_memory(changed, dataset):
        progress.warn(line)
    return changed


def format_change(old: Plan, new: Plan, dataset: Dataset, folder: RunFolder) -> str:
    """Old and new values, what follows from them, which models are of the former plan, and what to type next."""
    lines = []
    if old.default_configuration != new.default_configuration:
        lines.append(f"default_configuration: {old.default_configuration} → {new.default_configuration}")
    pairs = [(a, b) for a, b in zip(old.configurations, new.configurations) if a != b]
    for before, after in pairs:
        was, now = list_values(before), list_values(after)
        for field in list_changed(before, after):
            lines.append(f"configurations.{after.name}.{field}: {format_value(was.get(field), field)} → {format_value(now[field], field)}")
        lines += [f"  {text}" for text in _list_consequences(before, after)]
        if preparation_digest(before, old, dataset) != preparation_digest(after, new, dataset):
            lines.append("  scans are prepared anew when training starts")
        lines += _list_models(folder, after.name)
    lines += [f"Written: {folder.plan}", f"Next: autoseg train {folder.path} --fold 0{_name_configuration(pairs, new)}"]
    return "\n".join(lines)


def _list_consequences(before: Configuration, after: Configuration) -> list[str]:
    old, new = before.memory, after.memory
    facts = [
        ("median scan (voxels)", format_value(before.median_shape, "median_shape"), format_value(after.median_shape, "median_shape")),
        ("memory to train", format_bytes(old.training_bytes), format_bytes(new.training_bytes)),
        ("memory to predict", format_bytes(old.prediction_bytes), format_bytes(new.prediction_bytes)),
        ("prepared scans", format_bytes(old.prepared_bytes), format_bytes(new.prepared_bytes)),
        ("a step", _tell_step(before), _tell_step(after)),
        ("a fold", describe_training(before), describe_training(after)),
    ]
    return [f"{name}: {a} → {b}" for name, a, b in facts if a != b]


def _tell_step(configuration: Configuration) -> str:
    return format_duration(configuration.seconds_per_step) if configuration.seconds_per_step else "time not known"


def _list_models(folder: RunFolder, name: str) -> list[str]:
    folds = sorted(path.name for path in (folder.path / "models" / name).glob("fold_*") if path.name.removeprefix("fold_").isdigit())
    if not folds:
        return []
    return [f"  models/{name}: {', '.join(folds)} trained with the former plan; --overwrite trains anew"]


def _name_configuration(pairs: list[tuple[Configuration, Configuration]], plan: Plan) -> str:
    """The flag that trains what was changed, where that is not the default."""
    names = [after.name for _, after in pairs]
    return f" --configuration {names[0]}" if names and plan.default_configuration not in names else ""
