"""The command line: parse, call, print. The files of this folder hold its commands by subject."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Sequence

from linksim import stopping
from linksim.cli import inventory, results, serving, simulate, training
from linksim.cli.options import Parser
from linksim.cli.pages import page_of
from linksim.errors import LinksimError, in_short

#: What a newcomer does next, when `linksim` is told nothing.
NEXT_STEPS = """\
linksim: an end-to-end link simulator for semantic multi-user image transmission. Next:

  curves of a trained scheme     linksim sweep --scheme kd,bpg-ldpc-qam-sic --channel rayleigh --snr 0:20:5 --groups 32
  a figure of a paper            linksim reproduce fig06 --dry-run
  training on your own images    linksim train --scheme semnoma --dataset folder:DIR --image-size 256 --dry-run
  what there is                  linksim list weights

linksim --help has all commands, linksim COMMAND --help each of them."""


def _parser() -> Parser:
    parser = Parser(prog="linksim", description="End-to-end link simulator for semantic multi-user image transmission.")
    parser.add_argument("--version", action="store_true", help="print the version and the commit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for subject in (simulate, results, training, serving, inventory):
        subject.add_commands(commands)
    return parser


def _join_negative(words: Sequence[str]) -> list[str]:
    """`--snr -5:20:5` to `--snr=-5:20:5`, which argparse would take for an option."""
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-([\d.]|inf|nan)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _say(text: str) -> None:
    """The one line of an error; where nobody listens the exit code alone tells."""
    with contextlib.suppress(OSError, ValueError):
        print(f"linksim: {in_short(' '.join(text.split()))}", file=sys.stderr, flush=True)


def _one_line(message: object, *where: object, **more: object) -> str:
    if "linksim.report.progress" in sys.modules:
        sys.modules["linksim.report.progress"].make_room()
    return f"note: {message}\n"


def _let_go_of_stderr() -> None:
    """Keeps a bar or a note that cannot be written from deciding the exit code: Python flushes once more at its end."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 something for the user to put right, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    stopping.listen()
    warnings.formatwarning = _one_line
    # What Pillow thinks of a file's metadata helps nobody here: unreadable images are refused.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        args = _parser().parse_all(_join_negative(words))
        if args.version:
            from linksim.version import code_version

            print(code_version())
            return 0
        if args.command is None:
            print(NEXT_STEPS)
            return 0
        # For a command that is made of others.
        args.main = main
        return int(args.run(args))
    except LinksimError as error:
        if debug:
            raise
        _say(f"{error} ({page_of(error, words)})")
        return 2
    except OSError as error:
        if debug or error.errno is None:
            raise
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        where = f"{error.filename}: " if error.filename else ""
        way_out = "give a place with room and rights, like --out DIR"
        if error.errno == errno.EFBIG:
            way_out = "raise the limit on a file's size (ulimit -f), or another file system, and run the same command"
        said = f"{where}{error.strerror}: {way_out}"
        _say(f"{said} ({page_of(LinksimError(said), words)})")
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        stopping.forget()
        _let_go_of_stderr()
