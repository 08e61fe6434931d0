"""Learned schemes find their weights, tell which are missing, and refuse what was tampered with."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import linksim
from linksim import LinkConfig, LinksimError, Setting
from linksim.cli import main
from linksim.errors import NoWeights
from linksim.files import digest
from linksim.models import weights
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec, spec_from_json
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.scheme import LearnedParams, OrthogonalParams, SemNoma, SemOma
from linksim.train.models import models_for
from linksim.train.run import golden_psnr
from tests.models.build import build

SPEC = ModelSpec("semoma", "compact", "awgn", Fraction(1, 24))
MODEL = transceiver(SPEC)
FACTS = {"pairs": 48, "lineage": [], "validation": {"psnr_10db": 0.0}, "score": 0.0}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights with one model of random numbers, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINKSIM_WEIGHTS", str(tmp_path_factory.mktemp("random") / "weights"))
        torch.manual_seed(0)
        model = build(SPEC)
        golden = golden_psnr(MODEL, model)
        return weights.install(MODEL, model, {**FACTS, "golden_psnr_db": golden})[0].parent


@pytest.fixture
def untrained(random_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of one model of random numbers, in a folder of the test's own."""
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    shutil.copytree(random_weights, tmp_path / "weights")
    return next((tmp_path / "weights").glob("*.safetensors"))


def sweep(tmp_path: Path, **settings: Any) -> Any:
    defaults: dict[str, Any] = {
        "scheme": "semoma", "rho": "1/12", "snr": "0:10:10", "groups": 8, "metrics": "psnr", "progress": False
    }  # fmt: skip
    return linksim.sweep(tmp_path / "x", **{**defaults, **settings})


