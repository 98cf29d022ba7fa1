"""The table of bad inputs: a command line, what is wrong with the shop it runs in, and what its one message must name.

The shop is that of test_bad_inputs.py: log/ raw/shop/ data/shop/ base base_sid sft rl results/{sft,pop,sasrec}, every
step of a small shop of 24 items as the package's own commands write it. A case runs in a copy of it.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.contract import Contract

Damage = Callable[[Path], None]


class Bad(NamedTuple):
    name: str
    line: str  # after "mimigenrec"
    names: tuple[str, ...]  # what the message holds: the file, key or flag; what was found; a word of the remedy
    damage: tuple[Damage, ...] = ()
    status: int = 1
    begun: bool = False  # it is met in the midst of the work, so that what goes on from there may lie in new/
    not_as_root: bool = False


def write(path: str, content: str | bytes) -> Damage:
    def damage(shop: Path) -> None:
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def cut(path: str, share: float = 0.5) -> Damage:
    """Only the first part of the file is left, as after a copy that broke off."""

    def damage(shop: Path) -> None:
        content = (shop / path).read_bytes()
        (shop / path).write_bytes(content[: int(len(content) * share)])

    return damage


def swap(path: str, old: str, new: str | bytes, times: int = 1) -> Damage:
    def damage(shop: Path) -> None:
        content, new_bytes = (shop / path).read_bytes(), new if isinstance(new, bytes) else new.encode()
        assert old.encode() in content, f"{path} holds no {old!r}"
        (shop / path).write_bytes(content.replace(old.encode(), new_bytes, times))

    return damage


def edit(path: str, change: Callable[[Any], Any]) -> Damage:
    """change: of the JSON in the file; in place, or giving what is to stand there."""

    def damage(shop: Path) -> None:
        content = json.loads((shop / path).read_text())
        changed = change(content)
        (shop / path).write_text(json.dumps(content if changed is None else changed))

    return damage


def gone(path: str) -> Damage:
    return lambda shop: (shop / path).unlink()


def folder(path: str) -> Damage:
    """A folder in the place of the file."""

    def damage(shop: Path) -> None:
        (shop / path).unlink(missing_ok=True)
        (shop / path).mkdir(parents=True)

    return damage


def swapped(name: str) -> Damage:
    """The file of the checkpoint in sft is that of base, which knows no SIDs."""
    return lambda shop: (shop / "sft" / name).write_bytes((shop / "base" / name).read_bytes())


def unreadable(path: str) -> Damage:
    return lambda shop: (shop / path).chmod(0)


def numbers(path: str, change: Callable[[np.ndarray], Any]) -> Damage:
    """change: of the array in a .npy; in place, or giving another one."""

    def damage(shop: Path) -> None:
        array = np.load(shop / path)
        changed = change(array)
        np.save(shop / path, array if changed is None else changed)

    return damage


def tensors(path: str, change: Callable[[dict], Any]) -> Damage:
    """change: of {name: tensor} in a .safetensors, in place."""

    def damage(shop: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(shop / path, "pt") as file:
            content, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
        change(content)
        save_file(content, shop / path, about)

    return damage


def nan(name: str) -> Callable[[dict], None]:
    return lambda content: content[name].fill_(float("nan"))


def without(*keys: str | int) -> Callable[[Any], None]:
    """without(0, "output") takes the output out of the first row."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def moved_ids(index: dict) -> dict:
    """The same SIDs, each for another item."""
    items = list(index)
    return {item: index[other] for item, other in zip(items, items[1:] + items[:1], strict=True)}


def chmod_free(name: str, line: str, path: str) -> Bad:
    return Bad(name, line, (path, "permission"), (unreadable(path),), not_as_root=True)


INTERACTIONS = (
    "interactions source=table interactions=log/log.csv items=log/items.csv category=shop output_dir=new "
    "user_column=user item_column=item time_column=time title_column=title user_k=0 item_k=0 split=leave_one_out"
)
AMAZON = "interactions source=amazon items=m.json category=shop output_dir=new"
ITEMS, VECTORS, INDEX = "raw/shop/shop.item.json", "raw/shop/shop.emb.npy", "raw/shop/shop.index.json"
TRAIN = "raw/shop/shop.train.inter"
BOOKS = "raw/shop/shop.codebooks-rqkmeans_constrained.safetensors"
EMBED = f"embed --items {ITEMS} --output new.npy --dim 8"
ALS = f"embed-als --items {ITEMS} --train {TRAIN} --output new.npy --dim 8"
FUSE = f"fuse --items {ITEMS} --vectors {VECTORS} {VECTORS} --output new.npy"
QUANTISE = f"quantise --items {ITEMS} --vectors {VECTORS} --output new.index.json --sizes 4 4 4"
ASSIGN = f"sid-assign --index {INDEX} --codebooks {BOOKS} --output new.index.json"
NEW_ITEMS = f"{ASSIGN} --items fresh.item.json --vectors fresh.npy"
SID_REPORT = f"sid-report --index {INDEX} --output new"
PREPROCESS = "preprocess --raw raw --category shop --output_dir new/shop"
MAKE_BASE = "make-base --data data/shop --output_dir new --hidden 16 --layers 1"
ADD_SIDS = "add-sids --base base --tokens data/shop/new_tokens.json --output new"
SFT = "sft sft.yaml output_dir=new"
GRPO = "grpo grpo.yaml output_dir=new"
PREVIEW = (
    "rewards-preview --model sft --data data/shop --rewards ranking_reward.rule_reward --num_generations 4 --groups 2"
)
EVALUATE = "evaluate --model sft --data data/shop --output new --k 5 --beams 5 --limit 12"
BASELINE = "baseline --raw raw --category shop --data data/shop --k 5 --limit 12 --output new"
COUNT = f"{BASELINE} --method popularity"
NETWORK = "--method sasrec --width 8 --epochs 1 --max_history 5"
BENCHMARK = "benchmark --raw raw --category shop --output_dir new"
REPORT = "report report.yaml"
RECOMMEND = "recommend --model sft --k 3 --beams 3"

