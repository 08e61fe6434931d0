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

#: Of what a message is about, which its first words tell; what follows may be a user's own.
_SUBJECTS = {
    r"(--)?cluster\b|unknown cluster": "clusters",
    r"unknown (scheme|variant)\b|scheme '": "explain/schemes",
    r"unknown refiner\b|--starts?\b": "howto/second-stages",
    r"prior\b": "howto/prior",
    r"unknown metric '|metric '": "howto/metric",
    r"unknown channel\b|channel\b|unknown parameter of (rician|tdl)": "howto/channel",
    r"unknown data set\b|(--)?(dataset|data[-_]dir|image[- _]size)\b": "howto/data",
    r"no CIFAR-10\b|cannot read the image\b|.* take it out of the folder$": "howto/data",
    r"(--)?(antennas|detector)\b": "howto/antennas",
    r"(--)?snr\b": "explain/snr",
    r"(--)?rho\b": "explain/rho",
    r"(--)?power\b": "explain/power",
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
    found = next((page for begins, page in _SUBJECTS.items() if re.match(begins, str(error))), None)
    found = found or ("howto/train" if isinstance(error, NoWeights) else None)
    found = found or next((COMMANDS[word] for word in words if word in COMMANDS), "index")
    return f"docs/{found}.md"