def test_installed_weights_run_in_the_harness_at_the_systems_bandwidth(untrained: Path, tmp_path: Path) -> None:
    table = sweep(tmp_path)
    assert (table["channel_uses"] == 256).all()
    assert table["rho_user"].iloc[0] == pytest.approx(1 / 24)
    assert table["tx_power"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (table["trained_pairs"] == 48).all()
    run = json.loads((tmp_path / "x" / "run.json").read_text())
    assert digest(untrained.read_bytes()) in run["identity"].values()


def test_twice_the_overhead_is_shown_in_the_channel_uses(untrained: Path, tmp_path: Path) -> None:
    table = sweep(tmp_path, scheme="semoma:overhead=twice", rho="1/24")
    assert (table["channel_uses"] == 256).all()
    assert (table["rho"] == 1 / 24).all()
    assert table["rho_total"].iloc[0] == pytest.approx(1 / 12)


def test_missing_weights_name_what_is_there_and_how_to_train(untrained: Path, tmp_path: Path) -> None:
    for settings, command in (
        ({"rho": "1/24"}, "linksim train --scheme semoma --channel awgn --rho 1/24 --size compact"),
        ({"channel": "rayleigh"}, "--channel rayleigh"),
        ({"users": 3, "rho": "1/4"}, "--users 3"),
        ({"scheme": "semoma:size=paper"}, "--size paper"),
        ({"power": "per-ue"}, "--power per-ue"),
    ):
        with pytest.raises(LinksimError) as caught:
            sweep(tmp_path, **settings)
        assert SPEC.name in str(caught.value)
        assert command in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_tampered_or_truncated_weights_are_refused(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = untrained.read_bytes()
    for broken in (data[:-100], data[:5000] + b"\0\0" + data[5002:], b""):
        untrained.write_bytes(broken)
        with pytest.raises(LinksimError, match="damaged"):
            sweep(tmp_path)
        assert main(["verify", SPEC.name]) == 2
        assert "BAD" in capsys.readouterr().out
    untrained.unlink()
    with pytest.raises(NoWeights, match="weights gone from"):
        weights.load(MODEL)
    assert main(["verify", SPEC.name]) == 2
    assert f"BAD  {SPEC.name}: {SPEC.name}: weights gone" in capsys.readouterr().out


def test_own_weights_that_are_gone_do_not_give_way_to_shipped_ones(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    shutil.copytree(untrained.parent, tmp_path / "shipped")
    assert (sweep(tmp_path)["trained_pairs"] == 48).all()
    untrained.unlink()
    with pytest.raises(NoWeights, match=r"weights gone from .*; put them back, take the card out of .*manifest\.json"):
        sweep(tmp_path / "again")
    weights.load(MODEL, weights._read(weights.SHIPPED)[SPEC.name])


def test_a_card_without_weights_is_of_a_model_that_is_not_shipped(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "SHIPPED", untrained.parent)
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "none"))
    assert main(["verify"]) == 0
    untrained.unlink()
    with pytest.raises(NoWeights, match="weights not shipped"):
        weights.load(MODEL)
    assert main(["verify"]) == 0
    assert main(["list", "weights"]) == 0
    assert capsys.readouterr().out.count("weights not shipped") == 2


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "null", '{"a": "b"}', "{", '{"a": {"files": {"x": "y"}}}', "[" * 100_000],
    ids=["list", "null", "text", "torn", "no model", "deep"],
)
def test_a_manifest_that_is_none_is_named(text: str, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = untrained.parent / weights.MANIFEST
    manifest.write_text(text)
    for words in (["verify"], ["list", "weights"], ["sweep", "--scheme", "semoma", "--out", "never"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert str(manifest) in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    "wrong", [{"users": "two"}, {"rho": "1/0"}, {"csi": "nothing"}, {"image_shape": [3, 32]}, {"x": 1}]
)
def test_a_card_whose_model_has_values_of_other_types_is_named(wrong: dict[str, Any], untrained: Path) -> None:
    manifest = untrained.parent / weights.MANIFEST
    cards = json.loads(manifest.read_text())
    cards[SPEC.name]["model"] |= wrong
    manifest.write_text(json.dumps(cards))
    with pytest.raises(LinksimError, match=next(iter(wrong))) as caught:
        weights.cards()
    assert str(manifest) in str(caught.value)


def test_a_card_of_another_model_and_weights_of_another_network_are_refused(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = untrained.parent / weights.MANIFEST
    cards = json.loads(manifest.read_text())
    good = json.dumps(cards)
    cards[SPEC.name]["model"]["power"] = "per-ue"
    manifest.write_text(json.dumps(cards))
    with pytest.raises(LinksimError, match="of another model"):
        weights.load(MODEL)
    cards = json.loads(good)
    from safetensors.torch import save

    untrained.write_bytes(save({"x": torch.zeros(3)}))
    cards[SPEC.name]["files"] = {untrained.name: digest(untrained.read_bytes())}
    manifest.write_text(json.dumps(cards))
    with pytest.raises(LinksimError, match="not of the network of"):
        weights.load(MODEL)
    assert main(["verify", SPEC.name]) == 2
    assert "not of the network" in capsys.readouterr().out


def test_weights_that_change_while_a_sweep_runs_stop_it(untrained: Path, tmp_path: Path) -> None:
    from linksim.engine import evaluate
    from linksim.engine.config import make_config
    from linksim.engine.sweep import prepare, run_sweep

    prepared = prepare(make_config({"scheme": "semoma", "rho": "1/12", "snr": "10", "groups": 4, "metrics": "psnr"}))
    torch.manual_seed(1)
    weights.install(MODEL, build(SPEC), {**FACTS, "golden_psnr_db": 0.0})
    evaluate._system.cache_clear()
    with pytest.raises(LinksimError, match="weights of semoma changed since the sweep began"):
        run_sweep(prepared, tmp_path / "x", workers=1)


def test_large_models_are_cut_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "SHARD", 2**20)
    model = build(SPEC)
    paths = weights.install(MODEL, model, {**FACTS, "golden_psnr_db": 0.0})
    assert [path.name.split(".")[0] for path in paths] == [
        f"{SPEC.name}-{n:05d}-of-{len(paths):05d}" for n in range(1, len(paths) + 1)
    ]
    assert len(paths) > 3
    assert all(path.stat().st_size <= 2**20 for path in paths)
    for name, value in weights.load(MODEL).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name].half().float(), rtol=0, atol=0)
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(LinksimError, match=r"00003-of-.* is damaged"):
        weights.load(MODEL)


