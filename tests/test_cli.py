import importlib
import importlib.util
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest

from mimigenrec import cli
from mimigenrec.cli import COMMANDS, arg, parse
from mimigenrec.errors import UsageError


@dataclass
class Config:
    """A config for the tests."""

    data: Path = arg("where the data are")
    steps: int = arg("how many steps", default=3)
    rate: float = arg("how fast", default=0.1)
    mode: Literal["slow", "fast"] = arg("which way", default="slow")
    names: list[str] = arg("some names", factory=lambda: ["a", "b"])
    shuffle: bool = arg("in random order", default=True)
    note: str | None = arg("anything", default=None)
    options: dict | str | None = arg("a map, or JSON", default=None)


@pytest.fixture
def yaml(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "x.yaml").write_text(text)
        return str(tmp_path / "x.yaml")

    return write


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(Config, argv=list(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_flags_and_defaults():
    assert parse(Config, argv=["--data", "d", "--names", "x", "y", "--no_shuffle"]) == (
        Config(Path("d"), names=["x", "y"], shuffle=False),
    )


def test_every_spelling_gives_the_same(yaml):
    expected = (Config(Path("d"), steps=5, rate=1e-5, mode="fast", names=["x"], shuffle=False, note="n"),)
    file = yaml("data: d\nsteps: 5\nrate: 1e-5\nmode: fast\nnames: [x]\nshuffle: false\nnote: n\n")
    flags = "data=d steps=5 rate=1e-5 mode=fast names=x shuffle=false note=n".split()
    assert parse(Config, argv=[file]) == expected
    assert parse(Config, argv=["--config", file]) == expected
    assert parse(Config, argv=[f"--config={file}"]) == expected
    assert parse(Config, argv=flags) == expected
    assert parse(Config, argv=[f"--{flag}" for flag in flags]) == expected


def test_flags_win_over_yaml_and_an_empty_value_keeps_the_default(yaml):
    file = yaml("data: d\nsteps: 5\nrate:\nnote: '- a dash first'\n")
    assert parse(Config, argv=[file, "steps=7"]) == (Config(Path("d"), steps=7, note="- a dash first"),)
    assert parse(Config, argv=["--steps", "8", "--config", file])[0].steps == 8


def test_values_may_hold_equal_signs_and_begin_with_a_dash():
    assert parse(Config, argv=["data=a=b", "note=-1 or less"]) == (Config(Path("a=b"), note="-1 or less"),)


def test_a_bare_no_in_yaml_is_the_choice_of_that_name(yaml):
    import trl

    assert (
        parse(
            Config,
            trl.GRPOConfig,
            argv=[yaml("data: d\noutput_dir: o\nuse_cpu: true\nbf16: false\neval_strategy: no\n")],
        )[1].eval_strategy
        == "no"
    )


def test_a_map_in_yaml_reaches_a_field_that_takes_one(yaml):
    assert parse(Config, argv=[yaml("data: d\noptions: {a: 1}\n")])[0].options == '{"a": 1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 5", "unknown key 'stepz'; did you mean 'steps'?"),
        ("config: y.yaml", "unknown key 'config'"),
        ("steps: many", "'steps' wants int, found 'many'"),
        ("steps: 1.5", "'steps' wants int, found 1.5"),
        ("steps: true", "'steps' wants int, found True"),
        ("steps: [1, 2]", "'steps' takes one value"),
        ("rate: fast", "'rate' wants float"),
        ("mode: medium", "'mode' wants one of slow, fast, found 'medium'"),
        ("shuffle: perhaps", "'shuffle' wants true or false, found 'perhaps'"),
        ("note: {a: 1}", "'note' wants text"),
        ("data: true", "'data' wants text"),
        ("names: [[x]]", "'names' wants text"),
        ("- data", "holds list, not a map"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_wrong_key_type_or_choice_in_yaml_stops_the_run_naming_file_and_key(yaml, capsys, text, message):
    error = refused(capsys, yaml(text + "\n"), "data=d")
    assert message in error and "x.yaml" in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("data=d --stepz 5", "unknown argument '--stepz'; did you mean --steps?"),
        ("data=d stepz=5", "unknown argument 'stepz=5'; did you mean --steps?"),
        ("data=d --step 5", "unknown argument '--step'"),
        ("data=d stray", "unknown argument 'stray'"),
        ("data=d steps=many", "invalid int value: 'many'"),
        ("data=d --mode medium", "invalid choice: 'medium'"),
        ("steps=5", "required: --data"),
        ("data=d --config", "--config wants a YAML file"),
        ("gone.yaml", "gone.yaml is missing"),
    ],
)
def test_a_wrong_flag_stops_the_run(capsys, argv, message):
    assert message in refused(capsys, *argv.split())


def test_a_file_of_arguments_beside_the_script_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "run.args").write_text("--steps 9")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "run.py"), "--data", "d"])
    assert parse(Config)[0].steps == 3


