"""How each channel's intensities are normalised (rules of nnU-Net, Nature Methods 2021, Methods)."""

import re

import numpy as np

from autoseg.arrays.intensities import pool_moments, pool_quantile
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint, PooledIntensities, QUANTILE_LEVELS
from autoseg.records.plan import Normalization
from autoseg.records.profile import Profile

MASK_THRESHOLD = 0.75  # median share of the scan left after cropping below which only the inside counts
SCHEMES = {"nonorm": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}
SILENT = re.compile(r"(?i)^(image|img|scan|volume|channel|data|input)?[ _-]*\d*$")  # names that say nothing of the scanner
AIR = (-3100.0, -900.0)  # Hounsfield units in which a CT scan's darkest voxels lie, padding included
TISSUE = (-150.0, 250.0)  # and a good part of the others
CT_SHARE = 0.9  # of the cases that have to look like CT


def pool_foreground(fingerprint: Fingerprint, channel: int) -> PooledIntensities:
    """Foreground statistics of a channel over all cases, every case weighted alike."""
    if fingerprint.summary is not None:
        return fingerprint.summary.channels[channel]
    parts = [case.channels[channel].foreground for case in fingerprint.cases]
    mean, std = pool_moments(parts)
    minimum, low, median, high, maximum = (pool_quantile(parts, level) for level in (0.0, 0.005, 0.5, 0.995, 1.0))
    return PooledIntensities(mean=mean, median=median, std=std, minimum=minimum, maximum=maximum, low=low, high=high)


def measure_kept(fingerprint: Fingerprint) -> float:
    """Median share of a scan's voxels that cropping leaves."""
    if fingerprint.summary is not None:
        return fingerprint.summary.kept
    return float(np.median([np.prod(case.cropped_shape) / np.prod(case.shape) for case in fingerprint.cases]))


def decide_normalization(dataset: Dataset, fingerprint: Fingerprint, profile: Profile) -> tuple[tuple[Normalization, ...], str]:
    """One normalisation per channel, by its name as nnU-Net does, with `profile.evidence` also by its values; the reason in one line."""
    kept = measure_kept(fingerprint)
    masked = bool(kept < MASK_THRESHOLD)
    chosen, reasons = [], []
    for index, channel in enumerate(dataset.channels):
        name = channel.name.casefold()
        evidence = _recognise_ct(channel.name, index, fingerprint) if profile.evidence else ""
        if name == "ct" or evidence:
            pool = pool_foreground(fingerprint, index)
            chosen.append(Normalization(scheme="ct", mean=pool.mean, std=pool.std, low=pool.low, high=pool.high))
            why = evidence or "Hounsfield units mean the same in every scan"
            reasons.append(f"{channel.name}: {why}; clipped to {pool.low:.0f} … {pool.high:.0f}")
        elif name in SCHEMES or (name == "none" and profile.evidence):
            chosen.append(Normalization(scheme=SCHEMES.get(name, "none")))  # type: ignore[arg-type]
            reasons.append(f"{channel.name}: by the channel's name")
        else:
            chosen.append(Normalization(scheme="zscore", mask=masked))
            where = f"inside the object, as cropping keeps only {kept:.0%} of a scan" if masked else "over the image"
            reasons.append(f"{channel.name}: units differ from scan to scan, so each is brought to mean 0 and deviation 1 {where}")
    return tuple(chosen), "; ".join(dict.fromkeys(reasons))


def _recognise_ct(name: str, channel: int, fingerprint: Fingerprint) -> str:
    """Why a channel whose name says nothing is taken as CT; empty where it is not."""
    if not SILENT.match(name) or fingerprint.summary is not None:
        return ""
    alike = [case for case in fingerprint.cases if _looks_like_ct(case, channel)]
    if len(alike) < CT_SHARE * len(fingerprint.cases):
        return ""
    darkest = np.median([case.channels[channel].whole.quantiles[0] for case in alike])
    return (
        f"taken as CT, as {len(alike)} of {len(fingerprint.cases)} scans go down to about {darkest:.0f}, as air does in Hounsfield units "
        f"(overrule with --channels mr=…)"
    )


def _looks_like_ct(case: CaseFingerprint, channel: int) -> bool:
    quantiles = dict(zip(QUANTILE_LEVELS, case.channels[channel].whole.quantiles))
    if not quantiles:
        return False
    tissue = any(TISSUE[0] <= quantiles[level] <= TISSUE[1] for level in (0.5, 0.75, 0.9))
    return AIR[0] <= quantiles[0.0] <= AIR[1] and quantiles[0.01] <= AIR[1] + 100 and tissue