INTER_HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
PREPARE_YAML = """category: shop
output_dir: new
interactions:
  {source: table, interactions: log/log.csv, items: log/items.csv, user_column: user, item_column: item,
   time_column: time, title_column: title, user_k: 0, item_k: 0, split: leave_one_out}
"""
REPORT_YAML = """methods: {sft: results/sft, pop: results/pop}
data: data/shop
data_dir: raw
category: shop
output: new
models: [sft]
metrics: [hr@5]
tested: [hr@5]
resamples: 20
"""

# fmt: off
COMMAND_LINE = [
    Bad("no such command", "evalute --model sft", ("evalute", "did you mean 'evaluate'?"), status=2),
    Bad("no such flag", "env --jsn", ("--jsn", "--help"), status=2),
    Bad("a flag without a value", "compare --a", ("--a",), status=2),
    Bad("a required flag left out", "compare --a results/sft", ("--b",), status=2),
    Bad("a text for a number", f"{EVALUATE} --k many", ("--k", "many"), status=2),
    Bad("a wrong choice", f"{EVALUATE} --split dev", ("--split", "dev", "valid"), status=2),
    Bad("a YAML that is not there", "grpo none.yaml", ("none.yaml", "missing"), status=2),
    Bad("a folder in place of a YAML", "grpo raw.yaml", ("raw.yaml",), (folder("raw.yaml"),), status=2),
    Bad("a YAML that is none", "prepare x.yaml", ("x.yaml", "not YAML"), (write("x.yaml", "a: [1, 2"),), status=2),
    Bad("a YAML that holds a list", "prepare x.yaml", ("x.yaml", "list"), (write("x.yaml", "[1, 2]"),), status=2),
    Bad("a YAML in Latin-1", "compare x.yaml", ("x.yaml", "line 2", "UTF-8"),
        (write("x.yaml", b"a: results/sft\nb: caf\xe9\n"),), status=2),
    Bad("a YAML with a key twice", "compare x.yaml", ("x.yaml", "'a' is given twice"),
        (write("x.yaml", "a: results/sft\nb: results/pop\na: results/pop\n"),), status=2),
    Bad("a YAML with an unknown key", "compare x.yaml", ("x.yaml", "'sede'", "did you mean 'seed'?"),
        (write("x.yaml", "a: results/sft\nb: results/pop\nsede: 3\n"),), status=2),
    Bad("a YAML with a wrong type", "compare x.yaml", ("x.yaml", "'resamples'", "many"),
        (write("x.yaml", "a: results/sft\nb: results/pop\nresamples: many\n"),), status=2),
    Bad("a YAML with a list for one value", "compare x.yaml", ("x.yaml", "'seed'", "[1, 2]"),
        (write("x.yaml", "a: results/sft\nb: results/pop\nseed: [1, 2]\n"),), status=2),
    *(
        Bad(f"{line.split()[0]}: a seed below 0", f"{line} --seed -1", ("seed", "-1", "at least 0"), status=2)
        for line in (EMBED, QUANTISE, PREPROCESS, MAKE_BASE, ADD_SIDS, EVALUATE, COUNT, "compare --a x --b y")
    ),
]

