"""Figures show what the table says, and never mix what cannot be compared."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from linksim.cli import main
from linksim.engine.gallery import Shown
from linksim.errors import LinksimError
from linksim.report.figures import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    View,
    _chosen,
    _setting,
    axes,
    curves,
    draw,
    draw_tradeoff,
    tradeoff,
)
from linksim.report.gallery import _figure
from linksim.report.show import table_latex, table_markdown, table_text

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.figures


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
    figure = curves(table, ["psnr_db"])
    assert len(figure.axes) == 2
    for panel, rho in zip(figure.axes, (1 / 6, 1 / 3), strict=True):
        lines = {str(line.get_label()): line for line in panel.get_lines() if isinstance(line, Line2D)}
        for label, level in (("scheme-a", 20.0), ("bound-b", 25.0)):
            np.testing.assert_allclose(lines[label].get_xdata(), [0, 5, 10])
            np.testing.assert_allclose(lines[label].get_ydata(), level + np.array([0, 5, 10]) * rho)
        assert lines["bound-b"].get_linestyle() == "--"
        assert lines["scheme-a"].get_linestyle() == "-"


def test_bands_show_the_interval(table: pd.DataFrame) -> None:
    panel = curves(table, ["psnr_db"]).axes[0]
    band = panel.collections[0].get_paths()[0].vertices
    assert np.ptp(np.asarray(band)[np.asarray(band)[:, 0] == 0][:, 1]) == pytest.approx(1.0)


def test_at_one_snr_schemes_stand_side_by_side_with_their_intervals(table: pd.DataFrame) -> None:
    panel = curves(table[table["snr_db"] == 5.0], ["psnr_db"]).axes[0]
    assert panel.get_xlabel() == "SNR = 5 dB"
    assert [str(bars.get_label()) for bars in panel.containers] == ["scheme-a", "bound-b"]
    for place, (bars, level) in enumerate(zip(panel.containers, (20.0, 25.0), strict=True)):
        segment = bars[2][0].get_segments()[0]
        np.testing.assert_allclose(segment[:, 0], place)
        np.testing.assert_allclose(segment[:, 1], level + 5 / 6 + np.array([-0.5, 0.5]))


def test_a_figure_is_as_wide_as_a_column_or_a_page(table: pd.DataFrame) -> None:
    assert curves(table[table["rho"] == 1 / 6], ["psnr_db"]).get_size_inches()[0] == COLUMN_WIDTH
    assert curves(table, ["psnr_db"]).get_size_inches()[0] == PAGE_WIDTH


def test_files_are_written_once_a_metric_that_there_is(table: pd.DataFrame, tmp_path: Path) -> None:
    written = draw(table, tmp_path / "f")
    assert sorted(path.name for path in written) == ["psnr_db_awgn.pdf", "psnr_db_awgn.png"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        "captions.md", "psnr_db_awgn.pdf", "psnr_db_awgn.png",
    ]  # fmt: skip


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
    # What a run, or a sweep, keeps is not written over.
    for kept in (runs[0], tmp_path / "swept"):
        kept.mkdir(exist_ok=True)
        (kept / "table.parquet").write_bytes(b"x")
        capsys.readouterr()
        assert main(["plot", str(runs[1]), "--out", str(kept)]) == 2
        assert "holds a training run or results" in capsys.readouterr().err
    assert (runs[0] / "validation.csv").read_text() == "step,psnr_10db\n50,20.5\n"
    # The folder that `train --out` named stands for all runs in it.
    assert main(["plot", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "losses.png").read_bytes() == (out / "losses.png").read_bytes()
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
    assert list(lines) == ["KD-SemNOMA", "KD-SemNOMA + Flow"]
    np.testing.assert_allclose(lines["KD-SemNOMA + Flow"].get_xdata(), [29.5, 29.0])
    np.testing.assert_allclose(lines["KD-SemNOMA + Flow"].get_ydata(), [70.0, 50.0])
    assert sorted(note.get_text() for note in panels[0].texts) == ["steps=1", "steps=5"]


def test_over_the_number_of_users_each_scheme_is_a_curve_with_its_interval(table: pd.DataFrame, tmp_path: Path) -> None:
    some = table[table["rho"] == 1 / 3]
    several = pd.concat([some.assign(users=n, psnr_db=some["psnr_db"] - n) for n in (4, 1, 2)], ignore_index=True)
    assert [path.name for path in draw_tradeoff(several, "users", "psnr_db", tmp_path, ("pdf",))] == [
        "psnr_db_over_users_awgn.pdf"
    ]
    assert "equal channel uses of all together. toy, AWGN, 1, 2 and 4 users" in (tmp_path / "captions.md").read_text()
    panels = tradeoff(several, "users", "psnr_db").axes
    assert [panel.get_title() for panel in panels] == ["SNR = 10 dB", "SNR = 0 dB", "SNR = 5 dB"]
    lines = {str(line.get_label()): line for line in panels[1].get_lines()}
    np.testing.assert_allclose(lines["scheme-a"].get_xdata(), [1, 2, 4])
    np.testing.assert_allclose(lines["scheme-a"].get_ydata(), [19, 18, 16])
    assert np.ptp(np.asarray(panels[1].collections[0].get_paths()[0].vertices)[:3, 1]) > 0
    with pytest.raises(LinksimError, match="all curves are of N = 2"):
        draw_tradeoff(some, "users", "psnr_db", tmp_path)
    with pytest.raises(LinksimError, match=r"different users \(4, 1, 2\) never share a plot: .*--x users"):
        draw(several, tmp_path)
    with pytest.raises(LinksimError, match="different users"):
        draw_tradeoff(several.assign(ssim=0.5), "psnr_db", "ssim", tmp_path)


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


def test_the_figures_of_the_repository_have_fonts_that_journals_take() -> None:
    files = list((ROOT / "results").rglob("*.pdf"))
    assert len(files) > 40
    assert [str(path) for path in files if b"/Type3" in path.read_bytes()] == []


def test_a_caption_says_what_was_sent_how_and_names_no_place() -> None:
    rows = pd.DataFrame([{"dataset": "folder:/home/me/very/deep/photographs", "channel": "rayleigh",
                          "users": 2, "antennas": 1, "power": "sum", "n_images": n} for n in (24, 512)])  # fmt: skip
    assert _setting(rows) == "folder:photographs, Rayleigh fading, 2 users, power 'sum', 24 to 512 images a point"


def test_captions_of_other_figures_stay(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "captions.md").write_text("- `mine`: My own.\n- `psnr_db_awgn`: An old one.\n")
    draw(table, tmp_path, ("png",))
    lines = (tmp_path / "captions.md").read_text().splitlines()
    assert lines[0] == "- `mine`: My own."
    assert lines[1] == (
        "- `psnr_db_awgn`: PSNR over the SNR. toy, AWGN, 2 users, power 'sum', 64 images a point. "
        "Bands are 95% intervals. Dashed: bounds."
    )
    assert len(lines) == 2


def test_a_title_stands_in_a_slide_and_not_in_a_paper(table: pd.DataFrame) -> None:
    assert curves(table, ["psnr_db"]).get_suptitle() == ""
    talk = curves(table, ["psnr_db"], View(style="talk"))
    assert talk.get_suptitle().startswith("toy, AWGN")
    assert talk.get_size_inches()[0] > 12


def test_axes_say_where_lower_is_better() -> None:
    labels = axes()
    assert {name for name, label in labels.items() if label.endswith(", lower is better")} == {
        "lpips_vgg", "lpips_alex", "fid", "kid", "bler",
    }  # fmt: skip


def test_block_errors_have_a_logarithmic_axis_below_which_none_lie(table: pd.DataFrame) -> None:
    errors = table["snr_db"].map({0.0: 0.5, 5.0: 0.02, 10.0: 0.0})
    panel = curves(table.assign(bler=errors, bler_low=errors / 2, bler_high=errors + 0.001), ["bler"]).axes[0]
    assert panel.get_yscale() == "log"
    np.testing.assert_allclose(panel.get_ylim(), (0.01, 1.5))


def several(table: pd.DataFrame, *variants: str) -> pd.DataFrame:
    """The rows of scheme-a, once for each of some variants."""
    rows = table[table["variant"] == "scheme-a"]
    return pd.concat(
        [rows.assign(variant=name, scheme=name.partition(":")[0], psnr_db=rows["psnr_db"] + index)
         for index, name in enumerate(variants)], ignore_index=True,
    )  # fmt: skip


def drawn(table: pd.DataFrame, view: View | None = None) -> dict[str, tuple[object, ...]]:
    """Colour, marker, its filling and the line of each curve of a table's first panel."""
    panel = curves(_chosen(table, view or View()), ["psnr_db"]).axes[0]
    return {
        str(line.get_label()): (line.get_color(), line.get_marker(), line.get_markerfacecolor(), line.get_linestyle())
        for line in panel.get_lines()
    }


