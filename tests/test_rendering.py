"""One sample, the same token ids in SFT (LLaMA-Factory), RL (TRL) and evaluation (chat.prompt_ids)."""

import pytest

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import Contract
from mimigenrec.rendering import IGNORED, check_rendering, lf_encoder, trained_spans
from mimigenrec.tasks.rows import to_chat_row, to_rl_row, to_sft_row
from mimigenrec.tasks.sample import Sample
from tests.conftest import TOY_SIDS, lf_ids, make_tokenizer, shared

# Shapes of the published templates, written for these tests.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN3 = (  # the last answer gets an empty thought; a question and an earlier answer do not
    "{% for message in messages %}"
    "{% set thought = '<think>\n\n</think>\n\n' if message.role == 'assistant' and loop.last else '' %}"
    "{{ '<|im_start|>' + message.role + '\n' + thought + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
SHOUTING = (  # LLaMA-Factory fills its slots with the text as it is
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content | upper + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SID_TOKENS = sorted({token for sid in TOY_SIDS.values() for token in sid})
SAMPLES = [
    Sample("sid_history", {"sids": "<a_0><b_0><c_1><a_1><b_2>"}, "<a_0><b_1><c_0>", row=0),
    Sample("sid_to_title", {"sid": "<a_0><b_0><c_1>"}, "It's 1/2\" tape, {new}"),
    Sample("title_to_sid", {"title": "It's 1/2\" tape, {new}: 日本語 🙂"}, "<a_1><b_2>"),
    Sample("title_history", {"titles": "thing number 1\n- a thing"}, "<a_1><b_2>"),
    Sample("description_to_sid", {"description": "The end\u00a0of. All"}, "<a_1><b_2>"),
]


def llama3(bos: bool):
    from tokenizers.processors import TemplateProcessing

    names = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tokenizer = make_tokenizer(sid_tokens=SID_TOKENS, chat_template=LLAMA3, specials=names)
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    if bos:  # the published tokenizer puts it before every text by itself
        begin = ("<|begin_of_text|>", tokenizer.bos_token_id)
        tokenizer._tokenizer.post_processor = TemplateProcessing("<|begin_of_text|> $A", special_tokens=[begin])
    return tokenizer


def qwen25():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared("tokenizers", "qwen2.5"))
    tokenizer.add_tokens(SID_TOKENS)
    return tokenizer


MODELS = {
    "chatml": (lambda: make_tokenizer(sid_tokens=SID_TOKENS), None),
    "qwen2.5": (qwen25, None),
    "qwen2.5 by name": (qwen25, "qwen"),
    "llama-3": (lambda: llama3(bos=True), None),
    "llama-3 by name": (lambda: llama3(bos=True), "llama3"),
    "qwen3": (lambda: make_tokenizer(sid_tokens=SID_TOKENS, chat_template=QWEN3), "qwen3_nothink"),
}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    make, template = MODELS[request.param]
    return make(), template


@pytest.mark.parametrize("wording", ["contract", "classic"])
def test_sft_rl_and_evaluation_see_the_same_ids(model, wording):
    from trl.data_utils import maybe_apply_chat_template

    tokenizer, template = model
    contract = Contract.of(wording, tokenizer)
    rows = [to_sft_row(sample, contract, "train") for sample in SAMPLES]
    check_rendering(tokenizer, contract, template)
    check_rendering(tokenizer, contract, template, rows)
    evaluated = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    assert lf_ids(tokenizer, rows[0], template)[0] == evaluated[0]
    for sample, asked in zip(SAMPLES, evaluated, strict=True):
        rl = to_rl_row(sample, contract, "train", "task", "ability", "toy", index=0)
        text = maybe_apply_chat_template({"prompt": rl["prompt"]}, tokenizer)["prompt"]
        rolled_out_from = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert rolled_out_from == prompt_ids(tokenizer, [rl["prompt"]])[0]
        if wording == "contract":
            assert rolled_out_from == asked


def test_the_answer_is_the_sid_then_eos_then_at_most_a_line_feed(model):
    tokenizer, template = model
    sft = to_sft_row(SAMPLES[0], Contract.of("contract"), "train")
    _, answer = lf_ids(tokenizer, sft, template)
    sid = tokenizer.convert_tokens_to_ids(["<a_0>", "<b_1>", "<c_0>"])
    assert answer[:4] == [*sid, tokenizer.eos_token_id]
    assert tokenizer.decode(answer[4:]).strip() == "" and len(answer) <= 5


