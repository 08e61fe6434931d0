"""The model zoo: what each model reaches, and which figures it stands in."""

import pytest

import linksim
from linksim.cli import main
from linksim.models import weights


def test_every_card_has_a_row_that_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    table = linksim.zoo().set_index("model")
    assert list(table.index) == list(weights.cards())
    row = table.loc["semoma_awgn_1-12_n2_own_sum_32px_compact"]
    card = weights.cards()[row.name]
    reached = [float(value) for value in row["psnr_db"].split("/")]
    assert reached == pytest.approx([card["validation"][f"psnr_{snr}db"] for snr in (0, 10, 20)], abs=0.005)
    assert row["figures"].split() == ["embedded", "fig06"]
    assert row["mb"] == pytest.approx(4.1, abs=0.05)
    assert table.loc["kd_awgn_1-48_n2_own_sum_256px_compact", "licence"] == "see card"
    # Of images that the sweep does not have: its size serves for theirs.
    assert "kodak" in table.loc["kd_awgn_1-48_n2_own_sum_256px_compact", "figures"].split()
    assert table.loc["semnoma_awgn_1-3_n2_own_sum_32px_compact_scratch", "note"] == "weights not shipped"
    assert main(["list", "weights"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("model  ")
    assert len(lines) == len(table)
    assert header.index("MB") == lines[0].index("2.4")
