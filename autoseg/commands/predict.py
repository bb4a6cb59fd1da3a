"""`autoseg predict`: masks for scans, each on its scan's own grid."""

import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.listing import list_objects, turn_objects
from autoseg.arrays.volume import Volume
from autoseg.commands.evaluate import MANIFEST, Wanted, evaluate
from autoseg.commands.models import Request, find_models, load_models
from autoseg.errors import AutosegError, CasesFailed, InputError
from autoseg.inference.ensemble import describe_kept, list_configurations, pack
from autoseg.inference.predictor import Predictor
from autoseg.io.files import digest_files, list_files, load_record, name_full_disk, remove_partials, save_record, write_bytes
from autoseg.io.found_objects import get_list_name, write_list, write_table
from autoseg.io.kept import find_kept, remove_kept, write_kept
from autoseg.io.machine import count_cores
from autoseg.io.patterns import get_file_part, match_paths, split_pattern
from autoseg.io.scans import (
    find_turn,
    get_ending,
    get_mask_name,
    get_probabilities_name,
    read_scan,
    strip_ending,
    write_mask,
    write_probabilities,
)
from autoseg.networks.devices import use_cores
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Dataset
from autoseg.records.objects import CaseObjects
from autoseg.records.predictions import PredictedCase, Predictions
from autoseg.records.training import ModelHeader
from autoseg.report.outlines import draw_outlines

Scans = dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class PredictOptions:
    """How to predict; `cases` is "fold:K" or a list of case names, `folds` the models to average.

    `keep` writes the probabilities of classes on the network's grid in a byte each, for ensembles to be made of.
    """

    configuration: str | None = None
    folds: tuple[int, ...] = ()
    cases: str = ""
    tta: bool = False
    probabilities: bool = False
    preview: bool = False
    reference: str | None = None
    device: str = "auto"
    keep: bool = False


def load(model: str | Path, device: str = "auto", tta: bool = False, progress: Progress = Silent()) -> Predictor:
    """Loads a run (by its choice, where it has one), or one fold of it, for predictions in Python: `autoseg.load(model).predict(image)`."""
    return load_models(find_models(Path(model), Request(), progress), device, tta)


def predict(
    model: str | Path,
    scans: str | Path,
    output: str | Path,
    options: PredictOptions = PredictOptions(),
    progress: Progress = Silent(),
) -> Predictions:
    """Predicts scans (a file, a folder, or a pattern with {case}) with a run or one of its folds; writes masks and predictions.json.

    Cases whose mask is there, made by the same model from the same scan, are kept. Raises CasesFailed when some scans failed, after the
    others are done.
    """
    models = find_models(Path(model), Request(options.configuration, options.folds, options.cases), progress)
    predictor = load_models(models, options.device, options.tta)
    if options.probabilities and predictor.finds_objects:
        raise InputError(
            "--probabilities writes probabilities of classes, and this model finds objects.", todo="Leave it out: each object has a score."
        )
    found = find_scans(str(scans), predictor.header)
    if models.cases is not None:
        found = {case: paths for case, paths in found.items() if case in models.cases}
        if not found:
            raise InputError(f"None of the cases asked for with --cases {options.cases} is in {scans}.")
    numbers = ", ".join(map(str, models.numbers))
    progress.say(f"{len(found)} scans, {' + '.join(list_configurations(predictor))}, fold {numbers}, on {predictor.compute.device}")
    with use_cores(count_cores()):
        manifest = predict_cases(predictor, found, Path(output), models.numbers, options, progress)
    failed = [case for case in manifest.cases if case.state == "failed"]
    done = len(manifest.cases) - len(failed)
    if done:
        progress.say(f"{done} masks in {output}", event="masks", count=done, folder=str(output))
    if options.reference and done:
        evaluate(output, options.reference, wanted=Wanted(only_predicted=True), progress=progress)
    if failed:
        table = "\n".join(f"{case.case}  {case.message}" for case in failed)
        raise CasesFailed(
            f"{len(failed)} of {len(manifest.cases)} scans could not be predicted:\n{table}",
            done=f"The {done} others are written and valid.",
            todo="Correct the files and repeat the command: finished scans are kept.",
        )
    return manifest


