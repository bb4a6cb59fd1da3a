"""The planning profiles that are installed with the package."""

from importlib import resources
from importlib.abc import Traversable
from pathlib import Path

from autoseg.errors import InputError
from autoseg.io.files import load_record
from autoseg.records.base import decode
from autoseg.records.profile import Profile

POSITIVE = ("base_features", "decoder_convolutions", "reference_memory", "minimum_batch", "epochs", "steps_per_epoch", "learning_rate")
POSITIVE_ROWS = ("maximum_features", "reference_elements", "reference_batch", "fitted_batch")
SHARES = ("dataset_share", "low_resolution_share", "warmup", "averaging")


def _find_folder() -> Traversable:
    """Where the profiles lie: in the installed package, or in the source tree that Python was started in."""
    try:
        return resources.files("autoseg.profiles")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "plans"


def list_profiles() -> list[str]:
    """Names of the installed profiles."""
    return sorted(entry.name.removesuffix(".json") for entry in _find_folder().iterdir() if entry.name.endswith(".json"))


def read_profile(name: str) -> Profile:
    """Reads an installed profile, or a file of one's own (a path that ends with .json).

    Raises InputError that lists the names there are, or names the field that cannot be.
    """
    if name.endswith(".json"):
        profile = load_record(Profile, Path(name))
        _check(profile, name)
        return profile
    if name not in list_profiles():
        known = f"Profiles: {', '.join(list_profiles())}."
        raise InputError(f"There is no profile '{name}'.", known, todo="A profile of your own is a file: --profile MINE.json")
    return decode(Profile, (_find_folder() / f"{name}.json").read_bytes(), f"profile {name}")


def _check(profile: Profile, source: str) -> None:
    """Numbers that no plan can be made of."""
    encoder = "encoder_convolutions" if profile.network == "plain" else "encoder_blocks"
    for field in POSITIVE:
        if getattr(profile, field) <= 0:
            raise InputError(f"{source}: field {field} is {getattr(profile, field)}.", "A number above 0 is needed.")
    for field in (encoder, *POSITIVE_ROWS):
        values = getattr(profile, field)
        if not values or min(values) <= 0:
            why = f"A network of kind {profile.network} needs numbers above 0."
            raise InputError(f"{source}: field {field} is {list(values)}.", why)
    for field in SHARES:
        if not 0 <= getattr(profile, field) <= 1:
            raise InputError(f"{source}: field {field} is {getattr(profile, field)}.", "A share from 0 to 1 is needed.")
    detection = profile.detection
    if any(least < 1 or most < least for least, most in zip(detection.minimum_batch, detection.maximum_batch)):
        raise InputError(
            f"{source}: field detection.maximum_batch is {list(detection.maximum_batch)}.", "At least detection.minimum_batch."
        )
    if profile.budget == "operations" and (profile.steps < 1 or profile.maximum_batch < profile.minimum_batch):
        raise InputError(f"{source}: budget 'operations' needs steps of 1 or more and a maximum_batch not below minimum_batch.")
