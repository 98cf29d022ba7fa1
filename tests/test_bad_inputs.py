"""Every command, told something wrong: one message that names it, no traceback, nothing of the user's touched.

The table is bad_inputs.py. The commands run in children of one process that has loaded everything (warm.py).
"""

import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimigenrec.cli import COMMANDS
from tests.bad_inputs import BAD_INPUTS, BASELINE, COUNT, NETWORK, Bad
from tests.conftest import QUIET, ROOT

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
    "embed --items fresh.item.json --output fresh.npy --fitted raw/shop/shop.emb.encoder.safetensors",
    "quantise --items raw/shop/shop.item.json --vectors raw/shop/shop.emb.npy --output raw/shop/shop.index.json "
    "--sizes 4 4 4",
    "preprocess --raw raw --category shop --output_dir data/shop --wording compact",
    "make-base --data data/shop --output_dir base --hidden 16 --layers 1",
    "add-sids --base base --tokens data/shop/new_tokens.json --output base_sid",
    "sft sft.yaml",
    "grpo grpo.yaml",
    "evaluate --model sft --data data/shop --output results/sft --k 5 --beams 5 --limit 12",
    "baseline --method popularity --raw raw --category shop --data data/shop --k 5 --limit 12 --output results/pop",
    "baseline --method sasrec --raw raw --category shop --data data/shop --k 5 --limit 12 "
    "--output results/sasrec --width 8 --epochs 2 --max_history 5",
)


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
    (shop / "fresh.item.json").write_text('{"fresh": {"title": "hammer number9 of maker1"}}')
    (shop / "sft.yaml").write_text(SFT)
    (shop / "grpo.yaml").write_text(GRPO)
    for line in BUILD:
        done = warm(line, shop)
        assert done["status"] == 0, (line, done["stderr"][-2000:])
    return shop


