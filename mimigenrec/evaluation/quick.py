"""HR and NDCG of a model as it stands, for validation while SFT or RL goes on: one constrained search per prompt."""

from collections.abc import Sequence

from mimigenrec.contract import check_support
from mimigenrec.decoding.search import search_sids
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import expected_hr, expected_ndcg, places_from_ranks
from mimigenrec.sids.tokens import split_sid


def constrained_metrics(
    model,
    tokenizer,
    trie,
    prompts: Sequence[list[int]],
    targets: Sequence[str],
    ks: Sequence[int] = (10, 50),
    batch_size: int = 8,
    support: str = "vocab",
) -> dict[str, float]:
    """{"hr@10", "ndcg@10", "hr@50", ...} at SID level, means over the prompts.

    prompts   token ids, generation prompt included (chat.prompt_ids)
    targets   one SID text per prompt; "" (a target without SID) is a miss
    ks        the widest is the number of beams; a catalogue with fewer SIDs returns fewer
    raises    UserError if there is no prompt, or not one target per prompt; for support vocab and a tokenizer whose
              answers have no end
    The model is put in eval mode for the search and then back as it was.
    """
    if not prompts or len(prompts) != len(targets):
        raise UserError(f"found {len(prompts)} prompts and {len(targets)} targets; each prompt needs its target")
    check_support(tokenizer, support)
    training = model.training
    model.eval()
    try:
        ranked_lists = search_sids(model, trie, prompts, max(ks), support, batch_size)
    finally:
        model.train(training)
    target_ids = [tokenizer.convert_tokens_to_ids(split_sid(target)) for target in targets]
    ranks = [_rank(ranked, target) for ranked, target in zip(ranked_lists, target_ids, strict=True)]
    places = places_from_ranks(ranks)
    metrics = {}
    for k in ks:
        metrics[f"hr@{k}"] = float(expected_hr(places, k).mean())
        metrics[f"ndcg@{k}"] = float(expected_ndcg(places, k).mean())
    return metrics


def _rank(ranked: Sequence[tuple[Sequence[int], float]], target: Sequence[int]) -> int:
    """1-based place of the target's token ids; 0 if they are not there."""
    for place, (ids, _) in enumerate(ranked, 1):
        if list(ids) == list(target):
            return place
    return 0
