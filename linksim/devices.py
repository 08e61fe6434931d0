"""Where networks run, and in what precision."""

import ctypes
import os

from linksim.errors import LinksimError, shown

#: Environment of a process whose numeric libraries have one thread each.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


#: Of glibc's mallopt: bytes at the end of the heap that stay (M_TRIM_THRESHOLD), and of the largest piece that is no
#: mapping of its own (M_MMAP_THRESHOLD). The values are those that glibc itself comes to at the most.
_MALLOPT = {-1: 64 << 20, -3: 32 << 20}


def keep_freed_memory() -> bool:
    """Lets freed memory stay with this process, as it does unless MALLOC_TRIM_THRESHOLD_ says otherwise.

    dask sets that variable for its workers. Then every tensor's memory comes from the system anew, page by page, and
    networks on a CPU take twice as long.

    Returns:
        Whether the C library knows how.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _MALLOPT.items())


def check_device(name: str) -> None:
    """Raises LinksimError for a device that is not there, or that linksim does not know."""
    if not isinstance(name, str):
        raise LinksimError(f"device {shown(name)}: give a name, cpu or cuda")
    if name == "cpu":
        return
    if name.partition(":")[0] != "cuda":
        raise LinksimError(f"device {shown(name)}: cpu and cuda are known")
    import torch

    if not torch.cuda.is_available():
        raise LinksimError(f"device {name[:80]}: there is no CUDA device here: cpu, the default, works everywhere")
    index = name.partition(":")[2]
    if index and not (index.isdecimal() and int(index) < torch.cuda.device_count()):
        raise LinksimError(f"device {name[:80]}: there are {torch.cuda.device_count()}: cuda:0 is the first")


def trains_in_bfloat16(device: str) -> bool:
    """Whether a training step is faster in bfloat16 autocast there: on GPUs, and on CPUs that compute in it natively.

    A CPU with AVX2 alone takes seven times as long in bfloat16 as in float32.

    Example:
        >>> trains_in_bfloat16("cuda")
        True
    """
    import torch

    if device != "cpu":
        return True
    # Private names of PyTorch; where one is gone, float32 is what is always right.
    natively = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(supported() for supported in natively if supported is not None)
