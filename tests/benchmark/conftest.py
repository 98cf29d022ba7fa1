"""A command that is a few lines long in the place of a training, and a benchmark on the toy catalogue."""

import pytest

from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.stages import Stage

COMMAND = """
import os, signal, sys, time, pathlib, yaml
from mimigenrec.cli import one_message
from mimigenrec.errors import UserError
options = yaml.safe_load(open(sys.argv[1]))
if options.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with one_message():
    if options.get("refuse"):
        raise UserError(options["refuse"])
    if options.get("bug"):
        raise KeyError("ours")
out = pathlib.Path(options["output"])
out.mkdir(parents=True, exist_ok=True)
(out / "pid").write_text(str(os.getpid()))
lines = out / "lines.txt"
for i in range(len(lines.read_text().splitlines()) if lines.exists() else 0, 4):
    with open(lines, "a") as handle:
        handle.write(f"{i} {options['word']}\\n")
    print("wrote line", i)
    if options.get("fail") == i:
        raise ValueError(f"no luck with {options['word']}")
    if options.get("sleep") == i:
        time.sleep(60)
if options.get("leave", True):
    (out / "metrics.json").write_text("{}")
"""


@pytest.fixture
def make_stage(tmp_path, monkeypatch):
    """make_stage(name, word=..., after=(...), any option of the command) -> Stage"""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fake_command.py").write_text(COMMAND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))

    def make(name, after=(), reads=(), method=None, seed=None, **options):
        folder = tmp_path / "out" / name
        options = {"output": str(folder), "word": name} | options
        return Stage(name, name, "fake_command", options, (folder / "metrics.json",), reads, after, method, seed)

    return make


@pytest.fixture
def toy_config(raw_toy, tmp_path):
    """toy_config(any field) -> BenchmarkConfig of a network of two epochs and two methods that count."""

    def make(**fields):
        network = {"width": 8, "layers": 1, "max_history": 4, "epochs": 2, "device": "cpu"}
        common = {
            "raw": raw_toy,
            "category": "toy",
            "output_dir": tmp_path / "out",
            "seeds": [1, 2],
            "baselines": {"popularity": None, "first": {"method": "markov"}, "sasrec": network},
            "evaluate": {"k": 5, "beams": 7},
            "report": {"metrics": ["ndcg@5", "hr@5"], "tested": ["ndcg@5"], "resamples": 50},
        }
        return BenchmarkConfig(**(common | fields))

    return make