DATA = [
    Bad("interactions: no log", f"{INTERACTIONS} interactions=log/none.csv", ("log/none.csv",)),
    Bad("interactions: a folder as log", f"{INTERACTIONS} interactions=log", ("log",)),
    chmod_free("interactions: a log that may not be read", INTERACTIONS, "log/log.csv"),
    Bad("interactions: an empty log", INTERACTIONS, ("log/log.csv",), (write("log/log.csv", ""),)),
    Bad("interactions: a log in Latin-1", INTERACTIONS, ("log/log.csv", "UTF-8"),
        (swap("log/log.csv", "i1", b"i\xe9"),)),
    Bad("interactions: an archive as log", INTERACTIONS, ("log/log.csv",),
        (write("log/log.csv", b"PK\x03\x04\x14\x00\xff\xfe" * 9),)),
    Bad("interactions: no such column", f"{INTERACTIONS} user_column=who", ("log/log.csv", "who", "user")),
    Bad("interactions: a time that is none", INTERACTIONS, ("log/log.csv", "soon"),
        (swap("log/log.csv", ",15", ",soon,15"), swap("log/log.csv", ",soon,", ",soon\nu0,i1,"))),
    Bad("interactions: no title column", f"{INTERACTIONS} title_column=name", ("log/items.csv", "name", "title")),
    Bad("interactions: a category with a path", f"{INTERACTIONS} category=../../esc", ("category", "../../esc")),
    Bad("interactions: an empty category", f"{INTERACTIONS} category=", ("category",)),
    Bad("interactions: a k-core below none", f"{INTERACTIONS} user_k=-5", ("user_k", "-5", "at least"), status=2),
    Bad("interactions: a k-core of nobody", f"{INTERACTIONS} user_k=99", ("user_k",)),
    Bad("interactions: since that is no date", f"{INTERACTIONS} since=yesterday", ("since", "yesterday")),
    Bad("interactions: a packed log cut short", f"{AMAZON} interactions=r.json.gz", ("r.json.gz",),
        (write("r.json.gz", gzip.compress(b'{"reviewerID": "u"}\n' * 999)[:60]), write("m.json", "{}\n"))),
    Bad("interactions: a review without its user", f"{AMAZON} interactions=r.json", ("r.json", "line 1"),
        (write("r.json", '{"asin": "i", "unixReviewTime": 1}\n'), write("m.json", '{"asin": "i", "title": "t"}\n'))),
    Bad("prepare: no log", "prepare x.yaml", ("none.csv",),
        (write("x.yaml", PREPARE_YAML.replace("log/log.csv", "none.csv")),)),
    Bad("prepare: a step's unknown key", "prepare x.yaml", ("encodr", "did you mean --encoder?"),
        (write("x.yaml", PREPARE_YAML + "embed: {encodr: tfidf}\n"),), status=2),
    Bad("prepare: a list for a step", "prepare x.yaml", ("interactions",),
        (write("x.yaml", "category: shop\noutput_dir: new\ninteractions: [log/log.csv]\n"),), status=2),
]

SIDS = [
    Bad("embed: no items", f"{EMBED} --items none.json", ("none.json", "missing")),
    Bad("embed: items cut short", EMBED, (ITEMS, "not JSON"), (cut(ITEMS),)),
    Bad("embed: items in a list", EMBED, (ITEMS, "must map"), (edit(ITEMS, lambda items: list(items.values())),)),
    Bad("embed: texts for items", EMBED, (ITEMS, "'3'"), (edit(ITEMS, lambda items: items.update({"3": "hammer"})),)),
    Bad("embed: an item twice", EMBED, (ITEMS, "'1'", "twice"), (swap(ITEMS, '"2":', '"1":'),)),
    Bad("embed: items in UTF-16", EMBED, (ITEMS, "UTF-16"), (write(ITEMS, '{"1": {}}'.encode("utf-16")),)),
    Bad("embed: items that are empty", EMBED, (ITEMS,), (write(ITEMS, ""),)),
    Bad("embed: no dimensions", f"{EMBED} --dim 0", ("--dim", "0", "at least 1"), status=2),
    Bad("embed: a template with a width", EMBED + " --template '{title:>1000000000}'", ("template", "title")),
    Bad("embed: a template with an unknown name", EMBED + " --template '{titel}'", ("template", "titel", "title")),
    Bad("embed: a model that is nowhere", f"{EMBED} --encoder hf --model raw/none", ("raw/none",)),
    Bad("embed: an encoder cut short", f"{EMBED} --fitted raw/shop/shop.emb.encoder.safetensors",
        ("shop.emb.encoder.safetensors",), (cut("raw/shop/shop.emb.encoder.safetensors"),)),
    Bad("embed-als: no train rows", f"{ALS} --train none.inter", ("none.inter",)),
    Bad("embed-als: no iterations", f"{ALS} --iterations -1", ("--iterations", "-1", "at least"), status=2),
    Bad("embed-als: a weight below none", f"{ALS} --alpha -40", ("--alpha", "-40", "above 0"), status=2),
    Bad("embed-als: unknown items alone", ALS, (TRAIN,),
        (write(TRAIN, INTER_HEADER + "u\tx y\tz\n"),)),
    Bad("fuse: weights of nothing", f"{FUSE} --weights 0 0", ("--weights", "0"), status=2),
    Bad("fuse: a weight that is no number", f"{FUSE} --weights nan 1", ("weights", "nan"), status=2),
    Bad("fuse: a weight too few", f"{FUSE} --weights 1", ("weights", "2")),
    Bad("fuse: no vectors", f"fuse --items {ITEMS} --vectors none.npy {VECTORS} --output new.npy", ("none.npy",)),
    Bad("quantise: vectors cut short", QUANTISE, (VECTORS,), (cut(VECTORS),)),
    Bad("quantise: vectors that are empty", QUANTISE, (VECTORS,), (write(VECTORS, ""),)),
    Bad("quantise: vectors that are texts", QUANTISE, (VECTORS,), (write(VECTORS, "1 2 3\n4 5 6\n"),)),
    Bad("quantise: vectors with NaN", QUANTISE, (VECTORS,), (numbers(VECTORS, lambda x: x[5].fill(np.nan)),)),
    Bad("quantise: a row too few", QUANTISE, (VECTORS, "23", "24"), (numbers(VECTORS, lambda x: x[1:]),)),
    Bad("quantise: vectors of other items", QUANTISE, (VECTORS,),
        (edit(ITEMS, lambda items: {f"x{item}": about for item, about in items.items()}),)),
    Bad("quantise: a level of no codes", f"{QUANTISE} --sizes 4 0", ("--sizes", "0", "at least"), status=2),
    Bad("quantise: no epochs", f"{QUANTISE} --method rqvae --epochs 0", ("--epochs", "0", "at least 1"), status=2),
    Bad("quantise: no hidden units", f"{QUANTISE} --method rqvae --hidden 0", ("--hidden", "0", "at least"), status=2),
    Bad("quantise: a decay above 1", f"{QUANTISE} --method rqvae --decay 2", ("--decay", "2"), status=2),
    Bad("quantise: a device that is not there", f"{QUANTISE} --method rqvae --epochs 1 --device toaster",
        ("--device", "toaster")),
    Bad(
        "sid-assign: no codebooks",
        f"sid-assign --index {INDEX} --codebooks none.safetensors --output x.json --remove 3",
        ("none.safetensors",),
    ),
    Bad("sid-assign: codebooks cut short", NEW_ITEMS, (BOOKS,), (cut(BOOKS),)),
    Bad("sid-assign: codebooks with NaN", NEW_ITEMS, (BOOKS, "NaN"),
        (tensors(BOOKS, lambda books: [nan(name)(books) for name in books if books[name].is_floating_point()]),)),
    Bad("sid-assign: new items without vectors", f"{NEW_ITEMS} --vectors none.npy", ("none.npy",)),
    Bad("sid-assign: an item to remove that is not there", f"{ASSIGN} --remove gone.txt",
        ("gone.txt", "line 1", "'404'"), (write("gone.txt", "404\n"),)),
    Bad("sid-report: no index", "sid-report --index none.json --output new", ("none.json",)),
    Bad("sid-report: an item twice", SID_REPORT, (INDEX, "'1'", "twice"), (swap(INDEX, '"2":', '"1":'),)),
    Bad("sid-report: SIDs that are texts", SID_REPORT, (INDEX, "'1'"),
        (edit(INDEX, lambda index: index.update({"1": "<a_1><b_1>"})),)),
    Bad("sid-report: a token without brackets", SID_REPORT, (INDEX, "'1'", "a_1", "<a_14>"),
        (edit(INDEX, lambda index: index.update({"1": ["a_1", "<b_1>"]})),)),
    Bad("sid-report: an empty index", SID_REPORT, (INDEX, "at least one item"), (write(INDEX, "{}"),)),
    Bad("sid-report: vectors cut short", f"{SID_REPORT} --items {ITEMS} --embeddings {VECTORS}", (VECTORS,),
        (cut(VECTORS),)),
    Bad("sid-report: no queries", f"{SID_REPORT} --items {ITEMS} --embeddings {VECTORS} --queries 0",
        ("--queries", "0", "at least"), status=2),
]

