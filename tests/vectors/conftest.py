"""A small catalogue in files."""

import json

import pytest


def items_file(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({item: {"title": text} for item, text in texts.items()}))
    return path


NOUNS = ["hammer", "saw", "glove", "lamp", "pump", "valve"]
KINDS = ["red steel", "blue rubber", "long wooden", "small brass"]


@pytest.fixture
def shop(tmp_path):
    """C.item.json with 24 items, "0" .. "23"; the last two have one text."""
    texts = {str(i): f"{KINDS[i % 4]} {NOUNS[i // 4]} model {i}" for i in range(23)}
    return items_file(tmp_path / "C.item.json", texts | {"23": texts["22"]})
