"""A toy catalogue whose right answers are known, and tiny models that know its SIDs. One thread: a tiny model on a
busy two-core host runs several times faster so."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("MIMIGENREC_TEST_DEVICES", ""))
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.pop("PYTHON", None)  # the shell scripts would run with it

import gc
import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from mimigenrec.catalog import Catalog
from mimigenrec.interactions.inter_file import History, write_inter
from mimigenrec.sids.tokens import write_index

ROOT = Path(__file__).resolve().parents[1]
MODULES_SEEN = [0]  # how many there were when the collector was last told
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
SHARED = ROOT.parent / "shared"

# 8 items, 7 SIDs of 2 or 3 levels: "2" and "3" share one, that of "5" begins that of "6".
TOY_SIDS = {
    "0": ("<a_0>", "<b_0>", "<c_0>"),
    "1": ("<a_0>", "<b_0>", "<c_1>"),
    "2": ("<a_0>", "<b_1>", "<c_0>"),
    "3": ("<a_0>", "<b_1>", "<c_0>"),
    "4": ("<a_1>", "<b_0>", "<c_2>"),
    "5": ("<a_1>", "<b_2>"),
    "6": ("<a_1>", "<b_2>", "<c_1>"),
    "7": ("<a_2>", "<b_1>", "<c_3>"),
}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_runtest_setup(item):
    """Takes what is loaded by now from the collector's sight.

    Trainers ask for a whole collection at their start and end, which would look at all of torch and TRL each time.
    """
    if len(sys.modules) > MODULES_SEEN[-1] + 100:
        gc.collect()
        gc.freeze()
        MODULES_SEEN.append(len(sys.modules))


def shared(*parts: str) -> Path:
    """A file or folder of real data beside the project; skips the test where it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data not present: {Path(*parts)}")
    return path


def write_histories(path: Path, histories: Iterable[History]) -> int:
    """The rows of a .inter file, in the order given; returns how many."""
    import pyarrow as pa

    rows = [(history.user, " ".join(history.items), history.target) for history in histories]
    return write_inter(path, [tuple(pa.array(column, pa.string()) for column in zip(*rows, strict=True))])


@pytest.fixture(scope="session")
def toy() -> Catalog:
    return Catalog(
        sids=dict(TOY_SIDS),
        titles={item: f"thing number {item}" for item in TOY_SIDS if item != "7"},
        descriptions={item: f"a useful thing, the one called {item}" for item in TOY_SIDS if item != "6"},
        popularity={"2": 1, "3": 5, "0": 2, "4": 1},
    )


def make_tokenizer(extra_texts=(), sid_tokens=(), chat_template: str = CHATML, specials=()):
    """A byte-level BPE tokenizer trained on the spot, with ChatML special tokens; sid_tokens are non-special."""
    from mimigenrec.sft.make_base import SPECIAL, train_tokenizer

    texts = ["system user assistant Which item comes next? thing number a useful thing", *extra_texts]
    tokenizer = train_tokenizer(texts, 400, chat_template, [*SPECIAL, *specials])
    if sid_tokens:
        tokenizer.add_tokens(list(sid_tokens))
    return tokenizer


def lf_ids(tokenizer, row, template: str | None = None) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one SFT row as LLaMA-Factory trains on it, EOS and what follows included."""
    from mimigenrec.rendering import IGNORED, lf_encoder

    ids, labels = lf_encoder(tokenizer, template)(row)
    answer = [label for label in labels if label != IGNORED]
    return ids[: len(ids) - len(answer)], answer


def split_as_before(tokenizer):
    """The tokenizer with the pre-tokenizer that make-base gave its folders until it took Qwen2's."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer(toy):
    return make_tokenizer(sid_tokens=sorted({t for sid in toy.sids.values() for t in sid}))


