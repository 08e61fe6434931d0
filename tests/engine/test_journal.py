"""The journal keeps whole records and drops what was cut or damaged."""

from pathlib import Path

import pytest

from linksim.engine import journal


def records(count: int) -> list[dict[str, object]]:
    return [{"point": f"p{i}", "start": 0, "stop": 2, "value": [0.1 + i, None]} for i in range(count)]


def test_records_of_another_sweep_or_of_no_unit_do_not_count() -> None:
    good = {"sweep": "a", "point": "p", "start": 0, "stop": 2, "stages": {}, "refinement": {}}
    others = [{**good, "sweep": "b", "start": 2}, {**good, "point": ["p"]}, {**good, "stop": None}, {}, {"sweep": "a"}]
    others += [{**good, missing: None} for missing in ("stages", "refinement")]
    assert journal.results_by_unit([*others, good], "a") == {("p", 0, 2): good}


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