def test_the_framework_options_of_rl_take_maps_and_numbers_from_yaml(yaml):
    import trl

    file = yaml(
        "data: d\noutput_dir: o\nbf16: false\nuse_cpu: true\nlearning_rate: 1e-5\nsave_steps: 0.5\n"
        "gradient_checkpointing_kwargs: {use_reentrant: false}\nreward_weights: [1, 0.5]\n"
    )
    args = parse(Config, trl.GRPOConfig, argv=[file])[1]
    assert args.learning_rate == 1e-5 and args.save_steps == 0.5 and args.reward_weights == [1.0, 0.5]
    assert args.gradient_checkpointing_kwargs == {"use_reentrant": False}


@dataclass
class Renamed:
    """A config whose option has an older name."""

    raw_dir: Path = arg("the raw files", aliases=["data_dir"])
    steps: int = arg("how many steps", default=3)


@pytest.mark.parametrize("flag", ["--raw_dir=d", "--raw-dir=d", "--data_dir=d", "--data-dir=d", "data_dir=d"])
def test_an_alias_is_a_flag_like_the_name(flag):
    assert parse(Renamed, argv=[flag]) == (Renamed(Path("d")),)


def test_an_alias_is_a_key_of_the_yaml_and_a_flag_wins_over_it(yaml):
    assert parse(Renamed, argv=[yaml("data_dir: d\n")]) == (Renamed(Path("d")),)
    assert parse(Renamed, argv=[yaml("data_dir: d\n"), "--raw_dir", "e"]) == (Renamed(Path("e")),)
    assert parse(Renamed, argv=[yaml("raw_dir: d\n"), "data_dir=e"]) == (Renamed(Path("e")),)


def test_an_alias_stands_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(Renamed, argv=["--help"])
    assert "--data_dir" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--raw_dir", "d", "--data-dir", "e"], ["data_dir=d", "raw_dir=e"], ["x.yaml", "steps=1"]]
)
def test_an_option_by_two_names_stops_the_run(argv, yaml, capsys):
    file = yaml("raw_dir: d\ndata_dir: d\n")
    with pytest.raises(SystemExit) as stop:
        parse(Renamed, argv=[file if word == "x.yaml" else word for word in argv])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "are two names of one option" in error
    assert "raw_dir" in error and "data_dir" in error and (file in error) == (argv[0] == "x.yaml")


def commands_there_are():
    for command, (module, _) in COMMANDS.items():
        yield pytest.param(module, id=command)


@pytest.mark.parametrize("module", list(commands_there_are()))
def test_every_command_has_one_config_whose_fields_have_help_and_a_main(module):
    command = importlib.import_module(module)
    room = module.rpartition(".")[0]
    places = (module, f"{room}.arguments", f"{room}.config")  # a config may stand apart, to be read without torch
    own = [value for value in vars(command).values() if is_dataclass(value) and value.__module__ in places]
    configs = [value for value in own if isinstance(value, type) and value.__name__.endswith("Config")]
    assert configs and callable(command.main)
    for config in configs:
        assert config.__doc__ and not config.__doc__.startswith(f"{config.__name__}("), (
            "a dataclass's made-up docstring"
        )
        bases = [base for base in config.__mro__ if base.__module__.startswith("mimigenrec")]  # and not TRL's
        ours = {name for base in bases for name in base.__dict__.get("__annotations__", {})}
        for field in fields(config):
            assert field.metadata.get("help") or field.name not in ours, f"{config.__name__}.{field.name} has no help"


