"""`mimigenrec env`: what is installed, whether SFT, RL and evaluation could run, and what to install where not.

    mimigenrec env [--json]

People run it when something else has failed, so it imports none of the packages in its own process and needs none of
them itself. Of variables that may hold secrets (HIDDEN) it says whether they are set, never their values.
"""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any

from mimigenrec.cli import arg, start
from mimigenrec.environment.chain import CHAIN, STAGES, Diagnosis, diagnose, failure, pip_install
from mimigenrec.environment.devices import nvidia_driver, torch_devices
from mimigenrec.environment.requirements import extras, misfits
from mimigenrec.environment.worker import in_worker
from mimigenrec.manifest import installed

OPTIONAL = ("scikit-learn", "polars", "faiss-cpu")  # of extras: tried where they are installed
LIBRARIES = [name for name in CHAIN if name not in OPTIONAL and not name.startswith("mimigenrec.")]
VERSIONS = ["mimigenrec", *LIBRARIES, "huggingface-hub", "safetensors", "numpy", "scipy", "matplotlib"]
# environment variables: these are shown with their values, those as set or not
SHOWN = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_MODE", "CUDA_VISIBLE_DEVICES")
HIDDEN = ("HF_ENDPOINT", "HF_TOKEN", "WANDB_API_KEY", "WANDB_PROJECT", "PIP_CONSTRAINT")


@dataclass
class EnvConfig:
    """What is installed, whether SFT, RL and evaluation could run here, and the pip install where they could not. Put
    its output into a report: it holds no secret. Exit status 1 if one of the three could not run."""

    json: bool = arg("one JSON object instead of text", default=False)


@dataclass
class Environment:
    """All that the report shows."""

    python: str
    platform: str
    versions: dict[str, str | None]  # None: not installed
    misfits: dict[str, str]  # what does not fit, and the command that should help
    imports: dict[str, Diagnosis | None]  # None: it works
    stages: dict[str, str | None]  # None: it could run; else the name in `imports` that fails
    driver: str | None
    devices: dict[str, Any]  # of torch_devices(), or {"error": why torch does not name them}
    extras: dict[str, dict[str, str | None]]
    variables: dict[str, str]


def main(config: EnvConfig) -> None:
    environment = look()
    print(json.dumps(asdict(environment), indent=2) if config.json else "\n".join(as_text(environment)))
    sys.exit(1 if any(environment.stages.values()) else 0)


def look() -> Environment:
    """Takes as long as the imports do."""
    tried = [name for name in CHAIN if name not in OPTIONAL or installed(name)]
    *imports, (devices, error) = in_worker([*((failure, (name,)) for name in tried), (torch_devices, ())])
    errors = {name: reason or crash for name, (reason, crash) in zip(tried, imports, strict=True)}
    found = {name: diagnose(name, errors.get) for name in tried}
    wrong = misfits(LIBRARIES)
    return Environment(
        platform.python_version(),
        platform.platform(),
        {name: installed(name) for name in VERSIONS},
        {str(misfit): pip_install([misfit.package + misfit.range]) for misfit in wrong},
        found,
        {stage: next((name for name in names if found[name]), None) for stage, names in STAGES.items()},
        nvidia_driver(),
        devices or {"error": error},
        extras(),
        variables(),
    )


def variables() -> dict[str, str]:
    environ = os.environ
    cache = environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))  # as huggingface_hub has it
    home = environ.get("HF_HOME", f"not set: {os.path.expanduser(os.path.join(cache, 'huggingface'))}")
    shown = {name: environ.get(name, "not set") or "empty" for name in SHOWN}
    return {"HF_HOME": home, **shown, **{name: "set" if environ.get(name) else "not set" for name in HIDDEN}}


def as_text(environment: Environment) -> list[str]:
    lines = [f"Python {environment.python}, {environment.platform}", "", "versions"]
    lines += table({name: version or "not installed" for name, version in environment.versions.items()})
    if not environment.versions["mimigenrec"]:
        lines += [
            "  the ranges that mimigenrec needs are unknown until it is installed: pip install -e . in its folder"
        ]
    if environment.misfits:
        lines += ["", "versions that do not fit"]
        lines += [line for text, command in environment.misfits.items() for line in (f"  {text}", f"      {command}")]
    lines += ["", "imports", *table({name: verdict(found) for name, found in environment.imports.items()})]
    lines += ["", "what could run here"]
    lines += table(
        {s: f"no: {environment.imports[name]}" if name else "yes" for s, name in environment.stages.items()}
    )
    lines += ["", "GPU", *(f"  {line}" for line in gpu_lines(environment))]
    lines += ["", "extras", *table({name: extra(name, found) for name, found in environment.extras.items()})]
    lines += ["", "environment variables", *table(environment.variables)]
    return lines


def table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in rows.items()]


def verdict(found: Diagnosis | None) -> str:
    if found is None:
        return "ok"
    if found.cause != found.name:
        return f"fails, since {found.cause} does"
    return f"FAILS: {found.reason}\n      {found.command}"


def extra(name: str, found: dict[str, str | None]) -> str:
    """The versions, or what is missing and the command for it."""
    missing = ", ".join(package for package, version in found.items() if not version)
    if missing:
        return f"missing: {missing}; pip install 'mimigenrec[{name}]'"
    return ", ".join(f"{package} {version}" for package, version in found.items())


def gpu_lines(environment: Environment) -> list[str]:
    devices, driver = environment.devices, environment.driver
    tail = f"NVIDIA driver {driver}" if driver else "no NVIDIA driver answers"
    if "error" in devices:
        return [f"unknown: {devices['error']}", tail]
    build = f"torch is built for {devices['build']}" if devices["build"] else "torch is built without CUDA"
    lines = [
        f"{i}: {gpu['name']}, {gpu['memory_gib']} GiB, compute capability {gpu['capability']}, "
        f"{'bf16' if gpu['bf16'] else 'no bf16'}"
        for i, gpu in enumerate(devices["gpus"])
    ]
    return [*(lines or ["none"]), f"{build}, {tail}", *([devices["note"]] if devices["note"] else [])]


if __name__ == "__main__":
    start(main, EnvConfig)
