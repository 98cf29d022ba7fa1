"""HR and NDCG at 10 and 50 of the constrained search over rows that the processes share."""

from accelerate.utils import gather_object

from mimigenrec.chat import prompt_ids
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.evaluation.quick import constrained_metrics

EVAL_KS = (10, 50)


def validate(
    model, tokenizer, trie: SidTrie, rows, max_length: int | None, batch_size: int, support: Support, accelerator
) -> dict[str, float]:
    """{"hr@10", "ndcg@10", "hr@50", "ndcg@50"}, means over all rows; the same on every process.

    rows   as in rl/valid.json; process r of n searches for rows r, r + n, ...
    """
    mine = [rows[i] for i in range(accelerator.process_index, len(rows), accelerator.num_processes)]
    found: dict[str, float] = {}
    if mine:
        prompts = prompt_ids(tokenizer, [row["prompt"] for row in mine], max_length)
        targets = [row["reward_model"]["ground_truth"] for row in mine]
        found = constrained_metrics(model, tokenizer, trie, prompts, targets, EVAL_KS, batch_size, support)
    parts = gather_object([(len(mine), found)])
    keys = parts[0][1]  # the first process always has a row
    return {key: sum(n * part.get(key, 0.0) for n, part in parts) / len(rows) for key in keys}
