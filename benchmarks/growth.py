"""How the cost of a search grows: prompt length, beams, levels and catalogue size, one at a time.

    python benchmarks/growth.py [--size tiny] [--support trie] [--threads N] [--items 4000 100000 1000000 10000000]

The engine alone, 8 prompts in a batch, random codes of 256 a level. The middle of each row's settings: prompts of 96
tokens, 50 beams, 3 levels, the first of --items. Milliseconds a prompt, the median of --repeats.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from decode import SHAPES, make_model

from mimigenrec.decoding.search import search_sids
from mimigenrec.decoding.trie import SidTrie

CODES, PROMPTS = 256, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--support", choices=["trie", "vocab"], default="trie")
    parser.add_argument("--lengths", type=int, nargs="+", default=[24, 96, 384, 1536])
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 50, 200, 800])
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 3, 4, 6])
    parser.add_argument("--items", type=int, nargs="+", default=[4_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, items = make_model(options), options.items[0]
    text = SHAPES[options.size][-1]
    small = make_trie(items, 3, text)
    print(f"{options.size}, support {options.support}, {torch.get_num_threads()} threads\n")
    print("| what | ms a prompt |\n|---|---|")
    for length in options.lengths:
        report(f"prompt of {length} tokens", model, small, length, 50, options)
    for beams in options.beams:
        report(f"{beams} beams", model, small, 96, beams, options)
    for levels in options.levels:
        report(f"{levels} levels", model, make_trie(items, levels, text), 96, 50, options)
    for n in options.items:
        report(f"{n:,} items", model, make_trie(n, 3 if n < 5_000_000 else 4, text), 96, 50, options)


def make_trie(items: int, levels: int, text_tokens: int) -> SidTrie:
    """Random codes; the head has three levels of them, deeper levels use the last one's again under other parents."""
    rng = np.random.default_rng(0)
    offset = text_tokens + np.minimum(np.arange(levels), 2) * 200  # stays inside the model's vocabulary
    codes = rng.integers(0, 200, (items, levels)) + offset
    return SidTrie.from_codes(codes, eos_id=2, pad_id=0, names=range(items))


def report(what: str, model, trie: SidTrie, length: int, beams: int, options) -> None:
    rng = np.random.default_rng(1)
    prompts = rng.integers(3, SHAPES[options.size][-1], (PROMPTS, length)).tolist()
    took = []
    for _ in range(options.repeats + 1):  # the first warms up
        start = time.perf_counter()
        search_sids(model, trie, prompts, beams, options.support)
        if options.device != "cpu":
            torch.cuda.synchronize()
        took.append(1000 * (time.perf_counter() - start) / PROMPTS)
    print(f"| {what} | {statistics.median(took[1:]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
