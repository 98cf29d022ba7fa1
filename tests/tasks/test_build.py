import json
import shutil
import subprocess
import sys

import pytest

from mimigenrec.cli import parse
from mimigenrec.contract import Contract, read_contract
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History, read_inter
from mimigenrec.sids.tokens import read_index, split_sid, write_index
from mimigenrec.tasks.build import BuildConfig, main
from mimigenrec.tasks.rows import read_sft_rows, to_chat_row
from tests.conftest import ROOT, shared, write_histories

LISTED = [
    "id2sid.json",
    "items.json",
    "manifest.json",
    "new_tokens.json",
    "prompt_contract.json",
    "rl/test.json",
    "rl/train.json",
    "rl/valid.json",
    "rows/test.json",
    "rows/valid.json",
    "sft/test.json",
    "sft/train.json",
    "sft/valid.json",
]


def build(raw, out, **options):
    main(BuildConfig(raw=raw, category="toy", output_dir=out, **options))
    return out


def load(folder, name):
    return json.loads((folder / name).read_text())


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(raw_toy, tmp_path_factory):
    return build(raw_toy, tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def raw(raw_toy, tmp_path):
    """A copy of the raw toy category that a test may spoil."""
    shutil.copytree(raw_toy / "toy", tmp_path / "raw" / "toy")
    return tmp_path / "raw"


def test_everything_that_is_promised_is_written_and_registered(built, toy):
    assert sorted(contents(built)) == LISTED
    assert read_index(built / "id2sid.json") == toy.sids
    assert load(built, "new_tokens.json") == sorted({token for sid in toy.sids.values() for token in sid})
    assert read_contract(built) == Contract.of("contract", max_history=10)
    info = load(built.parent, "dataset_info.json")
    assert info["toy_train"]["file_name"] == "toy/sft/train.json"
    assert {"toy_train", "toy_valid", "toy_test"} == set(info)


def test_all_levels_of_a_sid_are_kept(built, toy):  # the original kept three, while its trie asked for all
    index = load(built, "id2sid.json")
    for row, sample in zip(load(built, "rows/test.json"), load(built, "sft/test.json"), strict=True):
        assert sample["output"] == "".join(index[row["target"]])
        assert sample["input"] == "".join("".join(index[item]) for item in row["history"])


def test_rows_name_user_row_history_and_target_beside_the_sft_rows(built, raw_toy):
    for split in ("valid", "test"):
        rows = load(built, f"rows/{split}.json")
        histories = list(read_inter(raw_toy / "toy" / f"toy.{split}.inter"))
        assert [(r["row"], r["user"], tuple(r["history"]), r["target"]) for r in rows] == histories
        assert len(load(built, f"sft/{split}.json")) == len(load(built, f"rl/{split}.json")) == len(rows)


def test_popularity_is_how_often_an_item_is_a_target_in_train(built, raw_toy):
    targets = [history.target for history in read_inter(raw_toy / "toy" / "toy.train.inter")]
    assert {item: known["popularity"] for item, known in load(built, "items.json").items()} == {
        item: targets.count(item) for item in load(built, "id2sid.json")
    }


def test_tasks_are_counted_and_valid_and_test_hold_task1_alone(built):
    counts = load(built, "manifest.json")["counts"]
    assert counts["rows"]["train"]["rows"] == counts["rows"]["train"]["usable"] == 24
    # 7 of 8 items have a title, all different
    assert counts["samples"]["sft/train.json"]["task2_sid_item_feat"] == 14
    assert counts["samples"]["rl/train.json"]["task5_title_desc2sid"] == 14
    assert counts["samples"]["sft/test.json"] == counts["samples"]["rl/test.json"] == {"task1_sid_sft": 8}
    for file, by_task in counts["samples"].items():
        assert len(load(built, file)) == sum(by_task.values())
    assert counts["texts"]["title_empty"] == counts["texts"]["description_empty"] == 1


def test_rl_rows_hold_what_trl_and_the_rewards_read(built):
    rows = load(built, "rl/train.json")
    sft = load(built, "sft/train.json")
    for task, ability in (
        ("task1_sid_sft", "seq_rec"),
        ("task4_hisTitle2sid", "seq_title2sid"),
        ("task5_title_desc2sid", "title_desc2sid"),
    ):
        of_task = [row for row in rows if row["extra_info"]["task"] == task]
        assert of_task and {row["ability"] for row in of_task} == {ability}
        assert {row["data_source"] for row in of_task} == {"toy"}
        assert [message["role"] for message in of_task[0]["prompt"]] == ["system", "user"]
    asked = {(row["instruction"] + "\n" + row["input"], row["output"]) for row in sft}
    of_task1 = [row for row in rows if row["extra_info"]["task"] == "task1_sid_sft"]
    assert {(row["prompt"][1]["content"], row["reward_model"]["ground_truth"]) for row in of_task1} <= asked
    assert sorted(row["extra_info"]["index"] for row in of_task1) == list(range(24))
    item_rows = [row["extra_info"]["index"] for row in rows if row["extra_info"]["task"] == "task5_title_desc2sid"]
    assert sorted(item_rows) == list(range(14))


def test_rows_as_chats_are_the_same_rows_in_the_same_order(raw_toy, built, tmp_path, tokenizer, capsys):
    chats = build(raw_toy, tmp_path / "toy", row_format="messages")
    for split in ("train", "valid", "test"):
        rows = read_sft_rows(built / "sft" / f"{split}.json")
        assert read_sft_rows(chats / "sft" / f"{split}.json", "messages") == [to_chat_row(row) for row in rows]
    others = [name for name in LISTED if not name.startswith("sft/") and name != "manifest.json"]
    assert {name: contents(chats)[name] for name in others} == {name: contents(built)[name] for name in others}
    entry = load(tmp_path, "dataset_info.json")["toy_train"]
    assert entry["formatting"] == "sharegpt" and entry["columns"] == {"messages": "messages"}
    before = contents(tmp_path)
    build(raw_toy, chats, row_format="messages")
    assert "is finished: nothing to do" in capsys.readouterr().out and contents(tmp_path) == before
    with pytest.raises(UserError, match="row_format: messages then, nothing now"):
        build(raw_toy, chats)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    measured = {"tokenizer": str(tmp_path / "tokenizer"), "overwrite": True}
    compared = build(raw_toy, tmp_path / "compared", row_format="messages", **measured)
    assert load(compared, "manifest.json")["rendering"] == "as LLaMA-Factory's"


def test_the_same_seed_gives_the_same_bytes_and_another_another_order(raw_toy, built, tmp_path):
    again = contents(build(raw_toy, tmp_path / "again" / "toy"))
    other = contents(build(raw_toy, tmp_path / "other" / "toy", seed=1))
    first = contents(built)
    for file in set(LISTED) - {"manifest.json"}:  # it names the folder
        assert again[file] == first[file]
        assert (other[file] == first[file]) != file.endswith("train.json")


def test_train_valid_and_test_are_asked_in_the_same_words(built):  # the original's test rows were not
    words = {}
    for split in ("train", "valid", "test"):
        rows = [row for row in load(built, f"sft/{split}.json") if row["input"] == "".join(split_sid(row["input"]))]
        words[split] = {(row["system"], row["instruction"]) for row in rows if row["output"].startswith("<")}
    assert words["train"] == words["valid"] == words["test"] and len(words["test"]) == 1


def test_classic_rows_by_hand(raw_toy, tmp_path):
    out = build(raw_toy, tmp_path / "toy", wording="classic", tasks=["task1_sid_sft"])
    sids = {item: "".join(sid) for item, sid in load(out, "id2sid.json").items()}
    row, sample, rl = (load(out, name)[1] for name in ("rows/valid.json", "sft/valid.json", "rl/valid.json"))
    history = ", ".join(sids[item] for item in row["history"])
    asked = "Can you predict the next possible item that the user may expect?"
    assert len(row["history"]) > 1 and sample == {
        "system": "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.",
        "instruction": asked,
        "input": f"The user has interacted with items {history} in chronological order. {asked}",
        "output": sids[row["target"]],
    }
    assert rl["prompt"] == [
        {"role": "system", "content": sample["system"]},
        {"role": "user", "content": sample["input"]},
    ]
    row, sample = (load(out, name)[1] for name in ("rows/test.json", "sft/test.json"))
    history = ", ".join(sids[item] for item in row["history"])
    assert sample["input"] == (
        "Can you predict the next possible item the user may expect, given the following chronological interaction "
        f"history: {history}"
    )


def test_test_rows_that_cannot_be_answered_stay_and_others_go(raw, tmp_path):
    folder = raw / "toy"
    sids = read_index(folder / "toy.index.json")
    for item in ("1", "4"):
        sids.pop(item)
    write_index(folder / "toy.index.json", sids)
    out = build(raw, tmp_path / "toy")
    rows, sft = load(out, "rows/test.json"), load(out, "sft/test.json")
    assert len(rows) == len(sft) == 8
    assert [row["output"] == "" for row in sft] == [row["target"] in ("1", "4") for row in rows]
    assert [row["input"] == "" for row in sft] == [set(row["history"]) <= {"1", "4"} for row in rows]
    assert "" in [row["output"] for row in sft] and "" in [row["input"] for row in sft]
    for split in ("train", "valid"):
        counts = load(out, "manifest.json")["counts"]["rows"][split]
        dropped = counts["target_without_sid"] + counts["history_without_sid"]
        assert counts["usable"] == counts["rows"] - dropped
        assert load(out, "manifest.json")["counts"]["samples"][f"rl/{split}.json"]["task1_sid_sft"] == counts["usable"]
    assert dropped and all(row["output"] and row["input"] for row in load(out, "sft/valid.json"))
    assert [row["row"] for row in load(out, "rows/valid.json")] != list(range(len(load(out, "rows/valid.json"))))


def test_options_cut_histories_texts_tasks_and_samples(raw_toy, tmp_path):
    out = build(
        raw_toy,
        tmp_path / "toy",
        max_history=1,
        max_text_chars=8,
        seq_sample=5,
        data_source="mine",
        tasks=["task1_sid_sft", "task4_hisTitle2sid"],
    )
    counts = load(out, "manifest.json")["counts"]
    assert counts["samples"]["sft/train.json"] == {"task1_sid_sft": 24}
    assert counts["samples"]["rl/train.json"] == {"task1_sid_sft": 24, "task4_hisTitle2sid": 5}
    assert counts["texts"]["title_cut"] == 7
    assert {known["title"] for known in load(out, "items.json").values()} == {"thing", ""}
    rl = load(out, "rl/train.json")
    assert {row["data_source"] for row in rl} == {"mine"}
    titles = [r["prompt"][1]["content"] for r in rl if r["extra_info"]["task"] == "task4_hisTitle2sid"]
    assert {text.split("\n")[-1] for text in titles} == {"thing"}
    index = load(out, "id2sid.json")
    for row, sample in zip(load(out, "rows/test.json"), load(out, "sft/test.json"), strict=True):
        assert sample["input"] == "".join(index[row["history"][-1]])


def test_without_a_limit_every_title_history_is_trained_on(raw_toy, built, tmp_path):
    out = build(raw_toy, tmp_path / "toy", seq_sample=-1)  # as MIMIGenRec writes "all"
    assert (out / "rl/train.json").read_bytes() == (built / "rl/train.json").read_bytes()  # 10,000 are more than all
    few = build(raw_toy, tmp_path / "few" / "toy", seq_sample=3)
    assert load(few, "manifest.json")["counts"]["samples"]["rl/train.json"]["task4_hisTitle2sid"] == 3


def sequences_raw(raw):
    """The raw toy with leave-one-out train rows: u0 has items 0 .. 7 one after another, u1 has 5, 6 and 7."""
    rows = [History(n, "u0", tuple(map(str, range(n + 1))), str(n + 1)) for n in range(7)]
    write_histories(
        raw / "toy" / "toy.train.inter", [*rows, History(7, "u1", ("5",), "6"), History(8, "u1", ("5", "6"), "7")]
    )
    return raw


def test_longest_rows_of_sft_are_the_fewest_that_hold_every_item(raw, tmp_path):
    raw = sequences_raw(raw)
    every, fewest = (build(raw, tmp_path / rows / "toy", max_history=3, sft_rows=rows) for rows in ("all", "longest"))
    sids = {item: "".join(sid) for item, sid in load(fewest, "id2sid.json").items()}
    by_hand = [("456", "7"), ("123", "4"), ("0", "1"), ("56", "7")]  # items of a history, target
    wanted = {("".join(sids[item] for item in history), sids[target]) for history, target in by_hand}
    asked = Contract.of("contract").ask("sid_history", sids="")[0]
    kept, whole = (
        [row for row in load(folder, "sft/train.json") if row["instruction"] == asked] for folder in (fewest, every)
    )
    assert {(row["input"], row["output"]) for row in kept} == wanted and len(kept) == 4 and len(whole) == 9
    counts = [load(folder, "manifest.json")["counts"]["samples"]["sft/train.json"] for folder in (every, fewest)]
    assert counts[0] == counts[1] | {"task1_sid_sft": 9} and counts[1]["task1_sid_sft"] == 4


def test_longest_rows_change_sft_training_alone(raw, tmp_path):
    raw = sequences_raw(raw)
    every, fewest = (contents(build(raw, tmp_path / rows / "toy", sft_rows=rows)) for rows in ("all", "longest"))
    assert {name for name in every if every[name] != fewest[name]} == {"sft/train.json", "manifest.json"}


def test_longest_rows_of_compact_wording_are_sids_alone(raw, tmp_path):
    out = build(sequences_raw(raw), tmp_path / "toy", wording="compact", sft_rows="longest", tasks=["task1_sid_sft"])
    index = load(out, "id2sid.json")
    told = {row["input"] + row["output"] for row in load(out, "sft/train.json")}
    assert told == {"".join("".join(index[item]) for item in items) for items in ("01234567", "567")}
    for row in load(out, "rl/train.json"):
        assert [message["role"] for message in row["prompt"]] == ["user"]


def test_a_sequence_with_an_item_without_sid_is_taught_on_both_sides_of_it(raw, tmp_path):
    sids = read_index(raw / "toy" / "toy.index.json")
    del sids["3"]
    write_index(raw / "toy" / "toy.index.json", sids)
    out = build(sequences_raw(raw), tmp_path / "toy", max_history=2, sft_rows="longest", tasks=["task1_sid_sft"])
    written = [split_sid(row["input"] + row["output"]) for row in load(out, "sft/train.json")]
    pairs = {"".join(sids[a] + sids[b]) for a, b in ("01", "12", "24", "45", "56", "67")}
    assert all(any(pair in "".join(row) for row in written) for pair in pairs)


def test_raw_files_may_lie_in_data_dir_itself(raw_toy, built, tmp_path):
    out = build(raw_toy / "toy", tmp_path / "toy")
    assert (out / "sft/train.json").read_bytes() == (built / "sft/train.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["task9"]}, "'task9' is not a task; choose from task1_sid_sft"),
        ({"max_history": 0}, "--max_history is 0"),
        ({"max_text_chars": 0}, "--max_text_chars is 0"),
        ({"seq_sample": -2}, "--seq_sample is -2"),
        ({"template": "qwen"}, "--template needs --tokenizer"),
        ({"wording": "modern"}, "choose one of contract, compact, classic"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(raw_toy, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(raw_toy, tmp_path / "toy", **options)
    assert not (tmp_path / "toy").exists()


def test_missing_files_are_all_named(raw, tmp_path):
    (raw / "toy" / "toy.item.json").unlink()
    (raw / "toy" / "toy.valid.inter").unlink()
    with pytest.raises(FileNotFoundError, match="lacks toy.valid.inter, toy.item.json"):
        build(raw, tmp_path / "toy")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; it must hold toy/toy.train.inter"):
        build(tmp_path / "nowhere", tmp_path / "toy")


@pytest.mark.parametrize("text", ["tape <a_0>", "tape <|im_end|>"])
def test_a_text_that_would_be_read_as_tokens_is_refused(raw, tmp_path, tokenizer, text):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (raw / "toy" / "toy.item.json").write_text(json.dumps({"3": {"title": text}}))
    with pytest.raises(ValueError, match=r"toy.item.json: the title of item '3' holds '<.*'"):
        build(raw, tmp_path / "toy", tokenizer=str(tmp_path / "tokenizer"))


def test_a_run_that_fails_leaves_no_manifest(raw, tmp_path):
    out = build(raw, tmp_path / "toy")
    train = raw / "toy" / "toy.train.inter"
    rows = list(read_inter(train))
    (out / "sft" / "train.json").unlink()
    (out / "sft" / "train.json").mkdir()  # cannot be written
    write_histories(train, rows[:10])
    with pytest.raises(OSError):
        build(raw, out, overwrite=True)
    assert not (out / "manifest.json").exists()


def test_with_a_tokenizer_rows_are_measured_and_compared(raw_toy, tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    out = build(raw_toy, tmp_path / "toy", tokenizer=str(tmp_path / "tokenizer"))
    manifest = load(out, "manifest.json")
    assert manifest["rendering"] == "as LLaMA-Factory's"
    assert read_contract(out).chat_template == tokenizer.chat_template
    longest = max(
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True))
        for row in load(out, "rl/train.json")
    )
    assert manifest["longest_tokens"]["rl/train.json"]["prompt"] == longest
    test = manifest["longest_tokens"]["sft/test.json"]
    assert test["prompt"] < test["prompt_and_answer"] <= test["prompt"] + 3 + 2  # SID, EOS, line feed


def test_the_script_and_the_command_do_the_same(raw_toy, tmp_path, built):
    argv = ["--data_dir", str(raw_toy), "--category", "toy", "--output_dir", str(tmp_path / "toy")]
    run = subprocess.run(
        [sys.executable, str(ROOT / "preprocess_data_sft_rl.py"), *argv], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "train: 24 rows, 24 usable" in run.stdout
    assert (tmp_path / "toy/rl/train.json").read_bytes() == (built / "rl/train.json").read_bytes()


def test_the_real_catalogue_gives_the_published_counts(tmp_path):
    raw = shared("data", "amazon18-industrial-active")
    name = "Industrial_and_Scientific"
    main(BuildConfig(raw=raw, category=name, output_dir=tmp_path / name))
    out = tmp_path / name
    counts = load(out, "manifest.json")["counts"]
    assert [counts["rows"][split]["rows"] for split in ("train", "valid", "test")] == [13471, 1684, 1684]
    assert [counts["rows"][split]["usable"] for split in ("train", "valid", "test")] == [13471, 1684, 1684]
    assert len(load(out, "new_tokens.json")) == 560
    sids = read_index(out / "id2sid.json")
    owners = {sid: [item for item in sids if sids[item] == sid] for sid in set(sids.values())}
    assert len(sids) == 3686 and len(owners) == 3670
    assert sum(len(items) for items in owners.values() if len(items) > 1) == 31
    assert max(map(len, owners.values())) == 3
    assert counts["texts"]["description_empty"] == 232  # 229 empty, 3 a list of nothing
    assert counts["texts"]["title_shared"] == 55
    assert counts["texts"]["description_list_not_literal"] == 16
    assert counts["samples"]["rl/train.json"]["task4_hisTitle2sid"] == 10_000
    test = load(out, "sft/test.json")
    assert test[0]["output"] == "".join(sids["3106"]) and test[0]["input"] == "".join(sids["975"])


def test_items_carry_brand_categories_and_the_columns_that_are_named(raw, tmp_path):
    file = raw / "toy" / "toy.item.json"
    bare = load(build(raw, tmp_path / "bare" / "toy"), "items.json")
    more = {"brand": "Acme", "categories": "Tools, Lamps", "price": 3.5, "colour": "red"}
    texts = json.loads(file.read_text())
    file.write_text(json.dumps(texts | {"0": texts["0"] | more}))
    out = build(raw, tmp_path / "data" / "toy", item_fields=["price"])
    wanted = {"brand": "Acme", "categories": ["Tools", "Lamps"], "price": 3.5}
    assert load(out, "items.json") == bare | {"0": bare["0"] | wanted}
    for column, message in (
        ("prise", "no item of .*toy.item.json has it; it has .*colour.*price"),
        ("popularity", ""),
    ):
        with pytest.raises(UserError, match=f"--item_fields {column}: {message}"):
            build(raw, tmp_path / "more" / "toy", item_fields=[column])
    assert not (tmp_path / "more" / "toy").exists()


def test_rows_that_are_finished_are_left_alone_and_others_are_replaced_if_asked(raw, tmp_path, capsys):
    out = build(raw, tmp_path / "data" / "toy")
    before, stamp = contents(out), (out / "sft" / "train.json").stat().st_mtime_ns
    (tmp_path / "data" / "dataset_info.json").unlink()
    build(raw, out)
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert contents(out) == before and (out / "sft" / "train.json").stat().st_mtime_ns == stamp
    assert "toy_train" in load(tmp_path / "data", "dataset_info.json")
    with pytest.raises(UserError, match="wording: contract then, compact now.*--overwrite"):
        build(raw, out, wording="compact")
    (raw / "toy" / "toy.train.inter").write_text((raw / "toy" / "toy.train.inter").read_text() + "u9\t0\t1\n")
    with pytest.raises(UserError, match="toy.train.inter: .* then"):
        build(raw, out)
    assert contents(out) == before
    assert load(build(raw, out, wording="compact", overwrite=True), "prompt_contract.json")["wording"] == "compact"


def test_raw_has_an_older_name_as_flag_and_in_folders_that_are_finished(raw, tmp_path, capsys):
    flags = ["--category", "toy", "--output_dir", str(tmp_path / "data" / "toy")]
    (config,), (older,) = (parse(BuildConfig, argv=[name, str(raw), *flags]) for name in ("--raw", "--data_dir"))
    assert config == older and config.raw == raw
    main(config)
    manifest = tmp_path / "data" / "toy" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"raw":', '"data_dir":'))
    main(config)
    assert "is finished: nothing to do" in capsys.readouterr().out


def test_a_killed_run_is_begun_again(raw, tmp_path, monkeypatch):
    out = tmp_path / "data" / "toy"
    monkeypatch.setattr("mimigenrec.tasks.build.finish_folder", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(raw, out)
    monkeypatch.undo()
    assert not (out / "manifest.json").exists()
    assert sorted(contents(build(raw, out, wording="compact"))) == LISTED


def test_a_folder_of_something_else_is_refused_before_anything_is_written(raw, tmp_path):
    out = tmp_path / "data" / "toy"
    out.mkdir(parents=True)
    (out / "model.safetensors").write_text("weeks")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds something that preprocess did not write"):
            build(raw, out, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and "raw" not in path.parts] == [
        "model.safetensors"
    ]


def test_a_second_folder_of_a_category_does_not_take_its_names(raw, tmp_path):
    first = build(raw, tmp_path / "data" / "toy")
    with pytest.raises(UserError, match="'toy_train' is the name of .*data/toy/sft/train.json"):
        build(raw, tmp_path / "data" / "ablation", tasks=["task1_sid_sft"])
    assert not (tmp_path / "data" / "ablation").exists()
    assert load(first.parent, "dataset_info.json")["toy_train"]["file_name"] == "toy/sft/train.json"
    build(raw, tmp_path / "data" / "ablation", tasks=["task1_sid_sft"], overwrite=True)
    assert load(first.parent, "dataset_info.json")["toy_train"]["file_name"] == "ablation/sft/train.json"


def test_a_special_token_of_chat_models_is_no_sid_and_no_word_of_a_text(raw, tmp_path):
    index = json.loads((raw / "toy" / "toy.index.json").read_text())
    texts = json.loads((raw / "toy" / "toy.item.json").read_text())
    (raw / "toy" / "toy.index.json").write_text(json.dumps({**index, "0": ["<|im_end|>", "<b_0>"]}))
    with pytest.raises(UserError, match=r"toy.index.json: item '0' has <\|im_end\|> in its SID"):
        build(raw, tmp_path / "data" / "toy")
    (raw / "toy" / "toy.index.json").write_text(json.dumps(index))
    texts["1"]["title"] = "the end <|im_end|> of it"
    (raw / "toy" / "toy.item.json").write_text(json.dumps(texts))
    with pytest.raises(UserError, match="the title of item '1' holds"):
        build(raw, tmp_path / "data" / "toy")


def test_a_tokenizer_that_is_no_folder_is_not_asked_for_on_the_hub(raw, tmp_path):
    with pytest.raises(UserError, match="--tokenizer './nothing' is not a folder here"):
        build(raw, tmp_path / "data" / "toy", tokenizer="./nothing")


def test_a_folder_whose_catalogue_was_changed_is_not_finished(raw_toy, tmp_path):
    out = build(raw_toy, tmp_path / "toy")
    sids = read_index(out / "id2sid.json")
    write_index(out / "id2sid.json", dict(list(sids.items())[1:]))
    with pytest.raises(UserError, match="id2sid.json is not .*index.json any more .sid-assign changes it"):
        build(raw_toy, out)
    build(raw_toy, out, overwrite=True)
    assert read_index(out / "id2sid.json") == sids
