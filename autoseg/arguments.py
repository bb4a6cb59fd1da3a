"""What may be typed: the flags of every command, and after a flag one function per kind: text in, value out, or what is wrong with it."""

import argparse
from pathlib import Path

CLASSES_HELP = "class names, by ascending label value; or with their values, which may overlap: whole=1+2+3,core=2+3,ignore=4"


def positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def memory(text: str) -> int:
    """Bytes.

    >>> memory("8GB"), memory("0.5GiB")
    (8000000000, 536870912)
    """
    units = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}
    for unit, size in units.items():
        if text.lower().endswith(unit):
            return int(positive(text[: -len(unit)].strip()) * size)
    raise argparse.ArgumentTypeError(f"'{text}' is not an amount of memory, such as 8GB")


def spacing(text: str) -> tuple[float, ...]:
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def folds(text: str) -> tuple[int, ...]:
    if not all(part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of folds, such as 0,1")
    return tuple(int(part) for part in text.split(","))


def gpus(text: str) -> tuple[int, ...]:
    """Numbers of devices, each once.

    >>> gpus("0,2")
    (0, 2)
    """
    parts = text.split(",")
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of GPUs, such as 0,1")
    return tuple(int(part) for part in parts)


def channel(text: str) -> tuple[str, str]:
    name, separator, pattern = text.partition("=")
    if not separator or not name or "{case}" not in pattern:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PATTERN, such as mr={{case}}/MR_T1_image.nii.gz")
    return name, pattern


def setting(text: str) -> tuple[str, str]:
    """A field of a plan and its value.

    >>> setting("configurations.2d.batch_size=4")
    ('configurations.2d.batch_size', '4')
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not FIELD=VALUE, such as configurations.3d_fullres.batch_size=4")
    return name.strip(), value.strip()


def limits(text: str) -> tuple[tuple[str, float, float], ...]:
    """Metrics with their limits for green and amber.

    >>> limits("dice=.85:.75,hausdorff=5:10")
    (('dice', 0.85, 0.75), ('hausdorff', 5.0, 10.0))
    """
    found = []
    for part in text.split(","):
        name, separator, values = part.partition("=")
        green, colon, amber = values.partition(":")
        if not name or not separator or not colon:
            raise argparse.ArgumentTypeError(f"'{part}' is not METRIC=GREEN:AMBER, such as dice=.85:.75")
        found.append((name.strip(), positive(green), positive(amber)))
    return tuple(found)


def _add_time(parser: argparse.ArgumentParser, meaning: str) -> argparse._MutuallyExclusiveGroup:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--minutes", type=positive, metavar="M", help=meaning)
    group.add_argument("--hours", type=positive, metavar="H", help="the same in hours")
    return group


def add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of scans with their labels; a run for --explain, --set, --update")
    parser.add_argument("-o", "--output", metavar="RUN", help="run folder to make")
    later = parser.add_mutually_exclusive_group()
    later.add_argument("--explain", nargs="?", const="", metavar="CONFIGURATION", help="tell the plan of a run, value by value")
    later.add_argument("--set", nargs="+", action="extend", type=setting, metavar="FIELD=VALUE", help="change values of a run's plan")
    later.add_argument("--update", action="store_true", help="take up new, changed and removed cases of a run's scans; folds stay")
    _add_time(parser, "training time per fold to plan for")
    _add_scans(parser)


def _add_scans(parser: argparse.ArgumentParser) -> None:
    """What may be said of a folder of scans when it is planned."""
    parser.add_argument("--task", choices=("semantic", "instance"), default="", help="what the labels are")
    parser.add_argument("--profile", metavar="NAME", default="", help="planning profile (default: by the machine)")
    parser.add_argument("--memory", type=memory, metavar="8GB", help="plan for a GPU of this size")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--images", metavar="PATTERN", help="where images lie, such as 'images/{case}.nii.gz'")
    parser.add_argument(
        "--labels", metavar="PATTERN", help="where labels lie: 'labels/{case}.nii.gz', or a folder of a file per object: '{case}/masks'"
    )
    parser.add_argument("--channels", nargs="+", type=channel, metavar="NAME=PATTERN", help="one pattern per input channel")
    parser.add_argument("--classes", type=names, metavar="NAME,…", default=(), help=CLASSES_HELP)
    parser.add_argument("--spacing", type=spacing, metavar="Z,Y,X", help="voxel size to work at, in mm")
    parser.add_argument(
        "--groups", metavar="REGEX|FILE.csv:COLUMN", help="what of a case's name is its patient, such as '^(\\d+)_', or a table's column"
    )
    parser.add_argument("--stratify", metavar="FILE.csv:COLUMN", help="give each fold its share of every word in a column: site, scanner")
    parser.add_argument("--folds", type=positive_int, metavar="K", help="number of folds (default: 5)")
    parser.add_argument("--splits", type=Path, metavar="FILE", help="your own folds, as JSON: splits.json, or nnU-Net's splits_final.json")
    parser.add_argument("--exclude", type=names, metavar="CASE,…", default=(), help="cases to leave out")
    parser.add_argument("--format", choices=("autoseg", "nnunet"), default="", help="nnunet: nnU-Net's plans too")


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of scans with their labels")
    parser.add_argument("-o", "--output", metavar="RUN", required=True, help="run folder to make, or to go on with")
    length = _add_time(parser, "for everything: planning, all trainings, selection (default: all that is planned)")
    length.add_argument("--steps", type=positive_int, metavar="N", help="of every training")
    _add_scans(parser)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="default: the fastest, by timing")
    parser.add_argument("--seed", type=int, metavar="S", default=0)
    parser.add_argument("--gpus", type=gpus, metavar="0,1,…", default=(), help="GPUs to use: one fold on each (default: all)")


def add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")


def add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--configuration", metavar="NAME")


def add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--fold", metavar="K|all", required=True, help="fold to train, or all in turn")
    parser.add_argument("--configuration", metavar="NAME", help="default: the plan's choice")
    length = _add_time(parser, "wall clock from the first step to the last")
    length.add_argument("--epochs", type=positive_int, metavar="N")
    length.add_argument("--steps", type=positive_int, metavar="N")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="default: the fastest, by timing")
    parser.add_argument("--seed", type=int, metavar="S", default=0)
    parser.add_argument("--patience", type=positive_int, metavar="P", help="end after P validations without a new best mean Dice")
    parser.add_argument(
        "--init", metavar="MODEL", help="start from another model (run or fold folder, or .safetensors for resnet50), by names"
    )
    parser.add_argument("--extend", type=positive_int, metavar="N", help="N more steps for a finished fold")
    recipes = ("autoseg", "batchgenerators")
    parser.add_argument("--augmentation", choices=recipes, default="autoseg", help="whose transforms: ours, or the reference, on the CPU")
    parser.add_argument("--gpus", type=gpus, metavar="0,1,…", default=(), help="GPUs to use: one fold on each (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="train a finished fold anew; the old one is kept beside it")


def add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--fold", type=natural, metavar="K", help="one fold (default: every one that is being trained)")


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|MODEL")
    parser.add_argument("scans", metavar="SCANS", help="a scan, a folder of scans, or a pattern with {case}")
    parser.add_argument("-o", "--output", metavar="OUT", required=True)
    parser.add_argument("--configuration", metavar="NAME")
    parser.add_argument("--folds", type=folds, metavar="0,1", default=(), help="models to average (default: all that are finished)")
    parser.add_argument("--cases", metavar="fold:0", default="", help="only these cases: fold:K, or names")
    parser.add_argument("--tta", action="store_true", help="average over mirrored scans too: slower, a little better")
    parser.add_argument("--probabilities", action="store_true", help="write class probabilities beside the masks")
    parser.add_argument("--preview", action="store_true", help="write a picture of each scan with the outlines of its mask")
    parser.add_argument("--reference", metavar="DIR", help="score the masks against these labels")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", metavar="PREDICTIONS")
    parser.add_argument("references", metavar="REFERENCES", help="folder, or pattern with {case}")
    parser.add_argument("-o", "--output", metavar="scores.json")
    parser.add_argument("--only-predicted", action="store_true", help="references without a mask are no error")
    parser.add_argument("--task", choices=("semantic", "instance"), default="", help="classes or objects (default: what the files show)")
    parser.add_argument(
        "--metrics",
        choices=("overlap", "glas"),
        default="",
        help="overlap: no distances, no lesions; glas: object F1, Dice and Hausdorff too",
    )
    parser.add_argument(
        "--tolerance", type=positive, metavar="MM", help="of the surface Dice NSD (default: 1 mm; 2 pixels where no size is known)"
    )
    parser.add_argument("--limits", type=limits, metavar="METRIC=GREEN:AMBER,…", default=(), help="of the traffic light: dice=.85:.75")


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="folder of masks, scores.json, or a folder that holds one (a run)")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--reference", metavar="R", help="folder, or pattern with {case}; without it both must have a scores.json")
    parser.add_argument("-o", "--output", metavar="comparison.json")
    parser.add_argument("--common", action="store_true", help="cases that only one side has are no error")
    parser.add_argument("--task", choices=("semantic", "instance"), default="", help="classes or objects (default: what the files show)")
    parser.add_argument("--metrics", choices=("glas",), default="", help="glas: object F1, Dice and Hausdorff distance too")


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="folders of masks of the same cases; even votes go to the first")
    parser.add_argument("-o", "--output", metavar="OUT", required=True)


def add_select(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--configurations", type=names, metavar="A,B", default=(), help="choose among these only (default: all trained)")


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="DIR", default="", help="autoseg_demo, or autoseg_demo_instance, if not given")
    parser.add_argument("--task", choices=("semantic", "instance"), default="semantic")
