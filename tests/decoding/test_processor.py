import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mimigenrec.decoding.plain import left_pad
from mimigenrec.decoding.processor import TrieLogitsProcessor
from tests.conftest import make_model

TEXTS = ["user", "Which item comes next? <a_0><b_1><c_0>", "a useful thing <a_1>"]


@pytest.fixture(scope="module")
def prompts(trie, tokenizer):
    return left_pad([tokenizer.encode(text) for text in TEXTS], trie.pad_id, "cpu")


def generate(model, prompts, processor, **how):
    ids, mask = prompts
    torch.manual_seed(0)
    how = {"max_new_tokens": 6} | how
    out = model.generate(inputs=ids, attention_mask=mask, logits_processor=[processor], **how)
    return out[:, ids.shape[1] :]


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True},
        {"do_sample": True, "num_return_sequences": 20, "temperature": 3.0},
        {"do_sample": True, "top_k": 2, "top_p": 0.5},
        {"num_beams": 2},
        {"num_beams": 7, "num_return_sequences": 7},
        {"num_beams": 3, "do_sample": True},
        {"num_beams": 3, "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_any_generate_writes_sids_of_the_catalogue_closed_by_eos(tiny_model, tokenizer, toy, trie, prompts, how):
    written = generate(tiny_model, prompts, TrieLogitsProcessor(trie, prompts[0].shape[1]), **how)
    catalogue = {"".join(sid) for sid in toy.sids.values()}
    assert len(written) == len(TEXTS) * how.get("num_return_sequences", 1)
    for row in written:
        end = row.tolist().index(trie.eos_id)
        assert "".join(tokenizer.convert_ids_to_tokens(row[:end].tolist())) in catalogue
        assert set(row[end:].tolist()) <= {trie.eos_id, trie.pad_id}


def test_a_model_sure_of_an_illegal_token_still_stays_inside(tokenizer, toy, trie, prompts):
    model = make_model(len(tokenizer), seed=3)
    model.lm_head.weight.data[trie.largest_token + 1 :] = 0
    model.lm_head.weight.data[:250] *= 100  # text tokens get nearly all of the mass
    written = generate(model, prompts, TrieLogitsProcessor(trie, prompts[0].shape[1]), eos_token_id=trie.eos_id)
    assert (trie.walk(written[:, :4]) != -1).all()


def test_one_object_answers_many_calls_alike_also_after_a_call_that_failed(tiny_model, trie, prompts):
    processor = TrieLogitsProcessor(trie, prompts[0].shape[1])
    once = generate(tiny_model, prompts, processor, num_beams=4)
    broken = [processor, lambda ids, scores: 1 / 0 if ids.shape[1] > prompts[0].shape[1] + 1 else scores]
    with pytest.raises(ZeroDivisionError):
        tiny_model.generate(inputs=prompts[0], logits_processor=broken, num_beams=4, max_new_tokens=6)
    assert torch.equal(once, generate(tiny_model, prompts, processor, num_beams=4))


def test_rows_may_come_in_any_order_and_from_any_step_of_a_search(trie):
    ids = trie.sid_tokens(torch.tensor([3, 0, 5, 1]))[:, :2]  # two tokens written
    ids = torch.cat([torch.full((4, 3), 1), ids], dim=1)
    scores = torch.randn(4, trie.largest_token + 1, generator=torch.Generator().manual_seed(0))
    processor = TrieLogitsProcessor(trie, 3)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(processor(ids, scores)[order], processor(ids[order], scores[order]))


def test_the_prompt_is_never_read_whatever_template_wrote_it(trie):
    scores = torch.zeros(1, trie.largest_token + 1)
    sid = trie.sid_tokens(torch.tensor([1]))
    think = torch.tensor([[trie.eos_id, *sid[0].tolist(), trie.pad_id, 5, 5]])  # an empty think block, SIDs, EOS
    plain = torch.full_like(think, 7)
    for written in (sid[:, :0], sid[:, :1], sid[:, :3]):
        one, other = (torch.cat([prompt, written], dim=1) for prompt in (think, plain))
        processor = TrieLogitsProcessor(trie, think.shape[1])
        assert torch.equal(processor(one, scores), processor(other, scores))


def test_where_a_sid_is_exhausted_only_eos_is_left(trie):
    scores = torch.zeros(3, trie.largest_token + 1)
    full = trie.sid_tokens(torch.tensor([1]))
    rows = torch.cat([full, full, full])
    rows[1, 2] = trie.eos_id  # not a SID of this catalogue: off the trie
    rows = torch.cat([rows, torch.tensor([[trie.eos_id], [trie.pad_id], [trie.eos_id]])], dim=1)
    left = TrieLogitsProcessor(trie, 0)(rows, scores).isfinite()
    assert left.nonzero().tolist() == [[0, trie.eos_id], [1, trie.eos_id], [2, trie.eos_id]]


def test_legal_scores_stay_as_they_are_or_sum_to_one_when_renormalised(trie):
    scores = torch.randn(2, trie.largest_token + 9, generator=torch.Generator().manual_seed(1))
    ids = torch.cat([trie.sid_tokens(torch.tensor([0, 1]))[:, :2]])  # the first may end here or go on
    plain, renormalised = (TrieLogitsProcessor(trie, 0, renormalise=flag)(ids, scores) for flag in (False, True))
    legal = plain.isfinite()
    assert legal.sum(1).tolist() == [2, 2]
    assert torch.equal(plain[legal], scores[legal])
    torch.testing.assert_close(renormalised.exp().sum(1), torch.ones(2))
    expected = torch.log_softmax(scores.masked_fill(~legal, float("-inf")), dim=1)
    torch.testing.assert_close(renormalised[legal], expected[legal])


def test_the_number_of_operations_does_not_grow_with_the_rows(trie):
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            Count.calls += 1
            return function(*args, **(kwargs or {}))

    counts = []
    for rows in (1, 400):
        ids = trie.sid_tokens(torch.ones(rows, dtype=torch.long))[:, :2]
        Count.calls = 0
        with Count():
            TrieLogitsProcessor(trie, 0)(ids, torch.zeros(rows, trie.largest_token + 1))
        counts.append(Count.calls)
    assert counts[0] == counts[1]
