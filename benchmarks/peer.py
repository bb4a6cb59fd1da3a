"""nnU-Net as it is, in an environment and folders of its own: what the benchmarks that compare with it share."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NAME = "Dataset001_Scans"


@dataclass(frozen=True)
class Peer:
    """`tools` is the folder of nnU-Net's commands, `root` an empty folder for all that it writes, `workers` its augmentation processes."""

    tools: Path
    root: Path
    workers: int = 1

    @property
    def raw(self) -> Path:
        return self.root / "raw" / NAME

    @property
    def prepared(self) -> Path:
        return self.root / "preprocessed" / NAME

    @property
    def environment(self) -> dict[str, str]:
        folders = {f"nnUNet_{name}": str(self.root / name) for name in ("raw", "preprocessed", "results")}
        trainers = {"nnUNet_extTrainer": str(self.root / "trainers")}
        return folders | trainers | {"nnUNet_compile": "0", "nnUNet_n_proc_DA": str(self.workers), "nnUNet_def_n_proc": "2"}

    def write_raw(self, scans: Path, count: int | None = None) -> None:
        """nnU-Net's folder of the first `count` hippocampus scans."""
        for name in ("imagesTr", "labelsTr"):
            (self.raw / name).mkdir(parents=True)
        paths = sorted((scans / "imagesTr").glob("*.nii.gz"))[:count]
        for path in paths:
            shutil.copy(path, self.raw / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
            shutil.copy(scans / "labelsTr" / path.name, self.raw / "labelsTr" / path.name)
        labels = {"background": 0, "Anterior": 1, "Posterior": 2}
        dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(paths), "file_ending": ".nii.gz"}
        (self.raw / "dataset.json").write_text(json.dumps(dataset))

    def write_trainer(self, name: str, source: str) -> None:
        """A trainer of nnU-Net's with other lengths; nnU-Net finds it by its name."""
        (self.root / "trainers").mkdir(exist_ok=True)
        (self.root / "trainers" / f"{name}.py").write_text(source)

    def run(self, command: str, *words: str) -> float:
        """Seconds that one of nnU-Net's commands took. Raises where it fails, with the end of what it said."""
        begun = time.monotonic()
        line = [str(self.tools / command), *words]
        ended = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **self.environment}, check=False)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(line)} ended with {ended.returncode}\n{(ended.stdout + ended.stderr)[-3000:]}")
        return round(time.monotonic() - begun, 1)

    def prepare(self, configuration: str) -> float:
        """Fingerprint, plan and prepared data of one configuration; seconds."""
        return self.run("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", configuration, "-npfp", "2", "-np", "2")

    def fold(self, trainer: str, configuration: str) -> Path:
        """Where a training of fold 0 leaves what it made."""
        return self.root / "results" / NAME / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"
