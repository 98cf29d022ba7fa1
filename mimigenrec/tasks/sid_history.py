"""Task: from the SIDs of what a user has had, name the SID of what comes next (SFT and RL, all splits)."""

from collections.abc import Iterable, Iterator

from mimigenrec.catalog import Catalog
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.sample import Sample

NAME = "task1_sid_sft"  # stored in extra_info.task, where readers of older files look for it
ABILITY = "seq_rec"


def samples(histories: Iterable[History], catalog: Catalog, contract: Contract) -> Iterator[Sample]:
    """One sample per history, in order. Items without a SID are not written; a target without one gives answer ""."""
    for history in histories:
        sids = [catalog.sids[item] for item in history.items if item in catalog.sids]
        answer = join_sid(catalog.sids.get(history.target, ()))
        yield Sample("sid_history", {"sids": contract.write_sids(sids)}, answer, history.row)
