"""The picture of a training: loss, validation score and learning rate against the steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """Points of one line: x in steps; points without a value are left out by the caller."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw_curves(loss: Curve, rate: Curve, scores: Sequence[Curve], title: str, metric: str = "Dice") -> bytes:
    """A PNG with the training loss above (learning rate in grey) and the whole-case validation's metric below."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(loss.x, loss.y, color="tab:blue", label=loss.name)
    above.set_ylabel("training loss")
    side = above.twinx()
    side.plot(rate.x, rate.y, color="0.7", linewidth=1)
    side.set_ylabel("learning rate", color="0.5")
    above.set_title(title)
    for curve in scores:
        below.plot(curve.x, curve.y, marker="o", markersize=3, label=curve.name)
    below.set_ylim(0, 1)
    below.set_ylabel(f"{metric}, whole validation cases")
    below.set_xlabel("step")
    below.grid(alpha=0.3)
    if scores:
        below.legend(loc="lower right")
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
