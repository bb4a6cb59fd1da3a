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
from autoseg.records.plan import Configuration
from autoseg.records.training import ModelHeader


def join_predictors(predictors: Sequence[Predictor], rules: tuple[Rule, ...] = ()) -> Predictor:
    """One predictor that averages the probabilities of several configurations and applies `rules` to the masks.

    Objects are those of a Mask R-CNN, which comes first whatever the order; boundary networks that see the same prepared image help it to
    their outlines. Raises InputError where classes or channels differ, or the products cannot be averaged.
    """
    first, *others = sorted(predictors, key=lambda predictor: predictor.header.configuration.product != "objects")
    for other in others:
        if not _are_joinable(first.header.configuration, other.header.configuration):
            why = "A Mask R-CNN is helped by boundary networks of its own spacing and normalization; classes go with classes."
            raise InputError(f"{_list_names((first, other))} cannot be averaged.", why)
        for field in ("classes", "channels", "axes", "orientation", "background_value"):
            if getattr(first.header, field) != getattr(other.header, field):
                raise InputError(f"{_list_names((first, other))} differ in their {field} and cannot be averaged.")
    digest = digest_predictors([predictor.digest for predictor in predictors], rules)
    return replace(first, others=tuple(others), rules=rules, digest=digest)


def _are_joinable(first: Configuration, other: Configuration) -> bool:
    """Whether both give classes, or the second is a boundary network that sees the image which the first, a Mask R-CNN, sees."""
    products = first.product, other.product
    same = first.spacing == other.spacing and first.normalization == other.normalization
    return products == ("classes", "classes") or (products == ("objects", "boundaries") and same)


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
