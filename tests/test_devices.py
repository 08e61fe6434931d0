"""What a process is told about the machine that it runs on."""

import os
import platform
import subprocess
import sys

import pytest

# Page faults of an array of 4 MB that is made and freed over and over, before and after.
COUNT = """
import resource
import numpy as np
from linksim.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 19)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
assert keep_freed_memory()
faults()
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_stays_where_dask_would_give_it_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}, capture_output=True,
        text=True, timeout=600, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    assert before > 50_000
    assert after < 2_000
