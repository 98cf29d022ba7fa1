import logging
import math
from types import SimpleNamespace

import pytest
import torch

from mimigenrec.chat import prompt_ids
from mimigenrec.decoding.search import search_sids
from mimigenrec.evaluation.quick import constrained_metrics
from mimigenrec.rewarding import answer_chats, load_rewards

RULE = ["ranking_reward.rule_reward", "ranking_reward.ndcg_rule_reward"]


def rule():
    return load_rewards(RULE)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def test_a_group_is_one_search_and_rewards_are_told_its_ranks(make_trainer, tiny_model, tokenizer):
    seen = []

    def spy(completions, prompts, group_index, rank_in_group, ability, extra_info, **columns):
        assert set(ability) == {"seq_rec"} and all("index" in row for row in extra_info)
        seen.append(([chat[0]["content"] for chat in completions], prompts, group_index, rank_in_group))
        return [0.0] * len(completions)

    trainer = make_trainer([spy], max_steps=1)
    trainer.train()
    texts, prompts, group_index, rank_in_group = seen[0]
    assert group_index == [0] * 4 + [1] * 4 and rank_in_group == [0, 1, 2, 3] * 2
    found = search_sids(tiny_model, trainer.trie, prompt_ids(tokenizer, prompts[::4]), 4)
    assert texts == [tokenizer.decode(sid) for ranked in found for sid, _ in ranked]


def test_a_prompt_of_several_turns_is_asked_whole(make_trainer, tiny_model, tokenizer):
    turns = [("system", "S"), ("user", "Hello?"), ("assistant", "Say what you had."), ("user", "<a_0><b_0><c_1>")]
    prompt = [{"role": role, "content": text} for role, text in turns]
    seen = []

    def spy(completions, prompts, **columns):
        seen.append((prompts, [chat[0]["content"] for chat in completions]))
        return [0.0, 1.0] * (len(completions) // 2)

    rows = [{"prompt": prompt, "reward_model": {"ground_truth": "<a_1><b_2>"}}] * 4
    trainer = make_trainer([spy], max_steps=1, rows=rows)
    trainer.train()
    [found] = search_sids(tiny_model, trainer.trie, prompt_ids(tokenizer, [prompt]), 4)
    assert seen[0] == ([prompt] * 8, [tokenizer.decode(sid) for sid, _ in found] * 2)


def test_rows_that_are_not_in_groups_are_refused_before_anything_is_rolled_out(make_trainer):
    trainer = make_trainer(rule())
    rows = [trainer.train_dataset[i] for i in range(8)]
    with pytest.raises(ValueError, match="row 1 of the batch of one process is not of its group"):
        trainer._generate_and_score_completions(rows)


def test_groups_of_one_prompt_or_one_target_are_still_scored_apart(make_trainer):
    """Texts are no keys: the same question may come with another answer, the same answer in the next group."""
    trainer = make_trainer(load_rewards(["ranking_reward.rule_reward", "ranking_reward.ndcg_reward"]))
    a, b = "<a_1><b_2>", "<a_2><b_1><c_3>"
    prompt = [{"role": "user", "content": "?"}]
    targets = [a, b, b]
    inputs = [{"prompt": prompt, "reward_model": {"ground_truth": target}} for target in targets for _ in range(4)]
    beams = [a, b, a, a]
    chats = [[{"role": "assistant", "content": text}] for text in beams * 3]
    scores = trainer._calculate_rewards(inputs, [prompt] * 12, chats, [[0]] * 12)
    assert scores[:, 0].tolist() == [1, 0, 1, 1] + [0, 1, 0, 0] * 2
    assert scores[4:8, 1].tolist() == scores[8:, 1].tolist() == pytest.approx([0, 1 / math.log2(3), 0, 0])


def test_beside_a_reward_model_a_function_is_called_with_the_same_columns(make_trainer, tokenizer):
    """A reward model makes the trainer call rewards in TRL's own code, which is where the convention comes from."""
    seen = []

    def spy(**columns):
        seen.append(columns)
        return [float(rank) for rank in columns["rank_in_group"]]

    class OneForAll(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=torch.ones(len(input_ids), 1))

    trainer = make_trainer([spy])
    row = {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "<a_1><b_2>"}, "user": 3}
    call = [row] * 8, [row["prompt"]] * 8, answer_chats(["<a_1><b_2>"] * 8), [[0]] * 8
    alone = trainer._calculate_rewards(*call)
    trainer.reward_funcs.append(OneForAll())
    trainer.reward_processing_classes.append(tokenizer)
    trainer.reward_func_names.append("one")
    trainer.reward_weights = torch.ones(2)
    beside = trainer._calculate_rewards(*call)
    assert seen[0] == seen[1] and seen[0]["group_index"] == [0] * 4 + [1] * 4
    assert alone.tolist() == beside[:, :1].tolist() and beside[:, 1].tolist() == [1.0] * 8


