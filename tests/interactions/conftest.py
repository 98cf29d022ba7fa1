"""A config that needs nothing but files, and its results as plain Python."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mimigenrec.interactions.build import InteractionsConfig, main
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.interactions.table import Columns


@pytest.fixture
def build(tmp_path):
    """build(files, columns=..., **flags) -> everything that was written, without k-core unless asked for."""

    def run(interactions, items=(), columns=None, **flags) -> SimpleNamespace:
        config = InteractionsConfig(
            source="amazon",
            interactions=[Path(path) for path in interactions],
            items=[Path(path) for path in items],
            category="C",
            output_dir=tmp_path / "out",
            user_k=0,
            item_k=0,
            overwrite=True,
        )
        main(replace(config, **flags), columns or Columns())
        return written(tmp_path / "out" / "C" / "C")

    return run


def written(stem: Path) -> SimpleNamespace:
    def load(kind: str):
        return json.loads(Path(f"{stem}.{kind}.json").read_text())

    report = load("interactions")
    return SimpleNamespace(
        stem=stem,
        items=load("item"),
        sequences=load("inter"),
        reviews=load("review"),
        counts=report["counts"],
        leakage=report["leakage"],
        item2id=dict(line.split("\t") for line in Path(f"{stem}.item2id").read_text().splitlines()),
        user2id=dict(line.split("\t") for line in Path(f"{stem}.user2id").read_text().splitlines()),
        rows={split: [(r.user, r.items, r.target) for r in read_inter(f"{stem}.{split}.inter")] for split in SPLITS},
    )


SPLITS = ("train", "valid", "test")


def review(user: str, item: str, seconds: int, **more) -> dict:
    return {"reviewerID": user, "asin": item, "unixReviewTime": seconds, "overall": 5.0} | more


def json_lines(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def some_reviews(users: int = 6, events: int = 5) -> list[dict]:
    """User u has items u, u + 1, ...; one event a second, users in turn."""
    return [
        review(f"U{user}", f"B{(user + place) % 7}", 1_000_000 + place * users + user)
        for user in range(users)
        for place in range(events)
    ]
