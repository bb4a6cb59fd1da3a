"""Nothing is lost: a training is killed (SIGKILL) 20 times at random moments, each time followed by the same command.

At the end its weights are bit-equal to those of a training that was left alone, and no file is left over. Checkpoints are written every
third of a second instead of every two minutes, so that 20 short lives get somewhere; all else is the plain command. The moments are drawn
evenly over a process's first seconds: some fall into the imports, some into a write.

python benchmarks/kill.py
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import save

from autoseg.commands.demo import make_scans
from autoseg.commands.plan import PlanOptions, plan

KILLS = 20
STEPS = 1500
SEED = 11
MODEL = Path("models/3d_fullres/fold_0")
CHILD = """
import sys
from autoseg.cli import main
from autoseg.training import trainer
trainer.CHECKPOINT_SECONDS = 0.3
sys.exit(main())
"""


def start(run: Path) -> subprocess.Popen[bytes]:
    words = ["train", str(run), "--fold", "0", "--device", "cpu", "--precision", "fp32", "--steps", str(STEPS), "--workers", "1", "-q"]
    return subprocess.Popen([sys.executable, "-c", CHILD, *words], start_new_session=True, stdout=subprocess.DEVNULL)


def finish(run: Path) -> float:
    """Runs the command to its end; returns the seconds it took."""
    begun = time.monotonic()
    process = start(run)
    if process.wait():
        raise SystemExit(f"the training ended with {process.returncode}")
    return time.monotonic() - begun


def kill_once(run: Path, seconds: float) -> str:
    """Starts the command and kills it after `seconds`; returns where it stood then."""
    process = start(run)
    try:
        process.wait(seconds)
        return "had ended"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    steps = [path.stem.removeprefix("step_") for path in (run / MODEL / "checkpoint").glob("step_*")]
    partial = any(run.rglob(".partial-*"))
    return f"step {int(max(steps, default='0'))}{', writing' if partial else ''}"


def measure_start(run: Path) -> float:
    """Seconds from the start of the command to its first checkpoint of a fresh fold; then it is killed, too."""
    begun = time.monotonic()
    process = start(run)
    while not list((run / MODEL / "checkpoint").glob("step_*")) and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - begun
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return seconds


def list_strays(run: Path) -> list[str]:
    """What a killed process may leave: halves of files, a lock, a stop file, checkpoints beyond two."""
    strays = [path for path in run.rglob("*") if path.name.startswith(".partial-") or path.name in ("lock", "stop")]
    strays += sorted((run / MODEL / "checkpoint").iterdir())[:-2]
    return [str(path.relative_to(run)) for path in strays]


def measure(folder: Path) -> dict[str, Any]:
    make_scans(folder / "scans", cases=6, shape=(16, 24, 24))
    plan(folder / "scans", folder / "killed", PlanOptions(device="cpu", minutes=0.1, classes=("body", "head"), workers=1))
    killed, whole = folder / "killed", folder / "whole"
    begun = time.monotonic()
    seconds = measure_start(killed)  # the first kill
    generator = np.random.default_rng(SEED)
    places = ["first checkpoint"]
    while len(places) < KILLS and places[-1] != "had ended":
        places.append(kill_once(killed, generator.uniform(0, 1.3 * seconds)))
    finish(killed)
    lasted = time.monotonic() - begun
    shutil.copytree(killed, whole, ignore=shutil.ignore_patterns("models"))
    (whole / MODEL).mkdir(parents=True)
    shutil.copy(killed / MODEL / "settings.json", whole / MODEL)  # the precision that was timed
    alone = finish(whole)
    weights = [(run / MODEL / "weights.safetensors").read_bytes() for run in (killed, whole)]
    return {
        "kills": sum(place != "had ended" for place in places),
        "while_writing": sum("writing" in place for place in places),
        "places": places,
        "steps": STEPS,
        "bit_equal": weights[0] == weights[1],
        "strays": list_strays(killed),
        "seconds_killed": round(lasted, 1),
        "seconds_alone": round(alone, 1),
    }


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder))
    save("kill", results)
    if not results["bit_equal"] or results["strays"] or results["kills"] < KILLS:
        raise SystemExit("not as it should be")


if __name__ == "__main__":
    main()
