"""What each request's search must not enter, as nodes: denied items, or all SIDs but those with a given beginning. One
trie serves requests with other filters.

A node is blocked when every SID below it is; the EOS of a SID when all its items are denied. Keys: a node's number, or
n_nodes + 1 + s for the EOS of SID s.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from mimigenrec.decoding.trie import OFF, SidTrie
from mimigenrec.errors import UserError

NOTHING = torch.iinfo(torch.long).max  # fills the rows of requests with fewer keys


def blocked_keys(trie: SidTrie, denied: Sequence[Collection[str] | None]) -> Tensor:
    """(P, D) ascending keys of each request, D the most that any has; ids the trie does not know change nothing."""
    rows = [_keys(trie, items or ()) for items in denied]
    width = max(1, max(map(len, rows), default=1))
    padded = np.full((len(rows), width), NOTHING)
    for row, keys in zip(padded, rows, strict=True):
        row[: len(keys)] = keys
    return torch.from_numpy(padded).to(trie.token.device)


def prefix_keys(trie: SidTrie, prefixes: Sequence[Sequence[int]]) -> Tensor:
    """(P, D) ascending keys that leave each request only the SIDs that begin with its prefix, token ids; may be empty.

    Raises UserError for a prefix that no SID begins with.
    """
    device = trie.token.device
    longest = max(map(len, prefixes), default=0)
    padded = torch.tensor([[*prefix, *[-1] * (longest - len(prefix))] for prefix in prefixes], device=device)
    node = torch.zeros(len(prefixes), dtype=torch.long, device=device)
    keys = [torch.full((len(prefixes), 1), NOTHING, device=device)]
    for level in range(longest):
        given = padded[:, level : level + 1]  # (P, 1), -1 behind the end of a shorter prefix
        token, key, valid = trie.children(node, level)  # (P, K + 1), EOS last
        key[:, -1] = trie.n_nodes + 1 + trie.sid_at(node)
        keys.append(torch.where(valid & (token != given) & (given >= 0), key, NOTHING))
        node = torch.where(given[:, 0] >= 0, trie.step(node, given[:, 0]), node)
    if (node == OFF).any():
        raise UserError(f"no SID begins with the token ids {list(prefixes[int((node == OFF).long().argmax())])}")
    return torch.cat(keys, dim=1).sort(dim=1).values


def is_blocked(trie: SidTrie, blocked: Tensor, parent: Tensor, node: Tensor) -> Tensor:
    """blocked (P, D); parent (P, n) and its children node (P, n, K) -> (P, n, K) bool."""
    ends = (trie.n_nodes + 1 + trie.sid_at(parent))[..., None]
    key = torch.where(node == trie.DONE, ends, node).flatten(1)  # (P, n * K)
    place = torch.searchsorted(blocked, key).clamp(max=blocked.shape[1] - 1)
    return (blocked.gather(1, place) == key).view(node.shape)


def _keys(trie: SidTrie, items: Collection[str]) -> np.ndarray:
    """The keys that denied items block, ascending. Each blocked SID is counted once at its node and at every node
    above; a node that counts as many as there are SIDs below it is blocked."""
    sids, denied = np.unique(trie.sids_of(items), return_counts=True)
    sids = sids[denied == np.diff(trie.item_start)[sids]]  # all of their items are denied
    node = trie.sid_node.cpu()[torch.from_numpy(sids)].long()
    counted = [node]
    for _ in range(trie.depth):
        node = trie.parent_of(node[node > 0].to(trie.token.device)).cpu()  # 0 is the root, which has no parent
        counted.append(node)
    nodes, blocked_below = np.unique(torch.cat(counted).numpy(), return_counts=True)
    return np.concatenate([nodes[blocked_below == trie.sids_below(nodes)], np.sort(sids) + trie.n_nodes + 1])
