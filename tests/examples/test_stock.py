"""Every SFT YAML of examples/ trains under the stock program, started as its header says: two steps of a tiny model.

Only what a small CPU cannot take is replaced: folders and data sets, DeepSpeed, bf16, Unsloth and numbers of workers.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mimigenrec.files import read_json
from mimigenrec.sids.tokens import distinct_tokens
from tests.conftest import ROOT
from tests.sft.conftest import save_base, save_data

QUICK = ("tiny/sft.yaml", "small/sft.yaml", "industry_rec_full_sft_0.5b_dsz0.yaml")  # the others differ little
FILES = [path for path in sorted(ROOT.glob("examples/**/*.yaml")) if "stage" in yaml.safe_load(path.read_text())]
RECIPES = [
    pytest.param(
        path,
        id=str(path.relative_to(ROOT / "examples")),
        marks=[] if str(path).endswith(QUICK) else pytest.mark.slow,
    )
    for path in FILES
]
REPLACED = {  # keys of which a small CPU takes other values
    "dataset": "toy_train",
    "eval_dataset": "toy_valid",
    "deepspeed": "null",
    "bf16": "false",
    "use_unsloth": "false",
    "preprocessing_num_workers": "1",
    "dataloader_num_workers": "0",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, toy):
    """data/toy with rows of SIDs alone, which fit into the shortest cutoff_len, and bases that know the SIDs."""
    folder = tmp_path_factory.mktemp("stock")
    save_data(folder, toy, wording="compact")
    for name, tie in (("tied", True), ("untied", False)):
        save_base(folder / name, tie=tie, sid_tokens=distinct_tokens(toy.sids))
    return folder


def stock_command(path) -> list[str]:
    """["train", "examples/...", ...] as the header says, behind the name of the program."""
    [words] = re.findall(r"^#.*llamafactory-cli (train .*)", path.read_text(), re.MULTILINE)
    return words.split()


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_trains_two_steps_under_the_stock_program(path, home, tmp_path):
    keys, out, lora = yaml.safe_load(path.read_text()), tmp_path / "out", "lora" in path.name
    base = home / ("untied" if lora else "tied")  # as the header prepares it
    values = {"model_name_or_path": base, "dataset_dir": home / "data", "output_dir": out, "max_steps": 2}
    values |= {key: value for key, value in REPLACED.items() if key in keys}
    program = Path(sys.executable).parent / "llamafactory-cli"
    command = [program, *stock_command(path), *(f"{key}={value}" for key, value in values.items())]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing of ours on its path
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-3000:]

    state = read_json(out / "trainer_state.json", made_by="the run")
    assert state["global_step"] == state["max_steps"] == 2
    evaluated = any("eval_loss" in entry for entry in state["log_history"])
    assert evaluated == (keys.get("eval_strategy", "no") != "no")
    assert (out / ("adapter_model.safetensors" if lora else "model.safetensors")).is_file()
