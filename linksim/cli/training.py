"""`linksim train`, `tune`, `card` and `verify`: what makes trained models, and tells of them."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.options import (
    Commands,
    Parser,
    add_changes,
    add_dry_run,
    add_machine,
    add_out,
    add_settings,
    changes,
    cluster,
    command,
    decibels,
    given_settings,
    own_folder,
    parsed,
    print_costs,
    print_rows,
    whole,
)
from linksim.errors import LinksimError, NoWeights, shown, unknown

if TYPE_CHECKING:
    from linksim.data.training import TrainingData, TrainingSet
    from linksim.engine.cluster import Place
    from linksim.models.owner import Model
    from linksim.models.recipe import BaseRecipe
    from linksim.train.run import Start

#: What --set changes of a transceiver's recipe; refiners and priors have some of their own.
RECIPE_KEYS = (
    "optimizer", "learning_rate", "weight_decay", "batch", "accumulate", "warmup", "schedule", "fall", "ema", "clip",
    "flip", "crop", "snr_db", "loss", "dropout", "layer_scale", "embed_steps", "weights", "fa_norm", "leave_out",
    "cross_layer",
)  # fmt: skip

#: The recipe of a new run.
FAST = "fast"

_MODEL = ("channel", "rho", "size", "users", "csi", "power", "ablation")
_TUNE = (
    "channel", "snr", "rho", "dataset", "data-dir", "image-size", "users", "antennas", "detector", "power", "seed",
    "prior",
)  # fmt: skip


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    train = command(commands, "train", _train, "train a learned scheme, or all that a sweep lacks")
    train.epilog = f"{train.epilog}; keys of --set: {', '.join(RECIPE_KEYS)}"
    train.add_argument("--scheme", metavar="NAME", help="a learned scheme (linksim list schemes)")
    train.add_argument("--refiner", metavar="NAME", help="a learned refiner, on the scheme's output, frozen: cgan, ...")
    train.add_argument(
        "--prior", nargs="?", const="small", metavar="NAME",
        help="a network of images alone: small (default) or large, diffusion priors; diffbir-mini-vae, ...",
    )  # fmt: skip
    train.add_argument(
        "--for",
        dest="sweep",
        type=Path,
        metavar="FILE",
        help="every model that a sweep needs and lacks; or of a list `models`, in turns",
    )
    train.add_argument(
        "--channel", metavar="NAME", help="awgn (default), rayleigh, or a plug-in that weights are trained for"
    )
    train.add_argument("--rho", metavar="K/M", help="channel uses of the system over an image's size (default 1/6)")
    train.add_argument(
        "--size", metavar="SIZE", help="compact or paper, or what the scheme has (default: the scheme's)"
    )
    train.add_argument("--users", metavar="N", help="users (default 2)")
    train.add_argument(
        "--ablation", metavar="NAME", help="fa, crosskd, j1..j7 of kd, scratch of semnoma: see list schemes"
    )
    train.add_argument("--csi", metavar="KIND", help="own, all or snr (default: the scheme's)")
    train.add_argument("--power", metavar="CONVENTION", help="sum (default) or per-ue")
    train.add_argument("--budget", metavar="TIME", help="time for each model, like 40m or 2h")
    train.add_argument("--steps", metavar="N", help="steps, in place of a time")
    train.add_argument(
        "--recipe", metavar="NAME", help="fast (default): scratch, or finetune of a warm start; adamw, paper"
    )  # fmt: skip
    add_changes(train, "change a value of the recipe, like loss=mse, cross_layer=2, learning_rate=2e-3, weights=10/1/1")
    train.add_argument(
        "--warm",
        metavar="MODEL",
        help="start from another model's weights; embedded (default of schemes that "
        "superpose): as users in separate channel uses; auto: the nearest; none: from scratch",
    )
    train.add_argument("--dataset", metavar="NAME", help="images to train on: cifar10 (default), folder:DIR")
    train.add_argument(
        "--validation", metavar="NAME", help="folder:DIR to choose by (default: one in ten of the data set's own)"
    )
    add_settings(train, ["data-dir", "image-size"])
    add_dry_run(train)
    train.add_argument("--out", type=Path, default=Path("runs/train"), metavar="DIR", help="checkpoints and logs")
    train.add_argument("--replace", action="store_true", help="put the weights in the place of better ones")
    train.add_argument(
        "--resume", action="store_true", help="go on with the run that --out holds; begin where it holds none"
    )
    train.add_argument(
        "--more", nargs="?", const="", metavar="TIME",
        help="go on after the end of the run that --out holds: best weights, fresh schedule, for a time or --steps",
    )  # fmt: skip
    train.add_argument("--seed", metavar="SEED", help="of every draw (default 0; one more with --more)")
    add_machine(train, workers=False)
    train.add_argument("--devices", metavar="N", help="GPUs, or processes on a CPU, that train one model together")
    train.add_argument("--jobs", metavar="N", help="with --for: models that are trained side by side")
    train.add_argument(
        "--cluster", metavar="PLACE", help="with --for: on a cluster of dask, in slices of ten minutes: slurm:jobs=8"
    )  # fmt: skip

    tune = command(commands, "tune", _tune, "find the T' of a diffusion refiner on images to choose by")
    add_settings(tune, ["scheme", *_TUNE, "groups", "metrics"])
    tune.add_argument("--starts", metavar="T,...", help="the T' to try")
    tune.add_argument(
        "--psnr-loss",
        metavar="DB",
        help="PSNR in dB that the lowest FID may cost (default 0.5); LPIPS may not clearly rise",
    )
    tune.add_argument("--replace", action="store_true", help="in the place of a T' that is known already")
    add_out(tune)
    add_machine(tune)

    card = command(commands, "card", _card, "where trained weights come from, and the command that makes them again")
    card.add_argument("model", nargs="?", help="name of the weights (linksim list weights)")
    card.add_argument(
        "--export", type=Path, metavar="DIR", help="write the model into a new folder in Hugging Face's layout"
    )
    card.add_argument("--import", dest="taken", type=Path, metavar="DIR", help="put what --export wrote among your own")
    card.add_argument("--replace", action="store_true", help="in the place of own weights of the same model")

    verify = command(commands, "verify", _verify, "measure the PSNR on the cards of weights again")
    verify.add_argument("models", metavar="model", nargs="*", help="names of the weights; default: all there are")


def train_model(out: str | Path = "runs/train", **words: Any) -> Path:
    """Trains one model as `linksim train` does, whose options are the words here.

    Args:
        out: where checkpoints and logs go, a folder for each model.
        words: `scheme="semnoma"`, `channel=`, `rho=`, `refiner=`, `prior=`, `steps=`, `budget="40m"`, `dataset=`, ...;
            `set={"batch": 4}` changes values of the recipe, `resume=True` is an option without a value.

    Returns:
        The folder of the run: `weights=FOLDER` runs its weights, and the best are among the user's own.

    Raises:
        LinksimError: anything that the caller can put right, in one line.
        KeyboardInterrupt: it was told to stop; `resume=True` goes on.

    Example:
        >>> folder = train_model("runs/mine", scheme="semnoma", rho="1/6", budget="40m")  # doctest: +SKIP
    """
    args = parsed(add_commands, "train", (), {**words, "out": out})
    if args.sweep or args.dry_run:
        raise LinksimError("a function trains one model: leave for and dry_run to the command line")
    if _train(args) == 130:
        raise KeyboardInterrupt
    return Path(args.out) / _model(args).name


def _train(args: argparse.Namespace) -> int:
    seconds, steps = _lengths(args)
    own_folder(args.out, "runs/x")
    if args.sweep:
        return _train_for(args)
    try:
        return _train_one(args, seconds, steps)
    except NoWeights as error:
        raise error.on(_data(args).words) from None


def _train_one(args: argparse.Namespace, seconds: float | None, steps: int | None) -> int:
    """Trains the one model that is asked for."""
    from linksim.models.checkpoint import CHECKPOINT, load_checkpoint
    from linksim.report.progress import TrainingBar
    from linksim.train.run import run_training
    from linksim.train.team import follows

    for option in ("jobs", "cluster"):
        if getattr(args, option) is not None:
            raise LinksimError(f"--{option} is for --for: one model is one process")
    devices = whole(args.devices, "--devices")
    model = _model(args)
    if args.dry_run:
        from linksim.train.models import with_prerequisites

        for part in with_prerequisites([*model.parts.values(), *([model.begins_as] if model.begins_as else [])]):
            print(f"lacks  {part.name}: {part.command_on(_data(args).words)}")
        return _dry_run(args, [model])
    out = args.out / model.name
    start, recipe, seed = _begun(args, model, out)
    follower = devices is not None and follows()
    try:
        with TrainingBar(model.name, recipe.batch, model.spec.unit, shown=not follower) as bar:

            def load() -> TrainingSet:
                images = _data(args).load(bar.prepared)
                bar.begin()
                return images

            paths, facts = run_training(
                model, recipe, load, out, start=start, seconds=seconds, steps=steps,
                seed=seed, device=args.device, devices=devices, replace=args.replace, report=bar.update,
                preparing=bar.embedded,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = out / CHECKPOINT
        step = load_checkpoint(kept)["state"]["step"] if kept.exists() else None
        how = "" if args.resume else " with --resume" if args.more is None else " with --resume in place of --more"
        words = f"{out} is kept as after step {step}; the same command{how} goes on from there"
        print(f"\nstopped: {words if step is not None else 'nothing yet'}", file=sys.stderr)
        return 130
    except LinksimError:
        if follower:
            # The first process says so.
            return 2
        raise
    if not follower:
        _tell(model, out, paths, facts)
    return 0


def _lengths(args: argparse.Namespace) -> tuple[float | None, int | None]:
    """The training's time in seconds and its steps, one of them at the most. Raises LinksimError, for --more too."""
    from linksim.train.run import parse_budget

    seconds = parse_budget(args.budget) if args.budget is not None else None
    steps = whole(args.steps, "--steps")
    refiner = args.refiner if args.scheme is None else None
    if sum(value is not None for value in (args.scheme, args.sweep, args.prior, refiner)) != 1:
        raise LinksimError("give one of --scheme NAME, --refiner NAME, --prior and --for FILE")
    if args.seed is not None and not re.fullmatch(r"[0-9]{1,9}", args.seed):
        raise LinksimError(f"--seed {shown(args.seed)}: give a whole number, 0 to 999999999")
    if args.more is not None:
        for option in ("resume", "warm", "sweep", "budget"):
            if getattr(args, option):
                word = {"sweep": "for"}.get(option, option)
                raise LinksimError(f"--more goes on from the best weights of one run: leave --{word} out")
        if args.dry_run:
            raise LinksimError("--dry-run is of a training from its start: leave --more out")
        seconds = parse_budget(args.more, "--more") if args.more else None
    if seconds is not None and steps is not None:
        raise LinksimError("a time and --steps are two lengths of one training: leave one of them out")
    return seconds, steps


