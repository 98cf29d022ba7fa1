"""Task: from a title or a description, name the SID of the item it belongs to (RL train)."""

from collections.abc import Iterable, Iterator

from mimigenrec.catalog import Catalog, texts_of_one_sid
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.sample import Sample

NAME = "task5_title_desc2sid"
ABILITY = "title_desc2sid"


def samples(histories: Iterable[History], catalog: Catalog, contract: Contract) -> Iterator[Sample]:
    """Once per text; a text of several SIDs is left out, since a reward can know only one right answer."""
    for title, sid in texts_of_one_sid(catalog.titles, catalog.sids).items():
        yield Sample("title_to_sid", {"title": title}, join_sid(sid))
    for description, sid in texts_of_one_sid(catalog.descriptions, catalog.sids).items():
        yield Sample("description_to_sid", {"description": description}, join_sid(sid))
