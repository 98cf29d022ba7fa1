"""What cannot be meant is one message, and nothing but what a YAML says gets into a run."""

import pytest

from mimigenrec.cli import parse
from mimigenrec.errors import UsageError
from mimigenrec.sft.arguments import SftConfig, read_arguments
from mimigenrec.sft.checks import check_keys

GOOD = "model_name_or_path: base\noutput_dir: out\n"


@pytest.fixture
def read(tmp_path):
    def read(text, *words):
        (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_arguments([str(tmp_path / "x.yaml"), *words])

    return read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "seed: 1\nseed: 2\n", "x.yaml cannot be read as YAML: (.|\n)*duplicate key seed"),
        (GOOD + "run_name: ${oc.env:HOME}\n", r"run_name: '\$\{oc.env:HOME\}' would not be filled in"),
        (GOOD + "report_to: [none, '${seed}']\n", r"report_to.1: '\$\{seed\}' would not be filled in"),
        (GOOD + "run_name: ${\n", "x.yaml cannot be read as YAML"),
        (GOOD.encode() + b"run_name: caf\xe9\n", "x.yaml, line 3: not UTF-8"),
        (b"\x1f\x8b\x08\x00\xff", "x.yaml, line 1: not UTF-8 text, but gzip"),
        ("a: " + "[" * 3000 + "]" * 3000, "x.yaml cannot be read as YAML"),
        (GOOD + "3: 4\n", "x.yaml: the key 3 is no name"),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_named(read, text, told):
    with pytest.raises(UsageError, match=told):
        read(text)


@pytest.mark.parametrize("word", ["seed=[1", "a=1: 2: 3", "run_name=${"])
def test_an_override_that_is_no_yaml_is_named(read, word):
    with pytest.raises(UsageError, match="cannot be read as YAML values"):
        read(GOOD, word)
    with pytest.raises(UsageError, match="would not be filled in"):
        read(GOOD, "run_name=${oc.env:HOME}")


@pytest.mark.parametrize(
    ("key", "value"), [("embedding_dropout", "1"), ("embedding_dropout", "nan"), ("eval_ranking", "-1")]
)
def test_our_numbers_have_ranges(read, key, value, capsys):
    with pytest.raises(SystemExit) as ended:
        read(GOOD, f"{key}={value}")
    assert ended.value.code == 2 and f"--{key} is" in capsys.readouterr().err


def test_eval_support_is_open_unless_it_is_given(read):
    assert read(GOOD)[0].eval_support is None and read(GOOD, "eval_support=trie")[0].eval_support == "trie"
    assert parse(SftConfig, argv=[])[0].eval_support is None


def test_numbers_of_llamafactory_are_finite_numbers():
    args = {"learning_rate": "1e-4", "max_steps": "5", "run_name": "7"}
    check_keys(args, ours=[])
    assert args == {"learning_rate": 1e-4, "max_steps": 5, "run_name": "7"}
    for value in ("nan", float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"learning_rate is {value}; it must be at least 0 and finite"):
            check_keys({"learning_rate": value}, ours=[])
        with pytest.raises(UsageError, match=f"adam_epsilon is {value}; it must be a finite number"):
            check_keys({"adam_epsilon": value}, ours=[])
    with pytest.raises(UsageError, match=r"warmup_steps: \[1\] is not what LLaMA-Factory takes there"):
        check_keys({"warmup_steps": [1]}, ours=[])


def test_the_command_says_it_in_one_line_and_ends_with_status_2(tmp_path, warm):
    (tmp_path / "x.yaml").write_text("stage: sft\n")
    done = warm("x.yaml", tmp_path, module="mimigenrec.sft.train")
    assert done["status"] == 2 and done["stderr"].startswith("error: ") and done["stderr"].count("\n") == 1