ROWS = [
    Bad("preprocess: no such category", f"{PREPROCESS} --category shp", ("shp", "shp.train.inter")),
    Bad("preprocess: no index", PREPROCESS, ("shop.index.json", "--raw"), (gone(INDEX),)),
    Bad("preprocess: an index cut short", PREPROCESS, (INDEX, "not JSON"), (cut(INDEX),)),
    Bad("preprocess: a header of others", PREPROCESS, (TRAIN, "line 1"), (swap(TRAIN, "user_id:token", "user"),)),
    Bad("preprocess: a row of two columns", PREPROCESS, (TRAIN, "line 2"),
        (swap(TRAIN, INTER_HEADER, INTER_HEADER + "u\t1\n"),)),
    Bad("preprocess: train rows in Latin-1", PREPROCESS, (TRAIN, "UTF-8"),
        (swap(TRAIN, INTER_HEADER, INTER_HEADER.encode() + b"\xe9\t1\t2\n"),)),
    Bad("preprocess: no train row", PREPROCESS, (TRAIN, "no row"),
        (write(TRAIN, INTER_HEADER),)),
    Bad("preprocess: items in a list", PREPROCESS, (ITEMS, "list"), (write(ITEMS, "[]"),)),
    Bad("preprocess: an index of another catalogue", PREPROCESS, ("shop",),
        (edit(INDEX, lambda index: {f"x{item}": sid for item, sid in index.items()}),)),
    Bad("preprocess: no such task", f"{PREPROCESS} --tasks task9", ("--tasks", "'task9'", "task1_sid_sft")),
    Bad("preprocess: no history", f"{PREPROCESS} --max_history 0", ("--max_history", "0", "at least 1"), status=2),
    Bad("preprocess: a tokenizer that is nowhere", f"{PREPROCESS} --tokenizer raw/none", ("raw/none",)),
    Bad("make-base: a folder that holds a model", f"{MAKE_BASE} --output_dir sft", ("sft",)),
    Bad("make-base: no data", f"{MAKE_BASE} --data none", ("none",)),
    Bad("make-base: heads that do not divide", f"{MAKE_BASE} --heads 3", ("heads", "3", "16")),
    Bad("make-base: no layers", f"{MAKE_BASE} --layers 0", ("--layers", "0", "at least"), status=2),
    Bad("make-base: rows without an answer", MAKE_BASE, ("sft/train.json",),
        (edit("data/shop/sft/train.json", without(0, "output")),)),
    Bad("make-base: rows cut short", MAKE_BASE, ("sft/train.json", "not JSON"), (cut("data/shop/sft/train.json"),)),
    Bad("add-sids: a base that is nowhere", f"{ADD_SIDS} --base raw/none", ("raw/none",)),
    Bad("add-sids: a base cut short", ADD_SIDS, ("base",), (cut("base/model.safetensors"),)),
    Bad("add-sids: a base without weights", ADD_SIDS, ("base",), (gone("base/model.safetensors"),)),
    Bad("add-sids: a base with NaN", ADD_SIDS, ("base", "NaN"),
        (tensors("base/model.safetensors", nan("model.embed_tokens.weight")),)),
    Bad("add-sids: a tokenizer cut short", ADD_SIDS, ("base",), (cut("base/tokenizer.json"),)),
    Bad("add-sids: tokens in a map", ADD_SIDS, ("new_tokens.json",), (write("data/shop/new_tokens.json", "{}"),)),
    Bad("add-sids: a folder that holds a model", f"{ADD_SIDS} --output sft", ("sft",)),
    Bad("add-sids: vectors at no scale", f"{ADD_SIDS} --init vectors --vectors {VECTORS} --vector_scale nan",
        ("vector_scale", "nan"), status=2),
    Bad("merge: a whole model", "merge --model sft --output new", ("sft", "adapter_config.json")),
    Bad("merge: a folder that is nowhere", "merge --model saves/none --output new", ("saves/none",)),
    Bad("add-sids: no vectors", f"{ADD_SIDS} --init vectors --data data/shop --vectors none.npy", ("none.npy",)),
]