def test_a_card_says_where_weights_come_from_and_how_to_make_them_again(capsys: pytest.CaptureFixture[str]) -> None:
    name = "kd_rayleigh_1-6_n2_own_sum_32px_compact"
    assert main(["card", name]) == 0
    card = weights.cards()[name]
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["command"] == card["command"]
    assert said["started"] == f"from {card['lineage'][-1]['model']}"
    assert str(card["seconds"]) in said["trained"]
    assert main(["card", name.replace("kd", "dk")]) == 2
    assert f"did you mean '{name}'" in capsys.readouterr().err


def test_the_golden_psnr_of_a_card_is_measured_again(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = next(name for name in weights.cards() if name != SPEC.name)
    assert main(["verify", SPEC.name, others, SPEC.name]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["ok", f"{SPEC.name}:"], ["ok", f"{others}:"]
    ]  # fmt: skip
    manifest = untrained.parent / weights.MANIFEST
    cards = json.loads(manifest.read_text())
    cards[SPEC.name]["golden_psnr_db"] += 0.5
    manifest.write_text(json.dumps(cards))
    assert main(["verify", SPEC.name]) == 2
    assert "BAD" in capsys.readouterr().out
    assert main(["verify", SPEC.name.replace("awgn", "awng")]) == 2
    assert f"did you mean '{SPEC.name}'" in capsys.readouterr().err


def test_half_precision_evaluation_equals_single_precision_within_a_fiftieth_of_a_decibel(untrained: Path) -> None:
    from linksim.data import load_dataset
    from linksim.nets.precision import evaluated_in, laid_out

    model, sends = weights.load(MODEL), SemOma.transmission(SPEC)
    images = load_dataset("cifar10-mini").images[:64]
    exact = sends.psnr(model, images, "cpu", (10.0,))[10.0]
    with evaluated_in("bf16", "cpu"):
        half = sends.psnr(laid_out(model, "cpu", "bf16"), images, "cpu", (10.0,))[10.0]
    assert half != exact
    assert half == pytest.approx(exact, abs=0.02)


def test_a_sweep_knows_the_models_that_it_needs_teachers_first() -> None:
    from linksim.engine.config import make_config

    config = make_config({"scheme": "kd,semnoma,semoma:overhead=twice,bpg-ldpc-qam-sic", "channel": "rayleigh"})
    names = [spec.name for spec in models_for(config, CIFAR10_SHAPE)]
    assert names == [
        "semoma_rayleigh_1-6_n2_own_sum_32px_compact",
        "semnoma_rayleigh_1-6_n2_own_sum_32px_compact",
        "kd_rayleigh_1-6_n2_own_sum_32px_compact",
    ]


def test_images_and_side_information_that_no_network_fits_are_refused() -> None:
    awgn = LinkConfig("awgn", 2)
    with pytest.raises(LinksimError, match="multiples of 4, not 34x30"):
        SemNoma(Setting(awgn, (3, 30, 34), Fraction(1, 6)), LearnedParams())
    with pytest.raises(LinksimError, match="leave csi out"):
        SemNoma(Setting(awgn, (3, 32, 32), Fraction(1, 6)), LearnedParams(csi="all"))
    with pytest.raises(LinksimError, match="do not divide"):
        SemOma(Setting(LinkConfig("awgn", 3), (3, 32, 32), Fraction(1, 6)), OrthogonalParams())


def test_every_shipped_card_keeps_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from linksim.train.run import verify

    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path))
    total = 0
    for name, card in weights.cards().items():
        assert spec_from_json(card["model"]).name == name
        if not weights.present(card):
            continue
        said, measured = verify(name)
        assert measured == pytest.approx(said, abs=0.01)
        sizes = [(weights.SHIPPED / file).stat().st_size for file in card["files"]]
        assert max(sizes) <= weights.SHARD
        total += sum(sizes)
    assert total < 250e6


