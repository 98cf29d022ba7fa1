import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import read_contract
from mimigenrec.decoding.adapter import identity
from mimigenrec.decoding.model import MIMIGenRec, load_model
from mimigenrec.decoding.search import search_sids
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UsageError, UserError
from mimigenrec.evaluation.quick import constrained_metrics
from mimigenrec.files import read_json
from mimigenrec.logs import read_jsonl
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.arguments import SftConfig, overrides, read_arguments
from mimigenrec.sft.callbacks import EmbeddingDropout
from mimigenrec.sft.make_base import CHAT_TEMPLATES, BaseConfig
from mimigenrec.sft.make_base import main as make_base
from mimigenrec.sft.train import main, prepared_base, support_of, train
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.tasks.build import BuildConfig
from mimigenrec.tasks.build import main as build
from mimigenrec.tasks.rows import read_sft_rows
from mimigenrec.training.launch import torchrun_command
from tests.conftest import lf_ids, make_model, make_tokenizer

BIN = Path(sys.executable).parent


@pytest.fixture
def ready(args, data, tmp_path):
    """args whose base has the SIDs."""
    add_sids(AddSidsConfig(args["model_name_or_path"], data / "new_tokens.json", tmp_path / "prepared"))
    return {**args, "model_name_or_path": str(tmp_path / "prepared")}


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def losses(folder):
    return [line["loss"] for line in read_jsonl(Path(folder) / "trainer_log.jsonl") if "loss" in line]


def shell(*command, **env):
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_one_command_from_a_plain_model_and_the_stock_program_train_the_same(tmp_path, args, data, warm):
    """The shipped way: a plain model, its SIDs added by override; then the base it made under llamafactory-cli."""
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(args))
    tokens, cache = f"add_tokens_list={data / 'new_tokens.json'}", f"base_cache={tmp_path / 'cache'}"
    done = warm(f"sft x.yaml {tokens} {cache}", tmp_path, limit=300)
    assert done["status"] == 0, done["stderr"][-3000:]
    (base,) = [folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]
    stock = tmp_path / "stock"
    shell(BIN / "llamafactory-cli", "train", tmp_path / "x.yaml", f"model_name_or_path={base}", f"output_dir={stock}")
    assert losses(tmp_path / "out") == losses(stock) and len(losses(stock)) == 4


def test_every_checkpoint_is_complete(ready, data):
    train(SftConfig(eval_ranking=4), ready)
    for folder in (Path(ready["output_dir"]), Path(ready["output_dir"]) / "checkpoint-2"):
        rec = MIMIGenRec.from_pretrained(folder)
        assert len(rec.recommend([["0", "1"]], k=3)[0]) == 3
        assert rec.contract.chat_template == rec.tokenizer.chat_template
        assert rec.contract.data_text() == read_contract(data).data_text()
        assert rec.contract.support == "vocab"
    assert read_json(Path(ready["output_dir"]) / "manifest.json", "test")["config"]["learning_rate"] == 1e-2


def test_a_checkpoint_remembers_the_token_ids_of_twenty_prompts(ready, data):
    train(SftConfig(eval_ranking=4), ready)
    rows = read_sft_rows(data / "sft" / "train.json")
    contract, tokenizer = read_contract(ready["output_dir"]), AutoTokenizer.from_pretrained(ready["output_dir"])
    assert (
        len(contract.golden) == 20
        and contract.golden == read_contract(Path(ready["output_dir"], "checkpoint-2")).golden
    )
    asked = [row_messages(row) for row in rows]
    for prompt, ids in contract.golden:
        assert lf_ids(tokenizer, rows[asked.index(prompt)])[0] == ids
    assert len({prompt[-1]["content"] for prompt, _ in contract.golden}) > 5


def test_ranking_is_reported_and_picks_the_best_checkpoint(ready):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_ndcg@10", "early_stopping_steps": 5}
    train(SftConfig(), {**ready, **best, "max_steps": 6})
    out = Path(ready["output_dir"])
    state = read_json(out / "trainer_state.json", "test")
    reported = {entry["step"]: entry["eval_ndcg@10"] for entry in state["log_history"] if "eval_loss" in entry}
    assert sorted(reported) == [2, 4, 6]
    assert state["best_metric"] == max(reported.values())
    assert state["best_model_checkpoint"].endswith(f"checkpoint-{max(reported, key=lambda k: (reported[k], -k))}")
    logged = {
        line["current_steps"]: line["eval_ndcg@10"]
        for line in read_jsonl(out / "trainer_log.jsonl")
        if "eval_ndcg@10" in line
    }
    assert set(logged) == {2, 4, 6} and "eval_hr@10" in read_json(out / "eval_results.json", "test")