def test_a_scheme_is_drawn_alike_whatever_stands_beside_it(table: pd.DataFrame) -> None:
    names = ("kd", "semnoma", "semoma", "semoma:overhead=twice", "my-scheme", "their-scheme", "my-scheme:depth=2")
    whole = drawn(several(table, *names))
    assert len(set(whole.values())) == len(names)
    assert drawn(several(table, *names[::-1])) == whole
    assert drawn(several(table, *names), View(schemes=("their-scheme", "kd"))).items() <= whole.items()
    for name in names:
        assert drawn(several(table, name, "bpg-ldpc-qam-sic")).items() & whole.items()


def test_two_dozen_curves_of_plug_ins_are_told_apart(table: pd.DataFrame) -> None:
    assert len(set(drawn(several(table, *(f"plug-in-{number}" for number in range(24)))).values())) == 24


def test_curves_are_chosen_in_the_order_of_the_legend(table: pd.DataFrame) -> None:
    rows = several(table, "kd", "semnoma", "kd:ablation=fa", "semoma:overhead=twice")
    assert list(drawn(rows, View(schemes=("semoma", "kd")))) == ["SemOMA (overhead = twice)", "KD-SemNOMA"]
    with pytest.raises(LinksimError, match="did you mean 'semnoma'"):
        _chosen(rows, View(schemes=("semnma",)))


