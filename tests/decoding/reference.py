"""The same answers the slow way: one forward per prefix, sets and dictionaries, nothing of the package."""

import torch


def next_logps(model, prompt, written, legal=None) -> dict[int, float]:
    """Log-probability of each next token; among `legal` only, if given."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *written]])).logits[0, -1].double()
    tokens = list(range(len(logits))) if legal is None else sorted(legal)
    return dict(zip(tokens, torch.log_softmax(logits[tokens], -1).tolist(), strict=True))


def continuations(sids, written, eos) -> set[int]:
    following = {sid[len(written)] for sid in sids if len(sid) > len(written) and sid[: len(written)] == written}
    return following | ({eos} if written in sids else set())


def score_all(model, prompt, sids, eos, support) -> list[tuple[tuple[int, ...], float]]:
    """Every SID with its log-probability, best first."""
    scores = dict.fromkeys(sids, 0.0)
    for sid in scores:
        for place, token in enumerate((*sid, eos)):
            legal = continuations(sids, sid[:place], eos) if support == "trie" else None
            scores[sid] += next_logps(model, prompt, sid[:place], legal)[token]
    return sorted(scores.items(), key=lambda pair: -pair[1])


def beam_search(model, prompt, sids, eos, beams, support) -> list[tuple[tuple[int, ...], float]]:
    """At each step the best `beams` continuations that end are done, the best `beams` that do not go on."""
    going, done = [((), 0.0)], []
    while going:
        candidates = []
        for written, score in going:
            legal = continuations(sids, written, eos)
            logps = next_logps(model, prompt, written, legal if support == "trie" else None)
            candidates += [((*written, token), score + logps[token]) for token in legal]
        candidates.sort(key=lambda pair: -pair[1])
        done += [(written[:-1], score) for written, score in candidates[:beams] if written[-1] == eos]
        going = [pair for pair in candidates if pair[0][-1] != eos][:beams]
    return sorted(done, key=lambda pair: -pair[1])[:beams]


def known_sids(trie) -> list[tuple[int, ...]]:
    """All SIDs as token ids, in the trie's order."""
    return [tuple(t for t in row if t >= 0) for row in trie.sid_tokens(torch.arange(trie.n_sids)).tolist()]


def assert_same_lists(found, expected, tie: float = 1e-5, error: float = 1e-4) -> None:
    """Lists of (sid, logp): alike rank by rank, but SIDs whose scores are closer than `tie` may change places."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        where = dict(theirs)
        for (sid, logp), (other, score) in zip(ours, theirs, strict=True):
            assert abs(logp - score) < error, (sid, logp, other, score)
            assert sid == other or abs(where.get(sid, theirs[-1][1]) - score) < tie, (sid, other, score)
