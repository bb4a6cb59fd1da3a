"""autoseg: self-configuring segmentation of medical and microscopy scans.

The public names are imported on first use (PEP 562), so that `import autoseg` and `autoseg --help` start at once.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "plan": "autoseg.commands.plan",
    "explain": "autoseg.commands.explain",
    "change": "autoseg.commands.change",
    "prepare": "autoseg.commands.prepare",
    "train": "autoseg.commands.train",
    "stop": "autoseg.commands.stop",
    "update": "autoseg.commands.update",
    "predict": "autoseg.commands.predict",
    "evaluate": "autoseg.commands.evaluate",
    "compare": "autoseg.commands.compare",
    "ensemble": "autoseg.commands.ensemble",
    "select": "autoseg.commands.select",
    "demo": "autoseg.commands.demo",
    "load": "autoseg.commands.predict",
    "run": "autoseg.commands.run",
    "status": "autoseg.commands.status",
    "AutosegError": "autoseg.errors",
}

__all__ = [
    "AutosegError",
    "__version__",
    "change",
    "compare",
    "demo",
    "ensemble",
    "evaluate",
    "explain",
    "load",
    "plan",
    "predict",
    "prepare",
    "run",
    "select",
    "status",
    "stop",
    "train",
    "update",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'autoseg' has no attribute '{name}'; public names: {', '.join(__all__)}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