def make_model(vocabulary: int, seed: int = 0, tie: bool = True, **config):
    """A random Qwen2 of two layers and hidden size 32, in float32, ready to evaluate."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": tie} | config
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, initializer_range=0.3, **shape))
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model(tokenizer):
    model = make_model(len(tokenizer))
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


@pytest.fixture(scope="session")
def raw_toy(tmp_path_factory, toy) -> Path:
    """A raw category folder `toy/` as preprocess_data_sft_rl.py takes it; returns its parent."""
    root = tmp_path_factory.mktemp("raw")
    items = list(toy.sids)
    (root / "toy").mkdir()
    for split, first, count in (("train", 0, 24), ("valid", 24, 8), ("test", 32, 8)):
        rows = []
        for i in range(count):
            start = (first + i * 3) % len(items)
            history = tuple(items[(start + j) % len(items)] for j in range(1 + i % 4))
            rows.append(History(i, f"u{i % 6}", history, items[(start + 1 + i % 4) % len(items)]))
        write_histories(root / "toy" / f"toy.{split}.inter", rows)
    write_index(root / "toy" / "toy.index.json", toy.sids)
    texts = {
        item: {"title": toy.titles.get(item, ""), "description": toy.descriptions.get(item, "")} for item in toy.sids
    }
    (root / "toy" / "toy.item.json").write_text(json.dumps(texts))
    return root


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory, raw_toy) -> Path:
    """A data folder of the toy catalogue as preprocessing writes it."""
    from mimigenrec.tasks import build

    folder = tmp_path_factory.mktemp("data") / "toy"
    build.main(build.BuildConfig(raw=raw_toy, category="toy", output_dir=folder))
    return folder


@pytest.fixture(scope="session")
def result_of(toy):
    """Writes a result as `evaluate` does and returns its folder: result_of(folder, [["0", "1"], ...], ["0", ...])."""
    from mimigenrec.evaluation.result import write_result
    from mimigenrec.manifest import make_manifest
    from mimigenrec.sids.tokens import join_sid

    def write(folder, lists, targets, k=5, users=None, histories=None, alone=True, **config):
        """lists: per row the items in order, each alone in its group, or with all the items of its SID."""
        rows = []
        for i, (items, target) in enumerate(zip(lists, targets, strict=True)):
            groups = [[item] for item in items] if alone else [toy.items_of[toy.sids[item]] for item in items]
            row = {"user": f"u{i}" if users is None else users[i], "row": i, "target": target}
            row |= {"history": ["4", "6"] if histories is None else histories[i]}
            row |= {"target_sid": join_sid(toy.sids.get(target, ()))}
            row |= {"ranked": [{"sid": join_sid(toy.sids[of[0]]), "items": of, "score": -1.0} for of in groups]}
            rows.append(row)
        manifest = make_manifest({"k": k, **config}, [], seed=config.get("seed", 1))
        write_result(folder, rows, toy, k, manifest, method=folder.name, seconds=1.5)
        return folder

    return write


# `mimigenrec` and `python` for scripts: what the warm process can run goes there, the rest to the real interpreter.
STAND_IN = """#!{python} -SE
import json, os, socket, sys

name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
asked = {{"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ), "limit": 600}}
if name == "python":
    if argv[:1] != ["-m"] or not argv[1].startswith("mimigenrec.") or argv[1].endswith(".launch"):
        os.execv({python!r}, [{python!r}, *argv])
    asked |= {{"module": argv[1], "argv": argv[2:]}}
with socket.socket(socket.AF_UNIX) as client:
    client.connect({address!r})
    with client.makefile("rw") as lines:
        lines.write(json.dumps(asked) + "\\n")
        lines.flush()
        answer = json.loads(lines.readline())
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(1 if answer["status"] is None else answer["status"])
"""


@pytest.fixture(scope="session")
def warm_address():
    """The socket of a process that has loaded everything; see warm.py."""
    with tempfile.TemporaryDirectory(prefix="warm") as folder:  # a path of pytest's may be too long for a socket
        address = f"{folder}/socket"
        environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "tests" / "warm.py"), address]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **nowhere) as process:
            while not os.path.exists(address):
                assert process.poll() is None, "warm.py ended while it was loading"
                time.sleep(0.05)
            yield address
            process.kill()  # what is loaded takes seconds to be put away


@pytest.fixture(scope="session")
def warm(warm_address):
    """warm(line, cwd, **more) -> {"status", "stdout", "stderr"} of a command, in milliseconds; see warm.py."""

    def run(line: str, cwd: Path, **more) -> dict:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(warm_address)
            with client.makefile("rw") as lines:
                lines.write(json.dumps({"argv": shlex.split(line), "cwd": str(cwd), **more}) + "\n")
                lines.flush()
                return json.loads(lines.readline())

    return run


@pytest.fixture(scope="session")
def warm_path(warm_address, tmp_path_factory) -> str:
    """A PATH whose `mimigenrec` and `python` take milliseconds to start; other programs are those of this Python."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("mimigenrec", "python"):
        (folder / name).write_text(STAND_IN.format(python=sys.executable, address=warm_address))
        (folder / name).chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def write_checkpoint(folder, state='{"global_step": 1}', weights="model.safetensors", **files):
    """A folder that passes for a checkpoint: its state, its weights, and <name>.json for each further file."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"trainer_state.json": state, weights: "x"} | {f"{name}.json": text for name, text in files.items()}
    for name, text in texts.items():
        if name and text is not None:
            (folder / name).write_text(text)
    return folder
