"""The planning profiles that are installed with the package."""

from importlib import resources

from autoseg.errors import InputError
from autoseg.records.base import decode
from autoseg.records.profile import Profile


def list_profiles() -> list[str]:
    """Names of the installed profiles."""
    return sorted(
        entry.name.removesuffix(".json") for entry in resources.files("autoseg.profiles").iterdir() if entry.name.endswith(".json")
    )


def read_profile(name: str) -> Profile:
    """Reads an installed profile. Raises InputError that lists the names there are."""
    if name not in list_profiles():
        raise InputError(f"There is no profile '{name}'.", f"Profiles: {', '.join(list_profiles())}.")
    return decode(Profile, (resources.files("autoseg.profiles") / f"{name}.json").read_bytes(), f"profile {name}")
