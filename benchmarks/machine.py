"""What every figure carries: machine, versions, commit, and whether the tree was clean."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False).stdout.strip()


def describe() -> dict[str, Any]:
    """The circumstances of a measurement."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "SimpleITK")},
        "commit": _git("rev-parse", "--short", "HEAD") + ("" if not _git("status", "--porcelain", ":/autoseg", ":/plans") else "+changes"),
    }


def save(name: str, results: Any) -> None:
    """Writes benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe(), "results": results}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