TRAINING = [
    Bad("sft: no YAML", "sft none.yaml", ("none.yaml",), status=2),
    Bad("sft: an unknown key", f"{SFT} learnig_rate=1", ("learnig_rate",), status=2),
    Bad("sft: a key twice", SFT, ("sft.yaml", "seed"), (swap("sft.yaml", "seed: 1", "seed: 1\nseed: 2"),), status=2),
    Bad("sft: a rate that is no number", f"{SFT} learning_rate=nan", ("learning_rate", "nan"), status=2),
    Bad("sft: a seed below 0", f"{SFT} seed=-1", ("eed", "0"), status=2),
    Bad("sft: no data", f"{SFT} dataset_dir=none", ("none",)),
    Bad("sft: no such data set", f"{SFT} dataset=shp_train", ("shp_train",)),
    Bad("sft: a register that is damaged", SFT, ("dataset_info.json",),
        (edit("data/dataset_info.json", lambda info: info.update(shop_train=3)),)),
    Bad("sft: a base that is nowhere", f"{SFT} model_name_or_path=raw/none", ("raw/none",)),
    Bad("sft: a base without weights", SFT, ("base_sid",), (gone("base_sid/model.safetensors"),)),
    Bad("sft: a base with NaN", SFT, ("base_sid", "NaN"),
        (tensors("base_sid/model.safetensors", nan("model.embed_tokens.weight")),), begun=True),
    Bad("sft: rows cut short", SFT, ("sft/train.json",), (cut("data/shop/sft/train.json"),)),
    Bad("sft: an answer that is no text", SFT, ("sft/train.json",),
        (edit("data/shop/sft/train.json", lambda rows: rows[0].update(output=None)),)),
    Bad("sft: another rate than that of the run there", "sft sft.yaml learning_rate=0.5",
        ("sft", "learning_rate", "0.5", "overwrite_output_dir")),
    Bad("sft: other data than those of the run there", "sft sft.yaml", ("sft", "overwrite_output_dir"),
        (edit("data/shop/sft/train.json", lambda rows: rows[1:]),)),
    Bad("sft: a folder that holds something else", "sft sft.yaml output_dir=raw/shop", ("raw/shop",)),
    Bad("grpo: no model", f"{GRPO} model=raw/none", ("raw/none",)),
    Bad("grpo: an unknown key", f"{GRPO} num_generation=4", ("num_generation", "num_generations"), status=2),
    Bad("grpo: a beta that is no number", f"{GRPO} beta=nan", ("beta", "nan"), status=2),
    Bad("grpo: no generations", f"{GRPO} num_generations=0", ("num_generations", "0"), status=2),
    Bad("grpo: a reward weight that is no number", f"{GRPO} --reward_weights nan",
        ("reward_weights", "nan"), status=2),
    Bad("grpo: no such reward file", f"{GRPO} --rewards nothing.f", ("nothing",)),
    Bad("grpo: no such reward", f"{GRPO} --rewards mine.g", ("mine", "g"), (write("rewards/mine.py", "f = 1\n"),)),
    Bad("grpo: a reward that is no Python", f"{GRPO} --rewards mine.f", ("mine.py", "line 1"),
        (write("rewards/mine.py", "def f(:\n"),)),
    Bad("grpo: a reward that fails at import", f"{GRPO} --rewards mine.f", ("mine.py", "no luck"),
        (write("rewards/mine.py", "raise OSError('no luck')\n"),)),
    Bad("grpo: a reward that exits", f"{GRPO} --rewards mine.f", ("mine",),
        (write("rewards/mine.py", "import sys\n\ndef f(completions, **_):\n    sys.exit(0)\n"),), begun=True),
    Bad("grpo: a reward that gives NaN", f"{GRPO} --rewards mine.f", ("mine", "nan"),
        (write("rewards/mine.py", "def f(completions, **_):\n    return [float('nan')] * len(completions)\n"),),
        begun=True),
    Bad("grpo: a reward for too few", f"{GRPO} --rewards mine.f", ("mine",),
        (write("rewards/mine.py", "def f(completions, **_):\n    return [1.0]\n"),), begun=True),
    Bad("grpo: rows cut short", GRPO, ("rl/train.json", "not JSON"), (cut("data/shop/rl/train.json"),)),
    Bad("grpo: rows without a prompt", GRPO, ("rl/train.json", "prompt"),
        (edit("data/shop/rl/train.json", without(0, "prompt")),)),
    Bad("grpo: a model without SIDs", f"{GRPO} model=base", ("base", "<a_")),
    Bad("grpo: a model with NaN", GRPO, ("sft", "NaN"),
        (tensors("sft/model.safetensors", nan("model.embed_tokens.weight")),)),
    Bad("grpo: a model of another catalogue", GRPO, ("sft", "data/shop"), (edit("data/shop/id2sid.json", moved_ids),)),
    Bad("grpo: another beta than that of the run there", "grpo grpo.yaml beta=0.5",
        ("rl", "beta", "0.5", "overwrite_output_dir")),
    Bad("rewards-preview: no model", f"{PREVIEW} --model raw/none", ("raw/none",)),
    Bad("rewards-preview: no groups", f"{PREVIEW} --groups 0", ("--groups", "0", "at least 1"), status=2),
    Bad("rewards-preview: no batch", f"{PREVIEW} --batch_size 0", ("--batch_size", "0", "at least 1"), status=2),
    Bad("rewards-preview: no such reward", f"{PREVIEW} --rewards nothing.f", ("nothing",)),
]

