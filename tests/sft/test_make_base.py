import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import convert_slow_tokenizer

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import Contract, check_support
from mimigenrec.decoding.search import recommend, search_sids
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.rendering import check_rendering
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.make_base import BaseConfig, main
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.tasks.build import BuildConfig
from mimigenrec.tasks.build import main as build
from tests.conftest import lf_ids, make_model

TINY = {"hidden": 16, "heads": 2, "vocabulary": 300}


@pytest.fixture(scope="module")
def compact(raw_toy, tmp_path_factory):
    """A data folder of wording compact, all tasks."""
    out = tmp_path_factory.mktemp("compact") / "toy"
    build(BuildConfig(raw=raw_toy, category="toy", output_dir=out, wording="compact"))
    return out


def make(data, folder, **settings):
    main(BaseConfig(data, folder, **{**TINY, **settings}))
    return folder


def knowing(folder, toy):
    """The tokenizer of a base with the SIDs in it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(distinct_tokens(toy.sids))
    return tokenizer


def labels_on_prompt(tokenizer, row):
    """(ids, labels) of a row with train_on_prompt: true, by LLaMA-Factory's own path."""
    from llamafactory.data.converter import AlpacaDatasetConverter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    arguments = DataArguments(template=None, cutoff_len=256, train_on_prompt=True)
    example = AlpacaDatasetConverter(DatasetAttr("file", "rows", system="system"), arguments)(dict(row))
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(template, tokenizer, None, arguments)
    found = processor.preprocess_dataset({name: [value] for name, value in example.items()})
    return found["input_ids"][0], found["labels"][0]


@pytest.mark.parametrize("template", ["chatml", "short", "open"])
@pytest.mark.parametrize("wording", ["compact", "contract", "classic"])
def test_llamafactory_renders_every_task_of_every_wording_as_rl_and_evaluation_do(
    compact, toy, tmp_path, wording, template
):
    tokenizer = knowing(make(compact, tmp_path / "base", chat_template=template), toy)
    check_rendering(tokenizer, Contract.of(wording, tokenizer))  # rows made up for all six templates
    rows = read_json(compact / "sft" / "train.json", "test")
    assert len(rows) > 24 and (wording != "compact" or not check_rendering(tokenizer, Contract.of(wording), rows=rows))


def test_a_short_compact_row_is_start_history_answer_end(compact, toy, tmp_path):
    tokenizer = knowing(make(compact, tmp_path / "base", chat_template="short"), toy)
    wanted = ["<|im_start|>", "<a_0>", "<b_0>", "<c_1>", "<a_1>", "<b_2>"]  # items 1 and 5
    row = {"system": "", "instruction": "", "input": "<a_0><b_0><c_1><a_1><b_2>", "output": "<a_2><b_1><c_3>"}
    prompt, answer = lf_ids(tokenizer, row)
    assert tokenizer.convert_ids_to_tokens(prompt) == wanted
    assert tokenizer.convert_ids_to_tokens(answer) == ["<a_2>", "<b_1>", "<c_3>", "<|im_end|>"]
    assert prompt_ids(tokenizer, [row_messages(row), row_messages({**row, "input": ""})]) == [prompt, prompt[:1]]
    assert tokenizer.eos_token == "<|im_end|>"


def test_an_open_compact_row_has_no_end_and_is_scored_among_legal_tokens_alone(compact, toy, tmp_path):
    tokenizer = knowing(make(compact, tmp_path / "base", chat_template="open"), toy)
    row = {"system": "", "instruction": "", "input": "<a_0><b_0><c_1><a_1><b_2>", "output": "<a_2><b_1><c_3>"}
    prompt, answer = lf_ids(tokenizer, row)
    assert tokenizer.convert_ids_to_tokens(prompt + answer) == [
        "<|im_start|>", "<a_0>", "<b_0>", "<c_1>", "<a_1>", "<b_2>", "<a_2>", "<b_1>", "<c_3>"
    ]  # fmt: skip
    ids, labels = labels_on_prompt(tokenizer, row)
    assert ids == labels == prompt + answer
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    trie = SidTrie.from_sids(toy.sids, tokenizer)
    with pytest.raises(ValueError, match="support vocab would score items by an end that was never trained"):
        recommend(model, tokenizer, trie, [prompt], k=3, beams=3)
    assert len(search_sids(model, trie, [prompt], 3, support="trie")[0]) == 3
    for ended in ("chatml", "short"):
        check_support(knowing(make(compact, tmp_path / ended, chat_template=ended), toy), "vocab")


def test_trained_on_the_prompt_a_short_compact_row_teaches_every_one_of_its_tokens(compact, toy, tmp_path):
    tokenizer = knowing(make(compact, tmp_path / "base", chat_template="short"), toy)
    known = {*distinct_tokens(toy.sids), "<|im_start|>", "<|im_end|>"}
    rows = [row for row in read_json(compact / "sft" / "valid.json", "test") if row["input"]]
    assert rows
    for row in rows:
        ids, labels = labels_on_prompt(tokenizer, row)
        assert labels == ids and set(tokenizer.convert_ids_to_tokens(ids)) <= known
        assert ids == [token for part in lf_ids(tokenizer, row) for token in part]


