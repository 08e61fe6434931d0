"""The journal keeps whole records and drops what was cut or damaged."""

from pathlib import Path

import pytest

from linksim.engine import journal


def records(count: int) -> list[dict[str, object]]:
    return [{"point": f"p{i}", "start": 0, "stop": 2, "value": [0.1 + i, None]} for i in range(count)]


GOOD: dict[str, object] = {
    "sweep": "a", "point": "p", "start": 0, "stop": 2, "stages": {"first": {"mse": [[0.1], [0.2]]}}, "refinement": {},
    "lost": None, "blocks": 0, "block_errors": 0, "tx_power": None, "channel_uses": 512, "user_uses": 512, "split": "",
    "power_note": "", "seconds": {"load": 0.1},
}  # fmt: skip


def test_records_of_another_sweep_or_of_no_unit_do_not_count() -> None:
    others = [{**GOOD, "sweep": "b", "start": 1}, {**GOOD, "point": ["p"]}, {**GOOD, "stop": None}, {}, {"sweep": "a"}]
    others += [{key: value for key, value in GOOD.items() if key != missing} for missing in GOOD]
    others += [{**GOOD, "stages": stages} for stages in ({}, {"first": {}}, {"first": {"mse": [[0.1]]}}, {"first": 5})]
    others += [{**GOOD, "seconds": {"load": "long"}}]
    assert journal.results_by_unit([*others, GOOD], "a") == {("p", 0, 2): GOOD}
    assert journal.results_by_unit([GOOD], "a", ["ssim"]) == {}


@pytest.mark.parametrize("line", [b"00000000 \n", b"\n", b"cafe\n", b'5e1c0001 {"a":1}\n'])
def test_lines_that_are_no_records_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    write(path, records(1))
    path.write_bytes(line + path.read_bytes() + line)
    assert list(journal.read_file(path)) == records(1)


def write(path: Path, items: list[dict[str, object]]) -> None:
    writer = journal.JournalWriter(path)
    for item in items:
        writer.append(item)
    writer.close()


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    items = [{"point": "p", "start": 0, "stop": 1, "value": [1 / 3, 2**-1074, 1e308]}]
    write(tmp_path / "a.jsonl", items)
    assert list(journal.read_folder(tmp_path)) == items


@pytest.mark.parametrize("cut", [1, 5, 20, 47])
def test_a_record_that_was_cut_is_dropped_and_the_next_run_goes_on_after_it(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    write(path, records(3))
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(journal.read_file(path)) == records(2)
    write(path, records(4)[3:])
    assert list(journal.read_file(path)) == [*records(2), records(4)[3]]


def test_a_record_with_a_flipped_byte_is_dropped_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, records(3))
    data = bytearray(path.read_bytes())
    middle = data.index(b"p1")
    data[middle + 1] ^= 1
    path.write_bytes(bytes(data))
    assert list(journal.read_file(path)) == [records(3)[0], records(3)[2]]


def test_a_disk_that_fills_up_takes_no_record_that_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    write(path, records(2))
    writer = journal.JournalWriter(path)
    real = writer._file

    class Full:
        def write(self, data: bytes) -> int:
            return real.write(data[: len(data) // 2])

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(OSError, match="No space left"):
        writer.append(records(3)[2])
    assert list(journal.read_file(path)) == records(2)
    assert path.read_bytes().endswith(b"\n")


def test_a_file_that_may_not_grow_is_no_full_disk(tmp_path: Path) -> None:
    import errno
    import resource
    import signal

    path = tmp_path / "a.jsonl"
    write(path, records(2))
    whole = path.read_bytes()
    writer = journal.JournalWriter(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            writer.append(records(3)[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == whole
