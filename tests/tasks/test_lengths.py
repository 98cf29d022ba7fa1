from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.tasks import lengths
from mimigenrec.tasks.lengths import Lengths


def test_rows_pass_unchanged_and_the_longest_is_found_whichever_batch_it_is_in(tokenizer, monkeypatch):
    monkeypatch.setattr(lengths, "BATCH", 2)
    rows = [
        {"system": "S", "instruction": "Which?", "input": "<a_0>" * n, "output": "<a_0><b_0>"} for n in (1, 2, 9, 3, 2)
    ]
    measure = Lengths(tokenizer)
    assert list(measure.measured("sft/train.json", iter(rows))) == rows
    prompt = len(prompt_ids(tokenizer, [row_messages(rows[2])])[0])
    assert measure.longest == {"sft/train.json": {"prompt": prompt, "prompt_and_answer": prompt + 2 + 2}}
    assert measure.sft_rows == [*rows, rows[2]]


def test_an_rl_row_is_measured_by_its_prompt_and_its_ground_truth(tokenizer):
    prompt = [{"role": "user", "content": "<a_0><b_0>"}]
    measure = Lengths(tokenizer)
    list(measure.measured("rl/test.json", [{"prompt": prompt, "reward_model": {"ground_truth": "<a_0>"}}]))
    expected = len(prompt_ids(tokenizer, [prompt])[0])
    assert measure.longest == {"rl/test.json": {"prompt": expected, "prompt_and_answer": expected + 1 + 2}}
    assert measure.sft_rows == []


def test_rows_of_every_instruction_are_kept_for_the_comparison(tokenizer):
    rows = [{"instruction": name, "input": "x", "output": "y"} for name in "AB" for _ in range(100)]
    measure = Lengths(tokenizer)
    list(measure.measured("sft/train.json", rows))
    assert [row["instruction"] for row in measure.sft_rows[:-1]] == ["A"] * lengths.SEEN + ["B"] * lengths.SEEN
