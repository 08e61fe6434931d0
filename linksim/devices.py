"""Where networks run."""

from linksim.errors import LinksimError


def check_device(name: str) -> None:
    """Raises LinksimError for a device that is not there, or that linksim does not know."""
    if name == "cpu":
        return
    if name.partition(":")[0] != "cuda":
        raise LinksimError(f"device {name!r}: cpu and cuda are known")
    import torch

    if not torch.cuda.is_available():
        raise LinksimError(f"device {name}: there is no CUDA device here: cpu, the default, works everywhere")
    index = name.partition(":")[2]
    if index and not (index.isdecimal() and int(index) < torch.cuda.device_count()):
        raise LinksimError(f"device {name}: there are {torch.cuda.device_count()}: cuda:0 is the first")
