"""Tapped delay lines of 3GPP TR 38.901 under OFDM, with Sionna's channel model: `tdl-a` to `tdl-e`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from linksim.link.draws import Draws, Stream
from linksim.link.fading import Channel, ChannelParams

if TYPE_CHECKING:
    from torch import Tensor

#: Subcarriers of a resource block, and OFDM symbols of a slot with the normal cyclic prefix (TS 38.211).
_BLOCK_SUBCARRIERS, _SLOT_SYMBOLS = 12, 14


class TdlParams(ChannelParams):
    """Parameters of a tapped delay line and of the resource grid; the defaults are a 10 MHz carrier of 5G."""

    delay_spread: float = Field(100e-9, ge=0, le=1e-4, description="RMS delay spread in s (nominal in TR 38.901)")
    speed: float = Field(0.83, ge=0, le=1000, description="of every user in m/s (3 km/h)")
    carrier_frequency: float = Field(3.5e9, gt=0, le=1e12, description="in Hz")
    subcarrier_spacing: float = Field(30e3, ge=1e3, le=1e7, description="in Hz")
    resource_blocks: int = Field(24, ge=1, le=1000, description="width of the grid, 12 subcarriers each")


class Tdl(Channel):
    """A tapped delay line (TR 38.901, section 7.7.2), seen by OFDM in the frequency domain.

    The symbols of an image group fill a grid of `resource_blocks` times 12 subcarriers, frequency first, OFDM symbol by
    OFDM symbol; each sees the channel's frequency response at its place. Within one OFDM symbol the channel stands
    still, and the cyclic prefix is longer than the channel: there is no interference between subcarriers. Users fade
    independently, and so do antennas but for the line of sight of models D and E, which reaches them alike; all move at
    `speed`.
    """

    Params: ClassVar[type[ChannelParams]] = TdlParams
    block: ClassVar[bool] = False
    trained_as: ClassVar[str | None] = "rayleigh"
    model: ClassVar[str]

    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """See `Channel`."""
        import torch

        from linksim.link.phy import sionna

        channel = sionna("channel")
        params, antennas, users = self.params, self.link.antennas, self.link.users
        width = params.resource_blocks * _BLOCK_SUBCARRIERS
        symbols = -(-uses // width)
        # Symbols of a slot, cyclic prefix included, follow each other at this rate.
        rate = params.subcarrier_spacing / 15e3 * 1000 * _SLOT_SYMBOLS
        line = _line(self.model, params, antennas)
        frequencies = channel.subcarrier_frequencies(width, params.subcarrier_spacing, device="cpu")
        h = torch.empty(draws.groups, antennas, users, uses, dtype=torch.complex64)
        source = sionna("config").config.torch_rng("cpu")
        before = source.get_state()
        try:
            for group, seeds in enumerate(draws.seeds(Stream.FADING, range(users))):
                for user, seed in enumerate(seeds):
                    source.manual_seed(int(seed))
                    response = channel.cir_to_ofdm_channel(frequencies, *line(1, symbols, rate))
                    h[group, :, user] = response[0, 0, :, 0, 0].flatten(1)[:, :uses]
        finally:
            source.set_state(before)
        return h.to(draws.device)


@functools.lru_cache(maxsize=16)
def _line(model: str, params: TdlParams, antennas: int) -> Any:
    from linksim.link.phy import sionna

    return sionna("channel.tr38901").TDL(
        model, params.delay_spread, params.carrier_frequency, min_speed=params.speed, num_rx_ant=antennas, device="cpu"
    )


def _channel(letter: str, sight: str) -> type[Tdl]:
    return type(
        f"Tdl{letter}",
        (Tdl,),
        {
            "name": f"tdl-{letter.lower()}",
            "summary": f"TDL-{letter} of 3GPP TR 38.901 under OFDM, {sight}",
            "model": letter,
            "__module__": __name__,
            "__doc__": f"TDL-{letter}, {sight}.",
        },
    )


#: The five profiles.
TDL_CHANNELS: tuple[type[Tdl], ...] = tuple(
    _channel(letter, "no line of sight" if letter in "ABC" else "line of sight") for letter in "ABCDE"
)
