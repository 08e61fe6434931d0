"""GSC and MU-GSC (GSC paper): NGF's transceivers, then semantic fine-tuning."""

from linksim.refine.behind import refined
from linksim.refine.sft.refiner import Sft
from linksim.schemes.ngf.scheme import MuNgf, Ngf

Gsc = refined(Ngf, Sft, "gsc", "GSC: NGF refined by semantic fine-tuning (GSC paper)")

MuGsc = refined(MuNgf, Sft, "mu-gsc", "MU-GSC: GSC's users at once, told apart by the antennas (GSC paper)")