def _begun(args: argparse.Namespace, model: Model, out: Path) -> tuple[Start, BaseRecipe, int]:
    """What the run in `out` starts from, how it is trained, and its seed. Raises LinksimError."""
    from linksim.models.checkpoint import BEST, CHECKPOINT
    from linksim.models.recipe import changed
    from linksim.train.run import begun_with, find_start, go_on_from

    if args.more is not None:
        start, recipe, seed = go_on_from(model, out)
        recipe, seed = changed(recipe, _of_recipe(args)), seed if args.seed is None else int(args.seed)
        print(f"{model.name}: goes on from the best weights of {start.run}, by seed {seed}", file=sys.stderr)
        return start, recipe, seed
    if (out / CHECKPOINT).exists() and not args.resume:
        raise LinksimError(f"{out} holds a run: --resume goes on with it, --more after its end; or take another --out")
    if (out / BEST).exists() and not (out / CHECKPOINT).exists():
        raise LinksimError(
            f"{out} holds the weights of a run whose {CHECKPOINT} is gone: take another --out, so that they stay"
        )
    start = find_start(model, args.warm, out)
    known, seed = begun_with(model, out)
    if known is None or args.recipe is not None or args.set:
        known = model.make_recipe(args.recipe or FAST, _of_recipe(args), warm=bool(start.model))
    return start, known, seed if args.seed is None else int(args.seed)


