"""A base model + SID tokens -> a prepared base: a checkpoint whose tokenizer and embedding rows know the SIDs.

LLaMA-Factory's own ways to add tokens are not used: they set the rows that a resize appends, and models such as
Qwen2.5 have spare rows, so the SIDs would keep untouched rows and old words would lose theirs. Here every row is set
by token id, and any trainer takes the result as an ordinary checkpoint.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mimigenrec.catalog import Catalog, item_vectors, load_catalog
from mimigenrec.checkpoint import COMPANIONS, copy_companions
from mimigenrec.claim import claim_folder, replace_folder, temporary_of
from mimigenrec.cli import arg, check_ranges, start
from mimigenrec.contract import proven_tokenizer
from mimigenrec.decoding.adapter import identity
from mimigenrec.decoding.weights import load_causal_lm
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.manifest import make_manifest
from mimigenrec.sids.tokens import read_new_tokens

COMMAND = "add-sids"
FREE = ("output", "overwrite", "base", "tokens", "data", "vectors")  # the content of the last four is compared


@dataclass
class AddSidsConfig:
    """A base model and SID tokens -> a prepared base, which any trainer takes as an ordinary checkpoint."""

    base: str = arg("model folder or Hugging Face name; a folder that has some of the tokens keeps their rows")
    tokens: Path = arg("new_tokens.json of preprocessing")
    output: Path = arg("folder to write")
    # noise needs no titles, and text measured no better: validation NDCG@10 0.0671 against 0.0663, mean of three seeds
    # that differ by 0.006 among themselves (tiny Qwen2, a slice of Amazon18 Industrial, 200 steps on a CPU)
    init: Literal["noise", "text", "vectors"] = arg(
        "start of a SID token's row: mean and spread of the old rows; the mean row of the words in the titles of the "
        "items that carry it; or the principal parts of their mean item vector",
        default="noise",
    )
    vectors: Path | None = arg("C.emb-NAME.npy of these items, for init vectors", default=None)
    # a Qwen2 from scratch with a token per item, validation NDCG@10 at 1, 3 and 6: see docs/results.md
    vector_scale: float = arg(
        "spread of rows that start from vectors, as a multiple of the old rows'; 6 suits models from scratch",
        default=1.0,
        above=0,
    )
    data: Path | None = arg(
        "folder of id2sid.json and items.json for init text and vectors (default: that of tokens)", default=None
    )
    untie: bool = arg("give a model with tied embeddings a head of its own, which LoRA on them needs", default=False)
    seed: int = arg("random seed of the noise", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg("replace an earlier result of this command; anything else is refused", default=False)


def main(config: AddSidsConfig) -> None:
    facts = add_sids(config)
    print(
        f"{config.output}: {facts['added']} SID tokens added, {facts['already_there']} were there, "
        f"{facts['rows']} embedding rows, {'tied' if facts['tied'] else 'untied'}"
    )


def add_sids(config: AddSidsConfig) -> dict[str, int | bool]:
    """Writes config.output whole or not at all, unless it is there already; returns what its manifest tells.

    Raises UserError for a base or data that are missing or no such thing, an output that holds something else, and a
    SID token that the tokenizer knows as a special one.
    """
    check_ranges(config)
    sid_tokens = read_new_tokens(config.tokens)
    data = config.data or config.tokens.parent
    now = manifest(config, data)
    if not claim_folder(config.output, now, ("config.json", "tokenizer_config.json"), FREE, config.overwrite):
        return read_json(config.output / "manifest.json", made_by=COMMAND)
    catalog = catalog_with_titles(data) if config.init == "text" else None
    meanings = token_vectors(config, data)
    tokenizer = proven_tokenizer(config.base)
    model = load_causal_lm(config.base)

    words_of = title_ids(catalog, tokenizer) if catalog else {}  # by the old vocabulary, before the SIDs are known
    known = len(tokenizer)
    new_ids = extend_tokenizer(tokenizer, sid_tokens)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    if new_ids:
        rng = torch.Generator().manual_seed(config.seed)
        for matrix in embedding_matrices(model):
            set_rows(matrix, known, new_ids, words_of, rng)
            if meanings:
                set_from_vectors(matrix, known, new_ids, meanings, config.vector_scale)
    if config.untie and is_tied(model):
        untie(model)

    facts = {
        "added": len(new_ids),
        "already_there": len(sid_tokens) - len(new_ids),
        "started_from_titles": sum(bool(words_of.get(token)) for token in new_ids),
        "tokens": len(tokenizer),
        "rows": model.get_input_embeddings().num_embeddings,
        "tied": is_tied(model),
    }
    new = temporary_of(config.output)
    model.save_pretrained(new)
    tokenizer.save_pretrained(new)
    copy_companions(config.tokens.parent, new)
    write_json(new / "manifest.json", {**now, **facts})
    replace_folder(new, config.output)
    return facts


def manifest(config: AddSidsConfig, data: Path) -> dict[str, Any]:
    """All that the result depends on. Raises UserError for a base that is neither a folder nor a hub name."""
    told = [data / "id2sid.json", data / "items.json"] if config.init != "noise" else []
    copied = [config.tokens.parent / name for name in COMPANIONS]
    read = [config.tokens, *(path for path in dict.fromkeys([*told, *copied]) if path.is_file())]
    read += [config.vectors] if config.vectors else []
    now = make_manifest(config, read, config.seed, command=COMMAND)
    now["inputs"]["the base's weights"] = identity(config.base, "--base")
    return now


def catalog_with_titles(data: Path) -> Catalog:
    catalog = load_catalog(data)
    if not catalog.titles:
        raise FileNotFoundError(
            f"{data} has no items.json with titles, which --init text starts from; point --data to the folder that "
            f"preprocessing wrote, or use --init noise"
        )
    return catalog


def token_vectors(config: AddSidsConfig, data: Path) -> dict[str, np.ndarray] | None:
    """SID token -> (dim,) mean vector of the items that carry it; None unless init is vectors.

    Raises UserError for one of --init vectors and --vectors without the other, or vectors of other items.
    """
    if (config.init == "vectors") != (config.vectors is not None):
        raise UserError(
            f"--init {config.init} with --vectors {config.vectors}: init vectors needs the C.emb-NAME.npy of the "
            f"items, and nothing else uses one"
        )
    if config.vectors is None:
        return None
    catalog = load_catalog(data)
    vectors = item_vectors(catalog, config.vectors)
    carried: dict[str, list[np.ndarray]] = {}
    for item, sid in catalog.sids.items():
        for token in sid:
            carried.setdefault(token, []).append(vectors[item])
    return {token: np.mean(rows, axis=0, dtype=np.float64) for token, rows in carried.items()}


def title_ids(catalog: Catalog, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """SID token -> token ids of the titles of all items that carry it, one list."""
    titled = [item for item in catalog.sids if item in catalog.titles]
    ids: dict[str, list[int]] = {}
    if titled:
        encoded = tokenizer([catalog.titles[item] for item in titled], add_special_tokens=False)["input_ids"]
        for item, words in zip(titled, encoded, strict=True):
            for token in catalog.sids[item]:
                ids.setdefault(token, []).extend(words)
    return ids


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, sid_tokens: Iterable[str]) -> dict[str, int]:
    """Adds those that are missing as ordinary tokens (special ones vanish when text is decoded); new token -> id."""
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_tokens)
    clash = [token for token in sid_tokens if token in special]
    if clash:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has {', '.join(clash[:3])} as special token, which decoding "
            f"drops; start from a tokenizer without it, or name the SIDs otherwise"
        )
    new = [token for token in sid_tokens if token not in vocabulary]
    tokenizer.add_tokens(new)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in new}


def embedding_matrices(model: PreTrainedModel) -> list[Tensor]:
    """(rows, hidden) weights: the input embeddings and, where it is another matrix, the head."""
    embeddings = model.get_input_embeddings().weight
    return [embeddings] if is_tied(model) else [embeddings, model.get_output_embeddings().weight]


def is_tied(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@torch.no_grad()
def set_rows(
    matrix: Tensor, known: int, new_ids: Mapping[str, int], words_of: Mapping[str, list[int]], rng: torch.Generator
) -> None:
    """Sets the rows of the new tokens and of the padding behind them, in place; the first `known` rows stay.

    matrix    (rows, hidden)
    words_of  SID token -> ids of old tokens whose mean is its row; a token without gets mean + spread * noise
    """
    old = matrix[:known].float()
    mean, spread = old.mean(0), old.std(0)  # (hidden,)
    matrix[known:] = mean.to(matrix.dtype)
    for token, row in new_ids.items():
        noise = torch.randn(mean.shape, generator=rng)  # drawn for every token: a title changes no other row
        words = words_of.get(token)
        start = old[words].mean(0) if words else mean + spread * noise
        matrix[row] = start.to(matrix.dtype)


@torch.no_grad()
def set_from_vectors(
    matrix: Tensor, known: int, new_ids: Mapping[str, int], meanings: Mapping[str, np.ndarray], scale: float
) -> None:
    """Sets the rows of the new tokens, in place, to their vectors on the principal axes of all new tokens' vectors.

    matrix     (rows, hidden); with more columns than axes the others become 0
    meanings   SID token -> (dim,); a new token without one keeps its row
    scale      standard deviation of what is set, as a multiple of the first `known` rows'
    raises     UserError unless there are two new tokens whose vectors differ
    Distances between tokens are those between their vectors, as far as `hidden` axes tell them: no whitening.
    """
    tokens = [token for token in new_ids if token in meanings]
    vectors = np.array([meanings[token] for token in tokens])  # (tokens, dim)
    if len(tokens) < 2 or not np.ptp(vectors, axis=0).any():
        raise UserError(
            f"--init vectors: of {len(new_ids)} new SID tokens {len(tokens)} have a vector, and no two of these "
            f"differ; there is nothing to start from, so take --init noise or other --vectors"
        )
    left, strength, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])  # svd leaves them open
    axes = min(matrix.shape[1], len(strength))
    places = np.zeros((len(tokens), matrix.shape[1]))
    places[:, :axes] = (left * signs * strength)[:, :axes]
    places *= scale * matrix[:known].float().std().item() / places.std()
    matrix[[new_ids[token] for token in tokens]] = torch.from_numpy(places).to(matrix)


def untie(model: PreTrainedModel) -> None:
    """Gives the head its own copy of the embeddings."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    model.config.tie_word_embeddings = False


if __name__ == "__main__":
    start(main, AddSidsConfig)
