"""Markdown tables of results."""

from mimigenrec.evaluation.table import summary


def metrics(hr, names=("hr@10", "ndcg@10")):
    return {"n_rows": 8, "item": {name: {"mean": hr, "low": hr - 0.1, "high": hr + 0.1} for name in names}}


def test_one_line_per_method_and_only_metrics_that_all_have():
    text = summary({"a": metrics(0.2), "b": metrics(0.4, ("hr@10", "hr@50"))})
    assert text.splitlines() == [
        "| method | HR@10 | rows |",
        "| --- | --- | --- |",
        "| a | 0.2000 [0.1000, 0.3000] | 8 |",
        "| b | 0.4000 [0.3000, 0.5000] | 8 |",
    ]


def test_a_known_optimum_is_a_line_and_a_share():
    text = summary({"a": metrics(0.2)}, best={"hr@10": 0.5, "rows": 8})
    assert "| best possible | 0.5000 |  |  |" in text
    assert "- a reaches 40.0 % of the best possible HR@10\n" in text
