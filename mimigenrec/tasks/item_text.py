"""Task: what an item is called, from its SID; and which item a title names, as a SID (SFT train)."""

from collections.abc import Iterable, Iterator

from mimigenrec.catalog import Catalog, texts_of_one_sid
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.sample import Sample

NAME = "task2_sid_item_feat"


def samples(histories: Iterable[History], catalog: Catalog, contract: Contract) -> Iterator[Sample]:
    """SID -> title once per pair; title -> SID once per title, but not for a title of several SIDs."""
    pairs = dict.fromkeys((sid, catalog.titles[item]) for item, sid in catalog.sids.items() if item in catalog.titles)
    for sid, title in pairs:
        yield Sample("sid_to_title", {"sid": join_sid(sid)}, title)
    for title, sid in texts_of_one_sid(catalog.titles, catalog.sids).items():
        yield Sample("title_to_sid", {"title": title}, join_sid(sid))
