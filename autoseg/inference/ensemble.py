"""Several configurations as one predictor, and kept probabilities as if they had just been predicted."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch

from autoseg.arrays.probabilities import pack_probabilities, unpack_probabilities
from autoseg.errors import InputError
from autoseg.inference.export import Prediction
from autoseg.inference.predictor import Predictor
from autoseg.records.base import digest_of
from autoseg.records.choice import Rule
from autoseg.records.dataset import are_regions
from autoseg.records.detection import Thresholds
from autoseg.records.kept import KeptProbabilities
from autoseg.records.training import ModelHeader


def join_predictors(predictors: Sequence[Predictor], rules: tuple[Rule, ...] = ()) -> Predictor:
    """One predictor that averages the probabilities of several configurations and applies `rules` to the masks.

    Raises InputError where their classes or channels differ, or they find objects, which cannot be averaged.
    """
    first, *others = predictors
    for other in others:
        if first.finds_objects or other.finds_objects:
            raise InputError("Objects of several configurations cannot be averaged.", _list_names(predictors))
        for field in ("classes", "channels", "axes", "orientation", "background_value"):
            if getattr(first.header, field) != getattr(other.header, field):
                raise InputError(f"{_list_names((first, other))} differ in their {field} and cannot be averaged.")
    digest = digest_predictors([predictor.digest for predictor in predictors], rules)
    return replace(first, others=tuple(others), rules=rules, digest=digest)


def digest_predictors(digests: Sequence[str], rules: tuple[Rule, ...] = ()) -> str:
    """What tells masks of these predictors' mean from others; one without rules keeps its own digest."""
    return digests[0] if len(digests) == 1 and not rules else digest_of([*digests, rules])


def _list_names(predictors: Sequence[Predictor]) -> str:
    return " and ".join(predictor.header.configuration.name for predictor in predictors)


def list_configurations(predictor: Predictor) -> tuple[str, ...]:
    """Names of the configurations that are averaged."""
    return tuple(one.header.configuration.name for one in (predictor, *predictor.others))


def apply_thresholds(predictor: Predictor, thresholds: Thresholds) -> Predictor:
    """The predictor with other thresholds of objects than its model has."""
    if thresholds == predictor.header.thresholds:
        return predictor
    header = msgspec.structs.replace(predictor.header, thresholds=thresholds)
    return replace(predictor, header=header, digest=digest_of([predictor.digest, thresholds]))


def describe_kept(prediction: Prediction, header: ModelHeader, case: str, mask_digest: str) -> KeptProbabilities:
    """The record of an answer that is kept."""
    return KeptProbabilities(
        case=case,
        configuration=header.configuration.name,
        geometry=prediction.geometry,
        spacing=prediction.spacing,
        target=prediction.target,
        axes=header.axes,
        orientation=header.orientation,
        classes=header.classes,
        background_value=header.background_value,
        mask_digest=mask_digest,
    )


def pack(prediction: Prediction, header: ModelHeader) -> np.ndarray:
    """An answer in a byte per class and voxel."""
    return pack_probabilities(prediction.probabilities.float().numpy(), header.regions)


def unpack(record: KeptProbabilities, packed: np.ndarray) -> Prediction:
    """A kept answer as it came from the networks, but for rounding to 1/255; float16."""
    values = torch.from_numpy(unpack_probabilities(packed, are_regions(record.classes)))
    return Prediction(values, record.geometry, record.spacing, record.target)
