"""Do two states of this repository write the same files? The toy journey, command by command, compared byte by byte.

    python benchmarks/same_journey.py BEFORE [AFTER] [--quick] [--work DIR]     BEFORE, AFTER: commits; AFTER is HEAD

Each state is checked out to the same place and runs `examples/tiny/run.sh`, then the commands of EXTRA, with one
thread, in the environment that runs this script. After every command the files that it made or changed are hashed.
Left out are versions, times and speeds (VOLATILE keys of JSON and JSONL, durations on pages), the order of a
manifest's keys, locks, and training_args.bin, which pickles the names of modules. Printed are a line per command and
every file that differs; the exit status is 1 if one does. With --work, a state that was run there before is not
run again.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VOLATILE = {"versions", "seconds", "elapsed_time", "remaining_time", "logging_dir"}  # which names the hour
VOLATILE_ENDINGS = ("_per_second", "_runtime", "_seconds", "step_time")
DURATION = re.compile(rb"\b\d+\.\d (s|min|h)\b")  # on pages
LEFT_OUT = ("training_args.bin", ".lock")
EXTRA = (  # an option that a state's --help does not name is left out with its value
    "mimigenrec compare --a {results}/sft --b {results}/rl --output {results}/compared",
    'mimigenrec report --methods {{"sft":"{results}/sft","markov":"{results}/markov","rl":"{results}/rl"}} '
    "--data {data} --data_dir {raw} --category toy --models sft rl --resamples 200 --output {results}/report",
    "mimigenrec recommend --model {rl} --users {users} --k 5 --output {results}/users.jsonl",
)
USERS = '{"user": "a", "history": ["17", "203", "45"]}\n{"user": "b", "history": ["3"]}\n'


def content(path: Path) -> bytes:
    """The bytes that count: JSON without its volatile keys, pages without durations, anything else as it is."""
    data = path.read_bytes()
    if path.suffix in (".md", ".html"):
        return DURATION.sub(b"", data)
    if path.suffix == ".json":
        try:
            return json.dumps(steady(json.loads(data)), sort_keys=path.name == "manifest.json").encode()
        except ValueError:
            return data
    if path.suffix == ".jsonl":
        return b"\n".join(json.dumps(steady(json.loads(line))).encode() for line in data.splitlines() if line.strip())
    return data


def steady(value):
    if isinstance(value, dict):
        return {
            key: steady(inner)
            for key, inner in value.items()
            if key not in VOLATILE and not key.endswith(VOLATILE_ENDINGS)
        }
    return [steady(inner) for inner in value] if isinstance(value, list) else value


def hashes(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256 of what counts in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in files
        if not path.name.endswith(LEFT_OUT) and "__pycache__" not in path.parts
    }


def record(folder: Path, log: Path, command: str) -> None:
    """Adds to the log what the command made or changed since the entry before."""
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {name: value for entry in entries for name, value in entry["files"].items()}
    changed = {name: value for name, value in hashes(folder).items() if known.get(name) != value}
    with log.open("a") as stream:
        stream.write(json.dumps({"command": command, "files": changed}) + "\n")


SHIM = """#!{shell}
"{real}" "$@" || exit $?
"{python}" "{script}" --record "{root}" "{log}" "{name} $*"
"""


def run(commit: str, work: Path, quick: bool) -> list[dict]:
    """The log of one state: [{"command", "files": {path: hash}}, ...]."""
    house, root, shims = work / "house", work / "root", work / "shims"
    finished = work / f"{commit[:12]}{'.quick' if quick else ''}.jsonl"
    if finished.is_file():
        return [json.loads(line) for line in finished.read_text().splitlines()]
    log = work / "unfinished.jsonl"
    for folder in (house, root, shims):
        shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    subprocess.run(["git", "clone", "-q", ROOT, house], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=house, check=True)
    shims.mkdir()
    root.mkdir()
    for name, real in (("python", sys.executable), ("mimigenrec", shutil.which("mimigenrec"))):
        words = {"shell": shutil.which("bash"), "real": real, "python": sys.executable, "script": __file__}
        (shims / name).write_text(SHIM.format(**words, root=root, log=log, name=name))
        (shims / name).chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(house), "ROOT": str(root), "QUICK": str(int(quick)), "OMP_NUM_THREADS": "1"}
    env |= {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "TOKENIZERS_PARALLELISM": "false"}
    env |= {"PYTHONHASHSEED": "0"}  # TRL writes the tags of a model card in the order of a set
    printed = work / f"{commit[:12]}.txt"
    (work / "users.jsonl").write_text(USERS)
    names = {"results": root / "results" / "tiny", "data": root / "data" / "toy", "raw": root / "data" / "toy_raw"}
    names |= {"rl": root / "rl_outputs" / "tiny", "users": work / "users.jsonl"}
    with printed.open("w") as stream:
        for line in ("bash examples/tiny/run.sh", *EXTRA):
            words = known(line.format(**names).split(), house, env)
            done = subprocess.run(words, cwd=house, env=env, stdout=stream, stderr=subprocess.STDOUT)
            if done.returncode:
                sys.exit(f"error: `{' '.join(words)}` at {commit} ended with {done.returncode}; see {printed}")
    log.rename(finished)
    return [json.loads(line) for line in finished.read_text().splitlines()]


def known(words: list[str], house: Path, env: dict) -> list[str]:
    """The command without the options that it does not have at this state; each has one value."""
    if words[0] != "mimigenrec":
        return words
    real = [sys.executable, "-m", "mimigenrec.cli", words[1], "--help"]
    text = subprocess.run(real, cwd=house, env=env, capture_output=True, text=True, check=True).stdout
    missing = [i for i, word in enumerate(words) if word.startswith("--") and word not in text]
    return [word for i, word in enumerate(words) if i not in missing and i - 1 not in missing]


def compare(before: list[dict], after: list[dict]) -> int:
    """Prints a line per command and every difference; how many files differ."""
    total = 0
    for old, new in zip(before, after, strict=True):
        names = dict.fromkeys([*old["files"], *new["files"]])
        different = [name for name in names if old["files"].get(name) != new["files"].get(name)]
        total += len(different)
        print(f"{'same' if not different else 'DIFFERENT':9}  {len(names):3} files  {new['command'][:100]}")
        for name in different:
            missing = "only before" if name not in new["files"] else "only after" if name not in old["files"] else ""
            print(f"{'':11}{name} {missing}")
    return total


def commit_of(name: str) -> str:
    return subprocess.run(
        ["git", "rev-parse", name], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    if sys.argv[1:2] == ["--record"]:
        root, log, command = sys.argv[2:]
        return record(Path(root), Path(log), command.replace(root, "."))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="commit that says how it should be")
    parser.add_argument("after", nargs="?", default="HEAD", help="commit that is compared with it (default: HEAD)")
    parser.add_argument("--quick", action="store_true", help="training cut to seconds")
    parser.add_argument("--work", type=Path, help="folder that keeps checkouts and logs (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        logs = [run(commit_of(name), work, options.quick) for name in (options.before, options.after)]
    different = compare(*logs)
    print(f"{different} files differ" if different else "every file is the same")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
