"""`sft`: semantic fine-tuning behind a learned scheme (GSC paper, section III-C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from linksim.models.recipe import BaseRecipe
from linksim.models.spec import ModelSpec, RefinerSpec
from linksim.refine.base import Steps
from linksim.refine.learned import LearnedRefiner, golden_behind
from linksim.refine.sft.recipe import SftRecipe
from linksim.schemes.base import Params, Scheme
from linksim.schemes.learned import Learned, transceiver

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.link.config import Setting
    from linksim.nets.network import Network
    from linksim.refine.sft.network import SftNetwork, Size
    from linksim.refine.training import RefinerTask

NO_PRIOR, JOINT = "no-prior", "joint"


class SftParams(Params):
    """Parameters of semantic fine-tuning."""

    sft: Literal["compact", "paper"] = Field(
        "compact", description="width of the refinement: 3.5 M parameters, or the paper's 34.6 M"
    )
    sft_ablation: Literal["none", "no-prior"] = Field(
        "none", description="no-prior: one learned Z for all images, no diffusion: what N2 does by itself"
    )
    joint: bool = Field(
        False, description="trained together with the transceiver, which then runs on the weights that came of it"
    )


class Sft(LearnedRefiner):
    """A transformer that restores images by a latent Z, which a diffusion of four steps tells of the image alone.

    In training N1 tells Z with the original at hand; the diffusion learns to tell the same without it.
    """

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "semantic fine-tuning: a transformer led by a latent diffusion (GSC paper)"
    Params: ClassVar[type[Params]] = SftParams
    recipe: ClassVar[type[BaseRecipe]] = SftRecipe

    def __init__(self, setting: Setting, params: Any, first: Scheme) -> None:
        super().__init__(setting, params, first)
        if params.joint:
            assert isinstance(first, Learned)
            # It sends and receives with the transceiver that was trained beside it.
            first.run_on(self._cards[-1], lambda: cast("Network", cast("SftNetwork", self.trained[-1]).first))

    @classmethod
    def behind(cls, first: ModelSpec, params: Any = None) -> RefinerSpec:
        """See `LearnedRefiner`; the part says size, ablation and joint training, where they are not the defaults."""
        params = params or cls.Params()
        words = [params.sft] * (params.sft != "compact") + [params.sft_ablation] * (params.sft_ablation != "none")
        words += [JOINT] * params.joint
        return RefinerSpec(cls.name, "-".join(words), first)

    @classmethod
    def words(cls, spec: RefinerSpec) -> list[str]:
        """See `Owner`."""
        size, prior, joint = _read(spec)
        given = [f"sft={size}"] * (size != "compact") + [f"sft_ablation={NO_PRIOR}"] * (not prior)
        given += ["joint=true"] * joint
        found = super().words(spec)
        return [f"{cls.name}:{','.join(given)}" if word == cls.name and given else word for word in found]

    @classmethod
    def starts_from(cls, trained: Any, wanted: RefinerSpec) -> bool:
        """See `Owner`: a joint training from one behind a frozen first stage, too."""
        alone = replace(wanted, part=wanted.part.removesuffix(JOINT).removesuffix("-"))
        return super().starts_from(trained, wanted) or super().starts_from(trained, alone)

    @classmethod
    def check_images(cls, spec: RefinerSpec, image_shape: tuple[int, int, int]) -> None:
        """See `LearnedRefiner`: the transformer halves the sides three times."""
        from linksim.nets.network import check_sides
        from linksim.refine.sft.network import SHAPES

        super().check_images(spec, image_shape)
        check_sides(image_shape, SHAPES[_read(spec)[0]].stride)

    @classmethod
    def network(cls, spec: RefinerSpec) -> SftNetwork:
        """See `LearnedRefiner`."""
        from linksim.refine.sft.network import SftNetwork

        size, prior, joint = _read(spec)
        assert spec.first is not None
        return SftNetwork(size, prior, transceiver(spec.first).build() if joint else None)

    @classmethod
    def training(cls) -> type[RefinerTask]:
        """See `LearnedRefiner`."""
        from linksim.refine.sft.training import SftTask

        return SftTask

    @classmethod
    def golden_psnr(cls, spec: RefinerSpec, network: nn.Module) -> float:
        """Mean PSNR in dB of refined images at 10 dB, on the first embedded images; Z_T is zero."""
        from linksim.refine.sft.network import Diffusion, SftNetwork
        from linksim.refine.sft.training import restored

        assert isinstance(network, SftNetwork)
        whole = restored(network, Diffusion("linear", "x0"))
        if network.first is None:
            return super().golden_psnr(spec, whole)
        return golden_behind(spec, cast("Network", network.first), whole)

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`: of the transformer."""
        return 1

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        import numpy as np
        import torch

        from linksim.refine.sft.network import Diffusion, SftNetwork

        network = self.trained[-1]
        assert isinstance(network, SftNetwork)
        settings: Mapping[str, Any] = self._cards[-1]["settings"]
        size = network.latent_size
        noise = torch.from_numpy(np.stack([draw.standard_normal(size, dtype=np.float32) for draw in draws])).to(images)
        with torch.inference_mode():
            z = network.latent(images, noise, Diffusion(settings["betas"], settings["predict"]))
            refined: Tensor = network.restorer(images.contiguous(memory_format=torch.channels_last), z)
        report(1, 1)
        return refined


def _read(spec: RefinerSpec) -> tuple[Size, bool, bool]:
    """Size, whether there is a diffusion, and whether the transceiver was trained beside it."""
    size: Size = "paper" if spec.part.startswith("paper") else "compact"
    return size, NO_PRIOR not in spec.part, spec.part.endswith(JOINT)
