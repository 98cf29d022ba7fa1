"""What the trie costs, for catalogues of 4 thousand to 10 million generated items, at a vocabulary of 152 k.

    python benchmarks/trie.py [--sizes 4000 30000 300000 1000000 10000000] [--device cpu]

Random SIDs of 3 levels with 256 codes each. `build` is from integer codes to the finished trie; `bytes/item` is the
trie proper (the table of item ids is apart). A `step` is what a search does between two forwards for 8 prompts with
50 beams (400 rows): children, gather of their log-probabilities, top-k; one figure per level. `walk` is from the root
to the last level; `processor` is one call of TrieLogitsProcessor, which walks and writes 400 x 152 k scores. Median of
20, after a large tensor came and went as in any forward; before that glibc hands memory back at each step.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.trie import SidTrie

PROMPTS, BEAMS, CODES, LEVELS = 8, 50, 256, 3
TEXT_TOKENS, VOCABULARY, EOS = 151_665, 152_576, 151_645


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4_000, 30_000, 300_000, 1_000_000, 10_000_000])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{options.device}, {torch.get_num_threads()} threads")
    print("| items | SIDs | build s | bytes/item | step ms, by level | walk ms | processor ms | deny one item ms |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        print(row(size, options.device), flush=True)


def row(n_items: int, device: str) -> str:
    torch.ones(6_000_000)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, CODES, (n_items, LEVELS), dtype=np.int32)
    codes += TEXT_TOKENS + CODES * np.arange(LEVELS, dtype=np.int32)
    names = range(n_items)
    start = time.perf_counter()
    trie = SidTrie.from_codes(codes, EOS, EOS, names)
    build = time.perf_counter() - start
    trie.to(device)
    n = PROMPTS * BEAMS
    written = torch.from_numpy(codes[rng.integers(0, n_items, n)]).long().to(device)  # (N, 3)
    logp = torch.randn(n, CODES * LEVELS, device=device)  # of the SID tokens alone
    beam_logp = torch.randn(n, 1, device=device)
    nodes = [trie.walk(written[:, :level]) for level in range(LEVELS)]
    steps = [median_ms(device, step, trie, node, level, logp, beam_logp) for level, node in enumerate(nodes)]
    walk = median_ms(device, trie.walk, written)
    call = median_ms(device, TrieLogitsProcessor(trie, 0), written[:, :-1], torch.zeros(n, VOCABULARY, device=device))
    deny = median_ms(device, trie.subset, None, {0})
    per_level = " / ".join(f"{ms:.2f}" for ms in steps)
    return (
        f"| {n_items:,} | {trie.n_sids:,} | {build:.3f} | {trie.nbytes / n_items:.1f} | {per_level} | {walk:.2f} "
        f"| {call:.1f} | {deny:.1f} |"
    )


def step(trie: SidTrie, node, level: int, logp, beam_logp):
    tokens, nodes, valid = trie.children(node, level)  # (N, K + 1)
    gathered = logp.gather(1, (tokens - TEXT_TOKENS).clamp(min=0))
    scores = (beam_logp + gathered).masked_fill(~valid, float("-inf"))
    best, place = scores.view(PROMPTS, -1).topk(BEAMS)
    return best, nodes.view(PROMPTS, -1).gather(1, place)


def median_ms(device: str, call, *arguments) -> float:
    times = []
    for _ in range(22):
        start = time.perf_counter()
        call(*arguments)
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
