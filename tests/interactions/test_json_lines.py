import gzip
import json

import pytest

from mimigenrec.interactions.json_lines import BadLines, read_records


def records(path, allow=0):
    return [record for _, _, record in read_records(path, BadLines(allow))]


def test_json_and_python_literals_plain_or_gzipped(tmp_path):
    lines = [json.dumps({"a": None, "b": True}), repr({"a": "it's", "b": [1, [2]]}), "", '{"a": "é"}']
    plain, zipped = tmp_path / "x.json", tmp_path / "anything"
    plain.write_text("\n".join(lines))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert records(plain) == records(zipped) == [{"a": None, "b": True}, {"a": "it's", "b": [1, [2]]}, {"a": "é"}]


def test_code_in_a_line_is_not_run(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{'a': __import__('os').abort()}\n")
    with pytest.raises(ValueError, match="neither JSON nor a Python literal"):
        records(path)


def test_bad_lines_are_counted_and_one_too_many_stops(tmp_path, caplog):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}\nnot json\n[1]\n{"a": 2}\n\xff\n', encoding="latin-1")
    bad = BadLines(3)
    assert [record["a"] for _, _, record in read_records(path, bad)] == [1, 2]
    assert bad.count == 3 and "line 2" in caplog.text
    with pytest.raises(ValueError, match=r"x\.json, line 3: not a map.*bad line number 2 and --max_bad_lines is 1"):
        records(path, allow=1)


@pytest.mark.parametrize("cut", [0.3, 0.9, -4])
def test_a_truncated_gzip_stops_even_if_bad_lines_are_allowed(tmp_path, cut):
    whole = gzip.compress("".join(f'{{"a": {i * i}}}\n' for i in range(5000)).encode())
    path = tmp_path / "x.json.gz"
    path.write_bytes(whole[: int(len(whole) * cut) if cut > 0 else cut])
    with pytest.raises(ValueError, match=r"x\.json\.gz is damaged or cut short a.*get it again"):
        records(path, allow=10_000)


def test_a_damaged_gzip_is_named(tmp_path):
    whole = bytearray(gzip.compress(b'{"a": 1}\n' * 3000))
    whole[len(whole) // 2] ^= 255
    path = tmp_path / "x.json.gz"
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="damaged or cut short"):
        records(path, allow=10_000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="x.json is missing"):
        records(tmp_path / "x.json")
