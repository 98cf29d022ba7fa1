"""SIDs as text. Two formats, each with its reader and writer.

index.json, id2sid.json     {"17": ["<a_14>", "<b_221>", "<c_27>"], ...}     item id -> its SID tokens, coarse to fine
new_tokens.json             ["<a_0>", "<a_1>", ...]                          sorted distinct SID tokens

Levels may differ in number between items (1 to 8); several items may share a SID; one SID may begin another. A token
belongs to one level only, so SIDs written one after another can be told apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mimigenrec.errors import UserError
from mimigenrec.files import one_line, read_json, write_json, writing

Sid = tuple[str, ...]
MAX_LEVELS = 8
LEVEL_LETTERS = "abcdefgh"
TOKEN = re.compile(r"<[^<>\[\]\s]+>|\[[^<>\[\]\s]+\]")  # any bracketed name: <a_14>, [shoes-3]


def split_sid(text: str) -> list[str]:
    """The bracketed names in a text, in order: "<a_1><b_2>" -> ["<a_1>", "<b_2>"]."""
    return TOKEN.findall(text)


def join_sid(tokens: Iterable[str]) -> str:
    return "".join(tokens)


def read_index(path: str | Path) -> dict[str, Sid]:
    """index.json or id2sid.json -> item id -> SID, in file order.

    Raises UserError naming file and item: no item, an id twice, 0 or more than 8 levels, a name without brackets, or
    one name at two levels.
    """
    content = read_json(path, made_by="a SID method, one list of tokens per item id", unique=True)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must map item ids to lists of SID tokens and hold at least one item")
    level_of: dict[str, int] = {}
    shared: dict[Sid, Sid] = {}  # one tuple per distinct SID
    sids = {}
    for item, tokens in content.items():
        if not isinstance(tokens, list) or not 1 <= len(tokens) <= MAX_LEVELS:
            raise UserError(f"{path}: item {item!r} needs a list of 1 to {MAX_LEVELS} SID tokens, found {tokens!r}")
        for level, token in enumerate(tokens):
            if not isinstance(token, str) or not TOKEN.fullmatch(token):
                raise UserError(f"{path}: item {item!r} has {token!r}; a SID token is a bracketed name like <a_14>")
            if level_of.setdefault(token, level) != level:
                raise UserError(
                    f"{path}: {token} stands at level {level_of[token] + 1} and, for item {item!r}, at level "
                    f"{level + 1}; name the levels apart, for example <a_14> and <b_14>"
                )
        sid = tuple(tokens)
        sids[item] = shared.setdefault(sid, sid)
    return sids


def write_index(path: str | Path, sids: Mapping[str, Sid]) -> None:
    with writing(path) as out:
        out.write(index_text(sids))


def index_text(sids: Mapping[str, Sid]) -> str:
    return one_line({item: list(sid) for item, sid in sids.items()}) + "\n"


def distinct_tokens(sids: Mapping[str, Sid]) -> list[str]:
    """Sorted distinct SID tokens, the content of new_tokens.json."""
    return sorted({token for sid in sids.values() for token in sid})


def write_new_tokens(path: str | Path, sids: Mapping[str, Sid]) -> None:
    write_json(path, distinct_tokens(sids))


def read_new_tokens(path: str | Path) -> list[str]:
    """Raises UserError unless it is a list of distinct bracketed names."""
    tokens = read_json(path, made_by="preprocess_data_sft_rl.py")
    if not isinstance(tokens, list) or not tokens or len(set(map(str, tokens))) != len(tokens):
        raise UserError(f"{path} must be a list of distinct SID tokens")
    for token in tokens:
        if not isinstance(token, str) or not TOKEN.fullmatch(token):
            raise UserError(f"{path}: {token!r} is not a bracketed name like <a_14>")
    return tokens


def codes_to_sids(items: Sequence[str], codes) -> dict[str, Sid]:
    """codes (items, levels) integers, row i for items[i] -> item id -> ("<a_14>", "<b_221>", "<c_27>")."""
    if codes.ndim != 2 or len(codes) != len(items) or not 1 <= codes.shape[1] <= MAX_LEVELS:
        raise UserError(f"{len(items)} items need codes (items, 1 to {MAX_LEVELS} levels), got {codes.shape}")
    names = [
        [f"<{letter}_{code}>" for code in range(int(codes[:, level].max(initial=0)) + 1)]
        for level, letter in zip(range(codes.shape[1]), LEVEL_LETTERS, strict=False)
    ]
    rows = codes.tolist()
    return {
        item: tuple(names[level][code] for level, code in enumerate(row))
        for item, row in zip(items, rows, strict=True)
    }


def sid_to_codes(sid: Sid) -> tuple[int, ...]:
    """("<a_14>", "<b_221>") -> (14, 221). Raises UserError for a SID that codes_to_sids did not write."""
    codes = []
    for letter, token in zip(LEVEL_LETTERS, sid, strict=False):
        match = re.fullmatch(rf"<{letter}_(\d+)>", token)
        if not match:
            raise UserError(f"{token} of SID {join_sid(sid)} does not read <{letter}_NUMBER>: it has no code")
        codes.append(int(match[1]))
    return tuple(codes)
