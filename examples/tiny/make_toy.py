"""Raw lines of a toy shop, in the form of Amazon's review data of 2018.

    python examples/tiny/make_toy.py --output_dir data/toy_raw
    -> toy_raw/toy_5.json.gz        one review a line: reviewerID, asin, unixReviewTime, overall, reviewText, summary
       toy_raw/meta_toy.json.gz     one item a line: asin, title, description, brand, category

Who buys what is drawn by process.py. A user starts at any time of two years and buys every five days or so. The asin
ends in the number that the process has for the item; nothing else of the process is in the lines.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from process import BRANDS, CATEGORIES, VARIANTS, number, walk

from mimigenrec.cli import arg, parse
from mimigenrec.files import writing

START, TWO_YEARS, FIVE_DAYS = 1_475_280_000, 2 * 365 * 86_400, 5 * 86_400  # seconds; 2016-10-01 UTC
OPINIONS = ("Does the job.", "Better than the last one I had.", "Fine for the price.", "Would buy it again.")


@dataclass
class ToyConfig:
    """Writes the raw lines of a toy shop."""

    output_dir: Path = arg("folder that gets toy_5.json.gz and meta_toy.json.gz")
    users: int = arg("number of users, each with 4 to 12 interactions", default=1500)
    seed: int = arg("of users' choices and times", default=42)


def asin(item: int) -> str:
    return f"TOY{item:05}"


def reviews(users: int, rng: np.random.Generator) -> Iterator[dict]:
    for user in range(users):
        items, when = walk(rng), START + int(rng.integers(TWO_YEARS))
        for item in items:
            yield {
                "overall": float(rng.integers(3, 6)),
                "reviewerID": f"U{user:05}",
                "asin": asin(item),
                "reviewText": OPINIONS[rng.integers(len(OPINIONS))],
                "summary": "A purchase",
                "unixReviewTime": when,
            }
            when += int(rng.integers(FIVE_DAYS // 2, 3 * FIVE_DAYS // 2))


def items() -> Iterator[dict]:
    for c, category in enumerate(CATEGORIES):
        for b, brand in enumerate(BRANDS):
            for v, variant in enumerate(VARIANTS):
                yield {
                    "asin": asin(number(c, b, v)),
                    "title": f"{brand} {variant} {category}",
                    "description": [f"A {variant} {category} made by {brand}."],
                    "brand": brand,
                    "category": ["Tools", category],
                }


def write_lines(path: Path, records: Iterable[dict]) -> int:
    count = 0
    with writing(path, "wb") as out, gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed:
        for count, record in enumerate(records, 1):  # noqa: B007
            packed.write(json.dumps(record).encode() + b"\n")
    return count


def main(config: ToyConfig) -> None:
    rng = np.random.default_rng(config.seed)
    lines = write_lines(config.output_dir / "toy_5.json.gz", reviews(config.users, rng))
    told = write_lines(config.output_dir / "meta_toy.json.gz", items())
    print(f"{config.output_dir}: {lines} reviews by {config.users} users, {told} items")


if __name__ == "__main__":
    main(*parse(ToyConfig))
