"""A loaded model: scans in, label maps out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from autoseg.arrays.labels import decode_labels, list_painted
from autoseg.arrays.masks import PaintedObjects, paint_objects
from autoseg.arrays.postprocessing import apply_rules
from autoseg.arrays.preparation import expand_spacing, measure_background, prepare_image
from autoseg.arrays.volume import Volume
from autoseg.errors import InputError
from autoseg.inference.export import Prediction, restore_labels, restore_probabilities
from autoseg.inference.objects import Members, find_objects, restore_objects
from autoseg.inference.sliding_window import compute_probabilities, predict_logits
from autoseg.io.run_folder import FoldFolder
from autoseg.io.scans import (
    drop_repetition,
    make_volume,
    make_volume_of_array,
    pick_component,
    read_scan,
    restore_image,
    split_components,
)
from autoseg.io.weights import load_tensors
from autoseg.networks.build import build_network, import_weights
from autoseg.networks.devices import Compute
from autoseg.records.base import digest_of
from autoseg.records.choice import Rule
from autoseg.records.dataset import list_parts
from autoseg.records.detection import Thresholds
from autoseg.records.machine import DeviceName
from autoseg.records.plan import count_network_outputs
from autoseg.records.prepared import Geometry
from autoseg.records.training import ModelHeader


@dataclass(frozen=True)
class Predictor:
    """One network per fold, averaged or, where it finds objects, joined. Safe to use from several threads.

    `others` are of other configurations (inference/ensemble.py): every configuration's probabilities count alike; beside a Mask R-CNN they
    are boundary networks. `rules` are applied to the masks of classes.
    """

    header: ModelHeader
    networks: tuple[torch.nn.Module, ...]
    compute: Compute
    mirror: bool
    digest: str
    others: tuple["Predictor", ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def finds_objects(self) -> bool:
        return self.header.configuration.product != "classes"

    @property
    def thresholds(self) -> Thresholds:
        """Those chosen for this model, else the plan's."""
        return self.header.thresholds or self.header.configuration.thresholds or Thresholds()

    def _prepare(self, volume: Volume) -> tuple[np.ndarray, Geometry, tuple[float, ...]]:
        """The image as the networks see it, the way back, and the volume's spacing, transposed by the model's axes."""
        axes = self.header.axes
        if volume.array.ndim - 1 != self.header.dimension:
            raise InputError(f"The model was trained on {self.header.dimension}D scans, this one is {volume.array.ndim - 1}D.")
        image, geometry = prepare_image(volume.array, volume.grid.spacing, axes, self.header.configuration)
        return image, geometry, tuple(volume.grid.spacing[axis] for axis in axes)

    def find(self, volume: Volume) -> PaintedObjects:
        """The objects in a canonical volume, on its grid."""
        configuration, axes = self.header.configuration, self.header.axes
        image, geometry, spacing = self._prepare(volume)
        members, *helpers = (Members(one.networks, one.header.configuration, one.compute, one.mirror) for one in (self, *self.others))
        found = find_objects(members, image, measure_background(image), self.thresholds, helpers)
        return paint_objects(restore_objects(found, geometry, spacing, axes, configuration, self.thresholds.mask), volume.grid.shape)

    def segment(self, volume: Volume) -> np.ndarray:
        """The label map on the volume's canonical grid: the values of the training labels, or the numbers of the objects."""
        return self.find(volume).make_label_map() if self.finds_objects else self.make_mask(self.run(volume))

    def run(self, volume: Volume) -> tuple[Prediction, ...]:
        """Mean probabilities over the folds for a canonical volume, one per configuration; of several in half precision, to hold them."""
        own = self._run_folds(volume)
        if not self.others:
            return (own,)
        answers = (own, *(answer for other in self.others for answer in other.run(volume)))
        return tuple(replace(answer, probabilities=answer.probabilities.half()) for answer in answers)

    def _run_folds(self, volume: Volume) -> Prediction:
        configuration = self.header.configuration
        image, geometry, spacing = self._prepare(volume)
        background = measure_background(image)
        total = None
        for network in self.networks:
            logits = predict_logits(network, image, background, configuration, self.compute, self.mirror)
            answer = compute_probabilities(logits, self.header.regions)
            total = answer if total is None else total + answer
        assert total is not None  # load_predictor refuses an empty list
        return Prediction(total / len(self.networks), geometry, spacing, expand_spacing(configuration, spacing))

    def make_mask(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """The label map with the values of the training labels, on the volume's canonical grid."""
        header = self.header
        numbers = restore_labels(predictions, header.axes, header.regions)
        if not self.rules:
            return decode_labels(numbers, header.classes, header.background_value)
        spacing = tuple(predictions[0].spacing[header.axes.index(axis)] for axis in range(len(header.axes)))
        if header.unit == "px":
            spacing = (1.0,) * len(spacing)  # as the rules were chosen
        labels = apply_rules(list_painted(header.classes)[numbers], self.rules, header.classes, spacing)
        return decode_labels(labels, list_parts(header.classes), header.background_value)

    def make_probabilities(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Probabilities (background and classes, or regions; …) on the volume's canonical grid, before any rules."""
        return restore_probabilities(predictions, self.header.axes, self.header.regions)

    def predict(self, image: Any) -> Any:
        """Segments one scan and returns the mask in kind; a model of objects gives their numbers (uint16, by falling score).

        `image` is a path (a list of paths where the model has several channels in files of their own), a SimpleITK image, or `(array,
        spacing)` with an array (z, y, x), (y, x) or with channels first, and spacing in mm in the same order. An array gives an array, all
        else a SimpleITK image on the scan's own grid.
        """
        channels, orientation = self.header.channels, self.header.orientation
        if isinstance(image, tuple):
            array = np.asarray(image[0])
            array = array[None] if array.ndim == self.header.dimension else array
            if len(array) != len(channels):
                raise InputError(f"The model has {len(channels)} channels, the array {len(array)}.")
            if len(image[1]) != array.ndim - 1:
                raise InputError(f"The array has {array.ndim - 1} axes, the spacing {len(image[1])} numbers.")
            return self.segment(make_volume_of_array(array, tuple(float(step) for step in image[1])))
        if isinstance(image, sitk.Image):
            components = drop_repetition(split_components(image))
            name = Path("the image")
            volume = make_volume([(name, pick_component(components, channel, name)) for channel in channels], orientation, "mm")
        else:
            paths = [Path(path) for path in image] if isinstance(image, (list, tuple)) else [Path(image)] * len(channels)
            volume = read_scan(paths, channels, orientation)
        return restore_image(self.segment(volume), volume)


def choose_compute(header: ModelHeader, device: DeviceName) -> Compute:
    """The precision and layout of the training where the device is the same; else float32, on a GPU bfloat16."""
    if header.device == device:
        return Compute(device, header.precision, header.channels_last)
    return Compute(device, "bf16" if device == "cuda" else "fp32")


def load_predictor(folds: list[FoldFolder], device: DeviceName, mirror: bool = False) -> Predictor:
    """Loads the models of one or more folds. Raises InputError where there is none, or where they are of different kinds."""
    if not folds:
        raise InputError("There is no model to predict with.")
    headers = [fold.load_model() for fold in folds]
    first = headers[0]
    kinds = {(digest_of(h.configuration), digest_of(h.channels), digest_of(h.classes)) for h in headers}
    if len(kinds) > 1:
        raise InputError("The folds were trained with different configurations, channels or classes and cannot be averaged.")
    compute = choose_compute(first, device)
    networks = []
    for fold, header in zip(folds, headers):
        weights, _ = load_tensors(fold.weights)
        own = header.configuration
        outputs = count_network_outputs(own, header.classes)
        network = build_network(own.network, len(header.channels), outputs, detection=own.detection)
        import_weights(network, weights, str(fold.weights))
        networks.append(compute.place_network(network).eval())
    return Predictor(first, tuple(networks), compute, mirror, digest_models(headers, mirror))


def digest_models(headers: Sequence[ModelHeader], mirror: bool = False) -> str:
    """What tells masks of these folds' mean from others."""
    chosen = [headers[0].thresholds] if headers[0].thresholds else []
    return digest_of([headers[0].configuration, [header.weights_digest for header in headers], mirror, *chosen])
