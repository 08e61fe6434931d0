"""KDD-SemNOMA (KDD paper, section V): KD-SemNOMA, then error contraction and DDIM with a diffusion prior."""

from linksim.refine.behind import refined
from linksim.refine.ddim.refiner import Ddim
from linksim.schemes.semnoma.scheme import KdSemNoma

Kdd = refined(KdSemNoma, Ddim, "kdd", "KDD-SemNOMA: KD-SemNOMA refined by a diffusion prior (KDD paper)")
