import gzip
import json
import random

import pytest

from mimigenrec.interactions.inter_file import read_inter
from tests.conftest import shared

FIRST = "The user has interacted with items "
LAST = " in chronological order. Can you predict the next possible item that the user may expect?"


def published(rows, sids):
    """Rows as MIMIGenRec writes them, shuffled as its train rows are, another task's row among them."""
    told = [
        {
            "prompt": [
                {"role": "system", "content": "Below is an instruction"},
                {"role": "user", "content": FIRST + ", ".join(sids[item] for item in items) + LAST},
            ],
            "reward_model": {"style": "rule", "ground_truth": sids[target]},
            "extra_info": {"index": index, "task": "task1_sid_sft"},
        }
        for index, (items, target) in enumerate(rows)
    ]
    random.Random(0).shuffle(told)
    return [told[0] | {"extra_info": {"index": 0, "task": "task4_hisTitle2sid"}}, *told]


def test_a_real_set_comes_back_sid_by_sid(build, tmp_path):
    folder = shared("data", "amazon18-industrial-active")
    name = "Industrial_and_Scientific"
    table = folder / "upstream_full_eval" / f"{name}.id2sid.mimigenrec.json.gz"
    sids = {item: "".join(tokens) for item, tokens in json.loads(gzip.decompress(table.read_bytes())).items()}
    (tmp_path / "id2sid.json").write_bytes(gzip.decompress(table.read_bytes()))
    parts, files = {}, []
    for split in ("train", "valid", "test"):
        parts[split] = [(row.items[-10:], row.target) for row in read_inter(folder / f"{name}.{split}.inter")]
        files.append(tmp_path / f"{split}.json")
        files[-1].write_text(json.dumps(published(parts[split], sids)))
    out = build(files, source="mimigenrec", id2sid=tmp_path / "id2sid.json")
    raw = {new: sids[old] for old, new in out.item2id.items()}
    for split, rows in parts.items():
        expected = [([sids[item] for item in items], sids[target]) for items, target in rows]
        assert [([raw[item] for item in items], raw[target]) for _, items, target in out.rows[split]] == expected
    assert out.counts["targets_whose_sid_is_shared"] > 0
    assert abs(len(out.user2id) - 3058) < 10


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([((), "0")], {}, "needs --id2sid"),
        ([(("0",), "1")], {"id2sid": {"0": ["<a_0>"]}}, "index 0 names <a_9>, which id2sid.json has not"),
        ([], {"id2sid": {"0": ["<a_0>"]}}, "has no row of task"),
    ],
)
def test_what_cannot_be_read_back_is_named(build, tmp_path, rows, flags, message):
    told = published(rows, {"0": "<a_0>", "1": "<a_9>"}) if rows else []
    (tmp_path / "train.json").write_text(json.dumps(told))
    if "id2sid" in flags:
        (tmp_path / "id2sid.json").write_text(json.dumps(flags["id2sid"]))
        flags = {"id2sid": tmp_path / "id2sid.json"}
    with pytest.raises(ValueError, match=message):
        build([tmp_path / "train.json"], source="mimigenrec", **flags)
