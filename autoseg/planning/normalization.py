"""How each channel's intensities are normalised (rules of nnU-Net, Nature Methods 2021, Methods)."""

import numpy as np

from autoseg.arrays.intensities import pool_moments, pool_quantile
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.plan import Normalization

MASK_THRESHOLD = 0.75  # median share of the scan left after cropping below which only the inside counts
SCHEMES = {"nonorm": "none", "none": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}


def decide_normalization(dataset: Dataset, fingerprint: Fingerprint) -> tuple[tuple[Normalization, ...], str]:
    """One normalisation per channel, and the reason in one line."""
    kept = np.median([np.prod(case.cropped_shape) / np.prod(case.shape) for case in fingerprint.cases])
    masked = bool(kept < MASK_THRESHOLD)
    chosen, reasons = [], []
    for index, channel in enumerate(dataset.channels):
        name = channel.name.casefold()
        if name == "ct":
            parts = [case.channels[index].foreground for case in fingerprint.cases]
            mean, std = pool_moments(parts)
            low, high = pool_quantile(parts, 0.005), pool_quantile(parts, 0.995)
            chosen.append(Normalization(scheme="ct", mean=mean, std=std, low=low, high=high))
            reasons.append(f"{channel.name}: Hounsfield units mean the same in every scan; clipped to {low:.0f} … {high:.0f}")
        elif name in SCHEMES:
            chosen.append(Normalization(scheme=SCHEMES[name]))  # type: ignore[arg-type]
            reasons.append(f"{channel.name}: by the channel's name")
        else:
            chosen.append(Normalization(scheme="zscore", mask=masked))
            where = f"inside the object, as cropping keeps only {kept:.0%} of a scan" if masked else "over the image"
            reasons.append(f"{channel.name}: units differ from scan to scan, so each is brought to mean 0 and deviation 1 {where}")
    return tuple(chosen), "; ".join(dict.fromkeys(reasons))
