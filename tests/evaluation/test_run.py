"""The evaluate command on a tiny checkpoint: the same lists as the search gives, and every wrong input named."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mimigenrec.baselines import train as baseline
from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.cli import parse
from mimigenrec.contract import Contract
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import search_sids
from mimigenrec.evaluation.result import read_result
from mimigenrec.evaluation.run import EvaluateConfig, main
from mimigenrec.sft.make_base import CHAT_TEMPLATES
from mimigenrec.sids.tokens import write_index
from mimigenrec.tasks.rows import read_sft_rows, to_chat_row
from tests.conftest import TOY_SIDS


def run(output, **fields):
    main(EvaluateConfig(output=output, **{"k": 5, "beams": 7, **fields}))
    return read_result(output)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, checkpoint, toy_data):
    return run(tmp_path_factory.mktemp("plain") / "out", model=checkpoint, data=toy_data)


def copied(folder, target):
    return shutil.copytree(folder, target)


def test_every_test_row_is_there_in_order_with_the_list_of_the_search(plain, checkpoint, toy_data):
    recommender = MIMIGenRec.from_pretrained(checkpoint)
    rows = json.loads((toy_data / "sft" / "test.json").read_text())
    known = json.loads((toy_data / "rows" / "test.json").read_text())
    assert [{key: row[key] for key in ("user", "row", "history", "target")} for row in plain.rows] == known
    prompts = prompt_ids(recommender.tokenizer, [row_messages(row) for row in rows])
    found = search_sids(recommender.model, recommender.trie, prompts, beams=7)
    for row, ranked in zip(plain.rows, found, strict=True):
        sids = ["".join(recommender.tokenizer.convert_ids_to_tokens(list(ids))) for ids, _ in ranked[:5]]
        assert [group["sid"] for group in row["ranked"]] == sids
        assert [g["score"] for g in row["ranked"]] == pytest.approx([logp for _, logp in ranked[:5]], abs=1e-4)


def test_items_of_one_sid_share_a_group_most_popular_first(plain, toy_data):
    popularity = {i: known["popularity"] for i, known in json.loads((toy_data / "items.json").read_text()).items()}
    pairs = [g["items"] for row in plain.rows for g in row["ranked"] if g["sid"] == "<a_0><b_1><c_0>"]
    expected = sorted(["2", "3"], key=lambda item: (-popularity[item], item))
    assert pairs and all(pair == expected for pair in pairs)


def test_all_files_are_written_and_no_metric_beyond_k(plain):
    names = {path.name for path in plain.folder.iterdir()}
    files = {"predictions.jsonl", "final_result.json", "metrics.json", "metrics.tsv", "metrics.md", "metrics.png"}
    assert files | {"manifest.json", "run.json"} <= names
    assert set(plain.metrics["sid"]) == {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (1, 3, 5)}
    assert plain.metrics["invalid"] == 0 and plain.metrics["n_rows"] == 8
    lines = (plain.folder / "metrics.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["level", "metric", "k", "mean", "low", "high"]
    hr = next(line.split("\t") for line in lines if line.startswith("item\thr\t5\t"))
    assert float(hr[3]) == plain.metrics["item"]["hr@5"]["mean"]
    assert (plain.folder / "metrics.png").read_bytes().startswith(b"\x89PNG")


def test_the_metrics_follow_from_the_lists(plain):
    hits = [row["target_sid"] in [group["sid"] for group in row["ranked"]] for row in plain.rows]
    assert plain.metrics["sid"]["hr@5"]["mean"] == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_no_list(plain, checkpoint, toy_data, tmp_path, batch_size):
    other = run(tmp_path / "out", model=checkpoint, data=toy_data, batch_size=batch_size)
    lists = [[[g["sid"] for g in row["ranked"]] for row in result.rows] for result in (plain, other)]
    assert lists[0] == lists[1]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_result(plain, checkpoint, toy_data, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", model=checkpoint, data=toy_data, batch_size=3)
    output = copied(whole.folder, tmp_path / "cut")
    lines = (output / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (output / "predictions.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])  # as a kill leaves it
    (output / "final_result.json").unlink()
    searched = []

    def counted(model, trie, prompts, *rest, **options):
        searched.append(len(prompts))
        return search_sids(model, trie, prompts, *rest, **options)

    monkeypatch.setattr("mimigenrec.evaluation.predict.search_sids", counted)
    assert run(output, model=checkpoint, data=toy_data, batch_size=3).rows == whole.rows
    assert sum(searched) == 5  # the batch that was cut through, and the last


def test_chats_are_asked_and_measured_as_the_same_alpaca_rows_are(plain, checkpoint, toy_data, tmp_path):
    data = copied(toy_data, tmp_path / "chats")
    rows = [to_chat_row(row) for row in read_sft_rows(toy_data / "sft" / "test.json")]
    (data / "sft" / "test.json").write_text(json.dumps(rows))
    result = run(tmp_path / "out", model=checkpoint, data=data)
    files = [folder / "final_result.json" for folder in (result.folder, plain.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_chat_of_several_turns_is_asked_for_its_last_answer(checkpoint, toy_data, tmp_path):
    data = copied(toy_data, tmp_path / "chats")
    rows = [to_chat_row(row) for row in read_sft_rows(toy_data / "sft" / "test.json")]
    for row in rows:
        row["messages"][1:1] = to_chat_row({"input": "Hello?", "output": "<a_0>, hello."})["messages"]
    (data / "sft" / "test.json").write_text(json.dumps(rows))
    result = run(tmp_path / "out", model=checkpoint, data=data)
    ours = MIMIGenRec.from_pretrained(checkpoint)
    prompts = prompt_ids(ours.tokenizer, [row["messages"][:4] for row in rows])
    found = search_sids(ours.model, ours.trie, prompts, beams=7)
    for row, ranked in zip(result.rows, found, strict=True):
        sids = ["".join(ours.tokenizer.convert_ids_to_tokens(list(ids))) for ids, _ in ranked[:5]]
        assert [group["sid"] for group in row["ranked"]] == sids


def states(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_finished_run_says_so_and_touches_nothing(plain, checkpoint, toy_data, tmp_path, monkeypatch, capsys):
    output = copied(plain.folder, tmp_path / "again")
    before = states(output)
    monkeypatch.setattr("mimigenrec.evaluation.run.load", None)
    run(output, model=checkpoint, data=toy_data)
    assert f"{output} is finished: nothing to do; --overwrite starts anew" in capsys.readouterr().out
    assert states(output) == before


def test_other_settings_replace_a_result_only_when_told_and_only_what_evaluate_wrote(
    plain, checkpoint, toy_data, tmp_path
):
    output = copied(plain.folder, tmp_path / "again")
    (output / "notes.txt").write_text("mine")
    before = states(output)
    for other in ({"limit": 3}, {"seed": 7}, {"support": "trie"}):
        with pytest.raises(ValueError, match=f"{next(iter(other))}: .* then, .* now.*--overwrite to replace it"):
            run(output, model=checkpoint, data=toy_data, **other)
    assert states(output) == before
    assert len(run(output, model=checkpoint, data=toy_data, limit=3, overwrite=True).rows) == 3
    assert (output / "notes.txt").read_text() == "mine"
    assert len((output / "predictions.jsonl").read_text().splitlines()) == 3
    run(output, model=checkpoint, data=toy_data, limit=3)  # is finished


def test_a_model_that_does_not_load_leaves_the_result_that_was_to_be_replaced(plain, checkpoint, toy_data, tmp_path):
    output, model = copied(plain.folder, tmp_path / "again"), copied(checkpoint, tmp_path / "tiny")
    before = states(output)
    break_weight(model)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        run(output, model=model, data=toy_data, overwrite=True)
    assert states(output) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_holds_a_model_or_anything_else_is_not_evaluated_into(checkpoint, toy_data, tmp_path, overwrite):
    model = copied(checkpoint, tmp_path / "model")
    before = states(model)
    with pytest.raises(ValueError, match="no run.json, so no evaluation of a model wrote it"):
        run(model, model=checkpoint, data=toy_data, overwrite=overwrite)
    assert states(model) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="holds metrics.json but no run.json"):
        run(tmp_path / "mine", model=checkpoint, data=toy_data, overwrite=overwrite)


def break_weight(model):
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(model)
    broken.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    broken.save_pretrained(model)


def test_a_model_with_nan_gets_no_figures(checkpoint, toy_data, tmp_path):
    model, output = copied(checkpoint, tmp_path / "tiny"), tmp_path / "out"
    break_weight(model)
    with pytest.raises(ValueError, match=r"tiny: 1 of \d+ weights hold NaN or infinity, model.layers.0.mlp.up_proj"):
        run(output, model=model, data=toy_data)
    assert not output.exists()


def test_a_row_whose_scores_are_not_finite_is_named_and_gets_no_figures(checkpoint, toy_data, tmp_path, monkeypatch):
    def search(model, trie, prompts, *rest, **options):
        if len(prompts[0]) == longest:  # the batches go from long to short, so it is in the first one
            raise NotFinite(1, 2)
        return search_sids(model, trie, prompts, *rest, **options)

    rows = json.loads((toy_data / "sft" / "test.json").read_text())
    tokenizer = MIMIGenRec.from_pretrained(checkpoint).tokenizer
    lengths = [len(ids) for ids in prompt_ids(tokenizer, [row_messages(row) for row in rows])]
    longest, second = max(lengths), sorted(range(len(rows)), key=lambda place: -lengths[place])[1]
    monkeypatch.setattr("mimigenrec.evaluation.predict.search_sids", search)
    with pytest.raises(ValueError, match=rf"not finite \(row {second}, step 2\)"):
        run(tmp_path / "out", model=checkpoint, data=toy_data, batch_size=2)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_the_scores_are_those_the_checkpoint_was_trained_with_and_the_result_says_which(
    plain, checkpoint, toy_data, tmp_path, tokenizer, caplog, capsys
):
    model = copied(checkpoint, tmp_path / "tiny")
    replace(Contract.of("contract", tokenizer, max_history=10), support="trie").write(model)
    result = run(tmp_path / "own", model=model, data=toy_data)
    assert "tiny, ranked by support trie" in capsys.readouterr().out
    assert result.metrics["support"] == result.manifest["config"]["support"] == "trie"
    assert json.loads((tmp_path / "own" / "run.json").read_text())["config"]["support"] == "trie"
    assert not [r for r in caplog.records if r.name == "mimigenrec.contract"]
    named = run(tmp_path / "named", model=model, data=toy_data, support="trie")
    assert named.rows == result.rows != plain.rows and plain.metrics["support"] == "vocab"
    run(tmp_path / "own", model=model, data=toy_data, support="trie")  # the same run: finished
    run(tmp_path / "other", model=model, data=toy_data, support="vocab")
    assert "was trained to be ranked by support trie, and is asked to rank by vocab" in caplog.text


def test_predictions_of_another_configuration_are_not_continued(plain, checkpoint, toy_data, tmp_path):
    output = copied(plain.folder, tmp_path / "other")
    with pytest.raises(ValueError, match=r"beams: 7 then, 6 now"):
        run(output, model=checkpoint, data=toy_data, beams=6)


def test_predictions_of_other_weights_are_not_continued(plain, checkpoint, toy_data, tmp_path, tiny_model):
    other = copied(checkpoint, tmp_path / "tiny")
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    save_file({name: w + 0.01 for name, w in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="model.safetensors"):
        run(copied(plain.folder, tmp_path / "out"), model=other, data=toy_data)


def test_predictions_under_another_chat_template_are_not_continued(plain, checkpoint, toy_data, tmp_path):
    other = copied(checkpoint, tmp_path / "tiny")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    with pytest.raises(ValueError, match="chat_template.jinja"):
        run(copied(plain.folder, tmp_path / "out"), model=other, data=toy_data)


def test_a_model_whose_rows_have_no_end_is_scored_in_the_trie_and_nothing_is_begun_before(
    checkpoint, toy_data, tmp_path
):
    model, output = copied(checkpoint, tmp_path / "tiny"), tmp_path / "out"
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATES["open"])
    with pytest.raises(ValueError, match="use support trie"):
        run(output, model=model, data=toy_data)
    assert not output.exists()
    assert len(run(output, model=model, data=toy_data, support="trie").rows) > 0


def test_exclude_seen_drops_the_history_and_keeps_the_list_long(checkpoint, toy_data, tmp_path):
    result = run(tmp_path / "out", model=checkpoint, data=toy_data, exclude_seen=True, k=3)
    sids = json.loads((toy_data / "id2sid.json").read_text())
    for row in result.rows:
        listed = [item for group in row["ranked"] for item in group["items"]]
        assert not set(listed) & set(row["history"])
        assert len(row["ranked"]) == min(3, len({tuple(sids[i]) for i in sids if i not in row["history"]}))
    assert result.metrics["repeat@10"]["mean"] == 0
    assert result.metrics["searched_beams"] > 7


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_seen_item_filter_leaves_a_model_and_a_baseline_the_same_items(
    checkpoint, toy_data, raw_toy, tmp_path, exclude_seen
):
    ours = run(tmp_path / "model", model=checkpoint, data=toy_data, exclude_seen=exclude_seen, k=7)
    fields = {"raw": raw_toy, "category": "toy", "data": toy_data, "exclude_seen": exclude_seen, "k": 7}
    baseline.main(baseline.BaselineConfig(method="markov", output=tmp_path / "markov", **fields))
    for mine, theirs in zip(ours.rows, read_result(tmp_path / "markov").rows, strict=True):
        a, b = ({item for group in row["ranked"] for item in group["items"]} for row in (mine, theirs))
        assert a == b == set(TOY_SIDS) - (set(mine["history"]) if exclude_seen else set())


def test_the_same_command_twice_gives_the_same_numbers(plain, checkpoint, toy_data, tmp_path):
    again = run(tmp_path / "out", model=checkpoint, data=toy_data)
    drop = ("seconds", "rows_per_second")
    a, b = ({k: v for k, v in result.metrics.items() if k not in drop} for result in (again, plain))
    assert again.rows == plain.rows and a == b


def test_k_beyond_the_catalogue_lists_every_sid_once_and_says_so(checkpoint, toy_data, tmp_path, caplog):
    result = run(tmp_path / "out", model=checkpoint, data=toy_data, k=50, beams=50)
    assert all(len({g["sid"] for g in row["ranked"]}) == len(row["ranked"]) == 7 for row in result.rows)
    assert result.metrics["sid"]["hr@50"]["mean"] == 1.0
    assert result.metrics["rows_with_fewer_than_k"] == 8 and "fewer than 50" in caplog.text


def test_a_row_without_answer_or_without_history_stays_as_a_miss(checkpoint, toy_data, tmp_path):
    data = copied(toy_data, tmp_path / "data")
    asked = json.loads((data / "sft" / "test.json").read_text())
    known = json.loads((data / "rows" / "test.json").read_text())
    asked[0]["output"], known[0]["target"] = "", "404"
    known[1]["history"] = ["404"]
    (data / "sft" / "test.json").write_text(json.dumps(asked))
    (data / "rows" / "test.json").write_text(json.dumps(known))
    result = run(tmp_path / "out", model=checkpoint, data=data, k=7)
    assert result.rows[1]["ranked"] == [] and result.metrics["rows_without_list"] == 1
    assert result.metrics["targets_without_sid"] == 1
    assert result.metrics["sid"]["hr@5"]["mean"] <= 6 / 8 and result.metrics["n_rows"] == 8


def test_classic_files_run_as_they_stand_with_one_warning(plain, checkpoint, toy_data, tmp_path, caplog):
    files = {"test_file": toy_data / "sft" / "test.json", "index": toy_data / "id2sid.json"}
    result = run(tmp_path / "out", model=checkpoint, **files)
    assert [r["ranked"] for r in result.rows] == [
        [{**group, "items": sorted(group["items"])} for group in r["ranked"]] for r in plain.rows
    ]
    assert result.rows[0]["history"] is None and result.metrics["repeat@10"] is None
    assert result.metrics["item"] == plain.metrics["item"]  # a target is placed by its SID
    assert "no prompt_contract.json" in result.metrics["contract"]["note"]
    assert caplog.text.count("no prompt_contract.json") == 1


def test_the_index_of_a_test_file_is_that_of_its_data_folder(plain, checkpoint, toy_data, tmp_path, monkeypatch):
    monkeypatch.chdir(toy_data / "sft")
    result = run(tmp_path / "out", model=checkpoint, test_file=Path("test.json"))
    assert result.metrics["item"] == plain.metrics["item"]
    assert str(toy_data / "id2sid.json") in result.manifest["inputs"]


def test_a_test_file_outside_a_data_folder_needs_its_index_named(checkpoint, toy_data, tmp_path):
    alone = shutil.copy(toy_data / "sft" / "test.json", tmp_path / "mine.json")
    with pytest.raises(FileNotFoundError, match="id2sid.json is missing.*mine.json are from; name"):
        run(tmp_path / "out", model=checkpoint, test_file=alone)
    with pytest.raises(FileNotFoundError, match="--test_file .*nowhere.json is not a file"):
        run(tmp_path / "out", model=checkpoint, test_file=tmp_path / "nowhere.json")


def test_classic_wording_runs_with_one_warning_that_metrics_json_keeps(checkpoint, toy_data, tmp_path, caplog):
    model, data = copied(checkpoint, tmp_path / "tiny"), copied(toy_data, tmp_path / "data")
    for folder in (model, data):
        Contract.of("classic").write(folder)
    result = run(tmp_path / "out", model=model, data=data)
    assert result.metrics["contract"]["note"].startswith("classic wording")
    assert caplog.text.count("classic wording") == 1


def test_a_lora_checkpoint_is_evaluated_with_its_adapter(plain, checkpoint, toy_data, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mimigenrec.checkpoint import copy_companions

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint),
        LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "lora")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "lora")
    copy_companions(toy_data, tmp_path / "lora")
    result = run(tmp_path / "out", model=tmp_path / "lora", data=toy_data)
    assert [r["ranked"] for r in result.rows] != [r["ranked"] for r in plain.rows]
    assert {str(checkpoint / "model.safetensors"), str(tmp_path / "lora" / "adapter_model.safetensors")} <= set(
        result.manifest["inputs"]
    )


def test_a_checkpoint_of_another_catalogue_is_refused(checkpoint, toy_data, tmp_path, toy):
    other = copied(checkpoint, tmp_path / "tiny")
    write_index(other / "id2sid.json", {**toy.sids, "4": ("<a_0>", "<b_0>")})
    with pytest.raises(ValueError, match="another catalogue.*item '4'.*<a_0><b_0>.*<a_1><b_0><c_2>"):
        run(tmp_path / "out", model=other, data=toy_data)
    write_index(other / "id2sid.json", {f"book-{item}": sid for item, sid in toy.sids.items()})
    with pytest.raises(ValueError, match="another catalogue.*no item in common"):
        run(tmp_path / "out", model=other, data=toy_data)


def test_a_checkpoint_that_does_not_know_the_sid_tokens_is_refused(tiny_model, toy_data, tmp_path):
    from tests.conftest import make_tokenizer

    tiny_model.save_pretrained(tmp_path / "raw")
    make_tokenizer().save_pretrained(tmp_path / "raw")
    with pytest.raises(ValueError, match="add-sids"):
        run(tmp_path / "out", model=tmp_path / "raw", data=toy_data)


def test_a_checkpoint_trained_in_other_words_is_refused(checkpoint, toy_data, tmp_path):
    other = copied(checkpoint, tmp_path / "tiny")
    Contract.of("classic").write(other)
    with pytest.raises(ValueError, match="contracts differ"):
        run(tmp_path / "out", model=other, data=toy_data)


def test_a_checkpoint_whose_chat_template_was_changed_is_refused(checkpoint, toy_data, tmp_path, tokenizer):
    other = copied(checkpoint, tmp_path / "tiny")
    Contract.of("contract", tokenizer, max_history=10).write(other)
    settings = other / "chat_template.jinja"
    settings.write_text(settings.read_text().replace("assistant", "helper"))
    with pytest.raises(ValueError, match="chat template is not that of.*differ from character"):
        run(tmp_path / "out", model=other, data=toy_data)


def test_test_rows_of_another_catalogue_are_refused(checkpoint, toy_data, tmp_path, toy):
    data = copied(toy_data, tmp_path / "data")
    asked = json.loads((data / "sft" / "test.json").read_text())
    asked[3]["output"] = "<a_0><b_9>"
    (data / "sft" / "test.json").write_text(json.dumps(asked))
    with pytest.raises(ValueError, match="row 3 answers '<a_0><b_9>'"):
        run(tmp_path / "out", model=checkpoint, data=data)


@pytest.mark.parametrize("flag", ["--batch_size=0", "--limit=-3", "--k=0", "--beams=0", "--seed=-1"])
def test_numbers_out_of_range_are_errors_of_the_command_line(flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(EvaluateConfig, argv=["--model", "m", "--output", "o", "--data", "d", flag])
    assert f"{flag.partition('=')[0]} is {flag.partition('=')[2]}; it must be at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("rows", "history", "1 2 3", "row 2: history must be a list of texts, found '1 2 3'"),
        ("rows", "history", [1, 2], "row 2: history[0] must be a text, found 1"),
        ("rows", "target", 5, "row 2: target must be a text, found 5"),
        ("rows", "row", "2", "row 2: row must be a whole number"),
        ("sft", "output", None, "row 2: output must be a text, found None"),
        ("sft", "input", 5, "row 2: input must be a text"),
        ("sft", "system", ["a"], "row 2: system must be a text"),
    ],
)
def test_a_value_of_another_kind_in_a_row_is_named(checkpoint, toy_data, tmp_path, name, key, value, message):
    data = copied(toy_data, tmp_path / "data")
    rows = json.loads((data / name / "test.json").read_text())
    rows[2][key] = value
    (data / name / "test.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=rf"{name}/test.json, {re.escape(message)}"):
        run(tmp_path / "out", model=checkpoint, data=data)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "must hold at least one row"), ("{", "is not JSON"), ('[{"input": "x"}]', "row 0: output is missing")],
)
def test_a_bad_test_file_is_named(checkpoint, toy_data, tmp_path, content, message):
    data = copied(toy_data, tmp_path / "data")
    (data / "sft" / "test.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", model=checkpoint, data=data)


def test_rows_and_questions_of_different_length_are_refused(checkpoint, toy_data, tmp_path):
    data = copied(toy_data, tmp_path / "data")
    known = json.loads((data / "rows" / "test.json").read_text())
    (data / "rows" / "test.json").write_text(json.dumps(known[:-1]))
    with pytest.raises(ValueError, match="8 rows and .* 7"):
        run(tmp_path / "out", model=checkpoint, data=data)


def test_missing_folders_are_named(checkpoint, toy_data, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tmp_path / "out", model=tmp_path / "nowhere", data=toy_data)
    with pytest.raises(FileNotFoundError, match="id2sid.json is missing"):
        run(tmp_path / "out", model=checkpoint, data=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 8}, "beams 7 cannot rank --k 8"),
        ({"limit": -3}, "limit is -3; it must be at least 1"),
        ({"test_file": "x", "index": "y"}, "either --data"),
        ({"data": None}, "either --data"),
        ({"index": "y"}, "--index y belongs to --test_file"),
        ({"data": None, "test_file": "x", "index": "y", "exclude_seen": True}, "exclude_seen"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(checkpoint, toy_data, tmp_path, fields, message):
    fields = {"data": toy_data, **fields}
    with pytest.raises(ValueError, match=message):
        run(tmp_path, model=checkpoint, **fields)


def test_a_prompt_longer_than_the_model_takes_is_refused_not_cut(checkpoint, toy_data, tmp_path):
    other = copied(checkpoint, tmp_path / "tiny")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    with pytest.raises(ValueError, match="more than the 36 allowed"):
        run(tmp_path / "out", model=other, data=toy_data)


def test_memory_that_runs_out_names_the_batch_size_and_lowers_nothing(checkpoint, toy_data, tmp_path, monkeypatch):
    widths = []

    def full(model, trie, prompts, beams, *rest, **options):
        widths.append(beams)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mimigenrec.evaluation.predict.search_sids", full)
    with pytest.raises(ValueError, match="run again with --batch_size 4"):
        run(tmp_path / "out", model=checkpoint, data=toy_data)
    assert widths == [7]


def test_a_search_that_leaves_the_catalogue_fails_the_run(checkpoint, toy_data, tmp_path, monkeypatch, tokenizer):
    ids = tuple(tokenizer.convert_tokens_to_ids(["<a_2>", "<b_2>"]))
    monkeypatch.setattr("mimigenrec.evaluation.predict.search_sids", lambda *a, **k: [[(ids, -1.0)]] * len(a[2]))
    with pytest.raises(ValueError, match="8 ranked SIDs are not in the catalogue"):
        run(tmp_path / "out", model=checkpoint, data=toy_data)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_the_models_own_generation_settings_change_nothing(plain, checkpoint, toy_data, tmp_path):
    other = copied(checkpoint, tmp_path / "tiny")
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 2, "repetition_penalty": 1.5}
    (other / "generation_config.json").write_text(json.dumps(settings))
    assert run(tmp_path / "out", model=other, data=toy_data).rows == plain.rows
