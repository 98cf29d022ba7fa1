"""Every command, told something wrong: one message that names it, no traceback, nothing of the user's touched.

The table is bad_inputs.py. The commands run in children of one process that has loaded everything (warm.py).
"""

import csv
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimigenrec.cli import COMMANDS
from tests.bad_inputs import BAD_INPUTS, Bad
from tests.conftest import ROOT

SFT = """model_name_or_path: base_sid
stage: sft
do_train: true
finetuning_type: full
dataset: shop_train
eval_dataset: shop_valid
dataset_dir: data
cutoff_len: 128
output_dir: sft
per_device_train_batch_size: 8
learning_rate: 1.0e-3
max_steps: 2
save_steps: 2
logging_steps: 1
report_to: none
seed: 1
"""
GRPO = """model: sft
data: data/shop
rewards: [ranking_reward.rule_reward]
output_dir: rl
num_generations: 4
per_device_train_batch_size: 8
max_steps: 1
logging_steps: 1
save_steps: 1
report_to: none
"""
BUILD = (  # a shop with every command, seconds altogether
    "interactions source=table interactions=log/log.csv items=log/items.csv category=shop output_dir=raw "
    "user_column=user item_column=item time_column=time title_column=title user_k=0 item_k=0 split=leave_one_out",
    "embed --items raw/shop/shop.item.json --output raw/shop/shop.emb.npy --dim 8",
    "quantise --items raw/shop/shop.item.json --vectors raw/shop/shop.emb.npy --output raw/shop/shop.index.json "
    "--sizes 4 4 4",
    "preprocess --data_dir raw --category shop --output_dir data/shop --wording compact",
    "make-base --data data/shop --output_dir base --hidden 16 --layers 1",
    "add-sids --base base --tokens data/shop/new_tokens.json --output base_sid",
    "sft sft.yaml",
    "grpo grpo.yaml",
    "evaluate --model sft --data data/shop --output results/sft --k 5 --beams 5 --limit 12",
    "baseline --method popularity --data_dir raw --category shop --data data/shop --k 5 --limit 12 "
    "--output results/pop",
    "baseline --method sasrec --data_dir raw --category shop --data data/shop --k 5 --limit 12 "
    "--output results/sasrec --width 8 --epochs 2 --max_history 5",
)
WARNINGS = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def warm():
    """warm(line, cwd, **more) -> {"status", "stdout", "stderr"} of a command; see warm.py."""
    environment = {**os.environ, **WARNINGS, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "warm.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert json.loads(process.stdout.readline()) == {"status": 0}

        def run(line: str, cwd: Path, **more):
            process.stdin.write(json.dumps({"argv": shlex.split(line), "cwd": str(cwd), **more}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def built(warm, tmp_path_factory) -> Path:
    """A small shop as the package's own commands make it; it is not to be written to."""
    shop, draw = tmp_path_factory.mktemp("built") / "shop", random.Random(1)
    (shop / "log").mkdir(parents=True)
    kinds = ["hammer", "saw", "wrench", "drill"]
    with open(shop / "log" / "items.csv", "w", newline="") as file:
        items = [(f"i{i}", f"{kinds[i % 4]} number{i // 4} of maker{i % 6}") for i in range(24)]
        csv.writer(file).writerows([("item", "title"), *items])
    with open(shop / "log" / "log.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("user", "item", "time"))
        for user in range(40):
            item, time = draw.randrange(24), 1_500_000_000 + draw.randrange(10**7)
            for _ in range(draw.choice([3, 4, 6])):
                out.writerow((f"u{user}", f"i{item}", time))
                item, time = (item + draw.choice([4, 4, 1])) % 24, time + 3600
    (shop / "sft.yaml").write_text(SFT)
    (shop / "grpo.yaml").write_text(GRPO)
    for line in BUILD:
        done = warm(line, shop)
        assert done["status"] == 0, (line, done["stderr"][-2000:])
    return shop


@pytest.fixture
def shop(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "shop")


def content_of(folder: Path) -> dict[str, str]:
    """{path: hash}; a file that may not be read counts by its size."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        if os.access(path, os.R_OK)
        else str(path.stat().st_size)
        for path in files
    }


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_a_bad_input_is_refused_in_one_message_that_names_it(bad, warm, shop):
    if bad.not_as_root and os.geteuid() == 0:
        pytest.skip("root may read everything")
    for damage in bad.damage:
        damage(shop)
    before = content_of(shop)
    done = warm(bad.line, shop, limit=20)
    problems = list(problems_of(bad, done, before, content_of(shop)))
    assert not problems, "; ".join(problems) + f" | stderr: {done['stderr'][-1500:]}"


def problems_of(bad: Bad, done: dict, before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """What a refusal lacks."""
    if done["status"] != bad.status:
        yield f"status {done['status']}, not {bad.status}"
    if "Traceback" in done["stderr"]:
        yield "a traceback"
    lines = done["stderr"].splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if len(starts) != 1:
        yield f"{len(starts)} lines that begin with error:"
    else:
        message = "\n".join(lines[starts[0] :])
        yield from (f"{name!r} is not named" for name in bad.names if name not in message)
    for word in ("written to", "saved to", "ndcg@", "NDCG@"):
        if word in done["stdout"]:
            yield f"{word!r} on stdout"
    if changed := [path for path, content in before.items() if after.get(path) != content]:
        yield f"changed: {', '.join(changed)}"
    if left := [path for path in after if path not in before and Path(path).name != ".lock"]:
        yield f"left behind: {', '.join(left)}"


def test_every_command_is_in_the_table():
    assert {bad.line.split()[0] for bad in BAD_INPUTS} >= COMMANDS.keys()
