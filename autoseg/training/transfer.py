"""Fine-tuning: weights of another model, matched by the names of channels and classes, not by their places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.networks.blocks import CONVOLUTIONS

HEADS = "heads."
ROWS = {HEADS: 0, "box_head.classes.": 0, "mask_head.masks.": 1}  # tensors with one row per output, and the first output they have
BACKGROUND = ""  # the first output of every head; no class has this name


@dataclass(frozen=True)
class Names:
    """What a network's inputs and outputs mean: channels, and classes without the background."""

    channels: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        return (BACKGROUND, *self.classes)


@dataclass(frozen=True)
class Transfer:
    """Which of the network's tensors were copied, and which start fresh."""

    copied: tuple[str, ...]
    left: tuple[str, ...]

    def describe(self, names: Names, source: Names) -> str:
        channels = _describe_names(names.channels, source.channels)
        classes = _describe_names(names.classes, source.classes)
        text = f"copied {len(self.copied)} of {len(self.copied) + len(self.left)} tensors; channels {channels}; classes {classes}"
        return text + (f". Not copied, as there is none of this name and shape: {', '.join(self.left)}" if self.left else "")


def _describe_names(names: Sequence[str], source: Sequence[str]) -> str:
    return ", ".join(f"{name} ← {name}" if name in source else f"{name} new" for name in names)


def copy_weights(network: nn.Module, names: Names, weights: dict[str, np.ndarray], source: Names) -> Transfer:
    """Copies into the network what fits, and says what did.

    The first convolution's inputs go by channel name; new channels start as the mean over the source's, divided by the number of new
    ones, so that all of them together weigh as much as one old channel. Heads go by class name; new classes keep their fresh weights.
    Everything else is copied where name and shape are equal.
    """
    first = next(name for name, module in network.named_modules() if isinstance(module, tuple(CONVOLUTIONS.values()))) + ".weight"
    copied: list[str] = []
    left: list[str] = []
    with torch.no_grad():
        for name, target in network.state_dict().items():
            value = torch.from_numpy(np.array(weights[name])).to(target.device) if name in weights else None
            if value is not None and name == first:
                value = _arrange_channels(value, names.channels, source.channels)
            elif value is not None and (head := next((head for head in ROWS if name.startswith(head)), None)):
                value = _arrange_classes(value, target, names.outputs[ROWS[head] :], source.outputs[ROWS[head] :])
            fits = value is not None and value.shape == target.shape
            (copied if fits else left).append(name)
            if fits:
                target.copy_(value)
    return Transfer(tuple(copied), tuple(left))


def _arrange_channels(weight: Tensor, names: Sequence[str], source: Sequence[str]) -> Tensor:
    """weight (feature, source's channel, *kernel) → (feature, channel, *kernel)."""
    new = sum(name not in source for name in names)
    mean = weight.mean(dim=1)
    return torch.stack([weight[:, source.index(name)] if name in source else mean / new for name in names], dim=1)


def _arrange_classes(value: Tensor, target: Tensor, names: Sequence[str], source: Sequence[str]) -> Tensor | None:
    """value (source's class, …) → (class, …) like the target, whose own numbers remain for new classes; None where features differ."""
    if value.shape[1:] != target.shape[1:]:
        return None
    return torch.stack([value[source.index(name)] if name in source else target[place] for place, name in enumerate(names)])