def find_scans(scans: str, header: ModelHeader) -> Scans:
    """Case → one path per channel.

    A folder is searched by the patterns of the training images, with and without their folders; where they fit nothing and the model has
    one file per case, every scan in the folder is a case. Raises InputError where there is nothing, or channels are missing everywhere.
    """
    if "{" in scans:
        root, pattern = split_pattern(scans)
        return _complete({case: root / path for case, path in match_paths(pattern, list_files(root)).items()}, header, scans)
    root = Path(scans)
    if root.is_file():
        return _complete({strip_ending(root.name): root}, header, scans)
    if not root.is_dir():
        raise InputError(f"{scans} does not exist.", todo="Give a scan, a folder of scans, or a pattern with {case}.")
    paths = [path for path in list_files(root) if get_ending(path)]
    patterns = [channel.pattern for channel in header.channels]
    fits = [
        _match_all(patterns, header.label_pattern, paths),
        _match_all([get_file_part(p) for p in patterns], header.label_pattern, paths),
    ]
    best = max(fits, key=len)
    if best:
        return {case: tuple(root / path for path in files) for case, files in best.items()}
    flat = {strip_ending(path): root / path for path in paths if "/" not in path}
    if not flat:
        raise InputError(f"No scan in {scans} fits the names of the training scans.", f"They were {', '.join(dict.fromkeys(patterns))}.")
    return _complete(flat, header, scans)


def list_scans(dataset: Dataset, cases: Sequence[str]) -> Scans:
    """The files of some of a data set's cases."""
    wanted, root = set(cases), Path(dataset.root)
    return {case.id: tuple(root / path for path in case.images) for case in dataset.cases if case.id in wanted}


def _match_all(patterns: list[str], label_pattern: str, paths: list[str]) -> dict[str, tuple[str, ...]]:
    """Cases for which every channel has a file. A file that fits the label pattern is no image where that is the narrower of the two

    ({case}-seg beside {case}, but not {case} beside {case}_0000).
    """
    label_patterns = (label_pattern, get_file_part(label_pattern)) if label_pattern else ()
    labels = {pattern: set(match_paths(pattern, paths).values()) for pattern in label_patterns}
    files = []
    for pattern in patterns:
        taken = {path for narrow, own in labels.items() if len(narrow) > len(pattern) for path in own}
        files.append(match_paths(pattern, [path for path in paths if path not in taken]))
    return {case: tuple(found[case] for found in files) for case in files[0] if all(case in found for found in files)}


def _complete(files: dict[str, Path], header: ModelHeader, scans: str) -> Scans:
    """One file per case serves all channels only where the training had one file per case."""
    distinct = list(dict.fromkeys(channel.pattern for channel in header.channels))
    if not files:
        raise InputError(f"No scan fits {scans}.")
    if len(distinct) > 1:
        names = ", ".join(channel.name for channel in header.channels)
        raise InputError(
            f"The model needs {len(distinct)} files per case ({names}), but {scans} gives one.", todo="Give the folder instead."
        )
    return {case: (path,) * len(header.channels) for case, path in sorted(files.items())}


def predict_cases(
    predictor: Predictor, scans: Scans, output: Path, folds: tuple[int, ...], options: PredictOptions, progress: Progress
) -> Predictions:
    """Predicts the cases one after the other (reading ahead) and keeps the manifest up to date after each."""
    header = predictor.header
    output.mkdir(parents=True, exist_ok=True)
    remove_partials(output)
    manifest = Predictions(
        task="instance" if predictor.finds_objects else "semantic",
        model_digest=predictor.digest,
        folds=folds,
        configuration=header.configuration.name,
        configurations=list_configurations(predictor),
        rules=predictor.rules,
        classes=header.classes,
        background_value=header.background_value,
        ignore_value=header.ignore_value,
        unit=header.unit,
        label_pattern=header.label_pattern,
        cases=(),
    )
    kept = _keep_finished(output, manifest, options)
    progress.start("Predicting", len(scans))
    try:
        for reading in _read_ahead(scans, kept, header):
            entry = kept.get(reading.case)
            if entry is None or reading.volume is not None or options.probabilities:
                entry = _predict_case(predictor, reading, output, options, progress)
            manifest = msgspec.structs.replace(manifest, cases=(*manifest.cases, entry))
            with name_full_disk(output):
                save_record(output / MANIFEST, manifest)
            progress.advance(reading.case)
    finally:
        if predictor.finds_objects:  # also when interrupted: the table tells of the cases that are done
            with name_full_disk(output):
                write_table(output, [case.case for case in manifest.cases if case.state == "done"])
    progress.finish()
    return manifest


def _keep_finished(output: Path, manifest: Predictions, options: PredictOptions) -> dict[str, PredictedCase]:
    """Entries of an earlier manifest of the same model whose masks are untouched, and that have a preview and kept probabilities

    where they are wanted.
    """
    try:
        earlier = load_record(Predictions, output / MANIFEST)
    except InputError:
        return {}
    if earlier.model_digest != manifest.model_digest:
        return {}
    done = [case for case in earlier.cases if case.state == "done" and (output / case.mask).is_file()]
    if manifest.task == "instance":
        done = [case for case in done if (output / get_list_name(case.case)).is_file()]
    if options.keep:
        done = [case for case in done if find_kept(output, case.case, case.mask_digest)]
    if options.preview:
        done = [case for case in done if _get_preview(output, case.case).is_file()]
    return {case.case: case for case in done if digest_files([output / case.mask]) == case.mask_digest}


