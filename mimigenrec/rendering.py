"""What LLaMA-Factory makes of a row, beside what we make of it: the same token ids, or the data are refused.

SFT trains on LLaMA-Factory's rendering of a row; RL and evaluation ask with `chat.prompt_ids`. LLaMA-Factory
either parses the tokenizer's chat template (no `template:` in its YAML) or uses one of its own by name, and neither is
always what the tokenizer itself renders: a reasoning template, for one, puts an empty thought before every answer.
"""

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping

from mimigenrec.chat import ends_answers, prompt_ids, row_messages
from mimigenrec.contract import Contract
from mimigenrec.errors import UserError

Row = Mapping[str, str]

# Values for trying out a contract without data: what a template may trim, escape, or join with its neighbours.
PROBES = ("<a_1><b_2>", "It's a 1/2\" tube, {new} & 100% sealed", "- Ünï, 日本語 🙂 ...")


def check_rendering(
    tokenizer, contract: Contract, template: str | None = None, rows: Iterable[Row] | None = None
) -> None:
    """Raises UserError, showing both renderings, unless LLaMA-Factory trains on the ids that RL and evaluation see.

    template   a name of LLaMA-Factory's (`template:` in its YAML); None: the parsed chat template of the tokenizer
    rows       SFT rows to compare; None: rows made up from the contract

    Of the answer the beginning is compared: its own ids, then EOS, as the trie will ask for them, unless the chat
    template leaves answers open. What LLaMA-Factory trains after EOS (a line feed, mostly) is never generated.
    """
    render = _renderer(tokenizer, template)
    end = [tokenizer.eos_token_id] if ends_answers(tokenizer) else []
    for row in _probe_rows(contract) if rows is None else rows:
        prompt, answer = render(row)
        ours = prompt_ids(tokenizer, [row_messages(row)])[0]
        if prompt != ours:
            raise _difference(tokenizer, template, "prompt", prompt, ours)
        wanted = [*tokenizer.encode(row["output"], add_special_tokens=False), *end]
        if answer[: len(wanted)] != wanted:
            raise _difference(tokenizer, template, "answer", answer, wanted)


def lf_ids(tokenizer, row: Row, template: str | None = None) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one SFT row as LLaMA-Factory trains on it, EOS and what follows included.

    Raises UserError if LLaMA-Factory has no such template. The tokenizer is left as it was.
    """
    return _renderer(tokenizer, template)(row)


def _renderer(tokenizer, template: str | None) -> Callable[[Row], tuple[list[int], list[int]]]:
    """LLaMA-Factory's own path from a row to ids: converter, template, supervised processor (0.9.5)."""
    from llamafactory.data.converter import AlpacaDatasetConverter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
    from llamafactory.extras.constants import IGNORE_INDEX
    from llamafactory.hparams import DataArguments

    tokenizer = copy.deepcopy(tokenizer)  # LLaMA-Factory may replace its EOS and its chat template
    arguments = DataArguments(template=template, cutoff_len=1 << 30)
    convert = AlpacaDatasetConverter(DatasetAttr("file", "rows", system="system"), arguments)
    if template is not None and template not in TEMPLATES:
        near = difflib.get_close_matches(template, TEMPLATES, n=1)
        raise UserError(
            f"template {template!r} is none of LLaMA-Factory's"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + "; leave it out to take the tokenizer's own"
        )
    fixed = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(fixed, tokenizer, None, arguments)

    def render(row: Row) -> tuple[list[int], list[int]]:
        example = convert(dict(row))
        ids, labels = processor._encode_data_example(
            example["_prompt"], example["_response"], example["_system"], example["_tools"], [], [], []
        )
        answer = [label for label in labels if label != IGNORE_INDEX]
        return ids[: len(ids) - len(answer)], answer

    return render


def _probe_rows(contract: Contract) -> Iterable[Row]:
    names = {"sids": PROBES[0], "sid": PROBES[0], "titles": contract.write_titles(PROBES[1:])}
    for name, (instruction, question) in contract.templates.items():
        for text in PROBES[1:]:
            asked = question.format(**names, title=text, description=text)
            answer = text if name in ("sid_to_title", "next_title") else PROBES[0]
            yield {"system": contract.system, "instruction": instruction, "input": asked, "output": answer}


def _difference(tokenizer, template: str | None, what: str, theirs: list[int], ours: list[int]) -> UserError:
    shorter = min(len(theirs), len(ours))
    at = next((i for i in range(shorter) if theirs[i] != ours[i]), shorter)
    near = slice(max(0, at - 10), at + 20)
    used = f"template {template!r}" if template else "the chat template it parses from the tokenizer"
    return UserError(
        f"LLaMA-Factory with {used} and the tokenizer {tokenizer.name_or_path!r} write the {what} differently from "
        f"token {at} on: LLaMA-Factory trains on {tokenizer.decode(theirs[near])!r}, RL and evaluation would see "
        f"{tokenizer.decode(ours[near])!r}. Give --template, and `template:` in the SFT YAML, a name of "
        f"LLaMA-Factory's that fits the model (qwen3_nothink for Qwen3), or start from another model."
    )
