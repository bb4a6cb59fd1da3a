"""What the environment says about this process's place among others, and which GPUs it may see. Without torch: it comes before it."""

from collections.abc import Mapping, MutableMapping

from autoseg.errors import InputError


def read_place(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, number of ranks, and rank on this machine, as torchrun tells the processes that it starts.

    >>> read_place({"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
    (3, 4, 1)
    >>> read_place({"RANK": "3"})
    (0, 1, 0)
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return 0, 1, 0
    return int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment["LOCAL_RANK"])


def take_gpus(environment: MutableMapping[str, str], asked: tuple[int, ...]) -> tuple[int, ...]:
    """Lets a rank see only its own GPU, and a process that was given one only that: then `cuda` means it in every thread.

    Must come before torch looks. Returns what is left to choose from: several GPUs for several folds.
    """
    _, size, local_rank = read_place(environment)
    if size == 1 and len(asked) != 1:
        return asked
    number = asked[local_rank] if local_rank < len(asked) else local_rank
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and number >= len(visible):
        raise InputError(f"There is no GPU {number}.", f"CUDA_VISIBLE_DEVICES shows {len(visible)}, counted from 0.")
    environment["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    return ()
