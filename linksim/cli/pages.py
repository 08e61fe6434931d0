"""Which page of the documentation tells more about an error."""

from __future__ import annotations

import re

from linksim.errors import LinksimError, NoWeights

#: Page of each command, in docs/.
COMMANDS = {
    "sweep": "howto/sweep", "merge": "howto/sweep", "reproduce": "howto/reproduce", "show": "howto/tables",
    "compare": "howto/tables", "plot": "howto/figures", "gallery": "howto/figures", "train": "howto/train",
    "tune": "howto/second-stages", "card": "howto/train", "verify": "howto/train", "serve": "howto/serve",
    "bench": "howto/serve", "list": "explain/schemes", "assets": "howto/data", "doctor": "tutorial",
}  # fmt: skip

#: Of what a message is about: the first one whose words are in it.
_SUBJECTS = {
    r"--cluster|slurm": "clusters",
    r"unknown (?:scheme|variant)|^scheme '": "explain/schemes",
    r"unknown refiner|--start|--prior": "howto/second-stages",
    r"unknown metric|metric '": "howto/metric",
    r"unknown channel|channel '": "howto/channel",
    r"unknown data set|--dataset|--data-dir|--image-size": "howto/data",
    r"--antennas|--detector": "howto/antennas",
    r"--snr": "explain/snr",
    r"--rho|^rho ": "explain/rho",
    r"--power": "explain/power",
    r"another sweep|--force-new|--shard|--allow-versions": "howto/sweep",
}


def page_of(error: LinksimError, words: list[str]) -> str:
    """The page on an error, as a path in the repository.

    Args:
        error: of the command.
        words: the command line.

    Example:
        >>> page_of(LinksimError("--snr 'x': give numbers"), ["sweep", "--snr", "x"])
        'docs/explain/snr.md'
    """
    found = "howto/train" if isinstance(error, NoWeights) else None
    found = found or next((page for words, page in _SUBJECTS.items() if re.search(words, str(error))), None)
    found = found or next((COMMANDS[word] for word in words if word in COMMANDS), "index")
    return f"docs/{found}.md"
