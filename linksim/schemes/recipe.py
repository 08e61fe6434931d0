"""How a transceiver is trained for the images' error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from linksim.models.fidelity import GroupLoss
from linksim.models.recipe import LinkRecipe


@dataclass(frozen=True)
class TransceiverRecipe(LinkRecipe):
    """How a transceiver is trained.

    `fast` is `scratch` or, of a model that starts warm, `finetune` (`results/README.md`: Muon, after the embedding);
    `adamw` is what was `fast` before them.

    Args:
        loss: of the images, see `linksim.models.fidelity`; "mae" is the paper's.
        dropout: the networks' dropout and stochastic depth.

    Example:
        >>> TransceiverRecipe.presets()["scratch"].optimizer
        'muon'
    """

    loss: GroupLoss = "mae"
    dropout: bool = True

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """See the class."""
        adamw = cls("adamw", schedule="wsd")
        own = replace(adamw, name="scratch", batch=8, loss="log-mse", dropout=False)
        scratch = replace(own, optimizer="muon", learning_rate=2e-3)
        finetune = replace(own, name="finetune", learning_rate=4e-4, fall=0.5)
        return {"scratch": scratch, "finetune": finetune, "adamw": adamw, "paper": super().presets()["paper"]}

    @classmethod
    def chosen(cls, name: str, warm: bool) -> str:
        """`fast` is a preset for each kind of start."""
        return ("finetune" if warm else "scratch") if name == "fast" else name
