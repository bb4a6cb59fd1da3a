"""Writes a plan in nnU-Net's form, which nnU-Net 2.8.1 prepares data by and trains with."""

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from autoseg.io.nnunet import FAKE_SPACING
from autoseg.io.scans import get_ending
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint, PooledIntensities
from autoseg.records.plan import Configuration, NetworkSpec, Plan

PLANS_NAME = "nnUNetPlans"  # also the name of the file, without its ending
CASCADE = "3d_cascade"
NAMES = {CASCADE: "3d_cascade_fullres"}  # where nnU-Net's differ from ours
SCHEMES = {
    "zscore": "ZScoreNormalization",
    "ct": "CTNormalization",
    "none": "NoNormalization",
    "rescale": "RescaleTo01Normalization",
    "rgb": "RGBTo01Normalization",
}
ARCHITECTURES = {"plain": "PlainConvUNet", "residual_encoder": "ResidualEncoderUNet"}
ACTIVATIONS = {"leaky_relu": "LeakyReLU", "relu": "ReLU", "prelu": "PReLU"}
IMAGE_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
STACK_ENDINGS = (".tif", ".tiff")


def format_nnunet_plan(
    dataset: Dataset, fingerprint: Fingerprint, plan: Plan, intensities: tuple[PooledIntensities, ...], name: str = ""
) -> bytes:
    """The plan as `nnUNetPlans.json`, to be put into nnU-Net's folder of prepared data.

    `intensities` are those of the foreground per channel; `name` is the data set's for nnU-Net, made from its folder where none is given.
    Axes are counted in the order in which nnU-Net reads a file; images become volumes of one slice, as it stores them.
    """
    axes = tuple(plan.axes) if dataset.dimension == 3 else (0, *(axis + 1 for axis in plan.axes))
    spacing, shape = _measure_medians(fingerprint)
    content = {
        "dataset_name": _make_name(dataset, name),
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": [spacing[axis] for axis in axes],
        "original_median_shape_after_transp": [round(shape[axis]) for axis in axes],
        "image_reader_writer": _choose_reader(dataset),
        "transpose_forward": list(axes),
        "transpose_backward": [axes.index(axis) for axis in range(len(axes))],
        "configurations": _format_configurations(plan),
        "experiment_planner_used": f"autoseg {plan.profile}",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(number): _format_pool(pool) for number, pool in enumerate(intensities)},
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=4) + b"\n"


def _make_name(dataset: Dataset, name: str) -> str:
    """`Dataset001_NAME`; a name that has a number already keeps it.

    >>> re.fullmatch(r"Dataset\\d{3}_.+", "Dataset004_Hippocampus") is not None
    True
    """
    plain = re.sub(r"\W+", "_", name or Path(dataset.root).name).strip("_") or "scans"
    return plain if re.fullmatch(r"Dataset\d{3}_.+", plain) else f"Dataset001_{plain}"


def _measure_medians(fingerprint: Fingerprint) -> tuple[list[float], list[float]]:
    """Median spacing (mm) and cropped shape (voxels) over cases; images get one slice at nnU-Net's distance (999 pixel edges)."""
    spacings = [case.spacing for case in fingerprint.cases]
    shapes = [case.cropped_shape for case in fingerprint.cases]
    if len(spacings[0]) == 2:
        spacings = [(FAKE_SPACING * max(spacing), *spacing) for spacing in spacings]
        shapes = [(1, *shape) for shape in shapes]
    return np.median(spacings, axis=0).tolist(), np.median(shapes, axis=0).tolist()


def _choose_reader(dataset: Dataset) -> str:
    """nnU-Net's reader for the ending of the data set's files; that of NIfTI where there are no files."""
    images = next((case.images for case in dataset.cases if case.images), ())
    ending = get_ending(images[0]) if images else ""
    if ending in STACK_ENDINGS and dataset.dimension == 3:
        return "Tiff3DIO"
    return "NaturalImage2DIO" if ending in IMAGE_ENDINGS else "SimpleITKIO"


def _format_pool(pool: PooledIntensities) -> dict[str, float]:
    return {
        "max": pool.maximum,
        "mean": pool.mean,
        "median": pool.median,
        "min": pool.minimum,
        "percentile_00_5": pool.low,
        "percentile_99_5": pool.high,
        "std": pool.std,
    }


def _format_configurations(plan: Plan) -> dict[str, dict[str, Any]]:
    formatted: dict[str, dict[str, Any]] = {}
    cascade = next((made for made in plan.configurations if made.name == CASCADE), None)
    for configuration in plan.configurations:
        name = NAMES.get(configuration.name, configuration.name)
        if configuration is cascade:
            formatted[name] = {"inherits_from": "3d_fullres", "previous_stage": configuration.previous}
            continue
        formatted[name] = _format_configuration(configuration)
        if cascade is not None and configuration.name == cascade.previous:
            formatted[name]["next_stage"] = NAMES[CASCADE]
    return formatted


def _format_configuration(configuration: Configuration) -> dict[str, Any]:
    resampling = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": f"{PLANS_NAME}_{configuration.name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": configuration.patch_size,
        "median_image_size_in_voxels": configuration.median_shape,
        "spacing": configuration.spacing,
        "normalization_schemes": [SCHEMES[channel.scheme] for channel in configuration.normalization],
        "use_mask_for_norm": [channel.mask for channel in configuration.normalization],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": _format_resampling(labels=False, order=3),
        "resampling_fn_seg_kwargs": _format_resampling(labels=True, order=1),
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": _format_resampling(labels=False, order=1),
        "architecture": _format_architecture(configuration.network),
        "batch_dice": configuration.batch_dice,
    }


def _format_resampling(labels: bool, order: int) -> dict[str, Any]:
    return {"is_seg": labels, "order": order, "order_z": 0, "force_separate_z": None}


def _format_architecture(network: NetworkSpec) -> dict[str, Any]:
    """The import path of the network class, and its parameters."""
    dimension = len(network.strides[0])
    encoder = {"n_conv_per_stage": network.convolutions} if network.kind == "plain" else {"n_blocks_per_stage": network.blocks}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{ARCHITECTURES[network.kind]}",
        "arch_kwargs": {
            "n_stages": len(network.strides),
            "features_per_stage": network.features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": network.kernel_sizes,
            "strides": network.strides,
            **encoder,
            "n_conv_per_stage_decoder": network.decoder_convolutions,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": f"torch.nn.modules.dropout.Dropout{dimension}d" if network.dropout else None,
            "dropout_op_kwargs": {"p": network.dropout} if network.dropout else None,
            "nonlin": f"torch.nn.{ACTIVATIONS[network.activation]}",
            "nonlin_kwargs": {} if network.activation == "prelu" else {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
