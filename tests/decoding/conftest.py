"""A checkpoint of the toy catalogue; tiny models of each family on a random catalogue with SIDs of 1 to 4 levels."""

import random

import pytest

from mimigenrec.contract import Contract
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.trie import SidTrie
from tests.conftest import make_tokenizer

FAMILIES = ("Qwen2", "Qwen3", "Llama", "Mistral", "Gemma", "Gemma2", "Gemma3Text")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model, tokenizer, toy):
    """A self-contained checkpoint of the toy catalogue."""
    folder = tmp_path_factory.mktemp("checkpoint")
    MIMIGenRec(tiny_model, tokenizer, toy, Contract.of("contract", tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trie(toy, tokenizer):
    return SidTrie.from_catalog(toy, tokenizer)


@pytest.fixture(scope="session")
def wide_tokenizer():
    return make_tokenizer(sid_tokens=[f"<{letter}_{i}>" for letter in "abcd" for i in range(6)])


@pytest.fixture(scope="session")
def wide_trie(wide_tokenizer):
    """60 items, some of one SID; many SIDs begin others."""
    rng = random.Random(0)
    levels = [[f"<{letter}_{i}>" for i in range(6)] for letter in "abcd"]
    sids = {str(i): tuple(rng.choice(level) for level in levels[: rng.randint(1, 4)]) for i in range(60)}
    return SidTrie.from_sids(sids, wide_tokenizer)


@pytest.fixture(scope="session")
def wide_prompts(wide_tokenizer):
    """Of different lengths, with a beginning of their own that all share."""
    tails = ["user", "<a_0><b_1><c_0><a_1><b_2> thing", "a useful thing <a_1>", "7", "system system <d_5>"]
    return [wide_tokenizer.encode("Which item comes next? " + tail) for tail in tails]


@pytest.fixture(scope="session")
def family(wide_tokenizer):
    """family(name, tie=..., attention=..., any field of the config) -> a random model, float32, ready to evaluate."""
    import torch
    import transformers

    def make(name: str, tie: bool = True, attention: str = "sdpa", **fields):
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "tie_word_embeddings": tie}
        shape |= {"vocab_size": len(wide_tokenizer), "attn_implementation": attention, "pad_token_id": 0} | fields
        kind = "Gemma3" if name == "Gemma3Text" else name
        config = getattr(transformers, f"{name}Config" if kind == name else "Gemma3TextConfig")(**shape)
        return getattr(transformers, f"{kind}ForCausalLM")(config).eval()

    return make
