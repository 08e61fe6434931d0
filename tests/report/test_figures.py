"""Figures show what the table says, and never mix what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from linksim.cli import main
from linksim.errors import LinksimError
from linksim.report.figures import COLUMN_WIDTH, curves, draw, draw_tradeoff, tradeoff
from linksim.report.show import table_text


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for variant, kind, level in (("scheme-a", "scheme", 20.0), ("bound-b", "reference", 25.0)):
        for rho in (1 / 6, 1 / 3):
            for snr_db in (10.0, 0.0, 5.0):
                rows.append(
                    {"scheme": variant, "variant": variant, "kind": kind, "stage": "first", "dataset": "toy"}
                    | {"channel": "awgn", "rho": rho, "users": 2, "snr_db": snr_db, "power": "sum", "n_images": 64}
                    | {"psnr_db": level + snr_db * rho, "psnr_db_ci95": 0.5, "bler": np.nan, "tx_power": np.nan}
                    | {"channel_uses": 512, "stop_reason": "groups"}
                )
    return pd.DataFrame(rows)


def test_each_curve_holds_its_rows_in_order_of_snr(table: pd.DataFrame) -> None:
    figure = curves(table, "psnr_db")
    assert len(figure.axes) == 2
    for panel, rho in zip(figure.axes, (1 / 6, 1 / 3), strict=True):
        lines = {str(line.get_label()): line for line in panel.get_lines() if isinstance(line, Line2D)}
        for label, level in (("scheme-a", 20.0), ("bound-b", 25.0)):
            np.testing.assert_allclose(lines[label].get_xdata(), [0, 5, 10])
            np.testing.assert_allclose(lines[label].get_ydata(), level + np.array([0, 5, 10]) * rho)
        assert lines["bound-b"].get_linestyle() == "--"
        assert lines["scheme-a"].get_linestyle() == "-"


def test_bands_show_the_interval(table: pd.DataFrame) -> None:
    panel = curves(table, "psnr_db").axes[0]
    band = panel.collections[0].get_paths()[0].vertices
    assert np.ptp(np.asarray(band)[np.asarray(band)[:, 0] == 0][:, 1]) == pytest.approx(1.0)


def test_at_one_snr_schemes_stand_side_by_side_with_their_intervals(table: pd.DataFrame) -> None:
    panel = curves(table[table["snr_db"] == 5.0], "psnr_db").axes[0]
    assert panel.get_xlabel() == "SNR = 5 dB"
    assert [str(bars.get_label()) for bars in panel.containers] == ["scheme-a", "bound-b"]
    for place, (bars, level) in enumerate(zip(panel.containers, (20.0, 25.0), strict=True)):
        segment = bars[2][0].get_segments()[0]
        np.testing.assert_allclose(segment[:, 0], place)
        np.testing.assert_allclose(segment[:, 1], level + 5 / 6 + np.array([-0.5, 0.5]))


def test_a_panel_is_as_wide_as_a_papers_column(table: pd.DataFrame) -> None:
    assert curves(table, "psnr_db").get_size_inches()[0] == pytest.approx(2 * COLUMN_WIDTH)


def test_files_are_written_once_a_metric_that_there_is(table: pd.DataFrame, tmp_path: Path) -> None:
    written = draw(table, tmp_path / "f")
    assert sorted(path.name for path in written) == ["psnr_db_awgn.pdf", "psnr_db_awgn.png"]


def test_folders_with_different_curves_of_one_name_are_not_plotted_as_one(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("one", "again", "other")]
    better = table.assign(psnr_db=table["psnr_db"] + (table["variant"] == "scheme-a"))
    for folder, rows in zip(folders, (table, table, better), strict=True):
        folder.mkdir()
        rows.to_parquet(folder / "table.parquet")
    out = ["--out", str(tmp_path / "figures")]
    assert main(["plot", *map(str, folders[:2]), *out]) == 0
    assert main(["plot", *map(str, folders), *out]) == 2
    assert "different curves of scheme-a" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["power", "dataset", "users"])
def test_what_cannot_be_compared_never_shares_a_plot(table: pd.DataFrame, column: str, tmp_path: Path) -> None:
    other = table.assign(**{column: {"power": "per-ue", "dataset": "other", "users": 3}[column]})
    with pytest.raises(LinksimError, match="never share a plot"):
        draw(pd.concat([table, other]), tmp_path)


def test_the_text_has_a_line_a_row_and_hides_what_is_not_there(table: pd.DataFrame) -> None:
    text = table_text(table)
    assert len(text.splitlines()) == len(table) + 1
    assert "BLER" not in text
    assert "20.00 ±0.50" in text


def test_the_losses_of_a_training_run_are_drawn_a_panel_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("step,mae,fa,crosskd,total\n50,0.1,0.2,0.3,0.6\n100,0.05,0.1,0.2,0.35\n")
    assert main(["plot", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "losses.png").stat().st_size > 10_000
    assert (tmp_path / "figures" / "losses.pdf").exists()
    (tmp_path / "train.csv").write_text("")
    assert main(["plot", str(tmp_path)]) == 2
    assert "training run" in capsys.readouterr().err


def test_several_training_runs_share_a_figure_that_stands_on_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run, losses in zip(runs, ("step,mae,total\n50,0.1,0.1\n", "step,mae,fa,total\n50,0.2,0.3,0.5\n"), strict=True):
        run.mkdir()
        (run / "train.csv").write_text(losses)
        (run / "validation.csv").write_text("step,psnr_10db\n50,20.5\n")
        (run / "settings.json").write_text(json.dumps({"seed": run.name}))
    words = ["plot", *map(str, runs)]
    assert main(words) == 2
    assert "--out DIR" in capsys.readouterr().err
    out = tmp_path / "fig09"
    assert main([*words, "--out", str(out)]) == 0
    assert (out / "losses.png").stat().st_size > 10_000
    losses = pd.read_csv(out / "losses.csv")
    assert list(losses["run"]) == ["one", "two"]
    assert list(losses["total"]) == [0.1, 0.5]
    assert list(pd.read_csv(out / "validation.csv")["psnr_10db"]) == [20.5, 20.5]
    assert json.loads((out / "run.json").read_text())["runs"]["two"] == {"seed": "two"}
    (runs[1] / "settings.json").unlink()
    assert main([*words, "--out", str(out)]) == 2
    assert "settings.json" in capsys.readouterr().err


@pytest.fixture
def stages() -> pd.DataFrame:
    """A first stage, alone and refined with one and five steps, at two SNRs."""
    rows = []
    for snr_db in (0.0, 10.0):
        for variant, stage, psnr, fid in (
            ("kd", "first", 20.0, 130.0),
            ("kd+flow:steps=1", "first", 20.0, 130.0), ("kd+flow:steps=1", "flow", 19.5, 80.0),
            ("kd+flow:steps=5", "first", 20.0, 130.0), ("kd+flow:steps=5", "flow", 19.0, 60.0),
        ):  # fmt: skip
            rows.append(
                {"scheme": variant.partition(":")[0], "variant": variant, "kind": "scheme", "stage": stage}
                | {"dataset": "toy", "channel": "awgn", "rho": 1 / 6, "users": 2, "snr_db": snr_db, "power": "sum"}
                | {"n_images": 64, "psnr_db": psnr + snr_db, "fid": fid - snr_db}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_one_metric_over_another_joins_what_differs_in_parameters(stages: pd.DataFrame, tmp_path: Path) -> None:
    assert len(draw_tradeoff(stages, "psnr_db", "fid", tmp_path)) == 2
    shown = stages[~stages["variant"].str.contains(":") | (stages["stage"] != "first")]
    panels = tradeoff(shown, "psnr_db", "fid").axes
    assert [panel.get_title() for panel in panels] == ["SNR = 0 dB", "SNR = 10 dB"]
    lines = {str(line.get_label()): line for line in panels[1].get_lines()}
    assert list(lines) == ["kd", "kd+flow"]
    np.testing.assert_allclose(lines["kd+flow"].get_xdata(), [29.5, 29.0])
    np.testing.assert_allclose(lines["kd+flow"].get_ydata(), [70.0, 50.0])
    assert sorted(note.get_text() for note in panels[0].texts) == ["steps=1", "steps=5"]


def test_what_cannot_be_drawn_over_each_other_is_refused(stages: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="unknown column with values of a metric 'lpips_alex'"):
        draw_tradeoff(stages, "psnr_db", "lpips_alex", tmp_path)
    with pytest.raises(LinksimError, match="over itself"):
        draw_tradeoff(stages, "fid", "fid", tmp_path)
    with pytest.raises(LinksimError, match="these results have several"):
        draw_tradeoff(pd.concat([stages, stages.assign(rho=1 / 3)]), "psnr_db", "fid", tmp_path)


def test_fonts_are_those_that_journals_take(table: pd.DataFrame, tmp_path: Path) -> None:
    (path, *_) = draw(table, tmp_path, ("pdf",))
    content = path.read_bytes()
    assert b"/Type3" not in content
    assert b"/FontFile2" in content
