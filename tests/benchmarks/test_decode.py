"""benchmarks/decode.py runs at its smallest size, and its catalogue and its check of lists are what they say."""

import runpy
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

SCRIPT = str(ROOT / "benchmarks" / "decode.py")
SMALL = ["--size", "micro", "--prompts", "3", "--batch", "2", "--beams", "5", "--repeats", "1"]


@pytest.fixture(scope="module")
def decode():
    return runpy.run_path(SCRIPT)


def test_every_contender_runs_and_the_engine_finds_generates_lists(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT, *SMALL, "--unconstrained"])
    runpy.run_path(SCRIPT, run_name="__main__")
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")][2:]
    names = ["plain", "unconstrained", "vocab", "vocab + reuse", "trie", "trie + reuse"]
    assert [row[0] for row in rows] == names
    assert [row[3] for row in rows] == ["", "", "3 of 3", "3 of 3", "2 of 2", "2 of 2"]
    tokens = [int(row[4]) for row in rows]
    assert tokens[0] == tokens[1] > tokens[2] > tokens[3] > tokens[5]


def test_the_catalogue_is_as_large_and_as_branched_as_industrial(decode):
    trie = decode["industrial_like"](1000)
    assert np.diff(trie.levels).tolist() == [1, 94, 2645, 3677]
    assert (trie.n_items, trie.n_sids) == (3686, 3677)
    children = np.diff(trie.first.numpy())[95:]
    assert np.mean(children == 1) == pytest.approx(0.78, abs=0.01)
    assert trie.branch[0] == 94 and 40 <= trie.branch[1] <= 90 and trie.branch[2] <= 40


def test_prompts_share_68_tokens_and_have_28_of_their_own_on_average(decode):
    prompts = decode["make_prompts"](500, 1000)
    assert len({tuple(prompt[:68]) for prompt in prompts}) == 1
    assert np.mean([len(prompt) - 68 for prompt in prompts]) == pytest.approx(28, abs=2)


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ([(1,), (2,), (3,)], True),
        ([(2,), (1,), (3,)], True),  # a tie
        ([(1,), (3,), (2,)], False),
        ([(1,), (2,)], False),
        ([(1,), (2,), (9,)], False),
    ],
    ids=str,
)
def test_lists_are_the_same_up_to_ties(decode, theirs, same):
    ours = [((1,), -1.0), ((2,), -1.000001), ((3,), -2.0)]
    assert decode["same_list"](ours, [(sid, 0.0) for sid in theirs]) is same