def test_weights_are_a_parameter_so_that_several_stand_in_one_table(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from linksim.data.training import training_set_of
    from linksim.models.checkpoint import load_checkpoint
    from linksim.schemes.semnoma.recipe import RECIPES
    from linksim.train import loop

    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8).numpy()
    run = tmp_path / "run"
    task = MODEL.task(replace(RECIPES["scratch"], batch=2), training_set_of(images, 8), 0, "cpu", None)
    loop.train(task, run, steps=3)
    schemes = ["semoma", f"semoma:weights={run}", f"semoma:weights={untrained}", f"semoma:weights={SPEC.name}"]
    table = sweep(tmp_path, scheme=schemes, snr="10")
    assert table["weights"].tolist() == ["auto", str(run), str(untrained), SPEC.name]
    psnr = table["psnr_db"].tolist()
    assert psnr[0] == psnr[2] == psnr[3] != psnr[1]
    best = 2 * load_checkpoint(run / "best.pt")["state"]["step"]
    assert table["trained_pairs"].tolist() == pytest.approx([48, best, float("nan"), 48], nan_ok=True)
    identity = json.loads((tmp_path / "x" / "run.json").read_text())["identity"]
    assert digest((run / "best.pt").read_bytes()) in identity.values()
    # So that one word serves for every channel and ratio of a sweep: the folder of several runs.
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / SPEC.name)
    runs = sweep(tmp_path / "again", scheme=f"semoma:weights={tmp_path / 'runs'}", snr="10")
    assert runs["psnr_db"].tolist() == psnr[1:2]


def test_shipped_weights_can_be_asked_for_beside_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    spec = ModelSpec("semoma", "compact", "awgn", Fraction(1, 12))
    weights.install(transceiver(spec), build(spec), {**FACTS, "golden_psnr_db": 0.0})
    table = sweep(tmp_path, rho="1/6", snr="10", scheme="semoma,semoma:weights=shipped")
    assert table["psnr_db"].iloc[1] > table["psnr_db"].iloc[0] + 5


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "nothing-there",
            "weights=nothing-there: no run of semoma_awgn_1-24_n2_own_sum_32px_compact is there: linksim train"
            " --scheme semoma --channel awgn --rho 1/12 --size compact --budget 40m --out nothing-there",
        ),
        ("gone.pt", "weights=gone.pt: there is no such file: give one that is there"),
        ("semoma_awgn_1-3_n2_own_sum_32px_compac", "did you mean semoma_awgn_1-3_n2_own_sum_32px_compact?"),
        (
            "semoma_awgn_1-3_n2_own_sum_32px_compact",
            "32px_compact: these weights are not of the network of semoma_awgn_1-24"
            "_n2_own_sum_32px_compact: encoder.layers.8.1.weight is (32, 96, 1, 1) and not (4, 96, 1, 1)",
        ),
        # The same network: no table would tell.
        ("semnoma_awgn_1-6_n2_own_sum_32px_compact", "these are of semnoma, not of semoma: name them"),
        ("kd_awgn_1-3_n2_own_sum_32px_compact_fa", "these are of kd:ablation=fa, not of semoma"),
        ("cgan_kd_awgn_1-6_n2_own_sum_32px_compact", "these are of cgan_kd_awgn_1-6_n2_own_sum_32px_compact, not of"),
        ("{folder}/run", "these are of semnoma, not of semoma"),
        ("shipped", "none are shipped"),
        ("{folder}/garbage.safetensors", "no safetensors file"),
        ("{folder}/garbage.pt", "garbage.pt is no checkpoint of linksim train, or damaged: give another file"),
        ("{folder}", "no run of semoma_awgn_1-24_n2_own_sum_32px_compact is there: linksim train --scheme semoma"),
    ],
)
def test_weights_that_are_none_or_of_another_network_are_refused(
    untrained: Path, tmp_path: Path, text: str, hint: str
) -> None:
    from linksim.data.training import training_set_of
    from linksim.schemes.semnoma.recipe import RECIPES
    from linksim.train import loop

    for name in ("garbage.safetensors", "garbage.pt"):
        (tmp_path / name).write_bytes(b"garbage")
    if text.endswith("run"):
        other = transceiver(replace(SPEC, method="semnoma"))
        images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8).numpy()
        task = other.task(replace(RECIPES["scratch"], batch=2), training_set_of(images, 4), 0, "cpu", None)
        loop.train(task, tmp_path / "run", steps=1)
    with pytest.raises(LinksimError, match=re.escape(hint)):
        sweep(tmp_path, scheme=f"semoma:weights={text.format(folder=tmp_path)}")
    assert not (tmp_path / "x").exists()


