"""`autoseg ensemble`: one folder of masks from several, by their mean probabilities or by vote; and the same within a run, fold by fold."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from autoseg.arrays.labels import decode_labels, encode_labels, find_values, make_membership, round_labels
from autoseg.arrays.probabilities import vote, vote_regions
from autoseg.arrays.volume import Volume
from autoseg.commands.evaluate import MANIFEST, find_masks
from autoseg.commands.predict import PredictOptions, list_scans, predict_cases
from autoseg.errors import AutosegError, CasesFailed, InputError
from autoseg.inference.ensemble import join_predictors, unpack
from autoseg.inference.export import choose_classes, restore_labels
from autoseg.inference.predictor import digest_models, load_predictor
from autoseg.io.files import digest_files, load_record, name_full_disk, remove_partials, save_record
from autoseg.io.kept import find_kept, read_kept
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import FoldFolder, RunFolder, choose_configuration
from autoseg.io.scans import describe_grid_mismatch, get_probabilities_name, read_label, read_probabilities, read_scan, write_mask
from autoseg.networks.devices import choose_device, use_cores
from autoseg.progress import Progress, Silent
from autoseg.records.base import digest_of
from autoseg.records.dataset import Channel, ClassLabel, are_regions
from autoseg.records.predictions import PredictedCase, Predictions

Form = Literal["kept", "probabilities", "labels"]
FORMS: dict[Form, str] = {"kept": "kept probabilities", "probabilities": "written probabilities", "labels": "label maps only"}
GREY = (Channel(name="mask", pattern="{case}"),)


@dataclass(frozen=True)
class Source:
    """A folder of predictions: its masks by case, and its manifest if it has one."""

    folder: Path
    masks: dict[str, Path]
    manifest: Predictions | None


@dataclass(frozen=True)
class Members:
    """The masks of one case, one per member; their probabilities lie beside them."""

    case: str
    masks: tuple[Path, ...]


def ensemble(folders: Sequence[str | Path], output: str | Path, progress: Progress = Silent()) -> Predictions:
    """Joins two or more folders of masks of the same cases into `output`: masks and predictions.json.

    Where all have kept probabilities (a fold's validation folder), or all have written ones (predict --probabilities), these are averaged;
    else each voxel is of the class that most folders say, among equals that of the first folder which says one of them. Regions are voted
    one by one, by their majority; half and half is what the first folder says. Probabilities are those of before any rules of a choice;
    votes are on the masks. Finished cases are kept.

    Raises InputError for folders of other classes or cases, and CasesFailed (3), when the others are done, for cases on different grids.
    """
    sources = [_read_source(Path(folder)) for folder in folders]
    _refuse_repetition([source.folder for source in sources], Path(output))
    _refuse_missing(sources)
    form = _choose_form(sources, progress)
    names = [source.manifest.configuration if source.manifest else "" for source in sources]
    digests = [source.manifest.model_digest if source.manifest else str(source.folder) for source in sources]
    fresh = {"configuration": "ensemble", "configurations": tuple(names), "rules": (), "folds": (), "cases": ()}
    manifest = msgspec.structs.replace(_agree(sources), model_digest=digest_of([form, digests]), **fresh)
    groups = [Members(case, tuple(source.masks[case] for source in sources)) for case in sorted(sources[0].masks)]
    made = _combine_cases(groups, COMBINE[form], manifest, Path(output), progress)
    progress.say(f"{len(groups)} masks in {output}", event="masks", count=len(groups), folder=str(output))
    return made


def _read_source(folder: Path) -> Source:
    masks, manifest = find_masks(folder)
    if manifest is None:
        written = {name for case in masks if (name := get_probabilities_name(case)) in {path.name for path in masks.values()}}
        masks = {case: path for case, path in masks.items() if path.name not in written}
    elif manifest.task == "instance":
        raise InputError(f"{folder} holds objects, which cannot be averaged.", todo="Ensembles are made of masks of classes.")
    return Source(folder, masks, manifest)


def _refuse_repetition(folders: list[Path], output: Path) -> None:
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder, count in Counter(places).items() if count > 1), None)
    if twice is not None or len(folders) < 2:
        raise InputError(f"An ensemble needs two folders or more{f', and {twice} is given twice' if twice else ''}.")
    if output.resolve() in places:
        raise InputError(f"{output} is one of the folders to be joined.", todo="Give another folder with -o.")


def _refuse_missing(sources: list[Source]) -> None:
    everything = {case for source in sources for case in source.masks}
    for source in sources:
        missing = sorted(everything - set(source.masks))
        if missing:
            names = f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
            raise InputError(f"{source.folder} has no mask of {len(missing)} of {len(everything)} cases: {names}")


def _agree(sources: list[Source]) -> Predictions:
    """What the values in the masks mean. Raises InputError where two manifests say different things."""
    manifests = [(source.folder, source.manifest) for source in sources if source.manifest]
    if not manifests:
        return _describe_values(sources)
    (first, known), *others = manifests
    for folder, manifest in others:
        for field in ("classes", "background_value"):
            if getattr(manifest, field) != getattr(known, field):
                raise InputError(
                    f"{folder} and {first} have different {field.replace('_', ' ')} and cannot be joined.",
                    f"{first}: {_list_values(known)}; {folder}: {_list_values(manifest)}.",
                )
    return known


def _list_values(manifest: Predictions) -> str:
    classes = (f"{label.name} {'+'.join(map(str, label.values))}" for label in manifest.classes)
    return ", ".join((f"background {manifest.background_value}", *classes))


def _describe_values(sources: list[Source]) -> Predictions:
    """Every value other than 0 as a class of its own, for masks that nothing is known about."""
    paths = [path for source in sources for path in source.masks.values()]
    values = sorted({value for path in paths for value in find_values(read_label(path)[0])})
    classes = tuple(ClassLabel(name=f"label_{value}", values=(value,)) for value in values)
    return Predictions(
        model_digest="", folds=(), configuration="", classes=classes, background_value=0, unit="mm", label_pattern="", cases=()
    )


def _choose_form(sources: list[Source], progress: Progress) -> Form:
    """What all cases of all folders have, the best first; says so."""
    held = [_list_forms(source) for source in sources]
    form = next(form for form in FORMS if all(form in own for own in held))
    if form != "labels":
        progress.say(f"Mean of {FORMS[form]}.", event="ensemble", form=form)
        return form
    folders = ", ".join(f"{source.folder}: {FORMS[own[0]]}" for source, own in zip(sources, held))
    cure = "autoseg select RUN keeps those of folds that were validated by an older version, autoseg predict --probabilities writes them"
    progress.say(f"Votes on label maps, as not all have the same kind of probabilities ({folders}); {cure}.", event="ensemble", form=form)
    return form


def _list_forms(source: Source) -> list[Form]:
    """What all cases of a folder have: probabilities beside their masks, and masks."""
    digests = {case.case: case.mask_digest for case in source.manifest.cases} if source.manifest else {}
    has: dict[Form, bool] = {
        "kept": all(find_kept(source.folder, case, digests.get(case, "")) for case in source.masks),
        "probabilities": all((source.folder / get_probabilities_name(case)).is_file() for case in source.masks),
        "labels": True,
    }
    return [form for form in FORMS if has[form]]


def ensemble_validation(
    run: RunFolder, configurations: tuple[str, ...], folds: tuple[int, ...], output: Path, progress: Progress = Silent()
) -> dict[str, Path]:
    """Case → label map in `output`, on its scan's grid: the mean of what each configuration's model of the fold that has not seen the case

    says. Probabilities that are missing (folds of older versions) are predicted first; finished cases are kept. Of a single configuration
    the masks are those of its validation.
    """
    splits = run.load_splits().folds
    seen: dict[str, int] = {}
    for number in folds:
        for case in splits[number].validation:
            seen.setdefault(case, number)
    digests = [_complete_validation(run, name, number, progress) for name, number in product(configurations, folds)]
    if not seen:
        raise InputError(f"The folds of {run.path} have no validation cases.")
    pairs = product(configurations, dict.fromkeys(seen.values()))
    made = {(name, number): find_masks(run.fold(name, number).validation) for name, number in pairs}
    known = next(manifest for _, manifest in made.values() if manifest)
    groups = [Members(case, tuple(made[name, number][0][case] for name in configurations)) for case, number in seen.items()]
    manifest = msgspec.structs.replace(
        known, model_digest=digest_of(digests), folds=folds, configuration=configurations[0], configurations=configurations, cases=()
    )
    combine = _average_kept if len(configurations) > 1 else _vote
    combined = _combine_cases(groups, combine, manifest, output, progress)
    return {case.case: output / case.mask for case in combined.cases}


def predict_validation(
    run: RunFolder, configurations: tuple[str, ...], folds: tuple[int, ...], output: Path, progress: Progress = Silent()
) -> dict[str, Path]:
    """Case → map of objects in `output`: what the configurations' models of the fold that has not seen the case find together.

    Finished cases are kept. Raises InputError where they cannot be joined, CasesFailed where a case cannot be predicted.
    """
    dataset, splits, masks = run.load_dataset(), run.load_splits().folds, {}
    for number in folds:
        device = choose_device("auto")
        predictor = join_predictors([load_predictor([run.fold(name, number)], device) for name in configurations])
        folder, scans = output / f"fold_{number}", list_scans(dataset, splits[number].validation)
        with use_cores(count_cores()):
            manifest = predict_cases(predictor, scans, folder, (number,), PredictOptions(), progress)
        _refuse_failed(manifest)
        masks.update({case.case: folder / case.mask for case in manifest.cases})
    return masks


def _refuse_failed(manifest: Predictions) -> None:
    failed = [case for case in manifest.cases if case.state == "failed"]
    if failed:
        raise CasesFailed(f"{len(failed)} validation cases could not be predicted: {failed[0].case}  {failed[0].message}")


def _complete_validation(run: RunFolder, name: str, number: int, progress: Progress) -> str:
    """Predicts the validation cases of a fold of which no probabilities of its present model are kept; returns the model's digest."""
    folder, dataset = run.fold(name, number), run.load_dataset()
    if choose_configuration(run.load_plan(), name).product != "classes":
        raise InputError(f"{name} finds objects, which cannot be averaged.")
    if not folder.is_finished():
        raise InputError(
            f"Fold {number} of {name} is not finished.", todo=f"autoseg train {run.path} --fold {number} --configuration {name}"
        )
    digest, wanted = digest_models([folder.load_model()]), run.load_splits().folds[number].validation
    missing = set(wanted) - _list_kept(folder, digest)
    if missing:
        progress.say(
            f"Fold {number} of {name} has kept no probabilities of {len(missing)} validation cases: predicting them.", event="keep"
        )
        predictor, scans = load_predictor([folder], choose_device("auto")), list_scans(dataset, wanted)
        with folder.lock(), use_cores(count_cores()):
            manifest = predict_cases(predictor, scans, folder.validation, (number,), PredictOptions(keep=True), progress)
        _refuse_failed(manifest)
    return digest


def _list_kept(folder: FoldFolder, digest: str) -> set[str]:
    """Validation cases with a mask of this model and kept probabilities."""
    try:
        manifest = load_record(Predictions, folder.validation / MANIFEST)
    except InputError:
        return set()
    done = [case for case in manifest.cases if case.state == "done" and (folder.validation / case.mask).is_file()]
    return {case.case for case in done if manifest.model_digest == digest and find_kept(folder.validation, case.case, case.mask_digest)}


Combine = Callable[[Members, Predictions], tuple[np.ndarray, Volume]]


def _combine_cases(groups: list[Members], combine: Combine, manifest: Predictions, output: Path, progress: Progress) -> Predictions:
    """Makes the cases one after the other; raises CasesFailed with all that could not be made when the others are."""
    output.mkdir(parents=True, exist_ok=True)
    remove_partials(output)
    kept = _keep_finished(output, manifest)
    progress.start("Averaging", len(groups))
    with use_cores(count_cores()), name_full_disk(output):
        for members in groups:
            scan_digest = digest_of([digest_files([mask]) for mask in members.masks])
            entry = kept.get(members.case)
            if entry is None or entry.scan_digest != scan_digest:
                entry = _combine_case(members, combine, manifest, output, scan_digest)
            manifest = msgspec.structs.replace(manifest, cases=(*manifest.cases, entry))
            save_record(output / MANIFEST, manifest)
            progress.advance(members.case)
    progress.finish()
    failed = [f"{case.case}  {case.message}" for case in manifest.cases if case.state == "failed"]
    if failed:
        done = f"The {len(groups) - len(failed)} others are written and valid."
        raise CasesFailed("\n".join((f"{len(failed)} of {len(groups)} cases could not be joined:", *failed)), done=done)
    return manifest


def _keep_finished(output: Path, manifest: Predictions) -> dict[str, PredictedCase]:
    try:
        earlier = load_record(Predictions, output / MANIFEST)
    except InputError:
        return {}
    done = [case for case in earlier.cases if case.state == "done" and (output / case.mask).is_file()]
    same = earlier.model_digest == manifest.model_digest
    return {case.case: case for case in done if same and digest_files([output / case.mask]) == case.mask_digest}


def _combine_case(members: Members, combine: Combine, manifest: Predictions, output: Path, scan_digest: str) -> PredictedCase:
    first = members.masks[0]
    mask = output / first.name
    mask.unlink(missing_ok=True)
    entry = PredictedCase(case=members.case, scan=str(first), mask=mask.name, scan_digest=scan_digest, mask_digest="", state="failed")
    try:
        labels, volume = combine(members, manifest)
    except AutosegError as error:
        return msgspec.structs.replace(entry, message=" ".join(text for text in (error.what, error.why) if text))
    write_mask(labels, volume, mask)
    return msgspec.structs.replace(entry, state="done", mask_digest=digest_files([mask]))


def _read_masks(masks: Sequence[Path], orientation: str = "stored") -> list[Volume]:
    """The masks of a case. Raises InputError where they do not lie on one grid."""
    volumes = [read_scan([mask], GREY, orientation) for mask in masks]
    first = volumes[0].stored
    for mask, volume in zip(masks, volumes):
        if volume.stored.shape != first.shape:
            raise InputError(f"{mask} has {volume.stored.shape} voxels, {masks[0]} {first.shape}.")
        mismatch = describe_grid_mismatch(first, volume.stored)
        if mismatch:
            raise InputError(f"{masks[0]} and {mask} lie on different grids: {mismatch}.")
    return volumes


def _average_kept(members: Members, manifest: Predictions) -> tuple[np.ndarray, Volume]:
    records = [find_kept(mask.parent, members.case, digest_files([mask])) for mask in members.masks]
    found = [record for record in records if record is not None]
    if len(found) < len(records):
        raise InputError(f"{members.masks[records.index(None)]} was changed since its probabilities were kept.")
    first = found[0]
    for mask, record in zip(members.masks, found, strict=True):
        crops = [(own.axes, own.orientation, own.geometry.shape, own.geometry.box) for own in (first, record)]
        if crops[0] != crops[1]:
            raise InputError(f"The models of {members.masks[0]} and {mask} saw different parts of the scan, or in another order of axes.")
    volume = _read_masks(members.masks, first.orientation)[0]
    answers = [unpack(record, read_kept(mask.parent, record)) for mask, record in zip(members.masks, found)]
    numbers = restore_labels(answers, first.axes, are_regions(manifest.classes))
    return decode_labels(numbers, manifest.classes, manifest.background_value), volume


def _average_written(members: Members, manifest: Predictions) -> tuple[np.ndarray, Volume]:
    volume = _read_masks(members.masks)[0]
    regions = are_regions(manifest.classes)
    shape = (len(manifest.classes) + (not regions), *volume.stored.shape)
    total = np.zeros(shape, dtype=np.float32)
    for mask in members.masks:
        path = mask.parent / get_probabilities_name(members.case)
        probabilities = read_probabilities(path)
        if probabilities.shape != shape:
            raise InputError(f"{path} has {probabilities.shape} values (class, z, y, x), not {shape}.")
        total += probabilities
    numbers = choose_classes(torch.from_numpy(total / len(members.masks)), regions).numpy()
    return decode_labels(numbers, manifest.classes, manifest.background_value), volume


def _vote(members: Members, manifest: Predictions) -> tuple[np.ndarray, Volume]:
    volumes = _read_masks(members.masks)
    maps, classes = [], manifest.classes
    for mask, volume in zip(members.masks, volumes):
        try:
            maps.append(encode_labels(round_labels(volume.array[0]), classes, manifest.background_value, None))
        except ValueError as error:
            raise InputError(f"{mask}: {error}.") from None
    numbers = vote_regions(maps, make_membership(classes)) if are_regions(classes) else vote(maps)
    return decode_labels(numbers, classes, manifest.background_value), volumes[0]


COMBINE: dict[Form, Combine] = {"kept": _average_kept, "probabilities": _average_written, "labels": _vote}
