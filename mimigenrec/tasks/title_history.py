"""Task: from the titles of what a user has had, name the SID of what comes next (RL train)."""

from collections.abc import Iterable, Iterator

from mimigenrec.catalog import Catalog
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.sample import Sample

NAME = "task4_hisTitle2sid"
ABILITY = "seq_title2sid"


def samples(histories: Iterable[History], catalog: Catalog, contract: Contract) -> Iterator[Sample]:
    """Leaves out targets without a SID and histories in which no item has a title."""
    for history in histories:
        titles = [catalog.titles[item] for item in history.items if item in catalog.titles]
        if titles and history.target in catalog.sids:
            answer = join_sid(catalog.sids[history.target])
            yield Sample("title_history", {"titles": contract.write_titles(titles)}, answer, history.row)