def _tell(model: Model, out: Path, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
    """Says what a training came to, and where its weights are."""
    from linksim.models.spec import lineage_pairs
    from linksim.models.weights import ships
    from linksim.report.progress import figures

    result = f"validation {figures(facts['validation'])} after {lineage_pairs(facts)} {model.spec.unit}"
    if paths:
        before = "; they stand before the shipped ones (weights=shipped)" if ships(model.name) else ""
        print(f"{paths[0]}: {result}{before}")
    else:
        print(
            f"{model.name}: {result}; weights that are better, or of other images, are there and stay (--replace puts "
            f"these in their place; weights={out} runs these)"
        )


def _dry_run(args: argparse.Namespace, models: Sequence[Model]) -> int:
    """Says what trainings cost, in place of them."""
    from linksim.train.run import parse_budget

    print_costs(
        models, args.recipe or FAST, _of_recipe(args), args.warm, whole(args.devices, "--devices") or 1,
        whole(args.steps, "--steps"), parse_budget(args.budget) if args.budget is not None else None,
    )  # fmt: skip
    return 0


def _of_model(args: argparse.Namespace) -> dict[str, str]:
    """What `--set` asks of the refiner's model, and not of its recipe: `joint=true`."""
    from linksim.refine.registry import REFINERS

    name = (args.refiner or "").partition(":")[0]
    fields = REFINERS.find(name).Params.model_fields if name in REFINERS else {}
    return {key: value for key, value in changes(args).items() if key in fields}


def _of_recipe(args: argparse.Namespace) -> dict[str, str]:
    """What `--set` asks of the recipe."""
    own = _of_model(args)
    return {key: value for key, value in changes(args).items() if key not in own}


def _data(args: argparse.Namespace) -> TrainingData:
    """The images to train on."""
    from linksim.data.training import CIFAR10, TrainingData

    data_dir = Path(args.data_dir) if args.data_dir is not None else None
    return TrainingData(args.dataset or CIFAR10, data_dir, args.image_size, args.validation)


def _model(args: argparse.Namespace) -> Model:
    """The one model that the words of `linksim train` ask for."""
    from linksim.models.spec import NO_ABLATION
    from linksim.train.models import BEHIND_ALL, asked_model, behind, behind_all, priors

    shape = _data(args).image_shape

    if args.prior is not None:
        for option in _MODEL:
            if getattr(args, option) is not None:
                raise LinksimError(f"--{option} is nothing to a prior: leave it out with --prior")
        if args.prior not in (known := priors(shape)):
            raise unknown("prior to train", args.prior, known)
        return known[args.prior]
    if args.scheme is None:
        found = behind_all(args.refiner, shape)
        for option in _MODEL:
            if getattr(args, option) is not None:
                raise LinksimError(f"--{option} is nothing to {args.refiner}, {BEHIND_ALL}: leave it out")
        return found
    users = whole(args.users, "--users")
    words: dict[str, Any] = {
        "channel": "awgn", "rho": "1/6", "size": None, "power": "sum", "ablation": NO_ABLATION
    }  # fmt: skip
    words |= {option: word for option in words if (word := getattr(args, option)) is not None}
    first = asked_model(args.scheme, users=users or 2, csi=args.csi, image_shape=shape, **words)
    return first if args.refiner is None else behind(args.refiner, first, _of_model(args))


def _train_for(args: argparse.Namespace) -> int:
    """Every model that a sweep lacks, each in a process of its own."""
    from linksim.data.cifar10 import IMAGE_SHAPE
    from linksim.data.images import pixels
    from linksim.data.training import name_of
    from linksim.engine.cluster import parse_cluster
    from linksim.engine.config import make_config, read_sweep_file
    from linksim.engine.reproduce import what_lacks
    from linksim.models.spec import size_words
    from linksim.models.weights import cards, is_shipped
    from linksim.train.models import image_shape, models_for, trained_on_others, waves, with_prerequisites
    from linksim.train.parallel import Processes, train_all
    from linksim.train.slices import on_cluster

    for option in _MODEL:
        if getattr(args, option) is not None:
            raise LinksimError(f"--{option} is the sweep's to say: leave it out with --for")
    jobs = whole(args.jobs or "1", "--jobs") or 1
    whole(args.devices, "--devices")
    if args.cluster is not None and args.jobs is not None:
        raise LinksimError("--cluster says how many models are trained side by side: leave --jobs out")
    place = parse_cluster(args.cluster) if args.cluster is not None else None
    values = read_sweep_file(args.sweep)
    if "models" in values:
        if args.dry_run:
            raise LinksimError("--dry-run: a list is trained in turns for as long as you like; give a sweep file")
        return _campaign(args, values, jobs, place)
    config = make_config(values)
    if args.image_size is not None:
        raise LinksimError("--image-size is the sweep's to say: leave it out with --for")
    shape = image_shape(config)
    if args.dataset is None and shape != IMAGE_SHAPE:
        raise LinksimError(
            f"--for: images of {pixels(shape)}: give others of this size to train on: --dataset folder:DIR"
        )
    args.image_size = size_words(shape)
    data = _data(args)
    if data.image_shape != shape:
        raise LinksimError(f"--dataset {args.dataset} has images of {pixels(data.image_shape)}, not {pixels(shape)}")
    needed = models_for(config, shape)
    if args.replace and args.dataset is None:
        raise LinksimError("--for trains what has no weights: leave --replace out")
    foreign = trained_on_others(needed, name_of(data.dataset))
    # Shipped ones give way: they are not lost.
    if (own := [name for name in foreign if not is_shipped(cards()[name])]) and not args.replace:
        raise LinksimError(
            f"{own[0]} has weights that were trained on other images: --replace trains it, and all like it, on "
            f"{data.dataset}"
        )
    lacking = with_prerequisites(needed, foreign)
    for model in dict.fromkeys([*lacking, *needed]):
        others = " (what is there is of other images)" if model.name in foreign else ""
        print(f"{'needed' if model in lacking else 'there '}  {model.name}{others}")
    # Those that `weights=` names are of the user's own runs, which no sweep says how to train.
    named = {name: why for name, why in what_lacks(config, shape).items() if why.startswith("weights=")}
    for name, why in named.items():
        print(f"lacks   {name}: {why}")
    if not lacking:
        print("all that --for trains has its weights" if named else "every model of this sweep has its weights")
        return 0
    if args.dry_run:
        return _dry_run(args, lacking)
    if args.budget is None and args.steps is None:
        raise LinksimError("no budget given: --budget 40m, or --steps")
    for model in lacking:
        model.make_recipe(args.recipe or FAST, changes(args), warm=False)
    words = ["--recipe", args.recipe or FAST, *_length_words(args), "--device", args.device]
    words += ["--seed", args.seed] if args.seed is not None else []
    words += [word for change in args.set for word in ("--set", change)]
    words += ["--devices", args.devices] if args.devices is not None else []
    words += ["--replace"] if foreign else []
    if place is not None:
        with on_cluster(place, data, words, args.out) as slices:
            train_all(waves(lacking), slices, args.warm)
    else:
        processes = Processes(jobs, [*words, *data.words, "--out", str(args.out)])
        train_all(waves(lacking), processes, args.warm)
    return 0


def _campaign(args: argparse.Namespace, values: Mapping[str, Any], jobs: int, place: Place | None) -> int:
    """Models of a list, in turns."""
    from linksim.data.training import name_of
    from linksim.train.campaign import goals_of, run_campaign
    from linksim.train.models import trained_on_others
    from linksim.train.parallel import Processes
    from linksim.train.slices import on_cluster

    for option in ("warm", "resume", "recipe", "set", "seed"):
        if getattr(args, option):
            raise LinksimError(f"--{option} is the list's to say, for each model: leave it out")
    for option in ("replace", "devices"):
        if getattr(args, option):
            raise LinksimError(
                f"--{option} is nothing to a list, whose models keep their best weights and are trained on one device "
                "each: leave it out"
            )
    data = _data(args)
    goals = goals_of(values, data.image_shape)
    if foreign := trained_on_others([goal.model for goal in goals], name_of(data.dataset)):
        raise LinksimError(
            f"{foreign[0]} has weights that were trained on other images, whose scores do not compare: train it once "
            "with --replace"
        )
    if (args.budget is None) == (args.steps is None):
        raise LinksimError("give the length of a turn: --budget 20m, or --steps N")
    words = ["--device", args.device]
    if place is not None:
        with on_cluster(place, data, words, args.out) as slices:
            run_campaign(goals, args.out, _length_words(args), slices)
    else:
        processes = Processes(jobs, [*data.words, *words, "--out", str(args.out)], one_thread=True)
        run_campaign(goals, args.out, _length_words(args), processes)
    return 0


def _length_words(args: argparse.Namespace) -> list[str]:
    """`--budget` and `--steps`, as they were given."""
    return [word for option in ("budget", "steps") if (value := getattr(args, option)) is not None
            for word in (f"--{option}", value)]  # fmt: skip


def _tune(args: argparse.Namespace) -> int:
    from linksim.engine.config import SweepConfig
    from linksim.engine.tune import CANDIDATES, PSNR_LOSS_DB, TUNE_METRICS, groups_for, tune, words
    from linksim.report.progress import Bar

    values = given_settings(args, _TUNE)
    metrics = [name.strip() for name in args.metrics.split(",")] if args.metrics else [*TUNE_METRICS]
    users = whole(args.users, "--users") or SweepConfig.model_fields["users"].default
    groups = args.groups or groups_for(metrics, users)
    values = {"dataset": "cifar10-val", **values, "metrics": metrics, "groups": groups}
    psnr_loss_db = PSNR_LOSS_DB if args.psnr_loss is None else decibels(args.psnr_loss, "--psnr-loss")
    if values["dataset"] in ("cifar10", "cifar10-mini"):
        raise LinksimError(
            f"--dataset {values['dataset']}: results are measured on these: choose by others, cifar10-val"
        )
    starts = args.starts.split(",") if args.starts is not None else list(map(str, CANDIDATES))
    candidates = [whole(text.strip(), "--starts") or 0 for text in starts]
    if args.scheme is None:
        raise LinksimError("no scheme given: --scheme kd+ddim")
    try:
        with Bar() as bar:
            folder, found = tune(
                {"snr": "-5:20:5", **values, "scheme": args.scheme}, candidates, args.out,
                workers=whole(args.workers, "--workers"), device=args.device, psnr_loss_db=psnr_loss_db,
                replace=args.replace, progress=bar.update, steps=bar.steps, pool=cluster(args), tell=bar.tell,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("\nstopped: what is done is kept; the same command goes on with it", file=sys.stderr)
        return 130
    for tuned in found:
        print(words(tuned))
    print(f"results: {folder}")
    return 0


def _card(args: argparse.Namespace) -> int:
    if args.taken is not None:
        return _take(args)
    if args.replace:
        raise LinksimError("--replace is of --import DIR: leave it out")
    if args.model is None:
        raise LinksimError("of which model? give its name (linksim list weights), or --import DIR")
    from linksim.errors import chosen
    from linksim.models.spec import lineage_pairs
    from linksim.models.weights import cards, history, place
    from linksim.report.progress import figures
    from linksim.train.models import model_of_card, with_system_rho

    known = cards()
    name = chosen(list(known), args.model, "model")
    found = known[name]
    model = model_of_card(found)
    if args.export is not None:
        from linksim.models.hub import export
        from linksim.models.weights import load

        for path in export(model, load(model, found), args.export):
            print(path)
        return 0
    runs = [
        {**run, "command": with_system_rho(run["command"], run["model"]) if run["command"] else None}
        for run in history(name, found)
    ]
    before = {f"before, {number}": _again(run, number) for number, run in enumerate(runs[:-1], 1)}
    lost = sum(run["pairs"] for run in runs if not run["command"])
    parts = model.parts
    names = {key: parts[key].name if key in parts else key for key in found.get("parts", {})}
    behind = "; ".join(key if key == part else f"{key} {part}" for key, part in names.items())
    behind += f": linksim card {next(iter(parts.values())).name}" if len(parts) == 1 and behind else ""
    if behind and before:
        behind += "; earlier commands ran with what was there then"
    embedded = found.get("pairs", 0) - found.get("steps", 0) * found.get("settings", {}).get("batch", 0)
    rows = {
        "model": name,
        "where": place(found),
        "data": found.get("data"),
        "cite": found.get("citation"),
        "recipe": found.get("recipe"),
        "settings": " ".join(f"{key}={value}" for key, value in found.get("settings", {}).items() if key != "name"),
        "trained": f"{found.get('steps')} steps, {found.get('pairs')} {model.spec.unit}"
        + (f" ({embedded} of them in the embedding)" if found.get("embedded") and embedded > 0 else "")
        + f", {found.get('seconds')} s on {found.get('device')}",
        "started": _started(name, known, whole=not lost and not parts),
        "in all": f"{lineage_pairs(found)} {model.spec.unit}, what it started from included"
        + (f"; of the first {lost} no command is left" if lost else ""),
        "behind": behind,
        "validation": figures(found["validation"]),
        "golden": f"{found['golden_psnr_db']:.3f} dB (linksim verify measures it again)",
        "strengths": _strengths(found.get("strengths", ())),
        "code": found.get("code"),
        **before,
        "command": runs[-1]["command"],
    }
    print_rows((key, str(value)) for key, value in rows.items() if value)
    return 0


def _strengths(rows: Iterable[tuple[float, float]]) -> str:
    """How far a flow goes by `strength=auto`, by the PSNR at which it takes an image to be."""
    return ", ".join(f"{share:g} at {-20 * math.log10(error):.1f} dB" for error, share in rows)


def _take(args: argparse.Namespace) -> int:
    from linksim.models.hub import install, read
    from linksim.train.models import model_of

    if args.model is not None or args.export is not None:
        raise LinksimError("--import DIR says which model: leave the rest out")
    spec, facts = read(args.taken)
    install(model_of(spec), facts, args.taken, args.replace)
    print(f"{spec.name}: there; measure it: linksim verify {spec.name}")
    return 0


def _started(name: str, known: Mapping[str, Mapping[str, Any]], whole: bool) -> str:
    """Where a model's training began, and whether those weights are still there.

    Args:
        whole: whether the commands of all that came before give the same weights again.
    """
    before = known[name]["lineage"]
    if not before:
        return "from scratch"
    start = before[-1]["model"]
    if start in known and list(known[start]["files"].values()) == before[-1]["files"]:
        return f"from {start}"
    words = "the command starts from those that are"
    if whole:
        words = "those before the command, in order and with LINKSIM_WEIGHTS at an empty folder, make them again"
    return f"from weights of {start} that are no longer there: {words}"


def _again(run: Mapping[str, Any], number: int) -> str | None:
    """The command of a training that others went on from; several can be of one model, and get a folder each."""
    return f"{run['command']} --out runs/again/{number} --replace" if run["command"] else None


def _verify(args: argparse.Namespace) -> int:
    from linksim.errors import chosen
    from linksim.models import weights
    from linksim.train.run import verify

    bad, known = 0, weights.cards()
    if not known:
        print("there are no weights: see `linksim train --help`")
    for name in dict.fromkeys(chosen(list(known), name, "model") for name in args.models) or known:
        found = known[name]
        if not weights.present(found) and found["folder"] == str(weights.SHIPPED):
            print(f"-    {name}: {weights.place(found)}")
            continue
        try:
            card, here = verify(name)
            good, words = abs(card - here) <= 0.01, f"card {card:.3f} dB, here {here:.3f} dB"
        except LinksimError as error:
            good, words = False, str(error)
        bad += not good
        print(f"{'ok ' if good else 'BAD'}  {name}: {words}")
    return 2 if bad else 0
