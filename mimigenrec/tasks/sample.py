"""Sample: one question and its answer, and its two written forms: LLaMA-Factory row, TRL row."""

from typing import Any, NamedTuple

from mimigenrec.chat import messages, user_text
from mimigenrec.contract import Contract


class Sample(NamedTuple):
    """template and values are written into words by the contract; `row` is where the sample came from."""

    template: str  # a name in contract.WORDINGS[...]["templates"]
    values: dict[str, str]
    answer: str  # a SID or a title
    row: int | None = None  # zero-based row of the split's .inter; None for item tasks, which get a running number


def to_sft_row(sample: Sample, contract: Contract, split: str) -> dict[str, str]:
    instruction, question = contract.ask(sample.template, split, **sample.values)
    return {"system": contract.system, "instruction": instruction, "input": question, "output": sample.answer}


def to_rl_row(
    sample: Sample, contract: Contract, split: str, task: str, ability: str, data_source: str, index: int
) -> dict[str, Any]:
    """The classic wording's RL prompt is the input alone, as in the original files; ours is what SFT trained on."""
    instruction, question = contract.ask(sample.template, split, **sample.values)
    user = question if contract.wording == "classic" else user_text(instruction, question)
    return {
        "data_source": data_source,
        "prompt": messages(contract.system, user),
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": sample.answer},
        "extra_info": {"split": split, "index": index if sample.row is None else sample.row, "task": task},
    }
