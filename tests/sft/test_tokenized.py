"""Rows that were tokenised before are trained on only where they are proven to be these."""

import json
import shutil
from pathlib import Path

import pytest

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.arguments import SftConfig
from mimigenrec.sft.tokenized import check_tokenized, stamp
from mimigenrec.sft.train import train
from mimigenrec.sids.tokens import distinct_tokens
from tests.sft.conftest import save_base


@pytest.fixture
def tokenized(args, tmp_path, toy):
    save_base(tmp_path / "known", sid_tokens=distinct_tokens(toy.sids))
    return {**args, "model_name_or_path": str(tmp_path / "known"), "tokenized_path": str(tmp_path / "tok")}


def test_a_run_leaves_word_of_its_rows_and_another_of_the_same_takes_them(tokenized, tmp_path):
    short = {**tokenized, "max_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    train(SftConfig(eval_ranking=0), short)
    assert read_json(tmp_path / "tok" / "mimigenrec.json", "test") == stamp(tokenized)
    rows = (tmp_path / "tok" / "dataset_dict.json").stat().st_mtime_ns
    train(SftConfig(eval_ranking=0), {**short, "output_dir": str(tmp_path / "second")})
    assert (tmp_path / "tok" / "dataset_dict.json").stat().st_mtime_ns == rows
    data = tmp_path / "data" / "toy" / "sft" / "train.json"
    data.write_text(json.dumps(json.loads(data.read_text())[1:]))
    with pytest.raises(UserError, match="tok holds rows that were tokenised from other data.*delete the folder .*tok"):
        train(SftConfig(eval_ranking=0), {**short, "output_dir": str(tmp_path / "third")})
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("change", [{"cutoff_len": 128}, {"train_on_prompt": True}, {"template": "qwen"}, {"seed": 2}])
def test_other_settings_and_another_tokenizer_are_refused(tokenized, tmp_path, change):
    write_json(tmp_path / "tok" / "mimigenrec.json", stamp(tokenized))
    check_tokenized({**tokenized, "mask_history": False, "preprocessing_num_workers": 3})  # a default; changes no row
    with pytest.raises(UserError, match=f"{next(iter(change))}: .* then"):
        check_tokenized({**tokenized, **change})
    shutil.copytree(tokenized["model_name_or_path"], tmp_path / "moved")
    check_tokenized({**tokenized, "model_name_or_path": str(tmp_path / "moved")})
    save_base(tmp_path / "moved")
    with pytest.raises(UserError, match="tokenizer/tokenizer.json: .* then"):
        check_tokenized({**tokenized, "model_name_or_path": str(tmp_path / "moved")})


def test_rows_of_which_nothing_is_known_are_refused(tokenized, tmp_path):
    Path(tokenized["tokenized_path"]).mkdir()
    check_tokenized(tokenized)  # empty
    (tmp_path / "tok" / "dataset_dict.json").write_text("{}")
    with pytest.raises(UserError, match="no mimigenrec.json in it tells which rows it holds.*delete the folder"):
        check_tokenized(tokenized)
