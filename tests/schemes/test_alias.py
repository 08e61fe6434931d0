"""A second name of a scheme stands for the same variant."""

from linksim.engine.config import make_config
from linksim.engine.variants import expand, parse


def test_kd_semnoma_is_kd() -> None:
    assert parse("kd-semnoma:csi=all") == parse("kd:csi=all")
    assert make_config({"scheme": "kd-semnoma,kd"}).scheme == ("kd",)
    assert len(expand([parse("kd"), parse("kd-semnoma")])[0]) == 1