@pytest.mark.parametrize("untie", [False, True])
def test_parameters_are_those_counted_by_hand(compact, tmp_path, capsys, untie):
    folder = make(compact, tmp_path / "base", hidden=24, heads=4, layers=3, vocabulary=280, untie=untie)
    rows, hidden, key_value = len(AutoTokenizer.from_pretrained(folder)), 24, 12  # 2 of 4 heads of 6
    attention = 2 * hidden * hidden + hidden + 2 * (hidden * key_value + key_value)  # q with bias, o without, k, v
    layer = attention + 3 * hidden * (3 * hidden) + 2 * hidden  # gate, up and down; two norms
    count = rows * hidden * (2 if untie else 1) + 3 * layer + hidden
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() == count
    told = read_json(folder / "manifest.json", "test")
    assert (told["parameters"], told["tokens"]) == (count, rows)
    assert f"{count / 1e6:.2f} M parameters, {rows} tokens" in capsys.readouterr().out
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is not untie


def test_the_same_seed_gives_the_same_files_and_another_other_weights(compact, tmp_path):
    one, two, other = (make(compact, tmp_path / name, seed=seed) for name, seed in (("1", 1), ("2", 1), ("3", 2)))
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_text_is_split_as_transformers_has_it_for_qwen2(compact, tmp_path):
    """Of the same words and merges, transformers builds a Qwen2 tokenizer with its own pipeline: ours is that."""
    base = make(compact, tmp_path / "base")
    slow = Qwen2Tokenizer(base / "vocab.json", base / "merges.txt")
    theirs = json.loads(convert_slow_tokenizer(slow).to_str())
    ours = read_json(base / "tokenizer.json", "test")
    for part in ("normalizer", "pre_tokenizer"):
        assert ours[part] == theirs[part], part


def test_the_base_knows_no_sid_and_takes_them_from_add_sids(compact, toy, tmp_path):
    base = make(compact, tmp_path / "base", dropout=0.2)
    assert not {*distinct_tokens(toy.sids)} & set(AutoTokenizer.from_pretrained(base).get_vocab())
    facts = add_sids(AddSidsConfig(str(base), compact / "new_tokens.json", tmp_path / "out"))
    assert facts["added"] == len(distinct_tokens(toy.sids))
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.attention_dropout == 0.2 and model.config.eos_token_id == tokenizer.eos_token_id
    ids = torch.tensor([tokenizer("<a_0><b_0> a thing")["input_ids"]])
    assert model.train()(ids, labels=ids).loss.isfinite()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5, "hidden": 60}, "--heads 5 with --hidden 60"),  # 2 key-value heads, which 5 does not divide into
        ({"heads": 4, "hidden": 20}, "--heads 4 with --hidden 20"),  # heads of 5 numbers cannot be turned in pairs
        ({"heads": 0}, "--heads is 0; it must be at least 1"),
        ({"layers": 0}, "--layers is 0"),
        ({"hidden": 0}, "--hidden is 0"),
        ({"vocabulary": 258}, "--vocabulary is 258; it must be at least 259"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"dropout": -0.1}, "--dropout is -0.1"),
    ],
)
def test_a_shape_that_gives_no_model_is_refused(compact, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(compact, tmp_path / "base", **settings)
    assert not (tmp_path / "base").exists()


def test_data_that_are_missing_or_empty_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train.json is missing"):
        make(tmp_path, tmp_path / "base")
    write_json(tmp_path / "sft" / "train.json", [])
    with pytest.raises(ValueError, match="train.json must hold at least one row"):
        make(tmp_path, tmp_path / "base")


def test_a_trained_model_is_never_overwritten(compact, tmp_path):
    make_model(50).save_pretrained(tmp_path / "sft")
    before = {path.name: path.read_bytes() for path in (tmp_path / "sft").iterdir()}
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds something that make-base did not write"):
            make(compact, tmp_path / "sft", overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in (tmp_path / "sft").iterdir()} == before


def test_an_earlier_base_stays_unless_it_is_to_be_replaced(compact, tmp_path, capsys):
    base = make(compact, tmp_path / "base", seed=1)
    before = (base / "model.safetensors").read_bytes()
    make(compact, base, seed=1)
    assert "is finished: nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="seed: 1 then, 2 now.*--overwrite"):
        make(compact, base, seed=2)
    assert (base / "model.safetensors").read_bytes() == before
    make(compact, base, seed=2, overwrite=True)
    assert (base / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("row", [{"input": 5}, {"output": None}, {"system": ["x"]}, "text"])
def test_a_row_whose_texts_are_none_is_named(tmp_path, row):
    good = {"instruction": "a", "output": "b"}  # LLaMA-Factory's rows need no more
    write_json(tmp_path / "sft" / "train.json", [good, {**good, **row} if isinstance(row, dict) else row])
    with pytest.raises(UserError, match="train.json, row 1: "):
        make(tmp_path, tmp_path / "base")
    write_json(tmp_path / "sft" / "train.json", [good])
    make(tmp_path, tmp_path / "base")