MEASURING = [
    Bad("evaluate: no model", f"{EVALUATE} --model raw/none", ("raw/none",)),
    Bad("evaluate: no data", f"{EVALUATE} --data none", ("none",)),
    Bad("evaluate: no rows", f"{EVALUATE} --limit 0", ("--limit", "0", "at least 1"), status=2),
    Bad("evaluate: no batch", f"{EVALUATE} --batch_size 0", ("--batch_size", "0", "at least 1"), status=2),
    Bad("evaluate: more to rank than beams", f"{EVALUATE} --k 6", ("6", "5", "beams")),
    Bad("evaluate: weights cut short", EVALUATE, ("sft",), (cut("sft/model.safetensors"),)),
    Bad("evaluate: weights with NaN", EVALUATE, ("sft", "NaN"),
        (tensors("sft/model.safetensors", nan("model.embed_tokens.weight")),)),
    Bad("evaluate: a weight missing", EVALUATE, ("sft", "model.norm.weight"),
        (tensors("sft/model.safetensors", without("model.norm.weight")),)),
    Bad("evaluate: no weights", EVALUATE, ("sft",), (gone("sft/model.safetensors"),)),
    Bad("evaluate: a config cut short", EVALUATE, ("sft", "config.json"), (cut("sft/config.json"),)),
    Bad("evaluate: the tokenizer of the base", EVALUATE, ("sft", "<a_"),
        (*(swapped(name) for name in ("tokenizer.json", "tokenizer_config.json")), gone("sft/added_tokens.json"))),
    Bad("evaluate: a contract that was edited", EVALUATE, ("prompt_contract.json", "edited"),
        (edit("sft/prompt_contract.json", lambda contract: contract.update(system="You are a pirate.")),)),
    Bad("evaluate: rows in other words", EVALUATE, ("data/shop", "sft", "wording", "build the data again"),
        (lambda shop: Contract.of("classic", max_history=10).write(shop / "data/shop"),)),
    Bad("evaluate: a model of another catalogue", EVALUATE, ("sft", "data/shop", "another catalogue"),
        (edit("sft/id2sid.json", moved_ids),)),
    Bad("evaluate: a history that is a text", EVALUATE, ("rows/test.json", "history"),
        (edit("data/shop/rows/test.json", lambda rows: rows[0].update(history="1 2 3")),)),
    Bad("evaluate: an answer that is no text", EVALUATE, ("sft/test.json", "output"),
        (edit("data/shop/sft/test.json", lambda rows: rows[0].update(output=None)),)),
    Bad("evaluate: a row too few", EVALUATE, ("sft/test.json", "rows/test.json"),
        (edit("data/shop/rows/test.json", lambda rows: rows[1:]),)),
    Bad("evaluate: other settings than those of the run there", f"{EVALUATE} --k 3 --output results/sft",
        ("results/sft", "k: 5 then, 3 now", "--overwrite")),
    Bad("evaluate: a run of others there that is damaged", f"{EVALUATE} --output results/sft",
        ("results/sft/run.json",), (write("results/sft/run.json", "[]"), gone("results/sft/metrics.json"))),
    Bad("evaluate: a folder that holds something else", f"{EVALUATE} --output sft", ("sft",)),
    Bad("evaluate: a file in place of the folder", f"{EVALUATE} --output sft.yaml", ("sft.yaml",)),
    Bad("evaluate: a device that is not there", f"{EVALUATE} --device toaster", ("device", "toaster")),
    Bad("baseline: rows counted from the end", f"{COUNT} --limit -3", ("--limit", "-3", "at least 1"), status=2),
    Bad("baseline: an unknown method", f"{BASELINE} --method bert4rec", ("--method", "bert4rec", "sasrec"), status=2),
    Bad("baseline: no neighbours", f"{BASELINE} --method itemknn --neighbours 0",
        ("--neighbours", "0", "at least 1"), status=2),
    Bad("baseline: a shrink that is no number", f"{BASELINE} --method itemknn --shrink nan",
        ("--shrink", "nan"), status=2),
    Bad("baseline: a back-off below none", f"{BASELINE} --method markov --back_off -1",
        ("--back_off", "-1", "at least 0"), status=2),
    Bad("baseline: no width", f"{BASELINE} {NETWORK} --width 0", ("--width", "0", "at least 1"), status=2),
    Bad("baseline: a dropout of all", f"{BASELINE} {NETWORK} --dropout 1", ("--dropout", "1", "below 1"), status=2),
    Bad("baseline: valid rows from the end", f"{BASELINE} {NETWORK} --valid_rows -1",
        ("--valid_rows", "-1", "at least 1"), status=2),
    Bad("baseline: heads that do not divide", f"{BASELINE} {NETWORK} --heads 3", ("--heads 3", "--width 8", "change")),
    Bad("baseline: a window beyond the history", f"{BASELINE} --method caser --window 500 --max_history 5",
        ("--window 500", "--max_history 5", "lower")),
    Bad("baseline: a device that is not there", f"{BASELINE} {NETWORK} --device toaster",
        ("--device", "toaster", "or take cpu")),
    Bad("baseline: train rows of another set", COUNT, (TRAIN, "none of", "data/shop", "--raw"),
        (write(TRAIN, INTER_HEADER + "u\tx y\tz\n"),)),
    Bad("baseline: data of other train rows", COUNT, ("data/shop", TRAIN, "--raw"),
        (swap(TRAIN, INTER_HEADER, INTER_HEADER + "u\t1\t2\n"),)),
    Bad("baseline: no data", f"{COUNT} --data none", ("none",)),
    Bad("baseline: other settings than those of the run there", f"{COUNT} --k 3 --output results/pop",
        ("results/pop", "k: 5 then, 3 now", "--overwrite")),
    Bad("baseline: another method than that of the run there", f"{BASELINE} --method markov --output results/pop",
        ("results/pop", "method: popularity then, markov now", "--overwrite")),
    Bad("baseline: fewer epochs than those of the run there", f"{BASELINE} {NETWORK} --output results/sasrec",
        ("results/sasrec", "epochs: 2 then, 1 now", "--overwrite")),
    Bad("baseline: a training cut short", f"{BASELINE} {NETWORK} --epochs 3 --output results/sasrec",
        ("results/sasrec/training.pt", "damaged", "delete it"), (cut("results/sasrec/training.pt"),), begun=True),
    Bad("baseline: a folder that holds something else", f"{COUNT} --output sft --overwrite", ("sft", "Take another")),
    Bad("baseline: a result of another command there", f"{COUNT} --output results/sft",
        ("results/sft", "Take another")),
    Bad("benchmark: an unknown key", "benchmark x.yaml", ("x.yaml", "baselins", "did you mean 'baselines'?"),
        (write("x.yaml", "raw: raw\ncategory: shop\noutput_dir: new\nbaselins: {}\n"),), status=2),
    Bad("benchmark: a list of baselines", "benchmark x.yaml", ("x.yaml", "baselines"),
        (write("x.yaml", "raw: raw\ncategory: shop\noutput_dir: new\nbaselines: [popularity]\n"),), status=2),
    Bad("benchmark: nothing to compare", BENCHMARK, ("baselines", "nothing to compare")),
    Bad("benchmark: a seed twice", f"{BENCHMARK} --seeds 1 1", ("seeds", "[1, 1]")),
    Bad("benchmark: a name with a path", f"{BENCHMARK} --baselines '{{\"a/b\": {{}}}}'", ("baselines", "'a/b'")),
    Bad("benchmark: options that are not there", f'{BENCHMARK} --baselines \'{{"sasrec": "none.yaml"}}\'',
        ("baselines: sasrec", "none.yaml", "missing")),
    Bad("benchmark: a base that is nowhere", f"{BENCHMARK} --base raw/none --sft sft.yaml", ("base", "raw/none")),
    Bad("benchmark: RL without SFT", f"{BENCHMARK} --grpo grpo.yaml", ("grpo", "sft")),
    Bad("benchmark: no such category", f"{BENCHMARK} --category shp --baselines '{{\"popularity\": {{}}}}'", ("shp",)),
    Bad(
        "benchmark: longer lists to report than there are",
        f"{BENCHMARK} --baselines '{{\"popularity\": {{}}}}' --evaluate '{{\"k\": 5}}'",
        ("report", "10", "k=5"),
    ),
]