def test_without_kl_no_second_model_is_loaded(make_trainer):
    assert make_trainer(rule(), beta=0.0).ref_model is None
    assert make_trainer(rule(), beta=0.1).ref_model is not None


@pytest.mark.parametrize("rollout", ["sample", "distinct", "mixed"])
def test_other_rollouts_train(make_trainer, rollout):
    trainer = make_trainer(rule(), rollout=rollout)
    trainer.train()
    assert all(map(math.isfinite, losses(trainer)))


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "grpo", "beta": 0.0},
        {"loss_type": "bnpo", "epsilon_high": 0.3},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"scale_rewards": "batch", "importance_sampling_level": "sequence"},
        {"num_iterations": 2, "max_steps": 4},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"steps_per_generation": 2, "per_device_train_batch_size": 4},
        {"reward_weights": [1.0, 0.5], "gradient_checkpointing": True},
        {"top_entropy_quantile": 0.5, "mask_truncated_completions": True},
        {"sync_ref_model": True, "ref_model_sync_steps": 1},
        {"bf16": True, "eval_strategy": "steps", "eval_steps": 1},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_trls_options_stay_usable(make_trainer, options, support):
    trainer = make_trainer(rule(), support=support, **options)
    before = weights(trainer)
    trainer.train()
    assert all(map(math.isfinite, losses(trainer)))
    assert any(not torch.equal(before[name], value) for name, value in weights(trainer).items())


def test_lora_trains_the_adapter_alone(make_trainer):
    from peft import LoraConfig

    trainer = make_trainer(rule(), peft_config=LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = weights(trainer)
    trainer.train()
    changed = {name for name, value in weights(trainer).items() if not torch.equal(before[name], value)}
    assert changed and all("lora" in name for name in changed)


def rows_of(trainer, tokenizer, toy):
    """A prompt with every SID of the catalogue behind it: prompt, SIDs, padded ids, attention mask, tokens to keep."""
    distinct = dict.fromkeys(toy.sids.values())
    sids = [[*tokenizer.convert_tokens_to_ids(list(sid)), tokenizer.eos_token_id] for sid in distinct]
    [prompt] = prompt_ids(tokenizer, [[{"role": "user", "content": "<a_0><b_1><c_0>"}]])
    keep = max(map(len, sids))
    padded = [prompt + sid + [tokenizer.pad_token_id] * (keep - len(sid)) for sid in sids]
    mask = [[1] * (len(prompt) + len(sid)) + [0] * (keep - len(sid)) for sid in sids]
    return prompt, sids, torch.tensor(padded), torch.tensor(mask), keep


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_inside_the_trie_the_catalogue_sums_to_one(make_trainer, tokenizer, toy, temperature):
    trainer = make_trainer(rule(), support="trie", temperature=temperature)
    _, sids, ids, mask, keep = rows_of(trainer, tokenizer, toy)
    logps, entropies = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, compute_entropy=True)
    assert torch.isfinite(logps).all() and torch.isfinite(entropies).all()
    total = sum(math.exp(logps[i, : len(sid)].sum().item()) for i, sid in enumerate(sids))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_certain_token_has_no_loss_and_no_gradient_inside_the_trie(make_trainer, tokenizer, toy):
    trainer = make_trainer(rule(), support="trie")
    _, sids, ids, mask, keep = rows_of(trainer, tokenizer, toy)
    logps, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)
    last = sids.index([*tokenizer.convert_tokens_to_ids(["<a_2>", "<b_1>", "<c_3>"]), tokenizer.eos_token_id])
    assert logps[last, 1:].tolist() == [0, 0, 0]  # behind <a_2> there is one way
    logps[last, 1:].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())


def test_supports_agree_with_the_search(make_trainer, tiny_model, tokenizer, toy):
    for support in ("vocab", "trie"):
        trainer = make_trainer(rule(), support=support)
        prompt, sids, ids, mask, keep = rows_of(trainer, tokenizer, toy)
        logps, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)
        [ranked] = search_sids(tiny_model, trainer.trie, [prompt], 7, support)
        ours = {tuple(sid[:-1]): logps[i, : len(sid)].sum().item() for i, sid in enumerate(sids)}
        assert ours == pytest.approx(dict(ranked), abs=1e-4)