def test_several_metrics_are_rows_of_one_figure(table: pd.DataFrame, tmp_path: Path) -> None:
    table = table.assign(ssim=0.9)
    (path,) = draw(table, tmp_path, ("png",), view=View(metrics=("psnr_db", "ssim")))
    assert path.name == "psnr_db-ssim_awgn.png"
    figure = curves(table, ["psnr_db", "ssim"])
    assert [panel.get_ylabel() for panel in figure.axes] == ["PSNR (dB)", "", "SSIM", ""]
    assert [panel.get_title() for panel in figure.axes[:2]] == [r"$\rho$ = 1/6", r"$\rho$ = 1/3"]
    assert len(figure.legends) == 1


@pytest.fixture
def paired(tmp_path: Path, table: pd.DataFrame) -> Path:
    """Results of two schemes whose groups differ by far less than their images; a third has no images."""
    rows = several(table, "kd", "semnoma", "semoma").assign(seed=0, ssim=0.9)
    rows["lpips_alex"] = 0.1 * (rows["variant"] == "semoma").replace(False, np.nan)
    random = np.random.default_rng(0)
    images = [
        {"variant": variant, "scheme": variant, "stage": "first", "channel": "awgn", "rho": rho, "snr_db": snr_db}
        | {"group": group, "user": user, "image": 0, "psnr_db": shared + better + 0.01 * random.standard_normal()}
        for rho in (1 / 6, 1 / 3) for snr_db in (0.0, 5.0, 10.0) for group in range(40)
        for shared in [5 * random.standard_normal()]
        for variant, better in (("kd", 0.0), ("semnoma", -0.25)) for user in range(2)
    ]  # fmt: skip
    rows.to_parquet(tmp_path / "table.parquet")
    pd.DataFrame(images).to_parquet(tmp_path / "per_image.parquet")
    return tmp_path


