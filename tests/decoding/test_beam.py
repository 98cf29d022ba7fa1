"""The engine against generate() with TrieLogitsProcessor (plain.py): the same lists for each family of models."""

import logging

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mimigenrec.decoding.beam import beam_search
from mimigenrec.decoding.plain import generate_sids
from mimigenrec.decoding.search import obstacle_to_tree, rank_catalog, search_sids, to_lists, warn_once
from mimigenrec.decoding.tree import Template
from mimigenrec.decoding.trie import SidTrie
from tests.decoding.conftest import FAMILIES
from tests.decoding.reference import assert_same_lists, known_sids, score_all

SUPPORTS = ("vocab", "trie")


class Wrapper(nn.Module):  # as DistributedDataParallel
    def __init__(self, module):
        super().__init__()
        self.module = module


def assert_equals_plain(model, trie, prompts, beams, support, plain_model=None):
    assert obstacle_to_tree(model, max(map(len, prompts)) + trie.depth) is None
    found = search_sids(model, trie, prompts, beams, support)
    expected = generate_sids(plain_model or model, trie, prompts, min(beams, trie.n_sids), support)
    assert_same_lists(found, expected)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", FAMILIES)
def test_lists_equal_generate_in_each_family(name, tie, attention, support, family, wide_trie, wide_prompts):
    assert_equals_plain(family(name, tie, attention), wide_trie, wide_prompts, 6, support)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("beams", [1, 2, 17, 500])
def test_lists_equal_generate_at_any_width(beams, support, family, wide_trie, wide_prompts):
    assert_equals_plain(family("Qwen2"), wide_trie, wide_prompts, beams, support)


@pytest.mark.parametrize("support", SUPPORTS)
def test_one_prompt_and_one_item(support, family, wide_tokenizer, wide_trie, wide_prompts):
    model = family("Qwen3")
    assert_equals_plain(model, wide_trie, wide_prompts[:1], 5, support)
    only = SidTrie.from_sids({"x": ("<a_1>", "<b_2>", "<c_3>")}, wide_tokenizer)
    assert_equals_plain(model, only, wide_prompts, 3, support)


