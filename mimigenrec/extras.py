"""Optional packages: whoever asks for one that is not installed is told what to install."""

from importlib.util import find_spec

from mimigenrec.errors import MissingPackage

INSTALL_SIDS = "install it with: pip install 'mimigenrec[sids]'"
EXTRAS = {"deepspeed": "mimigenrec[deepspeed]", "unsloth": "mimigenrec[unsloth]", "wandb": "mimigenrec[wandb]"}
EXTRAS |= dict.fromkeys(("openai", "google-genai", "tenacity"), "mimigenrec[llm]")
MODULES = {"google-genai": "google.genai"}  # where a package is not imported by its own name


def need(package: str, wish: str) -> None:
    """Raises ImportError with the remedy unless the package is there. wish: the key and value that ask for it."""
    try:
        spec = find_spec(MODULES.get(package, package))
    except ModuleNotFoundError:  # nothing of google's at all
        spec = None
    if spec is None:
        remedy = EXTRAS.get(package, package)
        raise MissingPackage(f"{wish} needs {package}, which is not installed: run pip install '{remedy}'")


def need_reporters(report_to: str | list[str] | None) -> None:
    """The same for wandb and tensorboard in transformers' `report_to`; others are its business."""
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("wandb", "tensorboard"):
            need(name, f"report_to: {name}")