READING = [
    Bad("compare: no result", "compare --a results/none --b results/pop", ("results/none/final_result.json",)),
    Bad("compare: a result that is a map", "compare --a results/sft --b results/pop",
        ("results/sft/final_result.json",), (write("results/sft/final_result.json", "{}"),)),
    Bad("compare: a result without rows", "compare --a results/sft --b results/pop",
        ("results/sft/final_result.json", "at least one row"), (write("results/sft/final_result.json", "[]"),)),
    Bad(
        "compare: a list without its SID",
        "compare --a results/sft --b results/pop",
        ("results/pop/final_result.json", "sid"),
        (edit("results/pop/final_result.json", without(0, "ranked", 0, "sid")),),
    ),
    Bad("compare: metrics in a list", "compare --a results/sft --b results/pop", ("results/pop/metrics.json",),
        (write("results/pop/metrics.json", "[]"),)),
    Bad("compare: a manifest cut short", "compare --a results/sft --b results/pop",
        ("results/sft/manifest.json", "not JSON"), (cut("results/sft/manifest.json"),)),
    Bad("compare: other rows", "compare --a results/sft --b results/pop", ("results/sft", "results/pop"),
        (edit("results/pop/final_result.json", lambda rows: rows[1:]),)),
    Bad("compare: no resamples", "compare --a results/sft --b results/pop --resamples 0",
        ("--resamples", "0", "at least"), status=2),
    Bad("report: no result", REPORT, ("results/none",),
        (write("report.yaml", REPORT_YAML.replace("results/pop", "results/none")),)),
    Bad("report: no such metric", REPORT, ("auc@5", "ndcg@K"),
        (write("report.yaml", REPORT_YAML.replace("hr@5", "auc@5")),)),
    Bad("report: a metric longer than the lists", REPORT, ("hr@50", "5"),
        (write("report.yaml", REPORT_YAML.replace("hr@5", "hr@50")),)),
    Bad("report: a model that is none of the methods", REPORT, ("rl",),
        (write("report.yaml", REPORT_YAML.replace("[sft]", "[rl]")),)),
    Bad("report: no data", REPORT, ("none",), (write("report.yaml", REPORT_YAML.replace("data/shop", "none")),)),
    Bad("recommend: no model", f"{RECOMMEND} --model raw/none --history 1,2", ("raw/none",)),
    Bad("recommend: neither history nor users", RECOMMEND, ("--history", "--users")),
    Bad("recommend: no such users", f"{RECOMMEND} --users none.jsonl --output new.jsonl", ("none.jsonl",)),
    Bad("recommend: users that are no JSON", f"{RECOMMEND} --users u.jsonl --output new.jsonl", ("u.jsonl", "2"),
        (write("u.jsonl", '{"user": "a", "history": ["1"]}\n{"user"\n'),)),
    Bad("recommend: users that are lists", f"{RECOMMEND} --users u.jsonl --output new.jsonl", ("u.jsonl", "1"),
        (write("u.jsonl", '["1", "2"]\n'),)),
    Bad("recommend: users in Latin-1", f"{RECOMMEND} --users u.jsonl --output new.jsonl", ("u.jsonl", "UTF-8"),
        (write("u.jsonl", b'{"user": "\xe9", "history": ["1"]}\n'),)),
    Bad("recommend: unknown items alone", f"{RECOMMEND} --history 404,405 --unknown error", ("404",)),
    Bad("recommend: unknown items alone allowed", f"{RECOMMEND} --history 1 --allow a.txt",
        ("--allow", "a.txt", "no item"), (write("a.txt", "404\n405\n"),)),
    Bad("recommend: nothing to rank", f"{RECOMMEND} --history 1 --k 0", ("--k", "0", "at least 1"), status=2),
    Bad("recommend: the model of nobody", f"{RECOMMEND} --history 1 --model base", ("base",)),
    Bad("plot: nothing to plot", "plot --output new", ("--logs", "--results")),
    Bad("plot: no log", "plot --output new --logs none", ("none",)),
    Bad("plot: a log of lists", "plot --output new --logs sft/trainer_log.jsonl", ("trainer_log.jsonl",),
        (write("sft/trainer_log.jsonl", "[1, 2]\n"),)),
    Bad("plot: an optimum in a list", "plot --output new --results results/sft --optimum o.json",
        ("o.json", "[1]"), (write("o.json", "[1]"),)),
    Bad("env: a word too many", "env now", ("now",), status=2),
]
# fmt: on

BAD_INPUTS = [*COMMAND_LINE, *DATA, *SIDS, *ROWS, *TRAINING, *MEASURING, *READING]
