"""Untrained models, as folders to load."""

from pathlib import Path

import msgspec
import numpy as np
from builders import make_configuration

from autoseg.io.files import save_record
from autoseg.io.run_folder import FoldFolder
from autoseg.io.weights import save_tensors
from autoseg.networks.build import build_network, export_weights
from autoseg.records.dataset import Channel, ClassLabel
from autoseg.records.plan import Normalization
from autoseg.records.training import ModelHeader

CLASSES = (ClassLabel(name="edema", values=(2,)), ClassLabel(name="core", values=(7,)))
SPACING = (2.0, 1.0, 1.5)


def write_model(path: Path, seed: int = 0, channels: int = 1, **changes: object) -> FoldFolder:
    """An untrained model: its mask is noise, but always the same noise."""
    fold = FoldFolder(path)
    configuration = changes.pop("configuration", None) or make_configuration(normalization=(Normalization(scheme="zscore"),) * channels)
    digest = save_tensors(fold.weights, export_weights(build_network(configuration.network, channels, 3, seed)))
    header = ModelHeader(
        fold=seed,
        configuration=configuration,
        orientation="LPS",
        axes=(1, 0, 2),
        dimension=3,
        channels=tuple(Channel(name=str(index), pattern=f"{{case}}_{index}.nii.gz") for index in range(channels)),
        classes=CLASSES,
        background_value=0,
        unit="mm",
        label_pattern="{case}.nii.gz",
        weights_digest=digest,
        device="cpu",
        precision="fp32",
        channels_last=False,
        steps=1,
        training_cases=1,
    )
    save_record(fold.model, msgspec.structs.replace(header, **changes))
    return fold


def make_array(shape: tuple[int, ...] = (9, 12, 10)) -> np.ndarray:
    return np.random.default_rng(0).normal(5, 1, shape).astype(np.float32)
