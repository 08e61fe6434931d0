"""Networks of ConvNeXt schemes whose residual blocks say something from the start, and images to train them on."""

import torch

from linksim.data.training import training_set_of
from linksim.models.pool import Pool
from linksim.models.spec import ModelSpec
from linksim.schemes.learned import learned
from linksim.schemes.semnoma.network import Transceiver


def build(spec: ModelSpec) -> Transceiver:
    """A network with fresh weights and layer scale 0.5."""
    network = learned(spec.method).network(spec, layer_scale=0.5)  # type: ignore[call-arg]
    assert isinstance(network, Transceiver)
    return network


def random_pool(count: int = 16) -> Pool:
    """Images of noise to train on."""
    pixels = torch.randint(0, 256, (count + 4, 3, 32, 32), dtype=torch.uint8).numpy()
    return Pool(training_set_of(pixels, 4))
