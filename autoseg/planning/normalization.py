"""How each channel's intensities are normalised (rules of nnU-Net, Nature Methods 2021, Methods), and what the scans themselves say."""

import re
from typing import Literal

import numpy as np

from autoseg.arrays.intensities import pool_moments, pool_quantile
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint, Intensities, PooledIntensities
from autoseg.records.plan import Normalization
from autoseg.records.profile import Profile

MASK_THRESHOLD = 0.75  # median share of the scan left after cropping below which only the inside counts
SCHEMES: dict[str, Literal["none", "rescale", "rgb"]] = {"nonorm": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}
SAYS_NOTHING = re.compile(r"(images?|imgs?|channels?|ch|inputs?|scans?|data|volumes?|vol|raw|unknown)?[ _-]*\d*")
LOWEST = (-1000.0, -1024.0, -2000.0, -3024.0)  # Hounsfield units of air, as a scanner's zero, and around a round field of view
LOWEST_TOLERANCE = 50.0
AIR = -900.0
SOFT_TISSUE = (-100.0, 200.0)
AGREEMENT = 0.9  # share of the scans that have to look like CT


def pool_foreground(fingerprint: Fingerprint, channel: int) -> PooledIntensities:
    """Foreground intensities of one channel over the data set, every case weighted alike; nnU-Net's where it was taken over from there."""
    if fingerprint.summary is not None:
        return fingerprint.summary.channels[channel]
    parts = [case.channels[channel].foreground for case in fingerprint.cases]
    filled = [part for part in parts if part.count]
    mean, std = pool_moments(parts)
    return PooledIntensities(
        mean=mean,
        median=pool_quantile(parts, 0.5),
        std=std,
        minimum=min((part.quantiles[0] for part in filled), default=0.0),
        maximum=max((part.quantiles[-1] for part in filled), default=0.0),
        low=pool_quantile(parts, 0.005),
        high=pool_quantile(parts, 0.995),
    )


def measure_kept(fingerprint: Fingerprint) -> float:
    """Median over cases of the share of a scan's voxels that cropping leaves."""
    if fingerprint.summary is not None:
        return fingerprint.summary.kept
    return float(np.median([np.prod(case.cropped_shape) / np.prod(case.shape) for case in fingerprint.cases]))


def decide_normalization(dataset: Dataset, fingerprint: Fingerprint, profile: Profile) -> tuple[tuple[Normalization, ...], str]:
    """One normalisation per channel, and the reason in one line.

    Names decide as in nnU-Net; with the profile's `evidence`, a name that says nothing leaves it to the intensities.
    """
    decided = [_decide_channel(channel.name, index, fingerprint, profile) for index, channel in enumerate(dataset.channels)]
    names: dict[str, list[str]] = {}
    for channel, (_, reason) in zip(dataset.channels, decided):
        names.setdefault(reason, []).append(channel.name)
    reasons = [f"{', '.join(own)}: {reason}" for reason, own in names.items()]
    return tuple(chosen for chosen, _ in decided), "; ".join(reasons)


def _decide_channel(name: str, index: int, fingerprint: Fingerprint, profile: Profile) -> tuple[Normalization, str]:
    name = name.casefold()
    if name == "ct":
        return _make_ct(fingerprint, index, "Hounsfield units mean the same in every scan")
    if name in SCHEMES:
        return Normalization(scheme=SCHEMES[name]), "by the channel's name"
    if profile.evidence and name == "none":  # a word that nnU-Net does not know
        return Normalization(scheme="none"), "by the channel's name"
    if profile.evidence and SAYS_NOTHING.fullmatch(name):
        recognised = _recognise_ct(fingerprint, index)
        if recognised:
            return _make_ct(fingerprint, index, recognised)
    kept = measure_kept(fingerprint)
    masked = kept < MASK_THRESHOLD
    where = f"inside the object, as cropping keeps only {kept:.0%} of a scan" if masked else "over the image"
    return (
        Normalization(scheme="zscore", mask=masked),
        f"units differ from scan to scan, so each is brought to mean 0 and deviation 1 {where}",
    )


def _make_ct(fingerprint: Fingerprint, channel: int, reason: str) -> tuple[Normalization, str]:
    pooled = pool_foreground(fingerprint, channel)
    chosen = Normalization(scheme="ct", mean=pooled.mean, std=pooled.std, low=pooled.low, high=pooled.high)
    return chosen, f"{reason}; clipped to {pooled.low:.0f} … {pooled.high:.0f}"


def _recognise_ct(fingerprint: Fingerprint, channel: int) -> str:
    """Why a channel is taken as CT; empty where too few scans look like it, or where single cases were not measured."""
    parts = [case.channels[channel].whole for case in fingerprint.cases if case.channels]
    alike = [part for part in parts if _looks_like_ct(part)]
    if not alike or len(alike) < AGREEMENT * len(parts):
        return ""
    lowest = float(np.median([part.quantiles[0] for part in alike]))
    return (
        f"taken as CT, as {len(alike)} of {len(parts)} scans reach down to {lowest:.0f} as air does in Hounsfield units, and hold soft "
        f"tissue ({SOFT_TISSUE[0]:.0f} … {SOFT_TISSUE[1]:.0f}) too; if they are no CT, name the channel: --channels mr=PATTERN"
    )


def _looks_like_ct(whole: Intensities) -> bool:
    """Whether the lowest value is one that CT scanners write, and more than single voxels are air and soft tissue."""
    if not whole.count:
        return False
    inner = whole.quantiles[1:-1]
    low, high = SOFT_TISSUE
    starts = any(abs(whole.quantiles[0] - value) <= LOWEST_TOLERANCE for value in LOWEST)
    return starts and any(value < AIR for value in inner) and any(low <= value <= high for value in inner)
