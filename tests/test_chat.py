import pytest

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import Contract
from tests.conftest import make_tokenizer


def test_instruction_and_input_are_joined_by_one_newline():  # two newlines at evaluation was a fault of the original
    row = {"system": "S", "instruction": "I", "input": "Q"}
    assert row_messages(row) == [{"role": "system", "content": "S"}, {"role": "user", "content": "I\nQ"}]
    assert row_messages({"input": "Q"}) == [{"role": "user", "content": "Q"}]


def test_prompt_ids_end_with_the_generation_prompt(tokenizer):
    ids = prompt_ids(tokenizer, [row_messages({"system": "S", "instruction": "I", "input": "<a_0><b_0>"})])[0]
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nI\n<a_0><b_0><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_that_is_too_long_is_refused_not_cut(tokenizer):
    prompts = [row_messages({"input": "x"}), row_messages({"input": "thing number " * 9})]
    longest = max(map(len, prompt_ids(tokenizer, prompts)))
    assert prompt_ids(tokenizer, prompts, max_length=longest) == prompt_ids(tokenizer, prompts)
    with pytest.raises(ValueError, match=f"prompt 1 has {longest} tokens, more than the {longest - 1} allowed"):
        prompt_ids(tokenizer, prompts, max_length=longest - 1)


@pytest.mark.parametrize("template", [None, {"default": "{{ messages }}"}])
def test_a_tokenizer_without_one_chat_template_is_refused(template):
    bare = make_tokenizer(chat_template=template)
    with pytest.raises(ValueError, match="has no chat template"):
        prompt_ids(bare, [row_messages({"input": "x"})])
    with pytest.raises(ValueError, match="has no chat template"):
        Contract.of("contract", bare)
