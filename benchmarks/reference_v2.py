"""The same recipe by batchgeneratorsv2, for benchmarks/augmentation.py: runs with the Python of an environment that has it.

python reference_v2.py BOXES.npz: reads loader patches, then augments one per line of input and answers with the seconds it took.
"""

import json
import sys
import time

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform


def build(spec: dict, patch: list[int], axes: list[int]) -> ComposeTransforms:
    """nnU-Net's order and numbers (spec/nnunet.md 4.8), from our AugmentationSpec; labels by nearest neighbour."""
    angle = np.deg2rad(spec["rotation"][0])
    spatial = SpatialTransform(
        tuple(patch),
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=spec["rotation_probability"],
        rotation=(-angle, angle),
        p_scaling=spec["scaling_probability"],
        scaling=tuple(spec["scaling"]),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        mode_seg="nearest",
    )
    noise = GaussianNoiseTransform(tuple(spec["noise_std"]), p_per_channel=1, synchronize_channels=True)
    blur = GaussianBlurTransform(tuple(spec["blur_sigma"]), False, False, p_per_channel=spec["blur_channel_probability"])
    brightness = MultiplicativeBrightnessTransform(BGContrast(tuple(spec["brightness"])), synchronize_channels=False, p_per_channel=1)
    contrast = ContrastTransform(BGContrast(tuple(spec["contrast"])), preserve_range=True, synchronize_channels=False, p_per_channel=1)
    low = SimulateLowResolutionTransform(
        tuple(spec["low_resolution"]),
        synchronize_channels=False,
        synchronize_axes=True,
        ignore_axes=(),
        p_per_channel=spec["low_resolution_channel_probability"],
    )
    gammas = [
        GammaTransform(BGContrast(tuple(spec["gamma"])), p_invert_image=p, synchronize_channels=False, p_per_channel=1, p_retain_stats=1)
        for p in (1, 0)
    ]
    parts = [
        (noise, spec["noise_probability"]),
        (blur, spec["blur_probability"]),
        (brightness, spec["brightness_probability"]),
        (contrast, spec["contrast_probability"]),
        (low, spec["low_resolution_probability"]),
        (gammas[0], spec["inverted_gamma_probability"]),
        (gammas[1], spec["gamma_probability"]),
    ]
    randomised = [RandomTransform(part, apply_probability=probability) for part, probability in parts]
    return ComposeTransforms([spatial, *randomised, MirrorTransform(allowed_axes=tuple(axes))])


def main() -> None:
    torch.set_num_threads(1)
    file = np.load(sys.argv[1])
    task = json.loads(str(file["task"]))
    recipe = build(task["spec"], task["patch"], task["axes"])
    images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    torch.manual_seed(0)
    np.random.seed(0)
    for line in sys.stdin:
        number = int(line) % len(images)
        begun = time.perf_counter()
        made = recipe(image=images[number], segmentation=labels[number][None])
        seconds = time.perf_counter() - begun
        shape = list(made["image"].shape)
        print(json.dumps({"seconds": seconds, "shape": shape}), flush=True)


if __name__ == "__main__":
    main()