@pytest.mark.parametrize("support", SUPPORTS)
def test_an_adapter_stays_in_force_wrapped_or_not(support, family, wide_trie, wide_prompts):
    import peft

    model = family("Qwen2")
    before = search_sids(model, wide_trie, wide_prompts, 6, support)
    targets = ["q_proj", "v_proj", "down_proj"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["lm_head"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    adapted.eval()
    assert_equals_plain(adapted, wide_trie, wide_prompts, 6, support)
    assert_equals_plain(Wrapper(adapted), wide_trie, wide_prompts, 6, support, plain_model=adapted)
    assert search_sids(adapted, wide_trie, wide_prompts, 6, support) != before


def test_an_adapter_on_the_output_layer_is_left_to_generate(family):
    import peft

    adapted = peft.get_peft_model(family("Qwen2", tie=False), peft.LoraConfig(r=4, target_modules=["lm_head"]))
    assert "output layer" in obstacle_to_tree(adapted, 30)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_computed_once_changes_no_list(name, support, family, wide_trie, wide_prompts):
    model = family(name)
    template = Template.of(model, wide_prompts)
    assert template.length > 3
    lists = [
        to_lists(wide_trie, *beam_search(model, wide_trie, wide_prompts, 8, support, once))
        for once in (None, template)
    ]
    assert_same_lists(*lists)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("autocast", [False, True], ids=["bf16 weights", "autocast"])
def test_bf16_finds_the_same_sets_as_generate_in_bf16(autocast, support, family, wide_trie, wide_prompts):
    model = family("Qwen2") if autocast else family("Qwen2").to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = search_sids(model, wide_trie, wide_prompts, 20, support)
        expected = generate_sids(model, wide_trie, wide_prompts, 20, support)
    pairs = zip(found, expected, strict=True)
    common = [len({sid for sid, _ in a} & {sid for sid, _ in b}) / len(b) for a, b in pairs]
    assert sum(common) / len(common) >= 0.95


@pytest.mark.parametrize("support", SUPPORTS)
def test_the_exhaustive_ranking_is_the_brute_force_one_and_the_widest_beam(support, family, wide_trie, wide_prompts):
    model, sids = family("Qwen2"), known_sids(wide_trie)
    logps = rank_catalog(model, wide_trie, wide_prompts, support, batch_size=2)
    widest = search_sids(model, wide_trie, wide_prompts, wide_trie.n_sids, support)
    for prompt, row, ranked in zip(wide_prompts, logps, widest, strict=True):
        exact = dict(score_all(model, prompt, sids, wide_trie.eos_id, support))
        torch.testing.assert_close(row, torch.tensor([exact[sid] for sid in sids]), atol=1e-4, rtol=0)
        assert_same_lists([ranked], [sorted(zip(sids, row.tolist(), strict=True), key=lambda pair: -pair[1])])


def test_what_a_narrow_beam_loses_shows_in_the_exhaustive_ranking(family, wide_trie, wide_prompts):
    """A beam's scores are exact, so it can only miss: its best is never above the catalogue's best."""
    model, sids = family("Qwen2"), known_sids(wide_trie)
    logps = rank_catalog(model, wide_trie, wide_prompts)
    for row, ranked in zip(logps, search_sids(model, wide_trie, wide_prompts, 3), strict=True):
        exact = dict(zip(sids, row.tolist(), strict=True))
        assert [logp for _, logp in ranked] == pytest.approx([exact[sid] for sid, _ in ranked], abs=1e-4)
        assert ranked[0][1] <= row.max().item() + 1e-4


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Mistral", {}),
        ("Gemma2", {}),
        ("Gemma3Text", {}),
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
    ],
    ids=str,
)
def test_a_sliding_window_is_searched_on_the_tree_while_everything_fits(
    name, fields, family, wide_trie, wide_prompts, caplog
):
    longest = max(map(len, wide_prompts)) + wide_trie.depth
    assert_equals_plain(family(name, sliding_window=longest, **fields), wide_trie, wide_prompts, 6, "vocab")
    narrow = family(name, sliding_window=8, **fields)
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for model in (narrow, Wrapper(narrow)):
            found = search_sids(model, wide_trie, wide_prompts, 6)
    warnings = [record.message for record in caplog.records if record.name.startswith("mimigenrec")]
    assert len(warnings) == 1 and "sliding window of 8" in warnings[0]
    assert_same_lists(found, generate_sids(narrow, wide_trie, wide_prompts, 6, "vocab"))
    with pytest.raises(ValueError, match="sliding window of 8"):
        rank_catalog(narrow, wide_trie, wide_prompts)


def test_attention_that_takes_no_mask_is_named(family):
    model = family("Qwen2")
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in obstacle_to_tree(model, 30)


def test_a_head_that_scales_its_scores_in_its_own_way_is_found_out(family, wide_trie, wide_prompts):
    from transformers import Qwen2ForCausalLM

    class Scaled(Qwen2ForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits / 4
            return out

    model = Scaled(family("Qwen2").config).eval()
    assert "Scaled scores tokens" in obstacle_to_tree(model, 30)
    found = search_sids(model, wide_trie, wide_prompts, 6)
    assert_same_lists(found, generate_sids(model, wide_trie, wide_prompts, 6, "vocab"))


@pytest.mark.parametrize("support", SUPPORTS)
def test_nothing_of_rows_times_vocabulary_is_ever_stored(support, family, wide_trie, wide_prompts):
    V, beams = 20_000, 20
    model = family("Qwen2", vocab_size=V)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (out if isinstance(out, (list, tuple)) else [out]) if torch.is_tensor(x))
            return out

    search_sids(model, wide_trie, wide_prompts, beams, support)  # the one try of a new kind of model is apart
    with Watch():
        search_sids(model, wide_trie, wide_prompts, beams, support)
    weight = V * 32
    assert max(size for size in sizes if size != weight) < len(wide_prompts) * beams * V / 4
