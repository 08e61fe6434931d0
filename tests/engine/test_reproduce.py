"""A figure in parts: what has no weights is left out and named, and what comes later runs alone."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.cli.simulate import _curves
from linksim.engine.config import make_config
from linksim.engine.reproduce import as_written, parts_of, reproduce, sweep_file
from linksim.engine.sweep import merge
from linksim.metrics import METRICS, SetMetric
from linksim.models import weights
from linksim.models.spec import ModelSpec
from linksim.schemes.learned import transceiver
from linksim.train.run import golden_psnr
from tests.models.build import build

CONFIG = make_config(
    {"scheme": "semoma,bpg-capacity", "rho": "1/6,1/12", "channel": "rayleigh", "snr": "0:20:10", "groups": 8}
)

FACTS = {"pairs": 0, "lineage": [], "validation": {"psnr_10db": 0.0}, "score": 0.0}


def install(rho: Fraction, seed: int = 0) -> None:
    spec = ModelSpec("semoma", "compact", "rayleigh", rho)
    torch.manual_seed(seed)
    model, network = transceiver(spec), build(spec)
    weights.install(model, network, {**FACTS, "golden_psnr_db": golden_psnr(model, network)})


@pytest.fixture(autouse=True)
def own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))


def finished(folder: Path) -> dict[str, int]:
    """When each part last worked on a unit."""
    return {
        path.name: max(file.stat().st_mtime_ns for file in path.glob("journal/*.jsonl"))
        for path in (folder / "parts").iterdir()
    }


def test_curves_come_as_their_weights_do_and_none_runs_twice(tmp_path: Path) -> None:
    folder = tmp_path / "figure"
    install(Fraction(1, 12))
    told: list[str] = []
    first = reproduce(CONFIG, folder, workers=1, missing=lambda name, why: told.append(f"{name}: {why}"))
    assert [line.partition(":")[0] for line in told] == ["semoma_rayleigh_1-12"] == list(first.lacking)
    assert "linksim train --scheme semoma --channel rayleigh --rho 1/12" in told[0]
    assert len(first.table) == 9
    before = finished(folder)

    install(Fraction(1, 24))
    second = reproduce(CONFIG, folder, workers=1)
    assert second.lacking == {}
    assert len(second.table) == 12
    after = finished(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"semoma_rayleigh_1-12"}

    install(Fraction(1, 24), seed=1)
    third = reproduce(CONFIG, folder, workers=1)
    changed = {name for name, time in finished(folder).items() if after.get(name) != time}
    assert changed == {"semoma_rayleigh_1-12", "semoma_rayleigh_1-12.old-1"}
    assert not third.table.equals(second.table)


def test_the_parts_hold_the_numbers_of_one_sweep(tmp_path: Path) -> None:
    for rho in (Fraction(1, 12), Fraction(1, 24)):
        install(rho)
    apart = reproduce(CONFIG, tmp_path / "figure", workers=1).table
    whole = linksim.sweep(
        tmp_path / "whole", scheme="semoma,bpg-capacity", rho="1/6,1/12", channel="rayleigh", snr="0:20:10", groups=8,
        progress=False,
    )  # fmt: skip
    keys = ["variant", "rho", "snr_db"]
    columns = [column for column in whole if column != "seconds"]
    pd.testing.assert_frame_equal(
        apart.sort_values(keys)[columns].reset_index(drop=True), whole.sort_values(keys)[columns].reset_index(drop=True)
    )
    differences = linksim.compare(tmp_path / "figure", "semoma")
    pd.testing.assert_frame_equal(differences, linksim.compare(tmp_path / "whole", "semoma"))
    run = linksim.load(tmp_path / "figure").attrs["run"]
    assert set(run["parts"]) == set(parts_of(CONFIG))
    assert all(part["finished"] for part in run["parts"].values())
    assert make_config(run["config"]) == CONFIG


@pytest.mark.figures
def test_the_command_line_names_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(Fraction(1, 24))
    file = tmp_path / "mine.yaml"
    file.write_text('scheme: [semoma, kd]\nchannel: rayleigh\nrho: 1/12\nsnr: "10"\ngroups: 4\n')
    words = ["reproduce", str(file), "--out", str(tmp_path / "figure"), "--workers", "1", "--quiet"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "left out  kd_rayleigh_1-12: no weights kd_rayleigh_1-12" in out
    assert "1 curves lack weights" in out
    assert out.splitlines()[-1].startswith(f"train what lacks: linksim train --for {file} --budget 8h (")
    assert (tmp_path / "figure" / "figures" / "psnr_db_rayleigh.png").exists()
    assert main([*words, "--set", "groups=5"]) == 2
    assert "holds another sweep" in capsys.readouterr().err
    assert main([*words, "--set", "groups=5", "--force-new"]) == 0
    assert len(linksim.load_images(tmp_path / "figure.old-1")) == 8
    # The folder is of this figure: nothing of it is replaced.
    before = linksim.load(tmp_path / "figure")
    shutil.rmtree(tmp_path / "figure" / "parts")
    more = ["--set", "groups=5", "--set", "scheme=semoma,kd,bpg-capacity", "--only", "bpg-capacity", "--force-new"]
    assert main([*words, *more]) == 0
    after = linksim.load(tmp_path / "figure")
    assert list(after["scheme"]) == ["semoma", "bpg-capacity"]
    pd.testing.assert_frame_equal(after.iloc[:1][before.columns], before)
    assert after.attrs["run"]["lacking"] == before.attrs["run"]["lacking"]
    assert not (tmp_path / "figure.old-2").exists()


def test_a_figure_that_was_begun_in_the_place_of_another_holds_nothing_of_it(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(name: str) -> Callable[[int, int, float | None], None]:
        raise Stop

    install(Fraction(1, 24))
    folder, other = tmp_path / "figure", CONFIG.model_copy(update={"seed": 7, "rho": ("1/12",)})
    reproduce(other, folder, workers=1)
    mine = CONFIG.model_copy(update={"scheme": ("bpg-capacity",), "rho": ("1/12",)})
    with pytest.raises(Stop):
        reproduce(mine, folder, workers=1, force_new=True, progress=stop)
    table = reproduce(mine, folder, workers=1).table
    assert set(table["scheme"]) == {"bpg-capacity"}
    assert linksim.load(tmp_path / "figure.old-1").attrs["run"]["config"]["seed"] == 7


def draw_images(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    draws = np.random.default_rng(seed)
    for index in range(4):
        Image.fromarray(draws.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")


def test_curves_of_other_images_or_of_another_results_version_are_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, folder = tmp_path / "images", tmp_path / "figure"
    draw_images(images, 0)
    settings = {"scheme": "klt,bpg-capacity-oma", "snr": "10", "metrics": "psnr", "dataset": f"folder:{images}"}
    config = make_config(settings)
    first = reproduce(config, folder, workers=1).table
    draw_images(images, 1)
    with pytest.raises(LinksimError, match=r"\(bpg-capacity-oma_awgn_1/6: data_hash: .* run it without --only, .*new"):
        reproduce(config, folder, workers=1, only=["klt"])
    pd.testing.assert_frame_equal(linksim.load(folder), first)
    second = reproduce(config, folder, workers=1).table
    assert (second["psnr_db"] != first["psnr_db"]).all()
    # Of a clone, which has no parts, the tables' own provenance counts.
    shutil.rmtree(folder / "parts")
    monkeypatch.setattr("linksim.engine.provenance.RESULTS_VERSION", 99)
    with pytest.raises(LinksimError, match="bpg-capacity-oma_awgn_1/6: results_version: 2 there, 99 here"):
        reproduce(config, folder, workers=1, only=["klt"])
    assert not (folder / "parts").exists()
    third = reproduce(config, folder, workers=1, only=["klt"], force_new=True).table
    assert list(third["scheme"]) == ["klt"]
    assert len(linksim.load(tmp_path / "figure.old-1")) == 2


class Corner(SetMetric):
    """Tells images apart by their first pixels."""

    name = column = features_name = "corner"
    summary = convention = "first pixels"
    higher_is_better = False
    MIN_IMAGES = 2
    FLAG_BELOW = 0

    def features(self, images: torch.Tensor) -> np.ndarray:
        return images.flatten(1)[:, :8].cpu().numpy()

    def distance(self, reference_features: np.ndarray, features: np.ndarray) -> float:
        return float(np.square(reference_features.mean(0) - features.mean(0)).sum())

    def identity(self) -> str:
        return "first pixels"


@pytest.fixture
def corner() -> Iterator[None]:
    linksim.register_metric(Corner)
    yield
    METRICS.unregister("corner")


@pytest.mark.usefixtures("corner")
def test_curves_of_another_estimate_of_a_metric_are_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"scheme": "klt,bpg-capacity-oma", "snr": "10", "metrics": "corner", "groups": 2}
    config, folder = make_config(settings), tmp_path / "figure"
    reproduce(config, folder, workers=1)
    monkeypatch.setattr(Corner, "estimate", "of pairs")
    with pytest.raises(LinksimError, match="corner estimate: none there, of pairs here"):
        reproduce(config, folder, workers=1, only=["klt"])


class Cut(Exception):
    pass


def cut_after_a_unit(name: str) -> Callable[[int, int, float | None], None]:
    def tell(done: int, total: int, left: float | None) -> None:
        if done == 1:
            raise Cut

    return tell


@pytest.mark.usefixtures("corner")
def test_a_part_that_was_cut_short_keeps_its_features_and_does_without_them(tmp_path: Path, small_units: int) -> None:
    settings = {"scheme": "klt,bpg-capacity-oma", "snr": "10", "metrics": "psnr,corner", "groups": 2 * small_units}
    config, folder = make_config(settings), tmp_path / "figure"
    with pytest.raises(Cut):
        reproduce(config, folder, workers=1, only=["klt"], progress=cut_after_a_unit)
    kept = set((folder / "features").iterdir())
    assert len(kept) == 2
    reproduce(config, folder, workers=1, only=["bpg-capacity-oma"])
    assert kept < set((folder / "features").iterdir())
    # Whoever takes them away has them made again.
    shutil.rmtree(folder / "features")
    table = reproduce(config, folder, workers=1).table
    assert not (folder / "features").exists()
    whole = linksim.sweep(tmp_path / "whole", progress=False, **settings)
    np.testing.assert_array_equal(table["corner"], whole["corner"])
    # A sweep that is complete has no features any more, but what came of them.
    np.testing.assert_array_equal(merge([tmp_path / "whole"], tmp_path / "merged")["corner"], whole["corner"])


@pytest.mark.usefixtures("corner")
def test_an_edited_metric_takes_nothing_that_it_measured_before(
    tmp_path: Path, small_units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "figure"
    for value in (1, 2):
        (tmp_path / f"constant_{value}.py").write_text(
            "from linksim.metrics import ImageMetric\n"
            "from tests.engine.test_reproduce import Corner\n"
            "class Constant(ImageMetric):\n"
            "    name = column = summary = convention = 'constant'\n    higher_is_better = True\n"
            f"    def measure(self, reference, image): return 0 * reference.mean((1, 2, 3)) + {value}\n"
            "class Drawn(Corner):\n"
            "    name = column = features_name = 'drawn'\n"
            f"    def features(self, images): return super().features(images) * 0 + {value}\n"
            "    def distance(self, reference_features, features): return float(features.mean())\n"
        )
        module = importlib.import_module(f"constant_{value}")
        linksim.register_metric(module.Constant)
        linksim.register_metric(module.Drawn)
        config = make_config({"scheme": "klt", "snr": "10", "metrics": "constant,drawn", "groups": 2 * small_units})
        if value == 1:
            with pytest.raises(Cut):
                reproduce(config, folder, workers=1, progress=cut_after_a_unit)
    table = reproduce(config, folder, workers=1).table
    METRICS.unregister("constant")
    METRICS.unregister("drawn")
    assert list(table["constant"]) == list(table["drawn"]) == [2]


def test_curves_whose_names_come_to_the_same_have_a_folder_each() -> None:
    schemes = "kd:weights=runs/a,kd:weights=runs_a,kd:weights=RUNS_a"
    parts = parts_of(make_config({"scheme": schemes, "rho": "1/6,1/3"}))
    assert len(parts) == len({name.lower() for name in parts}) == 6
    # What is on disk goes on.
    assert next(iter(parts)) == "kd_weights=runs_a_awgn_1-6"
    known = {as_written(part): name for name, part in parts.items()}
    for text, name in known.items():
        assert _curves(text, known) == _curves(name, known) == [name]
        assert as_written(parts[name]) == text


@pytest.mark.parametrize("envelope", ["mcs=envelope", "mcs=envelope,codec=jpeg"])
def test_a_curve_that_is_a_member_of_an_envelope_too_is_there_once(tmp_path: Path, envelope: str) -> None:
    schemes = f"jpeg-ldpc-qam:{envelope},jpeg-ldpc-qam:mcs=qpsk-1/2"
    settings = {"scheme": schemes, "snr": "10", "metrics": "psnr", "groups": 2, "users": 1}
    folder = tmp_path / "figure"
    whole = linksim.sweep(tmp_path / "whole", progress=False, **settings)
    for only in ([], ["jpeg-ldpc-qam:mcs=qpsk-1/2"], [f"jpeg-ldpc-qam:{envelope}"]):
        reproduce(make_config(settings), folder, workers=1, only=only)
        for load in (linksim.load, linksim.load_images):
            mine, theirs = load(folder), load(tmp_path / "whole")
            keys = [key for key in ("variant", "stage", "snr_db", "group", "user") if key in mine]
            mine, theirs = (
                of.fillna({"envelope_of": ""}).sort_values(keys, ignore_index=True) for of in (mine, theirs)
            )
            columns = [column for column in mine if column != "seconds"]
            pd.testing.assert_frame_equal(mine[columns], theirs[columns])
    assert list(whole["variant"]).count("jpeg-ldpc-qam:mcs=qpsk-1/2") == 1


def test_damaged_tables_stop_a_figure_before_anything_runs(tmp_path: Path) -> None:
    install(Fraction(1, 12))
    install(Fraction(1, 24))
    folder = tmp_path / "figure"
    reproduce(CONFIG, folder, workers=1)
    before = (folder / "table.csv").read_bytes()
    part = folder / "parts" / "bpg-capacity_rayleigh_1-6"
    for path in (part / "per_image.parquet", part / "table.parquet", folder / "table.parquet", folder / "run.json"):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"no table"):
            path.write_bytes(content)
            with pytest.raises(LinksimError, match=f"{path.name} (cannot be read|is damaged)"):
                reproduce(CONFIG, folder, workers=1, only=["semoma"])
        path.write_bytes(whole)
    pd.DataFrame({"x": [1]}).to_parquet(part / "table.parquet")
    with pytest.raises(LinksimError, match="is no table of linksim"):
        reproduce(CONFIG, folder, workers=1, only=["semoma"])
    assert (folder / "table.csv").read_bytes() == before


def test_a_figure_says_which_of_its_curves_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "figure"
    reproduce(CONFIG, folder, workers=1, only=["bpg-capacity"])
    lacking = linksim.load(folder).attrs["run"]["lacking"]
    assert lacking == {"semoma_rayleigh_1-6": "not run yet", "semoma_rayleigh_1-12": "not run yet"}
    reproduce(CONFIG, folder, workers=1, only=["semoma"])
    reproduce(CONFIG, folder, workers=1, only=["bpg-capacity"])
    lacking = linksim.load(folder).attrs["run"]["lacking"]
    assert list(lacking) == ["semoma_rayleigh_1-12"]
    assert "no weights semoma_rayleigh_1-24" in lacking["semoma_rayleigh_1-12"]


def test_one_curve_runs_and_the_others_keep_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rho in (Fraction(1, 12), Fraction(1, 24)):
        install(rho)
    file, folder = tmp_path / "mine.yaml", tmp_path / "figure"
    file.write_text('scheme: [semoma, bpg-capacity]\nchannel: rayleigh\nrho: 1/12\nsnr: "10"\ngroups: 4\n')
    words = ["reproduce", str(file), "--out", str(folder), "--workers", "1", "--quiet"]
    assert main([*words, "--only", "bpg-capacity"]) == 0
    assert [path.name for path in (folder / "parts").iterdir()] == ["bpg-capacity_rayleigh_1-12"]
    assert main(words) == 0
    before = linksim.load(folder)
    assert list(before["scheme"]) == ["semoma", "bpg-capacity"]
    shutil.rmtree(folder / "parts")
    install(Fraction(1, 24), seed=1)
    assert main([*words, "--only", "semoma"]) == 0
    assert [path.name for path in (folder / "parts").iterdir()] == ["semoma_rayleigh_1-12"]
    after = linksim.load(folder)
    assert list(after["scheme"]) == ["semoma", "bpg-capacity"]
    pd.testing.assert_frame_equal(after.iloc[1:], before.iloc[1:])
    assert after["psnr_db"][0] != before["psnr_db"][0]
    # In a clone, where the images of nobody are.
    (folder / "per_image.parquet").unlink()
    shutil.rmtree(folder / "parts")
    groups = linksim.load_groups(folder)
    assert set(groups["variant"]) == {"semoma", "bpg-capacity"}
    install(Fraction(1, 24), seed=2)
    assert main([*words, "--only", "semoma_rayleigh_1-12"]) == 0
    assert [path.name for path in (folder / "parts").iterdir()] == ["semoma_rayleigh_1-12"]
    assert list(linksim.load(folder)["scheme"]) == ["semoma", "bpg-capacity"]
    assert set(linksim.load_images(folder)["variant"]) == {"semoma"}
    assert list(linksim.load_groups(folder)["variant"]) == list(groups["variant"])
    (folder / "per_image.parquet").unlink()
    again = linksim.load_groups(folder)
    same = (again["psnr_db"].to_numpy() == groups["psnr_db"].to_numpy()).reshape(2, 4)
    assert list(again["variant"]) == list(groups["variant"])
    assert not same[0].all()
    assert same[1].all()
    capsys.readouterr()
    assert main([*words, "--only", "semnoma"]) == 2
    assert "unknown curve" in capsys.readouterr().err
    assert main([*words, "--only", "semoma", "--only", "bpg-capacity"]) == 2
    assert "--only is given twice: give it once, with commas between its values" in capsys.readouterr().err


def test_single_curves_are_told_from_parameters() -> None:
    known = {"kd_awgn_1/3": "kd_awgn_1-3", "semoma:overhead=twice_awgn_1/3": "semoma_overhead=twice_awgn_1-3"}
    names = list(known.values())
    assert _curves("kd_awgn_1-3, semoma_overhead=twice_awgn_1-3", known) == names
    assert _curves("kd_awgn_1/3,semoma:overhead=twice_awgn_1-3", known) == names
    asked = "semoma:overhead=twice,size=paper,kd_awgn_1-3,klt"
    assert _curves(asked, known) == ["kd_awgn_1-3", "semoma:size=paper,overhead=twice", "klt"]


def test_what_was_drawn_before_stays_when_weights_go(tmp_path: Path) -> None:
    folder = tmp_path / "figure"
    for rho in (Fraction(1, 12), Fraction(1, 24)):
        install(rho)
    before = reproduce(CONFIG, folder, workers=1).table
    for path in (tmp_path / "weights").glob("*1-24*"):
        path.unlink()
    again = reproduce(CONFIG, folder, workers=1)
    assert "its curve of before stays" in again.lacking["semoma_rayleigh_1-12"]
    pd.testing.assert_frame_equal(again.table, before)
    # Nor do they go with their parts, which no repository keeps.
    shutil.rmtree(folder / "parts")
    again = reproduce(CONFIG, folder, workers=1)
    assert "its curve of before stays" in again.lacking["semoma_rayleigh_1-12"]
    pd.testing.assert_frame_equal(again.table.drop(columns="seconds"), before.drop(columns="seconds"))
    assert len(linksim.load_images(folder)) == 12 * 8 * 2
    assert set(linksim.load(folder).attrs["run"]["parts"]) == set(parts_of(CONFIG))
    fewer = CONFIG.model_copy(update={"scheme": ("bpg-capacity",)})
    with pytest.raises(LinksimError, match="curves that this figure has not"):
        reproduce(fewer, folder, workers=1)
    assert len(linksim.load(folder)) == 12


def test_a_folder_with_files_of_its_own_is_left_alone(tmp_path: Path) -> None:
    install(Fraction(1, 12))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.csv").write_text("precious")
    with pytest.raises(LinksimError, match="holds files but no figure"):
        reproduce(CONFIG, tmp_path / "mine", workers=1)
    assert (tmp_path / "mine" / "table.csv").read_text() == "precious"


def test_a_figure_that_was_cut_is_gone_on_with_and_never_mixed(tmp_path: Path) -> None:
    install(Fraction(1, 12))

    class Cut(Exception):
        pass

    def stop(done: int, total: int, left: float | None) -> None:
        raise Cut

    with pytest.raises(Cut):
        reproduce(CONFIG, tmp_path / "figure", workers=1, progress=lambda name: stop)
    other = CONFIG.model_copy(update={"seed": 3})
    with pytest.raises(LinksimError, match="holds another sweep"):
        reproduce(other, tmp_path / "figure", workers=1)
    assert len(reproduce(CONFIG, tmp_path / "figure", workers=1).table) == 9


def test_damaged_weights_leave_out_their_curve_alone(tmp_path: Path) -> None:
    for rho in (Fraction(1, 12), Fraction(1, 24)):
        install(rho)
    next((tmp_path / "weights").glob("*1-24*.safetensors")).write_bytes(b"")
    done = reproduce(CONFIG, tmp_path / "figure", workers=1)
    assert "is damaged" in done.lacking["semoma_rayleigh_1-12"]
    assert len(done.table) == 9


def test_figures_without_a_file_and_without_any_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="did you mean 'fig06'"):
        sweep_file("fig6")
    assert sweep_file("fig07").name == "fig07.yaml"
    with pytest.raises(LinksimError, match="nothing of this figure can run: no weights"):
        reproduce(make_config({"scheme": "kd", "channel": "rayleigh", "rho": "1/96"}), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_dry_run_names_what_lacks_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(Fraction(1, 24))
    file = tmp_path / "mine.yaml"
    file.write_text("scheme: [semoma, semnoma]\nchannel: rayleigh\nrho: [1/12, 1/48]\n")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert main(["reproduce", str(file), "--dry-run", "--only", "semoma"]) == 0
    out = capsys.readouterr().out
    assert "ready  semoma_rayleigh_1-12\n" in out
    assert "lacks  semoma_rayleigh_1-48: semoma_rayleigh_1-96_n2_own_sum_32px_compact\n" in out
    assert "semnoma" not in out
    assert f"train what lacks: linksim train --for {file} --budget 8h" in out
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert main(["reproduce", str(file), "--only", "semnoma", "--set", "rho=1/48"]) == 2
    assert f"; train what lacks: linksim train --for {file} --budget 8h" in capsys.readouterr().err
    # A curve that names its weights needs none of its model's own, and is not to be trained.
    named = f"scheme=semoma:weights=semoma_rayleigh_1-24_n2_own_sum_32px_compact,semoma:weights={tmp_path}/none"
    assert main(["reproduce", str(file), "--dry-run", "--set", named, "--set", "rho=1/12"]) == 0
    out = capsys.readouterr().out
    assert "ready  semoma_weights=semoma_rayleigh_1-24_n2_own_sum_32px_compact_rayleigh_1-12\n" in out
    command = "linksim train --scheme semoma --channel rayleigh --rho 1/12 --size compact --budget 40m --out"
    assert f"none: no run of semoma_rayleigh_1-24_n2_own_sum_32px_compact is there: {command} {tmp_path}/none\n" in out
    assert "nothing of this figure" not in out
    # The file does not ask for what was asked for beside it.
    assert main(["reproduce", str(file), "--only", "semnoma", "--set", "rho=1/96"]) == 2
    assert "train what lacks" not in capsys.readouterr().err
