"""`linksim serve` and `bench serve`: the link as a service, and how fast it is."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.options import Commands, Parser, add_out, add_settings, command, given_settings, natural, own_folder
from linksim.devices import available_cpus, check_device
from linksim.errors import LinksimError, shown

if TYPE_CHECKING:
    from linksim.serve.work import Served, Shape

_SETTINGS = ("scheme", "channel", "rho", "image-size", "users", "antennas", "detector", "metrics", "power", "csi-error",
             "pixels", "precision", "mcs", "split", "csi", "start", "steps", "prior")  # fmt: skip

#: Requests that a bench makes at the most; those of a slip of the pen take days.
_MOST_REQUESTS = 1_000_000


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    serve = command(commands, "serve", _serve, "the link as a service over HTTP, for many users at once")
    _add_service(serve)
    serve.add_argument("--host", metavar="HOST", default="127.0.0.1", help="address (default 127.0.0.1: this machine "
                       "alone; nobody is asked for a password)")  # fmt: skip
    serve.add_argument("--port", metavar="PORT", default="8000", help="port (default 8000; 0 takes a free one)")
    serve.add_argument("--timeout", metavar="SECONDS", default="60", help="after which a request is given up (60)")
    serve.add_argument("--max-bytes", metavar="BYTES", default="8388608", help="of an image's file (8388608)")
    serve.add_argument("--max-pixels", metavar="PIXELS", default="1048576", help="of an image (1048576)")
    serve.add_argument("--reuse-delivered", metavar="N", default="0",
                       help="keep N answers and give them again for the same image, scheme, channel and SNR, with no "
                       "channel between (default 0: every request has noise and fading of its own)")  # fmt: skip
    serve.add_argument("--ray", metavar="ADDRESS", help="on Ray Serve: local, auto, or ray://HOST:PORT")
    serve.add_argument("--replicas", metavar="N", help="with --ray: copies of the service (2)")

    bench = commands.add_parser("bench", help="how fast linksim is")
    kinds = bench.add_subparsers(dest="bench", metavar="serve", parser_class=Parser, required=True)
    served = command(kinds, "serve", _bench, "many users against one after the other, mechanism by mechanism")
    _add_service(served)
    served.add_argument("--clients", metavar="K", default="32", help="users who ask at once (default 32)")
    served.add_argument("--requests", metavar="R", default="8", help="of each, one after the other (default 8)")
    served.add_argument("--recurrence", metavar="SHARE", default="0.5",
                        help="share of requests whose image was sent before, for the caches (default 0.5)")  # fmt: skip
    served.add_argument("--snr", metavar="DB", default="10", help="gamma in dB (default 10)")
    served.add_argument("--dataset", metavar="NAME", default="cifar10-mini", help="whose images are sent")
    served.add_argument("--data-dir", metavar="DIR", help="where cifar10 lies, when it is not an installed asset")
    add_out(served, "folder of serve.csv, serve.txt and run.json (default: nothing is written)")


def _add_service(parser: Parser) -> None:
    add_settings(parser, _SETTINGS)
    parser.add_argument("--workers", metavar="N", help="processes of one thread each (default: one a CPU)")
    parser.add_argument("--batch", metavar="IMAGES", default="16", help="worked on at once (default 16)")
    parser.add_argument("--wait", metavar="SECONDS", default="0.005",
                        help="that a request waits for others while a process is free (0.005)")  # fmt: skip
    parser.add_argument("--queue", metavar="N", default="512", help="requests inside; more are turned away (512)")
    parser.add_argument("--symbols-cache", metavar="MB", default="64",
                        help="for what encoders sent, where it follows from the image (default 64)")  # fmt: skip
    parser.add_argument("--seed", metavar="SEED", help="of noise and fading (default: drawn)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")


def _number(text: str, option: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise LinksimError(f"{option} {shown(text)}: give a number, {least:g} to {most:g}")
    return value


def _service(args: argparse.Namespace) -> tuple[Served, Shape | None, int, int, dict[str, Any]]:
    """What is served, the size of its images, processes, seed, and the values of `Limits`."""
    from linksim.data.images import parse_size
    from linksim.engine.config import make_config
    from linksim.link.units import parse_rho
    from linksim.serve.work import Served, check

    values = given_settings(args, _SETTINGS)
    rho = values.pop("rho", None)
    if rho is not None and len(rho.split(",")) > 1:
        raise LinksimError(f"--rho {shown(rho)}: one is served")
    own = values.get("image_size") == "own"
    size = None if own else values.pop("image_size", "32")
    values.pop("image_size", None)
    config = make_config({"metrics": "psnr,ssim", **values, "groups": 1, "snr": "10"})
    served = Served(config, None if rho is None else parse_rho(rho), args.device)
    shape = None if size is None else (3, *parse_size(size))
    check_device(args.device)
    check(served, shape)
    workers = available_cpus() if args.device == "cpu" else 1
    if args.workers is not None:
        workers = natural(args.workers, "--workers", 1, 1024)
    seed = secrets.randbits(32) if args.seed is None else natural(args.seed, "--seed", 0, 2**63 - 1)
    limits = {
        "batch": natural(args.batch, "--batch", 1, 4096),
        "wait": _number(args.wait, "--wait", 0, 60),
        "queue": natural(args.queue, "--queue", 1, 1_000_000),
        "symbols_bytes": natural(args.symbols_cache, "--symbols-cache", 0, 1 << 20) << 20,
    }
    return served, shape, workers, seed, limits


def _serve(args: argparse.Namespace) -> int:
    from linksim.data.images import size_of
    from linksim.serve.app import Accepts, listen, make_app, serve
    from linksim.serve.service import Limits
    from linksim.serve.start import local

    served, shape, workers, seed, values = _service(args)
    limits = Limits(
        **values,
        timeout=_number(args.timeout, "--timeout", 0.1, 86_400),
        reuse_delivered=natural(args.reuse_delivered, "--reuse-delivered", 0, 10_000_000),
    )
    accepts = Accepts(
        None if shape is None else size_of(*shape[1:]),
        natural(args.max_bytes, "--max-bytes", 100, 1 << 30),
        natural(args.max_pixels, "--max-pixels", 64, 1 << 28),
        local=args.host in ("127.0.0.1", "localhost", "::1"),
    )
    port = natural(args.port, "--port", 0, 65535)
    if args.replicas is not None and args.ray is None:
        raise LinksimError("--replicas are of --ray ADDRESS: name that too, or leave them out")
    replicas = natural(args.replicas or "2", "--replicas", 1, 10_000)
    if not args.host:
        raise LinksimError("--host is empty: give an address, like 127.0.0.1, or 0.0.0.0 for all")
    if shape is not None and shape[1] * shape[2] > accepts.most_pixels:
        raise LinksimError(f"--image-size {shape[2]}x{shape[1]} is more than --max-pixels {accepts.most_pixels}")
    what = f"{', '.join(served.config.scheme)} over {', '.join(served.config.channel)}"
    if args.ray is not None:
        from linksim.serve.on_ray import check_address, run

        listen(args.host, port).close()
        check_address(args.ray)
        print(f"loading {what} into {replicas} replicas", flush=True)
        run(
            served, shape, seed, limits, accepts, args.ray, replicas, args.host, port,
            lambda: print(f"serving on http://{args.host}:{port} (Ctrl-C stops)", flush=True),
        )  # fmt: skip
        print("stopped: all that came was answered")
        return 0
    with listen(args.host, port) as where:
        address = f"http://{args.host if ':' not in args.host else f'[{args.host}]'}:{where.getsockname()[1]}"
        print(f"loading {what} into {workers} processes", flush=True)
        app = make_app(lambda: local(served, workers, seed, limits, shape), accepts)
        serve(app, where, limits.timeout, lambda: print(f"serving on {address} (Ctrl-C stops)", flush=True))
    print("stopped: all that came was answered")
    return 0


def _bench(args: argparse.Namespace) -> int:
    import asyncio

    from linksim.data import load_dataset
    from linksim.engine.config import parse_range
    from linksim.serve.bench import Load, bench, text, write
    from linksim.serve.service import Limits

    # What the rows are held against each other by.
    args.metrics = ",".join(dict.fromkeys(["psnr", *filter(None, (args.metrics or "").split(","))]))
    served, shape, workers, seed, limits = _service(args)
    clients = natural(args.clients, "--clients", 1, 10_000)
    requests = natural(args.requests, "--requests", 1, _MOST_REQUESTS)
    if clients * requests > _MOST_REQUESTS:
        raise LinksimError(f"{clients} clients with {requests} requests each: {_MOST_REQUESTS} in all at the most")
    if len(served.config.scheme) > 1 or len(served.config.channel) > 1:
        raise LinksimError("a bench is of one scheme over one channel: run it for each")
    if args.out is not None:
        own_folder(args.out, "runs/x").mkdir(parents=True, exist_ok=True)
    gamma = parse_range(args.snr)
    if len(gamma) != 1:
        raise LinksimError(f"--snr {shown(args.snr)}: a bench is of one")
    recurrence = _number(args.recurrence, "--recurrence", 0, 1)
    if shape is None:
        raise LinksimError("--image-size own: a bench is of one size")
    size = f"{shape[2]}x{shape[1]}" if args.dataset.startswith("folder:") else None
    data = load_dataset(args.dataset, Path(args.data_dir) if args.data_dir else None, size)
    load = Load(clients, requests, recurrence, gamma[0], seed)
    own = Limits(**limits)
    rows = asyncio.run(bench(served, data, shape, workers, own, load, lambda line: print(line, flush=True)))
    print(text(rows))
    if args.out is not None:
        size = f"{shape[2]}x{shape[1]}"
        write(args.out, rows, served, data, {**asdict(load), **asdict(own), "workers": workers, "image_size": size})
        print(f"results: {args.out}")
    return 0