def test_llama_factory_leaves_the_tokenizer_as_it_was():
    tokenizer = make_tokenizer(sid_tokens=SID_TOKENS)
    before = (tokenizer.eos_token, tokenizer.chat_template, len(tokenizer))
    lf_ids(tokenizer, to_sft_row(SAMPLES[0], Contract.of("contract"), "train"), "llama3")
    assert (tokenizer.eos_token, tokenizer.chat_template, len(tokenizer)) == before


REFUSED = [
    # an empty thought would be trained before every SID
    (QWEN3, None, "answer", "<think>", "<a_1><b_2>"),
    (QWEN3, "qwen3", "answer", "<think>", "<a_1><b_2>"),
    (SHOUTING, None, "prompt", "{{CONTENT}}", "YOU ARE A RECOMMENDER"),
    (None, "llama3", "prompt", "<|start_header_id|>", "<|im_start|>system"),
    (None, "alpaca", "prompt", "You are a recom", "<|im_start|>system"),
]


@pytest.mark.parametrize(("chat_template", "template", "what", "lf_reads", "we_read"), REFUSED)
def test_what_llama_factory_renders_differently_is_refused(chat_template, template, what, lf_reads, we_read):
    given = {"chat_template": chat_template} if chat_template else {}
    tokenizer = make_tokenizer(["YOU ARE A RECOMMENDER"] * 9, sid_tokens=["<a_1>", "<b_2>"], **given)
    with pytest.raises(ValueError, match=f"write the {what} differently from token") as error:
        check_rendering(tokenizer, Contract.of("contract"), template)
    theirs, _, ours = str(error.value).partition("RL and evaluation would see")
    assert lf_reads in theirs and we_read in ours and "qwen3_nothink" in ours, str(error.value)


def test_a_begin_of_text_that_llama_factory_would_write_twice_is_refused():
    with pytest.raises(ValueError, match=r"trains on .*<\|eot_id\|><\|begin_of_text\|>.*would see"):
        check_rendering(llama3(bos=False), Contract.of("contract"))


def test_a_tokenizer_that_ends_answers_otherwise_is_refused():
    tokenizer = make_tokenizer(sid_tokens=SID_TOKENS)
    tokenizer.eos_token = "<|endoftext|>"  # the chat template writes <|im_end|>
    with pytest.raises(ValueError, match="write the answer differently"):
        check_rendering(tokenizer, Contract.of("contract"))


def test_rows_are_compared_too():
    tokenizer = llama3(bos=True)
    rows = [to_sft_row(SAMPLES[0], Contract.of("contract"), "train")]
    check_rendering(tokenizer, Contract.of("contract"), rows=rows)
    rows.append(rows[0] | {"input": "trimmed by the tokenizer alone "})
    with pytest.raises(ValueError, match="write the prompt differently"):
        check_rendering(tokenizer, Contract.of("contract"), rows=rows)


def test_a_template_that_is_not_one_is_named():
    with pytest.raises(ValueError, match="no-such"):
        check_rendering(make_tokenizer(), Contract.of("contract"), "no-such")


TEXT = "It's 1/2\" tape, {new}: 日本語 🙂"
CHATS = {  # name -> (system text, questions and answers)
    "one turn": ("You help.", ("What next?\n<a_0><b_0><c_1>", "<a_1><b_2>")),
    "two turns": ("You help.", ("Which one?\n<a_0><b_0>", TEXT, "And then?", "<a_1><b_2>")),
    "no system": ("", ("<a_0><b_0><c_1>", "<a_0><b_1><c_0>", "another", "<a_1><b_2>")),
    "three turns": ("Short.\nVery.", ("One?", "<a_1><b_2>", TEXT, "No.", "Again: - a thing?", "<a_0><b_1><c_0>")),
    "four turns": ("S", ("1?", "2", "3?", "4", "5?", "<a_1><b_2>", "7?", "8, the end.")),
    "an answer of nothing": ("S", ("Which?", "", "Which?", "<a_1><b_2>")),
}


def chat_of(name):
    system, turns = CHATS[name]
    roles = ("user", "assistant") * (len(turns) // 2)
    said = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + said}


def by_hand(tokenizer, messages, only_last=False):
    """(ids, labels) of a chat, turn by turn: an answer's text and its EOS are trained, what is between them is not."""
    ids, labels = [], []
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    for turn in turns:
        asked = prompt_ids(tokenizer, [messages[:turn]])[0]
        answer = tokenizer.encode(messages[turn]["content"], add_special_tokens=False) + [tokenizer.eos_token_id]
        labels += [IGNORED] * (len(asked) - len(ids))
        ids = asked + answer
        labels += answer if turn == turns[-1] or not only_last else [IGNORED] * len(answer)
    return ids, labels


