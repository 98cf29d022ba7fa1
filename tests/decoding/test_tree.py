"""The tree forward against one plain forward for each path."""

import pytest
import torch
from torch import nn

from mimigenrec.decoding.causal_lm import causal_lm
from mimigenrec.decoding.tree import PromptTree, Template, shared_length
from tests.decoding.conftest import FAMILIES

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 3], [5, 6, 7, 4, 4, 4, 4, 2]]
FIRST = torch.tensor([[10, 11], [12, 12], [13, 14]])  # (P, n) of level 1
SECOND = torch.tensor([[20, 21, 22], [23, 24, 20], [20, 20, 25]])  # level 2
PARENTS = torch.tensor([[0, 0, 1], [1, 0, 0], [1, 1, 1]])


def plain(model, path: list[int]):
    """The hidden state of the last token of a path."""
    with torch.no_grad():
        return model.get_decoder()(input_ids=torch.tensor([path])).last_hidden_state[0, -1]


def assert_tree_equals_paths(model, shared):
    lm = causal_lm(model)
    with torch.no_grad():
        tree = PromptTree(model, PROMPTS, Template(model, PROMPTS[0][:shared]) if shared else None)
        first, second = tree.grow(FIRST, None), tree.grow(SECOND, PARENTS)
    for p, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(tree.last[p], plain(lm, prompt), atol=1e-5, rtol=1e-5)
        for i, token in enumerate(FIRST[p].tolist()):
            torch.testing.assert_close(first[p, i], plain(lm, [*prompt, token]), atol=1e-5, rtol=1e-5)
        for i, token in enumerate(SECOND[p].tolist()):
            path = [*prompt, FIRST[p, PARENTS[p, i]].item(), token]
            torch.testing.assert_close(second[p, i], plain(lm, path), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_node_sees_its_prompt_and_its_ancestors_and_nothing_else(name, attention, family):
    assert_tree_equals_paths(family(name, attention=attention), shared=0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shared", [1, 3])
def test_a_template_computed_once_changes_nothing(name, shared, family):
    assert_tree_equals_paths(family(name), shared)


def test_one_template_serves_any_number_of_trees_and_stays_what_it_is(family):
    model = family("Qwen2")
    template = Template.of(model, PROMPTS)
    assert template.length == 3
    for prompts in (PROMPTS[:1], PROMPTS[1:], PROMPTS):
        with torch.no_grad():
            tree = PromptTree(model, prompts, template)
            tree.grow(FIRST[: len(prompts)], None)
        for p, prompt in enumerate(prompts):
            torch.testing.assert_close(tree.last[p], plain(model, prompt), atol=1e-5, rtol=1e-5)


def test_a_template_leaves_each_prompt_a_token_and_needs_two_prompts(family):
    model = family("Qwen2")
    assert Template.of(model, [[5, 6, 7], [5, 6, 7]]).length == 2
    assert Template.of(model, [[5, 6], [5, 6, 7]]).length == 1
    for prompts in ([], [[5, 6, 7]], [[5], [5, 6]], [[5, 6], [6, 5]]):
        assert Template.of(model, prompts) is None


def test_the_model_is_found_under_its_wrappers(family):
    import peft

    model = family("Qwen2")

    class Wrapper(nn.Module):  # as DistributedDataParallel
        def __init__(self, module):
            super().__init__()
            self.module = module

    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    assert causal_lm(model) is model
    assert causal_lm(Wrapper(model)) is model
    assert causal_lm(Wrapper(adapted)) is model


@pytest.mark.parametrize(
    ("prompts", "length"),
    [([], 0), ([[1, 2]], 2), ([[1, 2], [1, 2, 3]], 2), ([[1, 2, 3], [1, 5], [1, 2]], 1), ([[1], [2]], 0)],
)
def test_shared_length_counts_the_leading_tokens_all_have(prompts, length):
    assert shared_length(prompts) == length
