"""Task: from the SIDs of what a user has had, say the title of what comes next (SFT train)."""

from collections.abc import Iterable, Iterator

from mimigenrec.catalog import Catalog
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.tasks.sample import Sample

NAME = "task3_fusion_seq"


def samples(histories: Iterable[History], catalog: Catalog, contract: Contract) -> Iterator[Sample]:
    """Leaves out targets without a title."""
    for history in histories:
        if history.target in catalog.titles:
            sids = [catalog.sids[item] for item in history.items if item in catalog.sids]
            yield Sample(
                "next_title", {"sids": contract.write_sids(sids)}, catalog.titles[history.target], history.row
            )