def _get_preview(output: Path, case: str) -> Path:
    return output / f"{case}_preview.png"


def _is_same_scan(entry: PredictedCase, paths: tuple[Path, ...]) -> bool:
    return digest_files(dict.fromkeys(paths)) == entry.scan_digest


@dataclass(frozen=True)
class Reading:
    """One case with its volume, or the error of reading it; None for a case whose mask is there and whose scan is unchanged."""

    case: str
    paths: tuple[Path, ...]
    volume: Volume | AutosegError | None


def _read_ahead(scans: Scans, kept: dict[str, PredictedCase], header: ModelHeader) -> Iterator[Reading]:
    """Reads one case ahead of the one that is being predicted."""

    def read(case: str, paths: tuple[Path, ...]) -> Reading:
        try:
            if case in kept and _is_same_scan(kept[case], paths):
                return Reading(case, paths, None)
            return Reading(case, paths, read_scan(list(paths), header.channels, header.orientation))
        except AutosegError as error:
            return Reading(case, paths, error)

    with ThreadPoolExecutor(1, thread_name_prefix="autoseg-read") as executor:
        waiting: deque[Future[Reading]] = deque()
        for case, paths in scans.items():
            waiting.append(executor.submit(read, case, paths))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _predict_case(predictor: Predictor, reading: Reading, output: Path, options: PredictOptions, progress: Progress) -> PredictedCase:
    """One scan; an old mask of this case and all that belongs to it are removed first, so that a failure cannot leave them behind."""
    case, paths = reading.case, reading.paths
    mask = output / get_mask_name(case, paths[0])
    for old in (mask, output / get_list_name(case), _get_preview(output, case), output / get_probabilities_name(case)):
        old.unlink(missing_ok=True)
    remove_kept(output, case)
    entry = PredictedCase(case=case, scan=str(paths[0]), mask=mask.name, scan_digest="", mask_digest="", state="failed")
    try:
        if isinstance(reading.volume, AutosegError):
            raise reading.volume
        scan = reading.volume or read_scan(list(paths), predictor.header.channels, predictor.header.orientation)
        write = _write_objects if predictor.finds_objects else _write_classes
        labels = write(predictor, scan, mask, case, options)
        if options.preview:
            with name_full_disk(output):
                write_bytes(_get_preview(output, case), draw_outlines(scan.array, labels, scan.grid.spacing))
    except CasesFailed:
        raise
    except AutosegError as error:
        return msgspec.structs.replace(entry, message=" ".join(text for text in (error.what, error.why) if text))
    except (RuntimeError, MemoryError, ValueError) as error:
        progress.detail(traceback.format_exc())
        return msgspec.structs.replace(entry, message=f"{type(error).__name__}: {error}")
    digests = {"scan_digest": digest_files(dict.fromkeys(paths)), "mask_digest": digest_files([mask])}
    return msgspec.structs.replace(entry, state="done", **digests)


def _write_classes(predictor: Predictor, scan: Volume, mask: Path, case: str, options: PredictOptions) -> np.ndarray:
    """Writes the mask, and the probabilities if wanted; returns the label map on the scan's canonical grid."""
    predictions = predictor.run(scan)
    labels = predictor.make_mask(predictions)
    with name_full_disk(mask.parent):
        write_mask(labels, scan, mask)
        if options.probabilities:
            write_probabilities(predictor.make_probabilities(predictions), scan, mask.parent / get_probabilities_name(case))
        if options.keep:
            (own,) = predictions  # an ensemble is made of what its members keep
            write_kept(mask.parent, describe_kept(own, predictor.header, case, digest_files([mask])), pack(own, predictor.header))
    return labels


def _write_objects(predictor: Predictor, scan: Volume, mask: Path, case: str, options: PredictOptions) -> np.ndarray:
    """Writes the map of ids and the list of objects, on the grid of the scan's file; returns the map on the canonical grid."""
    painted = predictor.find(scan)
    labels = painted.make_label_map()
    if labels.dtype == np.uint32 and mask.suffix == ".png":
        raise InputError(f"A PNG cannot number {len(painted.objects)} objects, only 65535.", todo="Save the scan as TIFF.")
    listed = CaseObjects(
        case=case,
        mask=mask.name,
        shape=scan.stored.shape,
        spacing=scan.stored.spacing,
        unit="px" if scan.unit == "px" else "mm",
        objects=list_objects(turn_objects(painted, *find_turn(scan)), tuple(label.name for label in predictor.header.classes), scan.stored),
    )
    with name_full_disk(mask.parent):
        write_list(mask.parent, listed)
        write_mask(labels, scan, mask)
    return labels