@pytest.fixture
def shop(built, tmp_path) -> Iterator[Path]:
    """A copy of it, in memory where the system has a place for that: a disk takes longer than most commands."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(shutil.copytree(built, f"{folder}/shop"))


def content_of(folder: Path) -> dict[str, bytes | int]:
    """{path: content}; a file that may not be read counts by its size."""
    content = {}
    for path in (Path(top, name) for top, _, names in os.walk(folder) for name in names):
        readable = os.access(path, os.R_OK)
        content[str(path.relative_to(folder))] = path.read_bytes() if readable else path.stat().st_size
    return content


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


def problems_of(bad: Bad, done: dict, before: dict, after: dict) -> Iterator[str]:
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
    ours = [path for path in after if "__pycache__" not in Path(path).parts]  # Python's own, of a reward's file
    left = [path for path in ours if path not in before and Path(path).name != ".lock"]
    if left := [path for path in left if not (bad.begun and is_half_way(Path(path)))]:
        yield f"left behind: {', '.join(left)}"


def is_half_way(path: Path) -> bool:
    """Whether a file may lie in the folder of a run that stopped in the midst of its work."""
    whole = path.name.startswith("metrics") or path.suffix in (".safetensors", ".pt")
    return path.parts[0] == "new" and not whole and ".tmp" not in path.name


def test_every_command_is_in_the_table():
    missing = [command for command in COMMANDS if not any(bad.line.startswith(f"{command} ") for bad in BAD_INPUTS)]
    assert missing == []


def error_lines(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("error: ")]


def test_ctrl_c_is_one_message_and_the_same_command_goes_on(warm, shop):
    line = f"{BASELINE} {NETWORK} --epochs {10**6} --patience {10**6}"
    done = warm(line, shop, interrupt="new/training.pt")
    assert done["status"] == 1 and "Traceback" not in done["stderr"]
    assert error_lines(done["stderr"]) == ["error: interrupted; the same command goes on from what is written"]
    before = (shop / "new" / "training.jsonl").read_text().splitlines()
    done = warm(line, shop, limit=3)
    after = (shop / "new" / "training.jsonl").read_text().splitlines()
    assert len(after) > len(before) and after[: len(before) - 1] == before[:-1]


def test_the_traceback_of_an_error_is_shown_on_demand(warm, built):
    for value, shown in (("1", True), ("0", False), ("", False)):
        done = warm("compare --a results/none --b results/pop", built, env={"MIMIGENREC_DEBUG": value})
        assert done["status"] == 1 and len(error_lines(done["stderr"])) == 1
        assert ("Traceback" in done["stderr"]) == shown


def test_a_fault_of_ours_keeps_its_traceback_and_says_what_to_report(warm, shop):
    done = warm(COUNT, shop, broken="mimigenrec.evaluation.result:bootstrap")
    assert done["status"] == 1 and "KeyError: 'planted'" in done["stderr"] and "in measure" in done["stderr"]
    [last] = error_lines(done["stderr"])
    assert done["stderr"].splitlines()[-1] == last
    assert "KeyError is a fault of mimigenrec" in last and "`mimigenrec env`" in last
    assert not (shop / "new" / "metrics.json").exists()


LAUNCH = "python -m mimigenrec.training.launch torch.distributed.run --standalone --nproc_per_node 2 -m"
BENCHMARK = "mimigenrec benchmark --raw raw --category shop --output_dir new --baselines"
COLD = {  # name -> (a line for the shell, status, what the message names)
    "the console script, no such command": ("mimigenrec evalute", 2, "did you mean 'evaluate'?"),
    "a module": ("python -m mimigenrec.interactions.build none.yaml", 2, "none.yaml is missing"),
    "the console script": ("mimigenrec compare --a results/none --b results/pop", 1, "results/none/final_result.json"),
    "preprocess_data_sft_rl.py": (f"python {ROOT}/preprocess_data_sft_rl.py --tasks x", 2, "--raw"),
    "preprocess_data_sft_rl.sh": (f"DATA_DIR=none bash {ROOT}/preprocess_data_sft_rl.sh", 1, "--raw none"),
}
SLOW = {  # some seconds each, or many
    "evaluate.sh": (f"MODEL=raw/none DATA=data/shop OUTPUT=new bash {ROOT}/evaluate.sh", 1, "raw/none"),
    "sft.sh": (
        f"BASE=raw/none CATEGORY=shop OUTPUT_DIR=new ZERO=none CONFIG=sft.yaml bash {ROOT}/sft.sh",
        1,
        "raw/none",
    ),
    "trl_trainer.sh": (
        f"MODEL_PATH=raw/none DATA_DIR=data/shop OUTPUT_DIR=new bash {ROOT}/trl_trainer.sh",
        1,
        "raw/none",
    ),
    "evaluate by torchrun": (f"{LAUNCH} mimigenrec.evaluation.run --model sft --data none --output new", 1, "none"),
    "grpo by torchrun": (f"{LAUNCH} mimigenrec.grpo.train grpo.yaml --model raw/none --output_dir new", 1, "raw/none"),
    "a usage error by torchrun": (f"{LAUNCH} mimigenrec.evaluation.run --k many", 1, "many"),
    "benchmark, a slip": (
        f"""{BENCHMARK} '{{"sasrec": {{"widht": 8}}}}'""",
        1,
        "baselines: sasrec: unknown key 'widht'",
    ),
    "benchmark, a stage that fails": (
        "mkdir -p new/results/test && ln -s /nowhere/at/all new/results/test/popularity && "
        f"""{BENCHMARK} '{{"popularity": null}}'""",
        1,
        "baseline/test/popularity: status 1: ",
    ),
}


@pytest.mark.parametrize("name", [*COLD, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_what_people_start_by_hand_speaks_in_one_message_too(name, shop):
    line, status, named = (COLD | SLOW)[name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=shop,
        env={**os.environ, **QUIET, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and len(error_lines(done.stderr)) == 1, done.stderr[-3000:]
    assert named in done.stderr
