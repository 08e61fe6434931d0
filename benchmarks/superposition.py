"""What users who superpose over fading could gain beside a fixed share of the channel uses each.

`python benchmarks/superposition.py lending`: users who know each other's h could lend each other channel uses, or power
where their sum alone is held. From SemOMA's curves over AWGN at a quarter, a half and the whole of rho 1/3
(`results/fig06`), joined by a parabola, the PSNR that each pair of h would have at its best share. No network is run.

`python benchmarks/superposition.py powers --data-dir DIR`: SemNOMA's shipped weights, block Rayleigh fading, rho 1/3,
with users of unequal powers, who are told their effective h; paired differences from SemOMA on CIFAR-10's test pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import linksim
from linksim.link.config import Setting
from linksim.link.power import parse_split
from linksim.models.spec import ModelSpec
from linksim.schemes.semnoma.scheme import SemNoma, UntaughtParams

FIG06 = Path(__file__).parent.parent / "results" / "fig06" / "table.csv"
#: SemOMA's curves in the figure with a quarter, a half and the whole of the uses of rho 1/3.
SHARES = ("semoma", 1 / 6), ("semoma", 1 / 3), ("semoma:overhead=twice", 1 / 3)
PAIRS = 200_000
Array = NDArray[np.float64]


class UnequalParams(UntaughtParams):
    """SemNOMA's, and what each user has of the power."""

    split: str = Field("equal", description="each user's share of the total power, like 0.8/0.2")


@linksim.register
class Unequal(SemNoma):
    """SemNOMA's weights with unequal powers: who has p times the equal share is told sqrt(p) times its own h."""

    name = "semnoma-split"
    summary = "SemNOMA with users of unequal powers"
    Params = UnequalParams
    source = None

    @classmethod
    def model(cls, setting: Setting, params: UnequalParams) -> ModelSpec:
        """See `Learned.model`: SemNOMA's own."""
        return SemNoma.model(setting, params)

    @property
    def split(self) -> tuple[float, ...]:
        """See `Scheme.split`."""
        return parse_split(self.params.split, self.setting.link.users)

    def _told(self, snr_db: Tensor, h: Tensor) -> Tensor:
        return super()._told(snr_db, h * h.new_tensor([share * len(self.split) for share in self.split]).sqrt())


def curves_of(table: pd.DataFrame) -> list[tuple[Array, Array]]:
    """SNR and PSNR in dB with a quarter, a half and the whole of the uses of rho 1/3."""
    found = []
    for variant, rho in SHARES:
        curve = table[(table["variant"] == variant) & np.isclose(table["rho"], rho)].sort_values("snr_db")
        found.append((curve["snr_db"].to_numpy(), curve["psnr_pooled_db"].to_numpy()))
    return found


def psnr_of(curves: list[tuple[Array, Array]], share: float, snr_db: Array) -> Array:
    """PSNR in dB of a user with a share of the uses of rho 1/3, at an SNR in its uses.

    Below and above the table's 0 to 20 dB a curve goes straight on, from a PSNR of 11.5 dB to 1 dB above the last.
    """
    known = []
    for at, psnr in curves:
        found = np.interp(snr_db, at, psnr)
        below = np.maximum(psnr[0] + (psnr[1] - psnr[0]) / (at[1] - at[0]) * (snr_db - at[0]), 11.5)
        above = np.minimum(psnr[-1] + (psnr[-1] - psnr[-2]) / (at[-1] - at[-2]) * (snr_db - at[-1]), psnr[-1] + 1)
        known.append(np.where(snr_db < at[0], below, np.where(snr_db > at[-1], above, found)))
    low, half, whole = known
    u = np.log2(share) + 1
    found = half + u * (whole - low) / 2 + u * u * (whole + low - 2 * half) / 2
    return np.asarray(found)


def lending() -> pd.DataFrame:
    """PSNR pooled over a pair's users, its mean over pairs, in dB: with equal halves, lent uses, and lent power."""
    curves = curves_of(pd.read_csv(FIG06))
    gain_db = 10 * np.log10(np.random.default_rng(0).exponential(size=(PAIRS, 2)))

    def pooled(first: float, power_db: float = 0.0) -> Array:
        """Squared error of each pair where the first user has a share of the uses and so many dB more power."""
        more = 2 / (1 + 10 ** (-power_db / 10))
        errors = []
        for user, (share, power) in enumerate(((first, more), (1 - first, 2 - more))):
            # A user's energy stays: in fewer uses there is more in each.
            at = snr_db + gain_db[:, user] + 10 * np.log10(power * 0.5 / share)
            errors.append(10 ** (-psnr_of(curves, share, at) / 10))
        return np.asarray(np.mean(errors, axis=0))

    rows = []
    for snr_db in (0.0, 5.0, 10.0, 15.0, 20.0):
        shares = [pooled(first) for first in np.linspace(0.2, 0.8, 13)]
        powers = [pooled(0.5, power_db) for power_db in np.linspace(-12, 12, 25)]
        halves, lent, moved = (
            float(np.mean(-10 * np.log10(error))) for error in (pooled(0.5), np.min(shares, 0), np.min(powers, 0))
        )
        rows.append({"snr_db": snr_db, "halves": halves, "lent uses": lent - halves, "lent power": moved - halves})
    return pd.DataFrame(rows)


def powers(data_dir: Path | None, groups: int) -> pd.DataFrame:
    """Differences from SemOMA with users of unequal powers."""
    schemes = ["semoma", *(f"semnoma-split:split={split}" for split in ("equal", "0.6/0.4", "0.8/0.2"))]
    with tempfile.TemporaryDirectory() as folder:
        linksim.sweep(
            folder, scheme=schemes, channel="rayleigh", rho="1/3", snr="0,10,20", dataset="cifar10", groups=groups,
            metrics="psnr", workers=1, data_dir=str(data_dir) if data_dir else None,
        )  # fmt: skip
        return linksim.compare(folder, "semoma", metric="psnr_pooled_db")


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lending", "powers"))
    parser.add_argument("--data-dir", type=Path, help="of CIFAR-10")
    parser.add_argument("--groups", type=int, default=1000)
    options = parser.parse_args()
    found = lending() if options.what == "lending" else powers(options.data_dir, options.groups)
    print(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
