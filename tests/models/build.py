"""Networks of ConvNeXt schemes whose residual blocks say something from the start."""

from linksim.models.spec import ModelSpec
from linksim.schemes.learned import learned
from linksim.schemes.semnoma.network import Transceiver


def build(spec: ModelSpec) -> Transceiver:
    """A network with fresh weights and layer scale 0.5."""
    network = learned(spec.method).network(spec, layer_scale=0.5)  # type: ignore[call-arg]
    assert isinstance(network, Transceiver)
    return network
