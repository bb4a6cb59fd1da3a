"""StarDist from scratch on grey images for so many minutes, for benchmarks/nuclei.py: runs with the Python of an environment that has it.

python reference_stardist.py FOLDER MINUTES SEED: FOLDER holds training/ and unseen/, each with images/NAME.tif (grey, 8 bit) and, in
training/, labels/NAME.tif (numbers of objects); writes predicted/NAME.tif. Numbers as in StarDist's own example for nuclei: 32 rays on a
grid of (2, 2), images normalised between the 1 % and 99.8 % quantiles, flips, turns and brightness; a tenth of the training images chooses
weights and thresholds. The rate falls after a tenth of the epochs without progress, as its defaults (40 of 400) have it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from csbdeep.utils import normalize
from stardist.models import Config2D, StarDist2D
from tensorflow import keras
from tifffile import imread, imwrite

EPOCH_STEPS = 25
LIMITS = (1, 99.8)


class TimeLimit(keras.callbacks.Callback):
    """Ends the training when its minutes are over."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.seconds, self.begun, self.steps = minutes * 60, 0.0, 0
        self.epoch_begun, self.last_epoch, self.taken = 0.0, 0.0, 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.begun = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch_begun = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.steps += 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.last_epoch = time.monotonic() - self.epoch_begun
        self.taken = time.monotonic() - self.begun
        if self.taken > self.seconds:
            self.model.stop_training = True


def augment(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A flip, a quarter turn, and another brightness."""
    turns, flip = np.random.randint(4), np.random.rand() < 0.5
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    return image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2), label


def read(folder: Path, name: str) -> np.ndarray:
    return normalize(imread(folder / "images" / f"{name}.tif").astype(np.float32), *LIMITS)


def train(root: Path, name: str, training: list, validation: list, epochs: int, minutes: float) -> tuple[StarDist2D, TimeLimit]:
    """A model trained for so many epochs, or until the minutes are over."""
    config = Config2D(
        n_channel_in=1,
        grid=(2, 2),
        train_reduce_lr={"factor": 0.5, "patience": max(1, epochs // 10), "min_delta": 0},
        train_tensorboard=False,
    )
    model = StarDist2D(config, name=name, basedir=str(root))
    model.prepare_for_training()
    limit = TimeLimit(minutes)
    model.callbacks.append(limit)
    images, labels = zip(*training)
    model.train(list(images), list(labels), tuple(zip(*validation)), augmenter=augment, epochs=epochs, steps_per_epoch=EPOCH_STEPS)
    return model, limit


def main() -> None:
    root, minutes, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    np.random.seed(seed)
    keras.utils.set_random_seed(seed)
    names = sorted(path.stem for path in (root / "training" / "images").iterdir())
    chosen = set(np.random.default_rng(seed).permutation(names)[: max(2, len(names) // 10)])
    data = {name: (read(root / "training", name), imread(root / "training" / "labels" / f"{name}.tif")) for name in names}
    training, validation = ([data[name] for name in names if (name in chosen) == kept] for kept in (False, True))
    _, timed = train(root, "timing", training, validation, 3, 60.0)
    epochs = max(4, int(minutes * 60 / (timed.last_epoch + 1e-9)))
    model, limit = train(root, "stardist", training, validation, epochs, minutes)
    model.optimize_thresholds(*zip(*validation))
    (root / "predicted").mkdir()
    for path in sorted((root / "unseen" / "images").iterdir()):
        labels, _ = model.predict_instances(read(root / "unseen", path.stem))
        imwrite(root / "predicted" / f"{path.stem}.tif", labels.astype(np.uint16), compression="zlib")
    (root / "stardist.json").write_text(json.dumps({"training_minutes": limit.taken / 60, "steps": limit.steps}))


if __name__ == "__main__":
    main()
