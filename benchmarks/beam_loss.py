"""What a beam of some width loses against scoring every SID exactly, for a trained checkpoint and its test rows.

    python benchmarks/beam_loss.py --model saves/small/sft --data data/C [--limit 200] [--beams 10 20 50 100 200]

For each width: the share of the exact first 10 and 50 SIDs that the beam has too, and HR@10 and NDCG@10 at SID level,
beside those of the exact ranking.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from mimigenrec.chat import prompt_ids, row_answer, row_messages
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import rank_catalog, search_sids
from mimigenrec.sids.tokens import split_sid
from mimigenrec.tasks.rows import read_sft_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--support", choices=["vocab", "trie"], default="vocab")
    options = parser.parse_args()
    recommender = MIMIGenRec.from_pretrained(options.model)
    model, tokenizer, trie = recommender.model.eval(), recommender.tokenizer, recommender.trie
    rows = read_sft_rows(options.data / "sft" / "test.json")[: options.limit]
    prompts = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    targets = trie.find([tokenizer.convert_tokens_to_ids(split_sid(row_answer(row))) for row in rows])
    start = time.perf_counter()
    exact = rank_catalog(model, trie, prompts, options.support).argsort(dim=1, descending=True)[:, :50].tolist()
    took = time.perf_counter() - start
    print(f"{len(rows)} prompts, {trie.n_sids} SIDs, support {options.support}\n")
    print("| search | of the exact 10 | of the exact 50 | HR@10 | NDCG@10 | ms a prompt |\n|---|---|---|---|---|---|")
    print(f"| every SID | 1 | 1 | {quality(exact, targets)} | {1000 * took / len(rows):.1f} |")
    for beams in options.beams:
        start = time.perf_counter()
        found = search_sids(model, trie, prompts, beams, options.support)
        took = time.perf_counter() - start
        lists = [trie.find([sid for sid, _ in ranked]) for ranked in found]
        shares = [common(lists, exact, k) if beams >= k else "" for k in (10, 50)]
        print(f"| {beams} beams | {' | '.join(shares)} | {quality(lists, targets)} | {1000 * took / len(rows):.1f} |")


def common(lists: list[list[int]], exact: list[list[int]], k: int) -> str:
    return f"{np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(lists, exact, strict=True)]):.4f}"


def quality(lists: list[list[int]], targets: list[int]) -> str:
    """HR@10 and NDCG@10 at SID level."""
    ranks = [ranked[:10].index(t) + 1 if t in ranked[:10] else 0 for ranked, t in zip(lists, targets, strict=True)]
    gains = [1 / np.log2(rank + 1) if rank else 0.0 for rank in ranks]
    return f"{np.mean([rank > 0 for rank in ranks]):.4f} | {np.mean(gains):.4f}"


if __name__ == "__main__":
    main()
