"""RecBole atomic files: tab-separated, the type of a column behind its name, sequences separated by spaces.

    ml-100k.inter   user_id:token	item_id:token	rating:float	timestamp:float
    ml-100k.item    item_id:token	movie_title:token_seq	release_year:token	class:token_seq

Source: https://recbole.io/docs/user_guide/data/atomic_files.html. timestamp is in seconds, if --time_unit
does not say otherwise.
"""

from dataclasses import replace
from pathlib import Path

from mimigenrec.interactions.events import Log
from mimigenrec.interactions.json_lines import BadLines, read_text_lines
from mimigenrec.interactions.table import Columns, read_tables

USUAL = {
    "user_column": ("user_id",),
    "item_column": ("item_id",),
    "time_column": ("timestamp",),
    "rating_column": ("rating",),
}
USUAL_OF_ITEMS = {
    "item_id_column": ("item_id",),
    "title_column": ("title", "item_title", "movie_title", "item_name", "name"),
    "description_column": ("description",),
    "brand_column": ("brand",),
    "category_column": ("categories", "category", "genres", "genre", "class"),
}


def read_recbole(interactions: list[Path], items: list[Path], columns: Columns, bad: BadLines) -> Log:
    columns = usual_names(columns, USUAL, interactions[:1])
    columns = replace(columns, category_separator=columns.category_separator or " ")
    return read_tables(interactions, items, usual_names(columns, USUAL_OF_ITEMS, items[:1]), bad)


def usual_names(columns: Columns, usual: dict[str, tuple[str, ...]], paths: list[Path]) -> Columns:
    """Flags that were not given get the first usual name that the header has, if it has one."""
    for path in paths:
        header = next(read_text_lines(path), (0, ""))[1].split("\t")
        there = {name.partition(":")[0] for name in header}
        guesses = {flag: next((name for name in names if name in there), None) for flag, names in usual.items()}
        columns = replace(columns, **{flag: name for flag, name in guesses.items() if not getattr(columns, flag)})
    return columns
