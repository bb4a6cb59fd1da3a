"""The planning profiles that are installed with the package."""

from importlib import resources
from importlib.abc import Traversable
from pathlib import Path

from autoseg.errors import InputError
from autoseg.records.base import decode
from autoseg.records.profile import Profile


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
    """Reads an installed profile. Raises InputError that lists the names there are."""
    if name not in list_profiles():
        raise InputError(f"There is no profile '{name}'.", f"Profiles: {', '.join(list_profiles())}.")
    return decode(Profile, (_find_folder() / f"{name}.json").read_bytes(), f"profile {name}")
