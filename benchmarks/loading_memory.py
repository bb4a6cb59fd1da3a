"""What training keeps in memory: the loading side with a store of any size, and the whole process as it goes on.

python benchmarks/loading_memory.py ../shared/data/hippocampus [CASES]

The large store has CASES records (20,000 by default) of scans of 320x320x160 voxels, whose arrays are one file by many names.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import save

from autoseg.arrays.labels import pack_voxels
from autoseg.io.files import save_record
from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.records.plan import AugmentationSpec
from autoseg.records.prepared import Geometry, PreparedCase
from autoseg.training.loader import Loader
from autoseg.training.sampling import Sampler

SHAPE = (160, 320, 320)
PATCH = (128, 128, 128)
CLASSES = 3
BATCHES = 60
STEPS = 1000


def write_store(folder: Path, cases: int) -> tuple[str, ...]:
    """One scan of smooth blobs and noise by many names."""
    generator = np.random.default_rng(0)
    image = generator.normal(0, 1, (1, *SHAPE)).astype(np.float32)
    label = np.zeros(SHAPE, np.int16)
    for number in range(1, CLASSES + 1):
        label[20 * number : 20 * number + 15, 100:200, 100:200] = number
    voxels = tuple(pack_voxels(np.argwhere(label == number)[::15][:1000]) for number in range(1, CLASSES + 1))
    geometry = Geometry(shape=SHAPE, box=tuple((0, size) for size in SHAPE), prepared_shape=SHAPE)
    store = Store(folder)
    names = tuple(f"case_{number:06d}" for number in range(cases))
    for name in names:
        record = PreparedCase(
            case=name, case_digest="", preparation_digest="", stamps=(), geometry=geometry, background=(-2.0,), foreground=voxels
        )
        if name == names[0]:
            store.write(record, image, label)
            text = store.record_path(name).read_text()
            continue
        for part in ("image", "label"):
            os.link(folder / f"{names[0]}.{part}.b2nd", folder / f"{name}.{part}.b2nd")
        store.record_path(name).write_text(text.replace(names[0], name))
    save_record(store.record_path(names[0]), store.load(names[0]))
    return names


def measure_loader(folder: Path, names: tuple[str, ...], threads: int) -> dict[str, Any]:
    """Bytes that the process grows by at most while batches of 2 patches of 128³ are read ahead and made; in a process of its own."""
    words = [sys.executable, __file__, "--child", str(folder), str(len(names)), str(threads)]
    told = subprocess.run(words, check=True, capture_output=True, text=True)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def load_batches(folder: Path, cases: int, threads: int) -> None:
    """The child: prints its peak before and after."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from builders import make_configuration

    configuration = make_configuration(3, 128, augmentation=AugmentationSpec())
    store = Store(folder)
    names = tuple(f"case_{number:06d}" for number in range(cases))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    loader = Loader(store, Sampler(names, store.load, configuration, 0), Compute("cpu"), threads)
    for _ in loader.iterate(0, BATCHES):
        pass
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cases": cases, "threads": threads, "peak_growth_bytes": after - before, "peak_bytes": after}))


def measure_training(scans: Path, folder: Path) -> dict[str, Any]:
    """Resident bytes of `autoseg train` after about 100 and 1000 steps, by its own log."""
    autoseg = str(Path(sys.executable).with_name("autoseg"))
    run = folder / "RUN"
    subprocess.run([autoseg, "plan", str(scans), "-o", str(run), "--minutes", "2"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([autoseg, "prepare", str(run)], check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen([autoseg, "train", str(run), "--fold", "0", "--steps", str(STEPS)], stdout=subprocess.DEVNULL)
    seen: dict[int, int] = {}
    while process.poll() is None:
        time.sleep(0.2)
        logs = list(run.glob("models/*/fold_0/log.csv"))
        rows = list(csv.DictReader(logs[0].open())) if logs else []
        if rows and int(rows[-1]["step"]) not in seen:
            seen[int(rows[-1]["step"])] = psutil.Process(process.pid).memory_info().rss
        if STEPS in seen:
            process.terminate()
    process.wait()
    return {"resident_bytes_by_step": seen, "growth": seen[STEPS] / seen[100] - 1}


def main() -> None:
    scans, cases = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        names = write_store(Path(folder), cases)
        loading = [measure_loader(Path(folder), names[:count], threads) for count, threads in ((10, 1), (cases, 1), (cases, 4))]
    with tempfile.TemporaryDirectory() as folder:
        training = measure_training(scans, Path(folder))
    save("loading_memory", {"loading": loading, "training": training})


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        load_batches(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
