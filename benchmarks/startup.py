"""How long `autoseg --help` takes: the whole process, median of 11 after one warm-up, beside an empty Python.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import save

RUNS = 11


def measure(words: list[str]) -> float:
    """Median seconds of a process."""
    seconds = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    command = str(Path(sys.executable).with_name("autoseg"))
    save("startup", {"autoseg --help": measure([command, "--help"]), "python -c pass": measure([sys.executable, "-c", "pass"])})