@pytest.mark.parametrize("mask_history", [False, True])
def test_of_a_chat_every_answer_is_trained_behind_the_prompt_that_evaluation_asks_with(model, mask_history):
    tokenizer, template = model
    check_rendering(tokenizer, None, template, map(chat_of, CHATS), mask_history)
    encode = lf_encoder(tokenizer, template, mask_history)
    for row in map(chat_of, CHATS):
        ids, labels = encode(row)
        expected_ids, expected_labels = by_hand(tokenizer, row["messages"], mask_history)
        assert ids[: len(expected_ids)] == expected_ids
        assert tokenizer.decode(ids[len(expected_ids) :]).strip() == ""  # a line feed, for some
        differ = [i for i, label in enumerate(expected_labels) if labels[i] != label]
        assert {tokenizer.decode([ids[i]]) for i in differ} <= {"\n"}  # trained behind an EOS, and never generated
        assert all(ids[i - 1] == tokenizer.eos_token_id for i in differ)


def test_a_chat_of_one_turn_is_trained_as_the_alpaca_row_is(model):
    tokenizer, template = model
    encode = lf_encoder(tokenizer, template)
    for sample in SAMPLES:
        row = to_sft_row(sample, Contract.of("contract"), "train")
        assert encode(to_chat_row(row)) == encode(row)


REMEMBERING = (  # an answer is written otherwise once another question follows
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{{ message.content | upper if message.role == 'assistant' and not loop.last else message.content }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_rewrites_earlier_answers_is_refused_for_chats_alone():
    tokenizer = make_tokenizer(sid_tokens=SID_TOKENS, chat_template=REMEMBERING)
    check_rendering(tokenizer, Contract.of("contract"))
    check_rendering(tokenizer, None, rows=[chat_of("one turn")])
    with pytest.raises(ValueError, match="write the prompt differently from token"):
        check_rendering(tokenizer, None, rows=[chat_of("four turns"), chat_of("two turns")])


def test_a_question_that_is_trained_too_is_refused(monkeypatch):
    from llamafactory.data.processor import SupervisedDatasetProcessor

    encode = SupervisedDatasetProcessor._encode_data_example

    def with_the_question(*args, **kwargs):
        ids, labels = encode(*args, **kwargs)
        end = trained_spans(labels)[0][1]
        return ids, [*labels[:end], ids[end], *labels[end + 1 :]]

    monkeypatch.setattr(SupervisedDatasetProcessor, "_encode_data_example", with_the_question)
    with pytest.raises(ValueError, match="write the answer differently from token"):
        check_rendering(make_tokenizer(), None, rows=[chat_of("two turns")])


def test_an_answer_that_is_not_trained_is_refused():
    """As under mask_history, where nobody said that this key is set."""
    tokenizer, row = make_tokenizer(), chat_of("two turns")
    encode = lf_encoder(tokenizer, mask_history=True)
    assert len(trained_spans(encode(row)[1])) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mimigenrec.rendering.lf_encoder", lambda *args: encode)
        with pytest.raises(ValueError, match="write the prompt differently"):
            check_rendering(tokenizer, None, rows=[row])


def test_the_roles_of_tools_are_trained_as_their_converter_reads_them():
    """A call of a function is an answer, what it gave a question; the made-up template knows both roles."""
    row = chat_of("two turns")
    row["messages"][2]["role"], row["messages"][3]["role"] = "assistant", "observation"
    tokenizer = make_tokenizer()
    _, labels = lf_encoder(tokenizer)(row)
    assert len(trained_spans(labels)) == 2
    with pytest.raises(ValueError, match="write the prompt differently.*user.*observation"):
        check_rendering(tokenizer, None, rows=[row])  # ChatML names the role; LLaMA-Factory's parsed template does not


def test_a_wing_s_own_wording_is_tried_out_with_its_own_values():
    contract = Contract.of({"name": "w", "system": "S", "templates": {"more": ("More of {it}?", "{intent}, {sids}")}})
    check_rendering(make_tokenizer(sid_tokens=SID_TOKENS), contract)


def test_spans_of_what_is_trained():
    assert trained_spans([IGNORED, 1, 2, IGNORED, 3]) == [(1, 3), (4, 5)]
    assert trained_spans([1, IGNORED]) == [(0, 1)] and trained_spans([IGNORED]) == trained_spans([]) == []
