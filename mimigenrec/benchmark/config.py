"""What `mimigenrec benchmark` may be told; plan.py turns it into stages."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimigenrec.cli import arg
from mimigenrec.errors import UserError

OPTIONS = "a map, or {config: x.yaml, key: value}, where config may list several files and a later one wins"


@dataclass
class BenchmarkConfig:
    """Trains and evaluates every chosen method on the same rows, then writes one report."""

    raw: Path = arg(
        "folder of C/C.train.inter and the rest, or of C.train.inter itself; C is --category", aliases=["data_dir"]
    )
    category: str = arg("name of the data set, the first part of its file names")
    output_dir: Path = arg("folder for all that the stages write")
    seeds: list[int] = arg(
        "one run each of every method that has a seed", factory=lambda: [42], least=0, most=2**32 - 1
    )
    split: Literal["valid", "test"] = arg("rows that the methods are measured on", default="test")
    baselines: dict = arg("name -> options of `mimigenrec baseline`; method is the name if not given", factory=dict)
    preprocess: dict | str | None = arg(f"options of `mimigenrec preprocess`: {OPTIONS}", default=None)
    base: dict | str | None = arg(
        "the model that SFT starts from: a folder or Hugging Face name, or a map of options of `mimigenrec make-base` "
        "for one from scratch, with weights of each seed's own",
        default=None,
    )
    add_sids: dict | str | None = arg(f"options of `mimigenrec add-sids`: {OPTIONS}", default=None)
    sft: dict | str | None = arg(f"options of `mimigenrec sft`: {OPTIONS}", default=None)
    grpo: dict | str | None = arg(f"options of `mimigenrec grpo`: {OPTIONS}; not run if not given", default=None)
    evaluate: dict | str | None = arg(f"options of `mimigenrec evaluate`: {OPTIONS}", default=None)
    report: dict | str | None = arg(f"options of `mimigenrec report`: {OPTIONS}", default=None)
    changed: Literal["refuse", "rerun"] = arg(
        "stages whose settings or files are not those they were run with: refuse to go on, or delete what they wrote "
        "and run them again",
        default="refuse",
    )
    plan: bool = arg("only print the stages and what there is of them", default=False)

    def __post_init__(self):
        for name in ("preprocess", "base", "add_sids", "sft", "grpo", "evaluate", "report"):
            value = getattr(self, name)
            if isinstance(value, str) and value.startswith("{"):  # a map, from a YAML or a flag
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError as error:
                    raise UserError(f"{name}: {value[:80]!r} is no JSON map ({error}); correct it") from error