def test_groups_without_signal_are_counted(make_trainer):
    def first_group_only(completions, group_index, rank_in_group, **columns):
        return [float(group == 0 and rank == 0) for group, rank in zip(group_index, rank_in_group, strict=True)]

    trainer = make_trainer([first_group_only], max_steps=1)
    trainer.train()
    [entry] = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entry["groups_without_signal"] == 1 and entry["groups_without_signal_share"] == 0.5


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_training_raises_the_ndcg(make_trainer, support):
    trainer = make_trainer(
        load_rewards(["ranking_reward.rule_reward"]),
        support=support,
        num_generations=7,
        per_device_train_batch_size=42,
        max_steps=25,
        learning_rate=5e-3,
        eval_strategy="steps",
        eval_steps=25,
        beta=0.0,
    )
    trainer.train()
    first, last = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert first < 0.6 and last > first + 0.15


def test_evaluate_is_the_constrained_search_over_the_rows(make_trainer, tiny_model, tokenizer):
    trainer = make_trainer(rule())
    metrics = trainer.evaluate()
    rows = list(trainer.eval_dataset)
    prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows])
    targets = [row["reward_model"]["ground_truth"] for row in rows]
    expected = constrained_metrics(tiny_model, tokenizer, trainer.trie, prompts, targets)
    assert {key: metrics[f"eval_{key}"] for key in expected} == pytest.approx(expected)


def test_the_best_checkpoint_is_kept_by_ndcg(make_trainer):
    trainer = make_trainer(
        rule(),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_ndcg@10",
    )
    trainer.train()
    evals = {e["step"]: e["eval_ndcg@10"] for e in trainer.state.log_history if "eval_ndcg@10" in e and e["step"]}
    assert trainer.state.best_metric == max(evals.values())
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(evals.values()))


def test_hr_at_50_below_the_sft_checkpoints_is_warned_about(make_trainer, caplog):
    trainer = make_trainer(rule())
    trainer.state.log_history.append({"step": 0, "eval_hr@50": 1.5})
    with caplog.at_level(logging.WARNING):
        trainer.evaluate()
    assert "HR@50 1.0000 is below the SFT checkpoint's 1.5000" in caplog.text


def test_sampling_settings_that_draws_would_not_follow_stop_it_before_any_step(make_trainer):
    with pytest.raises(ValueError, match="top_p=0.9: rollout sample"):
        make_trainer(rule(), rollout="sample", top_p=0.9)


def test_ranks_that_mean_nothing_are_warned_about(make_trainer, caplog):
    make_trainer(rule(), rollout="sample")
    assert "rank_in_group tells ['ndcg_rule_reward'] nothing" in caplog.text


def test_a_broken_reward_stops_the_run_with_its_name_step_and_sample(make_trainer):
    def fickle(completions, trainer_state, **columns):
        return [1.0] * 5 + [math.nan if trainer_state.global_step else 1.0] * 3

    with pytest.raises(ValueError, match=r"'fickle' \(.*test_trainer.py, line \d+\) at step 1 gave nan for sample 5"):
        make_trainer([fickle]).train()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"per_device_train_batch_size": 6}, "multiple of num_generations=4, for example 8"),
        ({"num_generations": 8}, "num_generations=8 asks for 8 different SIDs.*catalogue has 7"),
        ({"max_completion_length": 3}, "cannot hold a SID of 3 levels and EOS; set it to 4"),
        ({"use_vllm": True}, "use_vllm: true would not be used"),
        ({"use_transformers_paged": True}, "use_transformers_paged: true would not be used"),
        ({"generation_kwargs": {"num_beams": 4}}, "generation_kwargs=.* would not be used"),
        ({"use_liger_loss": True, "support": "trie"}, "set support: vocab"),
        ({"per_device_train_batch_size": 64}, "holds 16 prompts .* only 12 training rows"),
        ({"reward_weights": [1.0]}, "reward weights"),
        ({"max_prompt_length": 5, "rewards": rule}, "prompt 0 has .* tokens, more than the 5 allowed"),
        ({"save_strategy": "steps", "save_steps": 1, "num_iterations": 2}, "save_steps=1 would save inside"),
        (
            {"save_strategy": "best", "eval_steps": 3, "num_iterations": 2, "eval_strategy": "steps",
             "metric_for_best_model": "eval_ndcg@10"},
            "eval_steps=3 would save inside",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(make_trainer, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**{"rewards": rule()} | {k: v() if callable(v) else v for k, v in options.items()}).train()


def test_the_tries_eos_must_be_the_tokenizers(make_trainer, toy, tokenizer):
    tokenizer.eos_token, eos = "<|endoftext|>", tokenizer.eos_token
    try:
        from mimigenrec.decoding.trie import SidTrie

        trie = SidTrie.from_catalog(toy, tokenizer)
    finally:
        tokenizer.eos_token = eos
    trainer = make_trainer(rule())
    with pytest.raises(ValueError, match="EOS"):
        type(trainer)(
            trainer.model,
            rule(),
            trainer.args,
            trie=trie,
            processing_class=tokenizer,
            train_dataset=trainer.train_dataset,
        )