def test_weights_that_run_where_they_were_not_trained_say_so_once_and_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    with pytest.warns(UserWarning, match="trained at 0 to 20 dB") as caught:
        table = sweep(tmp_path, rho="1/6", snr="-10:20:5", groups=2)
    said = [str(warning.message) for warning in caught if "trained" in str(warning.message)]
    assert said == ["semoma: weights trained at 0 to 20 dB, run over awgn -10 dB and 1 more"]
    assert table.set_index("snr_db")["trained_note"].to_dict() == {
        -10.0: "trained at 0 to 20 dB", -5.0: "trained at 0 to 20 dB", **dict.fromkeys((0.0, 5.0, 10.0, 15.0, 20.0), "")
    }  # fmt: skip
    with pytest.warns(UserWarning, match="trained over rayleigh, run over rician 10 dB"):
        table = linksim.sweep(tmp_path / "rician", scheme="semoma", channel="rician", rho="1/6", snr="10", groups=2,
                              metrics="psnr", progress=False)  # fmt: skip
    assert table["trained_note"].item() == "trained over rayleigh"


def test_learned_schemes_hear_their_users_through_a_detector_where_the_channel_is_not_that_of_their_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))

    def run(channel: str, **more: object) -> "pd.Series[float]":
        settings = {"scheme": "semnoma,semoma", "rho": "1/6", "snr": "10", "groups": 8, "metrics": "psnr"}
        name = f"{channel}{more}".replace("/", "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = linksim.sweep(tmp_path / name, channel=channel, progress=False, **settings, **more)
        assert table["trained_note"].eq(note).all()
        return table.set_index("scheme")["psnr_db"]

    note = ""
    one, plain = run("rayleigh"), run("awgn")
    note = "trained with one antenna"
    two, four = run("rayleigh", antennas=2), run("rayleigh", antennas=4)
    # Combining helps, and with many antennas users that superpose hardly meet.
    assert (two > one + 0.5).all()
    assert (four > two + 0.5).all()
    # Over AWGN a user with channel uses of its own gains nothing from antennas that do not hear it.
    assert run("awgn", antennas=2)["semoma"] == pytest.approx(plain["semoma"], abs=0.2)
    note = "trained over rayleigh"
    for channel in ("rayleigh-fast", "tdl-c"):
        assert run(channel)["semoma"] > one["semoma"] - 1.5


@pytest.mark.parametrize("more", [{"antennas": 2}, {"channel": "rayleigh-fast"}])
def test_a_decoder_of_all_users_needs_their_sum(tmp_path: Path, more: dict[str, object]) -> None:
    with pytest.raises(LinksimError, match="decodes all users from one signal: it needs --antennas 1"):
        sweep(tmp_path, **{"scheme": "deepjscc-noma", "channel": "rayleigh", "rho": "1/6", **more})


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "..", ".hidden", "a/b.safetensors", ""])
def test_a_card_whose_files_lie_elsewhere_is_refused(untrained: Path, name: str) -> None:
    manifest = untrained.parent / weights.MANIFEST
    cards = json.loads(manifest.read_text())
    cards[SPEC.name]["files"] = {name: "0" * 64}
    manifest.write_text(json.dumps(cards))
    outside = untrained.parent.parent / "outside.safetensors"
    outside.write_bytes(b"mine")
    with pytest.raises(LinksimError, match="is no list of cards"):
        weights.load(MODEL)
    with pytest.raises(LinksimError, match="is no list of cards"):
        weights.install(MODEL, MODEL.build(), {**FACTS, "golden_psnr_db": 0.0})
    assert outside.read_bytes() == b"mine"
