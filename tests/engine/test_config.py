"""Settings: ranges, lists, unknown words, contradictions."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linksim.engine.config import SweepConfig, make_config, parse_range, read_sweep_file
from linksim.engine.variants import expand, parse
from linksim.errors import LinksimError
from linksim.grammar import split_list


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:20:5", (0, 5, 10, 15, 20)),
        ("-5:20:5", (-5, 0, 5, 10, 15, 20)),
        ("0:2", (0, 1, 2)),
        ("0:1:0.25", (0, 0.25, 0.5, 0.75, 1)),
        ("0:0.3:0.1", (0, 0.1, 0.2, 0.3)),
        ("10:0:-5", (10, 5, 0)),
        ("7", (7,)),
        ("0,5,5,10", (0, 5, 10)),
    ],
)
def test_ranges_include_both_ends(text: str, values: tuple[float, ...]) -> None:
    assert parse_range(text) == values


@pytest.mark.parametrize("text", ["", ",", "a", "5:0", "0:20:0", "0:nan", "inf", "0:20:2:1", "0:1e400:1"])
def test_ranges_that_give_nothing_are_refused(text: str) -> None:
    with pytest.raises(LinksimError, match="gives no values"):
        parse_range(text)


def test_parameters_after_a_comma_belong_to_the_scheme_before() -> None:
    text = "bpg-ldpc-qam-sic:mcs=qpsk-1/2,split=equal,bpg-capacity,bpg-ldpc-qam-sic:split=0.8/0.2"
    assert split_list(text) == [
        "bpg-ldpc-qam-sic:mcs=qpsk-1/2,split=equal",
        "bpg-capacity",
        "bpg-ldpc-qam-sic:split=0.8/0.2",
    ]


def test_equal_variants_have_equal_keys_however_they_are_written() -> None:
    one, other = parse("bpg-ldpc-qam-sic:split=equal,mcs=qpsk-1/2"), parse("bpg-ldpc-qam-sic:mcs=qpsk-1/2,split=equal")
    assert one.key == other.key
    assert parse("bpg-ldpc-qam-sic").key == parse("bpg-ldpc-qam-sic:mcs=qpsk-1/2").key


def test_a_scheme_that_is_written_in_two_ways_is_one_and_a_note_says_so(recwarn: pytest.WarningsRecorder) -> None:
    config = make_config({"scheme": "klt,jpeg-ldpc-qam,jpeg-ldpc-qam:codec=jpeg,klt", "users": 1})
    assert config.scheme == ("klt", "jpeg-ldpc-qam")
    notes = [str(warning.message) for warning in recwarn]
    assert notes == ["jpeg-ldpc-qam:codec=jpeg is jpeg-ldpc-qam in other words: it runs once, under that name"]
    assert SweepConfig(scheme=("jpeg-ldpc-qam:codec=jpeg", "jpeg-ldpc-qam")).scheme == ("jpeg-ldpc-qam:codec=jpeg",)


def test_a_member_of_an_envelope_is_written_as_it_is_asked_for() -> None:
    envelope, alone = parse("jpeg-ldpc-qam:codec=jpeg,mcs=envelope"), parse("jpeg-ldpc-qam:mcs=qpsk-1/2")
    for asked in ([envelope, alone], [alone, envelope]):
        variants, derived = expand(asked)
        assert len(variants) == len(derived[envelope]) == 6
        assert alone in variants
        assert alone in derived[envelope]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scheme": "bgp-ldpc-qam-sic"}, "did you mean 'bpg-ldpc-qam-sic'"),
        ({"scheme": "bpg-ldpc-qam-sic:msc=qpsk-1/2"}, "did you mean 'mcs'"),
        ({"scheme": "bpg-ldpc-qam-sic:block=whole"}, "block"),
        ({"scheme": ""}, "no scheme given"),
        ({}, "no scheme given"),
        ({"scheme": "bpg-capacity", "chanel": "awgn"}, "did you mean 'channel'"),
        ({"scheme": "bpg-capacity", "channel": "raylegh"}, "did you mean 'rayleigh'"),
        ({"scheme": "bpg-capacity", "metrics": "psnr,sim"}, "did you mean 'ssim'"),
        ({"scheme": "bpg-capacity", "users": 9}, "users"),
        ({"scheme": "bpg-capacity", "users": 0}, "users"),
        ({"scheme": "bpg-capacity", "power": "total"}, "power"),
        ({"scheme": "bpg-capacity", "groups": 0}, "groups"),
        ({"scheme": "bpg-capacity", "mcs": "qpsk-1/2"}, "none of the schemes has a parameter 'mcs'"),
        ({"scheme": "bpg-capacity", "until": "psnr"}, "until"),
        ({"scheme": "bpg-capacity", "until": "psnr=-1"}, "positive"),
        ({"scheme": "bpg-capacity", "until": "lpips=0.1"}, "no metric of this sweep"),
        ({"scheme": "bpg-capacity", "until": "psnr=0.1", "groups": 5}, "exclude each other"),
        ({"scheme": "bpg-capacity", "max_groups": 500}, "bounds --until"),
        ({"scheme": "bpg-capacity", "csi_error_var": -1}, "csi_error_var"),
        ({"scheme": "bpg-capacity", "seed": "x"}, "seed"),
        ({"scheme": "bpg-capacity", "rho": "0"}, "positive"),
        ({"scheme": "bpg-capacity", "snr": []}, "gives no values"),
        ({"scheme": "bpg-capacity", "snr": "0:1e7:0.1"}, "larger step"),
        ({"scheme": "bpg-capacity", "snr": "0:1e300:1"}, "larger step"),
        ({"scheme": "bpg-capacity", "snr": "1e308"}, "beyond 200 dB"),
        ({"scheme": "bpg-capacity", "snr": {"a": 1}}, "in a row"),
        ({"scheme": "bpg-capacity", "rho": "1e308"}, "no ratio"),
        ({"scheme": "bpg-capacity", "rho": "9" * 400}, "no ratio"),
        ({"scheme": "bpg-capacity", "rho": "17"}, "at most 16"),
        ({"scheme": "bpg-capacity", "rho": True}, "in a row"),
        ({"scheme": "bpg-capacity", "rho": float("inf")}, "no ratio"),
        ({"scheme": "bpg-capacity", "users": True}, "no number"),
        ({"scheme": "bpg-capacity", "channel": [["awgn"]]}, "name:key=value"),
        ({"scheme": "bpg-capacity", "metrics": ""}, "no metric given"),
        ({"scheme": "bpg-capacity", "min_groups": 8}, "bounds --until"),
        ({"scheme": "bpg-capacity", "channel": "rician:k_db=4000"}, "k_db: Input should be less than or equal to 200"),
        ({"scheme": "bpg-capacity", "csi_error_var": 1e308}, "csi_error_var"),
        ({"scheme": {"bpg-capacity": {"split": "equal"}}}, "name:key=value"),
        ({"scheme": 5}, "name:key=value"),
        ({"scheme": "bpg-capacity", 5: 1}, "unknown setting '5'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LinksimError) as caught:
        make_config(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shared_parameters_reach_the_schemes_that_have_them() -> None:
    config = make_config({"scheme": "bpg-ldpc-qam-sic,bpg-capacity-oma", "mcs": "qpsk-3/4"})
    assert config.scheme == ("bpg-ldpc-qam-sic:mcs=qpsk-3/4", "bpg-capacity-oma")


def test_a_sweep_file_and_the_command_line_give_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("scheme: [bpg-capacity]\nsnr: 0:10:5\nrho: [1/6, 1/3]\nuntil: {psnr: 0.5}\nusers: 3\n")
    config = make_config(read_sweep_file(file, {"users": "2"}))
    same = {"scheme": "bpg-capacity", "snr": (0, 5, 10), "rho": "1/6,1/3", "until": "psnr=0.5", "users": 2}
    assert config == make_config(same)


def test_settings_survive_the_way_through_json() -> None:
    config = make_config({"scheme": "bpg-ldpc-qam-sic:split=equal", "until": "psnr=0.2", "rho": "1/6", "snr": "0:4:2"})
    assert make_config(config.model_dump(mode="json")) == config


def test_yaml_has_no_surprises(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("scheme: bpg-capacity\nsnr: 5:20:5\nseed: 010\nrho: 1/6\n")
    config = make_config(read_sweep_file(file))
    assert config.snr == (5, 10, 15, 20)
    assert config.seed == 10
    file.write_text("scheme: bpg-capacity\nseed: 1\nseed: 2\n")
    with pytest.raises(LinksimError, match='line 3: found duplicate key "seed"'):
        read_sweep_file(file)


def test_rows_of_numbers_may_be_arrays_ranges_or_lists() -> None:
    for snr in (np.arange(0, 11, 5), range(0, 11, 5), [0, 5.0, 10], "0:10:5"):
        assert make_config({"scheme": "bpg-capacity", "snr": snr}).snr == (0, 5, 10)
    assert make_config({"scheme": "bpg-capacity", "data_dir": Path("a"), "dataset": "cifar10"}).data_dir == "a"


@pytest.mark.parametrize("text", ["", "- a\n- b", "scheme: [", "\x00", "a: " + "[" * 2000, "a: !!int b", "snr:"])
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(LinksimError, match=r"sweep file .*bad\.yaml"):
        read_sweep_file(tmp_path / "bad.yaml")
    with pytest.raises(LinksimError, match="No such file"):
        read_sweep_file(tmp_path / "none.yaml")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 25)) + "scheme: *a24\n"


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "snr: !!bool maybe",
        "snr: !!int ''",
        "snr: !!timestamp x",
        "scheme: &a [*a]",
        "[" * 5000,
        "scheme: " + "a" * (1 << 18),
    ],
)
def test_a_file_that_is_no_sweep_is_refused_at_once_and_in_a_short_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    begin = time.process_time()
    with pytest.raises(LinksimError, match="sweep file") as caught:
        read_sweep_file(tmp_path / "x.yaml")
    assert time.process_time() - begin < 20
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["scheme", "snr", "users", "metrics", "channel", "until", "seed"])
def test_a_message_never_repeats_a_value_in_full(key: str) -> None:
    for value in ("x" * 100_000, ["x" * 100_000], [[["x"] * 9000] * 900] * 900):
        with pytest.raises(LinksimError) as caught:
            make_config({"scheme": "semnoma", key: value})
        assert len(str(caught.value)) < 1500


def test_a_parameter_or_a_width_that_is_given_twice_is_refused() -> None:
    with pytest.raises(LinksimError, match="csi is given twice"):
        make_config({"scheme": "semnoma:csi=own,csi=all"})
    with pytest.raises(LinksimError, match="each metric once"):
        make_config({"scheme": "semnoma", "until": "psnr=0.1,psnr=0.2"})


@pytest.mark.parametrize("values", [{"dataset": "folder:caf\udce9"}, {"data_dir": "caf\udce9"}, {"scheme": "x\udce9"}])
def test_a_name_that_is_not_utf_8_is_refused_before_any_work(values: dict[str, str]) -> None:
    with pytest.raises(LinksimError, match="is not UTF-8"):
        make_config({"scheme": "semnoma", **values})
