"""What `mimigenrec evaluate` may be told. Read without torch, for --help and for a benchmark's plan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimigenrec.cli import arg


@dataclass
class EvaluateConfig:
    """HR, NDCG and MRR of a checkpoint on the rows of one split, from one constrained search per row."""

    model: Path = arg("checkpoint folder: whole, or a LoRA adapter, whose base is then needed too")
    output: Path = arg("folder for the results; started again on the same folder, an interrupted run goes on")
    overwrite: bool = arg("replace the result of other settings or data that the output holds", default=False)
    base: str | None = arg("folder of a LoRA adapter's base, if it no longer lies where it was trained", default=None)
    data: Path | None = arg("folder written by preprocessing", default=None)
    test_file: Path | None = arg("instead of --data: a classic sft/test.json as it stands", default=None)
    index: Path | None = arg(
        "id2sid.json of --test_file; that of the data folder if the file is sft/test.json in one", default=None
    )
    split: Literal["valid", "test"] = arg("rows of --data to rank for", default="test")
    k: int = arg("number of SIDs per list; metrics @K beyond it are not reported", default=50, least=1)
    beams: int = arg("width of the search, at least k; memory never lowers it", default=50, least=1)
    support: Literal["vocab", "trie"] | None = arg(
        "scores over the vocabulary, or over the legal tokens only; default: as the checkpoint was trained to rank",
        default=None,
    )
    batch_size: int = arg("number of prompts per search of each process", default=8, least=1)
    exclude_seen: bool = arg("leave out items of the row's own history", default=False)
    limit: int | None = arg("number of rows, the first ones", default=None, least=1)
    seed: int = arg("random seed of the bootstrap", default=42, least=0, most=2**32 - 1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = arg("weight dtype; auto: as stored", default="auto")
    device: str | None = arg("cpu, cuda or cuda:1; default: a GPU for each process where there is one", default=None)