def test_gaps_are_paired_where_images_are_known(paired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import linksim.report.figures as module

    shown: list[Any] = []

    def keep(figure: Any, *more: object) -> list[Path]:
        shown.append(figure)
        return []

    monkeypatch.setattr(module, "save", keep)
    words = ["plot", str(paired), "--metric", "psnr_db,ssim", "--gaps", "kd"]
    assert main(words) == 0
    panels = shown[0].axes
    assert panels[2].get_title(loc="left") == "Difference to KD-SemNOMA"
    assert [panel.get_ylabel() for panel in panels[::2]] == [
        "PSNR (dB)", r"$\Delta$ PSNR (dB)", "SSIM", r"$\Delta$ SSIM",
    ]  # fmt: skip
    lines = {str(line.get_label()): line for line in panels[2].get_lines()}
    np.testing.assert_allclose(lines["SemNOMA"].get_ydata(), -0.25, atol=0.01)
    np.testing.assert_allclose(lines["SemOMA"].get_ydata(), 2.0)
    band = np.asarray(panels[2].collections[0].get_paths()[0].vertices)
    assert 0 < np.ptp(band[band[:, 0] == 0][:, 1]) < 0.02
    assert "are of pairs of image groups. Of SSIM differences of means" in (
        paired / "figures" / "captions.md"
    ).read_text()  # fmt: skip
    assert "curves far from it run out" in (paired / "figures" / "captions.md").read_text()
    (paired / "per_image.parquet").unlink()
    assert main(words) == 0
    assert "curves far from it run out" not in (paired / "figures" / "captions.md").read_text()
    unpaired = {str(line.get_label()): line for line in shown[1].axes[2].get_lines()}
    np.testing.assert_allclose(unpaired["SemNOMA"].get_ydata(), 1.0)
    assert "Of PSNR and SSIM differences of means, without intervals" in (
        paired / "figures" / "captions.md"
    ).read_text()  # fmt: skip


def test_tables_of_before_there_were_antennas_are_drawn_with_those_of_now(paired: Path, tmp_path: Path) -> None:
    now = pd.read_parquet(paired / "table.parquet").assign(variant=lambda rows: rows["variant"] + "-now", antennas=1)
    (tmp_path / "now").mkdir()
    now.assign(detector="lmmse").to_parquet(tmp_path / "now" / "table.parquet")
    folders = [str(tmp_path / "now"), str(paired)]
    for order in (folders, folders[::-1]):
        assert main(["plot", *order, "--metric", "psnr_db", "--out", str(tmp_path / "x"), "--format", "png"]) == 0
    assert "antennas" not in (tmp_path / "x" / "captions.md").read_text()


def test_a_first_stage_behind_several_refiners_is_drawn_once_by_its_own_name(stages: pd.DataFrame) -> None:
    rows = _chosen(stages[stages["variant"] != "kd"], View())
    assert list(dict.fromkeys(rows["_label"])) == [
        "KD-SemNOMA, first stage", "KD-SemNOMA + Flow (steps = 1)", "KD-SemNOMA + Flow (steps = 5)",
    ]  # fmt: skip


def test_pgf_is_written_without_tex_and_in_ascii(paired: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["plot", str(paired), "--metric", "psnr_db", "--gaps", "kd", "--format", "pgf"]) == 0
    # Where the one that others are set against has no such metric, there is nothing to set.
    assert main(["plot", str(paired), "--gaps", "kd", "--labels", "semoma=A & B_1 of $x_1$", "--format", "pgf"]) == 0
    alone = (paired / "figures" / "lpips_alex_awgn.pgf").read_text("ascii")
    assert r"A \& B\_1 of $x_1$" in alone
    assert "Difference" not in alone
    assert "SemNOMA" not in alone
    text = (paired / "figures" / "psnr_db_awgn.pgf").read_text("ascii")
    assert r"\begin{pgfpicture}" in text
    assert "KD-SemNOMA" in text
    assert "fontspec" not in text


def test_the_same_table_gives_the_same_files(table: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(table, tmp_path / name, ("png", "pdf", "svg", "pgf"))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 5
    assert [
        name for name in files if (tmp_path / "one" / name).read_bytes() != (tmp_path / "two" / name).read_bytes()
    ] == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--style", "iee"], "did you mean 'ieee'"),
        (["--format", "png,pdff"], "did you mean 'pdf'"),
        (["--format", ","], "one or more names"),
        (["--metric", "psnr"], "did you mean 'psnr_db'"),
        (["--metric", "fid"], "unknown column with values of a metric 'fid'"),
        (["--curves", "kdd"], "unknown curve 'kdd'"),
        (["--labels", "Ours"], "write name=label"),
        (["--labels", "kdx=Ours"], "did you mean 'kd'"),
        (["--labels", "kd=Ours,semnma=Other"], "did you mean 'semnoma'"),
        (["--labels", "kd="], "needs a label"),
        (["--labels", "kd=_hidden"], "without _ before it"),
        (["--labels", "kd=a,kd=b"], "is given twice"),
        (["--labels", "kd=Same,semnoma=Same"], "is given twice"),
        (["--labels", "kd=a\x01b"], "printable"),
        (["--labels", "kd=\udcff"], "printable"),
        (["--labels", "kd=$"], "needs a label"),
        (["--labels", r"kd=$\nonsense$"], "needs a label"),
        (["--labels", "kd=SemNOMA"], "two curves"),
        (["--gaps", "kdd"], "unknown scheme variant 'kdd'"),
        (["--gaps", "kd", "--curves", "kd"], "no other curve"),
        (["--gaps", "kd", "--curves", "semnoma"], "unknown scheme variant 'kd'"),
        (["--curves", ""], "give one or more names"),
        (["--gaps", "kd", "--metric", "lpips_alex"], "--gaps kd: it has no lpips_alex: leave one of them out"),
        (["--xlim", "5"], "like 0:20"),
        (["--xlim", "20:0"], "the smaller first"),
        (["--xlim", "30:40"], "no SNR of these results"),
        (["--ylim", "15:35"], "--ylim is of one metric"),
        (["--ylim", "nan:1", "--metric", "ssim"], "like 0:20"),
        (["--y", "ssim", "--gaps", "kd"], "leave out --gaps"),
        (["--y", "ssim", "--metric", "ssim"], "leave out --metric"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    paired: Path, words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(paired), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line
    assert not (paired / "figures").exists()


def test_curves_of_sweeps_are_not_asked_of_a_training_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("step,mae,total\n50,0.1,0.6\n")
    assert main(["plot", str(tmp_path), "--curves", "kd"]) == 2
    assert "not for the losses" in capsys.readouterr().err
    assert main(["plot", str(tmp_path), "--format", "svg", "--style", "talk"]) == 0
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["losses.svg"]


def test_printed_tables_have_names_a_reader_knows_and_intervals(table: pd.DataFrame) -> None:
    rows = several(table, "kd:ablation=fa", "my_scheme").iloc[[0, -1]].assign(bler=[0.25, np.nan])
    assert table_latex(rows, {"my_scheme": "A & B"}).splitlines()[2:-2] == [
        r"Scheme & $\rho$ & SNR (dB) & PSNR (dB) & BLER & Images \\",
        r"\midrule",
        r"KD-SemNOMA (ablation = fa) & 1/6 & 10 & 21.67 $\pm$ 0.50 & 0.2500 & 64 \\",
        r"A \& B & 1/3 & 5 & 22.67 $\pm$ 0.50 &  & 64 \\",
    ]
    assert r"my\_scheme" in table_latex(rows)
    assert "& Rayleigh fading & 1/3" in table_latex(rows.assign(channel=["awgn", "rayleigh"]))
    assert table_markdown(rows, {"my_scheme": "A | B"}).splitlines() == [
        "| Scheme | rho | SNR (dB) | PSNR (dB) | BLER | Images |",
        "| --- | --- | --- | --- | --- | --- |",
        "| KD-SemNOMA (ablation = fa) | 1/6 | 10 | 21.67 ± 0.50 | 0.2500 | 64 |",
        "| A \\| B | 1/3 | 5 | 22.67 ± 0.50 |  | 64 |",
    ]


def test_a_gallery_names_its_schemes_and_users() -> None:
    image = np.zeros((2, 8, 8, 3), np.uint8)
    shown = [Shown("original", image, {}), Shown("kd+cgan", image, {"psnr_db": np.array([20.0, 21.0])})]
    panels = _figure(shown, ["group 0, user 0", "group 0, user 1"], "toy, awgn").axes
    assert [panel.get_title() for panel in panels[:2]] == ["Original", "KD-SemNOMA + CGAN"]
    assert [panel.get_ylabel() for panel in panels] == ["group 0, user 0", "", "group 0, user 1", ""]
    assert panels[3].get_xlabel() == "PSNR 21.00 dB"


def test_show_prints_each_format(paired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(paired), "--format", "csv"]) == 0
    shown = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(shown["psnr_db_ci95"].unique()) == [0.5]
    assert len(shown) == 18
    assert main(["show", str(paired), "--format", "latex", "--labels", "kd=Ours"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("% linksim")
    assert r"\toprule" in said
    assert "Ours & 1/6" in said
    assert main(["show", str(paired), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("| Scheme |")
    for words, hint in (
        (["--format", "latx"], "did you mean 'latex'"),
        (["--labels", "kd=Ours"], "for --format latex and markdown"),
        (["--format", "latex", "--labels", "kdx=Ours"], "did you mean 'kd'"),
    ):
        assert main(["show", str(paired), *words]) == 2
        assert hint in capsys.readouterr().err
