"""Makes the builders of this folder importable, also in spawned workers, which inherit sys.path; and runs that several tests start from."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

SCANS = [Path(__file__).parents[1] / "shared" / "data", Path(__file__).parents[2] / "shared" / "data"]


@pytest.fixture(scope="session", autouse=True)
def _rate_from_the_table(tmp_path_factory):
    """Plans made in this process take the CPU's rate from the table: equal on every run, and without the seconds of a measurement.

    What a child process measures is kept in a home of its own.
    """
    from autoseg.commands import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(plan, "_measure_rate", lambda folder, machine, options: machine)
        yield


@pytest.fixture(scope="session")
def real_scans():
    """The folder of real scans beside the checkout; without it the test is skipped."""
    for folder in SCANS:
        if folder.is_dir():
            return folder
    pytest.skip(f"the real scans are not here: no folder {SCANS[-1]}")


@pytest.fixture
def autoseg(capsys):
    """The command line in this process: `autoseg("plan", folder, "-o", run)` gives exit code and output."""
    from whole_way import Answer

    from autoseg.cli import main

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """A made-up data set; not to be changed."""
    from whole_way import make_folder

    return make_folder(tmp_path_factory.mktemp("made_up"))


@pytest.fixture(scope="session")
def planned(scans, tmp_path_factory):
    """A planned run of it; not to be changed."""
    from whole_way import PLAN_OPTIONS, on_one_core

    from autoseg.commands.plan import plan

    run = tmp_path_factory.mktemp("planned") / "run"
    with on_one_core():
        plan(scans, run, PLAN_OPTIONS)
    return run


@pytest.fixture(scope="session")
def trained(planned, tmp_path_factory):
    """The run with fold 0 trained for a few steps; not to be changed."""
    from whole_way import STEPS, on_one_core

    from autoseg.commands.train import TrainOptions, train

    run = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(planned, run)
    with on_one_core():
        train(run, 0, options=TrainOptions(device="cpu", steps=STEPS, precision="fp32", workers=1))
    return run


@pytest.fixture
def planned_copy(planned, tmp_path):
    """A planned run that a test may change."""
    return shutil.copytree(planned, tmp_path / "run")


@pytest.fixture
def trained_copy(trained, tmp_path):
    """A trained run that a test may change."""
    return shutil.copytree(trained, tmp_path / "run")
