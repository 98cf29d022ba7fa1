"""The most that any recommender could reach on the toy's test rows, since the process that made them is known.

python examples/tiny/optimum.py --data_dir data/toy_raw/toy
-> optimum.json     {"hr@10", "ndcg@10", "rows"}, in expectation over the targets
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from process import next_item

from mimigenrec.cli import arg, parse
from mimigenrec.files import write_json
from mimigenrec.interactions.inter_file import read_inter


@dataclass
class OptimumConfig:
    """Writes optimum.json beside toy.test.inter."""

    data_dir: Path = arg("folder with toy.test.inter and toy.item2id")


def number_of(data: Path) -> dict[str, int]:
    """Item id -> the number that the process has for it, which its asin ends in."""
    pairs = (line.split("\t") for line in (data / "toy.item2id").read_text(encoding="utf-8").splitlines())
    return {item: int(asin.removeprefix("TOY")) for asin, item in pairs}


def optimum(histories: list[list[int]]) -> dict[str, float]:
    """histories: numbers of items, oldest first. A best list holds the ten likeliest items, the likeliest first."""
    best = np.array([np.sort(next_item(history))[::-1][:10] for history in histories])  # (rows, 10)
    discount = 1 / np.log2(np.arange(2, 12))
    return {"hr@10": float(best.sum(1).mean()), "ndcg@10": float((best @ discount).mean()), "rows": len(best)}


def main(config: OptimumConfig) -> None:
    number = number_of(config.data_dir)
    best = optimum([[number[item] for item in row.items] for row in read_inter(config.data_dir / "toy.test.inter")])
    write_json(config.data_dir / "optimum.json", best)
    print(f"best possible HR@10 {best['hr@10']:.4f}, NDCG@10 {best['ndcg@10']:.4f} on {best['rows']} test rows")


if __name__ == "__main__":
    main(*parse(OptimumConfig))
