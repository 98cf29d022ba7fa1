"""A folder of make-base, read by transformers 5 in an environment of its own: vLLM, SGLang and TRL 1.x stand on it."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoTokenizer, Qwen2Config

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import Contract
from mimigenrec.files import write_json
from mimigenrec.sft.make_base import BaseConfig, main
from tests.conftest import make_tokenizer, split_as_before

TITLES = [
    "thing number 12345, isn't it?",
    "Caf\u00e9 or Cafe\u0301: na\u00efve, \ufb01ne, \u212bngstr\u00f6m",
    "  two  spaces\n\nand\tlines\r\n",
    "\u591a\u4e2a\u7a7a\u683c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0e20\u0e32\u0e29\u0e32",
    '\U0001f642 \u0645\u0631\u062d\u0628\u0627 -- 1/2" (100%) {new} & sealed',
]
READ = (
    "import json, sys, transformers\n"
    "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
    "prompts = json.load(open(sys.argv[2], encoding='utf-8'))\n"
    "how = {'add_generation_prompt': True, 'tokenize': True, 'return_dict': False}\n"
    "print(json.dumps([transformers.__version__, [tokenizer.apply_chat_template(p, **how) for p in prompts]]))\n"
)


@pytest.fixture(scope="module")
def transformers_5(tmp_path_factory):
    """The interpreter of a new environment with transformers 5 and no torch, which tokenizers do without."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "transformers>=5,<6", "jinja2"], capture_output=True, text=True
    )
    if done.returncode:
        assert "CI" not in os.environ, done.stderr
        pytest.skip(f"pip cannot install transformers 5 here: {done.stderr.strip().splitlines()[-1]}")
    return python


def read_by(python, folder, prompts, tmp_path):
    """(version, ids per prompt) as another interpreter reads the folder."""
    (tmp_path / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    command = [python, "-c", READ, str(folder), str(tmp_path / "prompts.json")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def prompts():
    asked = [row_messages({"input": f"{title}<a_1><b_2> {title}"}) for title in TITLES]
    return asked + [row_messages({"system": Contract.of("contract").system, "input": "<a_1><b_2>"})]


@pytest.mark.slow
@pytest.mark.parametrize("chat_template", ["chatml", "short", "open"])
def test_transformers_5_reads_the_same_token_ids(transformers_5, tmp_path, prompts, chat_template):
    rows = [{"system": "s", "instruction": "title of:", "input": title, "output": title} for title in TITLES * 9]
    write_json(tmp_path / "data" / "sft" / "train.json", rows)
    main(BaseConfig(tmp_path / "data", tmp_path / "base", hidden=16, heads=2, chat_template=chat_template))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_tokens(["<a_1>", "<b_2>"])
    tokenizer.save_pretrained(tmp_path / "base")
    version, ids = read_by(transformers_5, tmp_path / "base", prompts, tmp_path)
    assert version.startswith("5.") and ids == prompt_ids(tokenizer, prompts)


@pytest.mark.slow
def test_the_folders_that_a_warning_names_are_read_otherwise(transformers_5, tmp_path, prompts):
    tokenizer = split_as_before(make_tokenizer(TITLES, ["<a_1>", "<b_2>"]))
    tokenizer.save_pretrained(tmp_path / "base")
    Qwen2Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    _, ids = read_by(transformers_5, tmp_path / "base", prompts, tmp_path)
    assert ids != prompt_ids(tokenizer, prompts)