def test_a_large_evaluation_batch_is_searched_in_parts_and_reports_the_same(ready, monkeypatch, data):
    rows = read_sft_rows(data / "sft" / "valid.json") * 6  # 72
    (data / "sft" / "valid.json").write_text(json.dumps(rows))
    sizes, reported = [], []

    def spy(model, tokenizer, trie, prompts, targets, ks, batch_size, support):
        sizes.append((len(prompts), batch_size))
        return constrained_metrics(model, tokenizer, trie, prompts, targets, ks, batch_size, support)

    monkeypatch.setattr("mimigenrec.sft.callbacks.constrained_metrics", spy)
    for size in (512, 5):
        out = f"{ready['output_dir']}-{size}"
        train(SftConfig(), {**ready, "output_dir": out, "per_device_eval_batch_size": size, "max_steps": 2})
        reported.append(read_json(Path(out) / "eval_results.json", "test")["eval_ndcg@10"])
    assert set(sizes) == {(72, 32), (72, 5)} and reported[0] == pytest.approx(reported[1], abs=1e-6)


def test_the_reported_ranking_is_that_of_the_saved_checkpoint(ready, data, toy):
    train(SftConfig(), ready)
    out = Path(ready["output_dir"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    rows = read_sft_rows(data / "sft" / "valid.json")
    prompts = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    found = search_sids(model, SidTrie.from_sids(toy.sids, tokenizer), prompts, beams=7)
    gain = 0.0
    for row, ranked in zip(rows, found, strict=True):
        place = [tokenizer.decode(ids).replace(" ", "") for ids, _ in ranked].index(row["output"])
        gain += float(1 / torch.log2(torch.tensor(place + 2.0)))
    assert read_json(out / "eval_results.json", "test")["eval_ndcg@10"] == pytest.approx(gain / len(rows), abs=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_dropped_embeddings_are_zeros_in_training_alone(tie):
    model = make_model(50, tie=tie)
    ids = torch.arange(50).repeat(400)[None]  # 20,000 vectors of 32 numbers, none of them 0
    before = model.get_input_embeddings()(ids)
    EmbeddingDropout(0.3).on_init_end(None, None, None, model=model)
    assert torch.equal(model.eval().get_input_embeddings()(ids), before)
    torch.manual_seed(0)
    dropped = model.train().get_input_embeddings()(ids)
    kept = dropped != 0
    assert 1 - kept.float().mean().item() == pytest.approx(0.3, abs=0.003)  # five standard errors
    torch.testing.assert_close(dropped[kept], before[kept] / 0.7)
    rows = kept.view(400, 50, 32).float()
    assert rows.mean(0).min() > 0.1 and rows.mean((1, 2)).std() < 0.05  # numbers, not whole vectors or columns
    hidden = torch.randn(1, 3, 32)  # the head does not drop, tied or not
    assert torch.equal(model.lm_head(hidden), hidden @ model.lm_head.weight.T)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_of_dropped_embeddings_that_is_none_is_refused_before_training(ready, share):
    with pytest.raises(ValueError, match=f"embedding_dropout is {share}; it must be at least 0 and below 1"):
        train(SftConfig(embedding_dropout=share), ready)
    assert not Path(ready["output_dir"]).exists()


def test_dropped_embeddings_change_training_and_nothing_else(ready, data, toy):
    """Other losses than without; the same files, a model that loads and reports as one without."""
    plain, dropped = ({**ready, "output_dir": f"{ready['output_dir']}-{name}"} for name in ("plain", "dropped"))
    train(SftConfig(embedding_dropout=0.0), plain)
    train(SftConfig(embedding_dropout=0.5), dropped)
    out, other = Path(dropped["output_dir"]), Path(plain["output_dir"])
    assert len(losses(out)) == 4 and not set(losses(out)) & set(losses(other))
    assert (out / "config.json").read_bytes() == (other / "config.json").read_bytes()
    assert weights(out).keys() == weights(other).keys()
    found = searched(out, data, toy, "vocab")
    assert read_json(out / "eval_results.json", "test")["eval_ndcg@10"] == pytest.approx(found["ndcg@10"], abs=1e-6)
    assert read_json(out / "manifest.json", "test")["config"]["embedding_dropout"] == 0.5


def test_a_killed_run_with_dropped_embeddings_goes_on_to_the_same_end(ready):
    train(SftConfig(eval_ranking=0, embedding_dropout=0.5), ready)
    out = Path(ready["output_dir"])
    whole = weights(out)
    shutil.rmtree(out / "checkpoint-4")
    (out / "model.safetensors").unlink()
    train(SftConfig(eval_ranking=0, embedding_dropout=0.5), dict(ready))
    assert all(torch.equal(value, whole[name]) for name, value in weights(out).items())


@pytest.mark.parametrize("support", ["trie", "vocab"])
def test_the_reported_ranking_is_scored_by_eval_support(ready, data, toy, support):
    train(SftConfig(eval_support=support), ready)
    out = Path(ready["output_dir"])
    found, other = (searched(out, data, toy, by) for by in (support, {"trie": "vocab", "vocab": "trie"}[support]))
    assert found["ndcg@10"] != pytest.approx(other["ndcg@10"], abs=1e-3)  # or this would tell nothing
    told = read_json(out / "eval_results.json", "test")
    assert {name: told[f"eval_{name}"] for name in found} == pytest.approx(found, abs=1e-6)


def searched(folder, data, toy, support):
    """What a saved checkpoint finds on all validation rows."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = read_sft_rows(data / "sft" / "valid.json")
    prompts, trie = prompt_ids(tokenizer, [row_messages(row) for row in rows]), SidTrie.from_sids(toy.sids, tokenizer)
    return constrained_metrics(model, tokenizer, trie, prompts, [row["output"] for row in rows], (10,), 8, support)


def test_a_killed_run_goes_on_and_ends_where_an_uninterrupted_one_does(ready):
    train(SftConfig(eval_ranking=0), ready)
    out = Path(ready["output_dir"])
    whole, logged = weights(out), losses(out)
    shutil.rmtree(out / "checkpoint-4")
    (out / "model.safetensors").unlink()
    train(SftConfig(eval_ranking=0), dict(ready))
    assert all(torch.equal(value, whole[name]) for name, value in weights(out).items())
    assert losses(out) == logged  # no step stands there twice


def test_half_written_checkpoints_are_removed(ready):
    train(SftConfig(eval_ranking=0), ready)
    out = Path(ready["output_dir"])
    state = (out / "checkpoint-4" / "trainer_state.json").read_text()
    (out / "checkpoint-4" / "trainer_state.json").write_text(state[: len(state) // 2])
    (out / "checkpoint-6").mkdir()
    (out / "model.safetensors").unlink()
    train(SftConfig(eval_ranking=0), dict(ready))
    assert len(losses(out)) == 4 and (out / "checkpoint-4" / "model.safetensors").is_file()
    assert not (out / "checkpoint-6").exists()


@pytest.mark.parametrize("untie", [False, True])
def test_only_the_rows_of_the_sids_move(args, data, tmp_path, untie, toy):
    keys = SftConfig(add_tokens_list=data / "new_tokens.json", sid_untie=untie, base_cache=tmp_path / "cache")
    keys.train_only, base = "sid_rows", prepared_base(keys, args)
    train(keys, args)
    before, after = weights(base), weights(args["output_dir"])
    ids = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(distinct_tokens(toy.sids))
    for name, old in before.items():
        moved = (old != after[name]).reshape(len(old), -1).any(1).nonzero().flatten().tolist()
        assert moved == (sorted(ids) if name in ("model.embed_tokens.weight", "lm_head.weight") else []), name


def test_row_training_without_a_catalogue_is_refused(args, data):
    (data / "id2sid.json").unlink()
    with pytest.raises(ValueError, match="sid_rows needs a data set that lies beside"):
        train(SftConfig(train_only="sid_rows"), args)


def test_lora_with_trained_sid_rows_survives_the_export(args, data, tmp_path, toy):
    from llamafactory.train.tuner import export_model

    keys = SftConfig(
        add_tokens_list=data / "new_tokens.json", sid_untie=True, base_cache=tmp_path / "cache", eval_ranking=0
    )
    lora = {"finetuning_type": "lora", "lora_target": "all", "additional_target": "embed_tokens,lm_head"}
    train(keys, {**args, **lora, "max_steps": 20, "eval_steps": 20, "save_steps": 20})
    base, merged = prepared_base(keys, args), tmp_path / "merged"
    export = {"model_name_or_path": base, "adapter_name_or_path": args["output_dir"], "export_dir": str(merged)}
    export_model({**export, "finetuning_type": "lora", "infer_dtype": "float32"})

    for folder in (Path(args["output_dir"]), Path(args["output_dir"]) / "checkpoint-20"):
        told = read_json(folder / "base.json", "test")
        assert told["base"] == str(Path(base).resolve()) and told["weights"] == identity(base)

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = read_sft_rows(data / "sft" / "valid.json")
    prompts = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    answers = [tokenizer(row["output"], add_special_tokens=False)["input_ids"] for row in rows]
    trie = SidTrie.from_sids(toy.sids, tokenizer)
    results = {}
    for name, folder in (("base", base), ("adapter", args["output_dir"]), ("merged", merged)):
        model = load_model(folder).eval()
        with torch.no_grad():
            loss = [mean_loss(model, p, a) for p, a in zip(prompts, answers, strict=True)]
        ranked = search_sids(model, trie, prompts, beams=7)
        results[name] = sum(loss) / len(loss), [[list(ids) for ids, _ in row] for row in ranked]
    assert results["merged"][0] == pytest.approx(results["adapter"][0], abs=1e-4)
    assert results["merged"][1] == results["adapter"][1]
    assert results["adapter"][0] < results["base"][0] - 1  # there was something to lose


def mean_loss(model, prompt, answer):
    ids = torch.tensor([prompt + answer])
    return float(model(ids, labels=torch.tensor([[-100] * len(prompt) + answer])).loss)


def test_a_base_is_prepared_once_and_again_when_its_content_changes(args, data, tmp_path):
    keys = SftConfig(add_tokens_list=data / "new_tokens.json", base_cache=tmp_path / "cache")
    first = prepared_base(keys, args)
    stamp = (Path(first) / "model.safetensors").stat().st_mtime_ns
    assert prepared_base(keys, args) == first and (Path(first) / "model.safetensors").stat().st_mtime_ns == stamp
    keys.sid_init = "text"
    assert prepared_base(keys, args) != first
    keys.sid_init, tokens = "noise", read_json(data / "new_tokens.json", "test")
    (data / "new_tokens.json").write_text(json.dumps([*tokens, "<d_1>"]))
    assert prepared_base(keys, args) != first


def test_a_missing_base_and_another_revision_are_refused(args, data, tmp_path):
    keys = SftConfig(add_tokens_list=data / "new_tokens.json", base_cache=tmp_path / "cache")
    for wish in (keys, SftConfig()):
        with pytest.raises(UserError, match="model_name_or_path 'saves/base/none' is not a folder here"):
            train(wish, {**args, "model_name_or_path": "saves/base/none"})
    with pytest.raises(ValueError, match="main revision"):
        train(keys, {**args, "model_revision": "v2"})


def test_overrides_come_in_three_spellings():
    assert overrides(["a=1", "--b=2", "--c", "3"]) == ["a=1", "b=2", "c=3"]
    for words in (["bf16"], ["a=1", "--bf16"]):  # not taken for true, and not passed over
        with pytest.raises(UsageError, match="bf16' has no value; write bf16=value"):
            overrides(words)


def test_our_keys_are_taken_out_and_checked(tmp_path, args, capsys):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**args, "sid_init": "text", "eval_ranking": 7}))
    found, rest = read_arguments([str(tmp_path / "x.yaml"), "max_steps=9", "--eval_ranking", "8"])
    assert (found.sid_init, found.eval_ranking, rest["max_steps"]) == ("text", 8, 9)
    assert not {"sid_init", "eval_ranking"} & set(rest)
    for start in (["--config", str(tmp_path / "x.yaml")], [f"--config={tmp_path / 'x.yaml'}"]):
        assert read_arguments(start)[0].eval_ranking == 7
    found, _ = read_arguments([str(tmp_path / "x.yaml"), "embedding_dropout=0.2", "eval_support=trie"])
    assert (found.embedding_dropout, found.eval_support) == (0.2, "trie")
    for key in ("sid_init", "eval_support"):
        with pytest.raises(SystemExit):
            read_arguments([str(tmp_path / "x.yaml"), f"{key}=zeros"])
        assert "invalid choice: 'zeros'" in capsys.readouterr().err


def test_of_several_yamls_the_later_wins_and_overrides_win_over_all(tmp_path, args):
    first, second = str(tmp_path / "x.yaml"), str(tmp_path / "lr=1.yml")  # "=" in a file's name is no override
    Path(first).write_text(yaml.safe_dump({**args, "seed": 1, "max_steps": 4, "eval_steps": 2}))
    Path(second).write_text("seed: 2\nmax_steps: 5\nembedding_dropout: 0.5\n")
    for files in ([first, second], ["--config", first, second], [f"--config={first}", "--config", second]):
        config, merged = read_arguments([*files, "max_steps=6", "--deepspeed", "z.yaml"])
        assert config.embedding_dropout == 0.5
        assert merged == {**args, "seed": 2, "max_steps": 6, "eval_steps": 2, "deepspeed": "z.yaml"}
    assert read_arguments([second, first])[1]["seed"] == 1
    assert torchrun_command("mimigenrec.sft.train", [first, second, "seed=3"])[-3:] == [
        first,
        second,
        "seed=3",
    ]  # each process reads the same


def test_a_yaml_that_is_not_first_not_there_or_no_map_is_refused(tmp_path, args):
    yamls = {"x": yaml.safe_dump(args), "list": "- 1\n", "broken": "a: [1"}
    x, listed, broken = (str(tmp_path / f"{name}.yaml") for name in yamls)
    for path, text in zip((x, listed, broken), yamls.values(), strict=True):
        Path(path).write_text(text)
    for argv, told in {
        ("a=1",): "expects a YAML file as its first argument, found 'a=1'",
        ("--config",): "expects a YAML file as its first argument",
        ("missing.yaml",): "missing.yaml is missing",
        (x, "missing.yaml"): "missing.yaml is missing",
        (x, listed): "list.yaml holds a list, not a map",
        (x, broken): "broken.yaml cannot be read as YAML",
        (x, "seed=1", x): "x.yaml' comes too late; write every YAML file before the first key=value",
        (x, "seed=1", f"--config={x}"): "x.yaml' comes too late",
        (x, "seed=1", "--config", x): "'--config' comes too late",
    }.items():
        with pytest.raises(UsageError, match=told):
            main(list(argv))


def test_without_a_model_it_says_so(tmp_path):
    (tmp_path / "x.yaml").write_text("stage: sft\n")
    with pytest.raises(UsageError, match="x.yaml: model_name_or_path is missing"):
        main([str(tmp_path / "x.yaml")])
    (tmp_path / "x.yaml").write_text("stage: sft\nmodel_name_or_path: a/b\n")
    with pytest.raises(UsageError, match="x.yaml: output_dir is missing"):
        main([str(tmp_path / "x.yaml")])


def test_help_teaches_our_keys(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "--add_tokens_list" in told and "llamafactory-cli train -h" in told


def test_the_recipe_from_scratch_teaches_every_token_of_its_rows(raw_toy, tmp_path):
    """Compact rows, a base with the short template, rows from vectors: the first loss is that of all tokens."""
    data = tmp_path / "data" / "toy"
    build(BuildConfig(raw_toy, "toy", data, tasks=["task1_sid_sft"], wording="compact", sft_rows="longest"))
    make_base(BaseConfig(data, tmp_path / "base", hidden=16, heads=2, vocabulary=300, chat_template="short"))
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32))
    told = {"init": "vectors", "vectors": tmp_path / "v.npy", "vector_scale": 6.0}
    add_sids(AddSidsConfig(str(tmp_path / "base"), data / "new_tokens.json", tmp_path / "sid", **told))
    keys = {"model_name_or_path": str(tmp_path / "sid"), "stage": "sft", "do_train": True, "finetuning_type": "full"}
    keys |= {"dataset": "toy_train", "eval_dataset": "toy_valid", "dataset_dir": str(data.parent), "cutoff_len": 64}
    keys |= {"output_dir": str(tmp_path / "out"), "max_steps": 1, "logging_steps": 1, "eval_strategy": "steps"}
    keys |= {"train_on_prompt": True, "per_device_train_batch_size": 64, "report_to": "none"}
    train(SftConfig(), keys)
    assert read_contract(tmp_path / "out").support == "trie"  # the end of a row is no part of an answer

    model, tokenizer = load_model(tmp_path / "sid").eval(), AutoTokenizer.from_pretrained(tmp_path / "sid")
    rows = [
        tokenizer.encode(f"<|im_start|>{row['input']}{row['output']}<|im_end|>", add_special_tokens=False)
        for row in read_sft_rows(data / "sft" / "train.json")
    ]
    assert 1 < len(rows) <= 64  # one batch
    with torch.no_grad():
        sums = [mean_loss(model, row[:1], row[1:]) * (len(row) - 1) for row in rows]
    labels = sum(map(len, rows))  # transformers 4.57 divides by these, though nothing predicts the first of a row
    assert losses(tmp_path / "out") == [pytest.approx(sum(sums) / labels, abs=1e-3)]
    assert "eval_ndcg@10" in read_json(tmp_path / "out" / "eval_results.json", "test")
    rec = MIMIGenRec.from_pretrained(tmp_path / "out")
    assert len(rec.recommend([["0", "1"]], k=3)[0]) == 3 and rec.contract.wording == "compact"


def test_the_support_is_what_training_gives_a_meaning_unless_it_is_asked_for(tokenizer):
    assert support_of(SftConfig(), {}, tokenizer) == "vocab"
    assert support_of(SftConfig(), {"train_on_prompt": True}, tokenizer) == "trie"
    assert support_of(SftConfig(eval_support="vocab"), {"train_on_prompt": True}, tokenizer) == "vocab"
    without_end = make_tokenizer(chat_template=CHAT_TEMPLATES["open"])
    assert support_of(SftConfig(), {}, without_end) == "trie"
    with pytest.raises(UserError, match="writes no end behind an answer"):  # before any step
        support_of(SftConfig(eval_support="vocab"), {}, without_end)


def test_what_llamafactory_refuses_is_one_message(ready):
    with pytest.raises(UsageError, match="LLaMA-Factory refuses these settings: .*predict_with_generate"):
        train(SftConfig(eval_ranking=0), {**ready, "do_predict": True})


def test_every_checkpoint_of_other_data_than_ours_gets_a_manifest_too(ready, data):
    (data / "id2sid.json").unlink()
    out = Path(ready["output_dir"])
    train(SftConfig(eval_ranking=0), {**ready, "max_steps": 1, "eval_strategy": "no", "save_steps": 1})
    told = read_json(out / "manifest.json", "test")
    assert told["ended"] and any(path.endswith("sft/train.json") for path in told["inputs"])
    assert read_json(out / "checkpoint-1" / "manifest.json", "test") == {k: told[k] for k in told if k != "ended"}
    assert not (out / "checkpoint-1" / "id2sid.json").exists() and told["contract"] is None
    rows = read_json(data / "sft" / "train.json", "test")
    (data / "sft" / "train.json").write_text(json.dumps(rows[1:]))
    with pytest.raises(UserError, match="sft/train.json: .* then"):
        train(SftConfig(eval_ranking=0), {**ready, "max_steps": 1, "eval_strategy": "no", "save_steps": 1})


@pytest.mark.slow
def test_a_process_of_torchrun_that_fails_leaves_one_message_and_no_launchers_traceback(tmp_path, ready):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**ready, "cutoff_len": 3}))
    env = {**os.environ, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
    done = subprocess.run([BIN / "mimigenrec", "sft", tmp_path / "x.yaml"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "more than cutoff_len=3" in done.stderr
    assert "ChildFailedError" not in done.stderr and done.stderr.count("Traceback") == 0


@pytest.mark.slow
def test_two_processes_prepare_one_base_and_share_the_ranking_sample(tmp_path, args, data):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**args, "per_device_train_batch_size": 4}))
    tokens, cache = f"add_tokens_list={data / 'new_tokens.json'}", f"base_cache={tmp_path / 'cache'}"
    command = [BIN / "mimigenrec", "sft", tmp_path / "x.yaml", tokens, cache]
    shell(*command, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert len([folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]) == 1
    shell(*command, "per_device_train_batch_size=8", f"output_dir={tmp_path / 'one'}")
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    two, one = (read_json(tmp_path / name / "eval_results.json", "test") for name in ("out", "one"))
    assert two["eval_ndcg@10"] == pytest.approx(one["eval_ndcg@10"], rel=1e-2)