@pytest.mark.parametrize("module", list(commands_there_are()))
def test_every_command_stops_at_an_unknown_flag_or_yaml_key(module, yaml, capsys):
    command = importlib.import_module(module)
    hints = {name: hint for name, hint in get_type_hints(command.main).items() if name != "return"}
    configs = [hint for hint in hints.values() if is_dataclass(hint)]
    if not configs:  # sft: its keys are LLaMA-Factory's too
        with pytest.raises(UsageError, match="expects a YAML file as its first argument, found '--no_such_key'"):
            command.main(["--no_such_key", "1"])
        return
    wanted = [(c, f.name) for c in configs for f in fields(c) if f.default is f.default_factory is MISSING]
    hints = [(name, get_type_hints(c)[name]) for c, name in wanted]
    needed = [f"--{name}={(get_args(hint) or ['{}' if hint is dict else 1])[0]}" for name, hint in hints]
    for argv, told in (([*needed, "--no_such_key", "1"], "--no_such_key"), ([yaml("no_such_key: 1")], "unknown key")):
        with pytest.raises(SystemExit) as stopped:
            parse(*configs, argv=argv)
        assert stopped.value.code == 2 and told in capsys.readouterr().err


def run(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mimigenrec.cli", *argv], capture_output=True, text=True)


def test_the_list_of_commands_and_the_help_of_one():
    listed = run()
    assert listed.returncode == 0 and all(command in listed.stdout for command in COMMANDS)
    of_one = run("preprocess", "--help")
    assert of_one.returncode == 0 and "--max_history" in of_one.stdout and "the latest ones" in of_one.stdout
    assert of_one.stdout.startswith("usage: mimigenrec preprocess")


def test_a_command_that_is_not_one_is_refused_with_the_nearest():
    wrong = run("evalute")
    assert wrong.returncode == 2 and "no command 'evalute'; did you mean 'evaluate'?" in wrong.stderr


BUILD = """
from dataclasses import dataclass
from mimigenrec.cli import arg, start

@dataclass
class BuildConfig:
    'Points to shapes.'
    sides: int = arg("corners of each", default=3)

def main(config: BuildConfig) -> None:
    print(f"built {config.sides} sides")

if __name__ == "__main__":
    start(main, BuildConfig)
"""


@pytest.fixture
def wing(monkeypatch, tmp_path):
    """A wing `shapes` with the one command `build`."""
    (tmp_path / "scratch_shapes_build.py").write_text(BUILD)
    monkeypatch.syspath_prepend(tmp_path)
    table = {"shapes": ("squares and circles", {"build": ("scratch_shapes_build", "points -> shapes")})}
    monkeypatch.setattr(cli, "WINGS", table)


def overview(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["mimigenrec", *words])
    cli.main()
    return capsys.readouterr().out


def test_the_list_of_commands_has_a_heading_for_each_stage_as_data_flow(monkeypatch, capsys):
    text = overview(monkeypatch, capsys, "--help")
    order = ["raw data:", " interactions ", "training rows:", " preprocess ", "SFT:", " sft ", "RL:", " grpo "]
    places = [text.index(word) for word in [*order, "evaluation:", " evaluate ", "serving:", " recommend "]]
    assert places == sorted(places) and "wing" not in text


def test_a_wing_stands_below_the_stages_and_lists_its_commands(wing, monkeypatch, capsys):
    text = overview(monkeypatch, capsys)
    assert text.index("wings (") > text.index("recommend") and "  shapes           squares and circles\n" in text
    text = overview(monkeypatch, capsys, "shapes", "--help")
    assert text.startswith("usage: mimigenrec shapes <command>") and "  build  points -> shapes\n" in text
    assert "grpo" not in text and text == overview(monkeypatch, capsys, "shapes")


def test_a_command_of_a_wing_runs_with_what_follows_it(wing, monkeypatch, capsys):
    assert overview(monkeypatch, capsys, "shapes", "build", "sides=4") == "built 4 sides\n"
    with pytest.raises(SystemExit) as stop:
        overview(monkeypatch, capsys, "shapes", "build", "--side", "4")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "did you mean --sides?" in error and "mimigenrec shapes build --help" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("shapes biuld", "mimigenrec shapes has no command 'biuld'; did you mean 'build'?"),
        ("shapes grpo", "mimigenrec shapes has no command 'grpo'; mimigenrec shapes --help lists them"),
        ("shape build", "mimigenrec has no command 'shape'; did you mean 'shapes'?"),
        ("build", "mimigenrec has no command 'build'; mimigenrec --help lists them"),
    ],
)
def test_a_word_that_is_no_command_is_refused_with_the_nearest(wing, monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        overview(monkeypatch, capsys, *words.split())
    assert stop.value.code == 2 and message in capsys.readouterr().err


def help_of(capsys, *configs: type) -> str:
    with pytest.raises(SystemExit):
        parse(*configs, argv=["--help"])
    return capsys.readouterr().out


def test_the_help_marks_what_is_required_and_shows_a_default_where_there_is_one(capsys):
    lines = " ".join(help_of(capsys, Config).split())
    assert lines.startswith("usage: ") and " [x.yaml] [--key value ...] A config for the tests." in lines
    assert "--data PATH where the data are (required)" in lines
    assert "--steps INT how many steps (default: 3)" in lines
    assert "--note TEXT anything --options" in lines and "None" not in lines
    assert "--mode {slow,fast} which way (default: slow)" in lines


def test_the_opposite_of_a_flag_has_a_help_of_its_own(capsys):
    lines = " ".join(help_of(capsys, Config).split())
    assert "in random order (default: True) --no_shuffle turns off --shuffle" in lines


def test_our_options_stand_before_those_of_the_frameworks(capsys):
    from mimigenrec.grpo.config import RLConfig

    text = help_of(capsys, Config, RLConfig)
    words = ["--data", "--num_generations", "--hints", "options of trl (GRPOConfig)", "--epsilon_high"]
    places = [text.index(word) for word in [*words, "options of transformers (TrainingArguments)", "--warmup_ratio"]]
    assert places == sorted(places)


def test_data_files_are_read_without_torch():
    modules = (
        "mimigenrec mimigenrec.files mimigenrec.logs mimigenrec.manifest mimigenrec.cli mimigenrec.catalog "
        "mimigenrec.contract mimigenrec.rendering mimigenrec.interactions.inter_file mimigenrec.sids.tokens "
        "mimigenrec.tasks.build"
    ).split()
    code = (
        f"import sys, {', '.join(modules)}\nprint([m for m in ('torch', 'transformers', 'trl') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


LIGHT = (
    "prepare interactions embed embed-als fuse quantise sid-assign sid-report preprocess make-base baseline benchmark "
    "compare report plot env"
).split()
HELP_OF_EACH = """
import sys
from mimigenrec.cli import main
for command in sys.argv[1].split():
    sys.argv[1:] = [command, "--help"]
    try:
        main()
    except SystemExit:
        pass
    print("LOADED", command, *({"torch", "transformers", "trl", "llamafactory", "matplotlib"} & sys.modules.keys()))
"""


def test_the_help_of_a_command_that_needs_no_torch_loads_none():
    done = subprocess.run([sys.executable, "-c", HELP_OF_EACH, " ".join(LIGHT)], capture_output=True, text=True)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert loaded == [f"LOADED {command}" for command in LIGHT], done.stderr
    assert done.stdout.count("usage: mimigenrec") == len(LIGHT)


def test_the_list_of_commands_loads_no_command():
    code = "import sys; from mimigenrec import cli; cli.main(); print('numpy' in sys.modules, 'polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False" and "usage: mimigenrec <command>" in done.stdout
