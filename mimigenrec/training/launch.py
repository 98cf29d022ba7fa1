"""How the processes of a training start: torchrun's command line, and launchers without their traceback.

    python -m mimigenrec.training.launch torch.distributed.run --nproc_per_node 2 -m mimigenrec.grpo.train ...

runs torchrun, or accelerate's launcher, and leaves out its traceback: the process that failed has said why.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mimigenrec.errors import UsageError, UserError


def main() -> None:
    """The launcher's exit status, 1 where one of its processes failed. A process that was killed could say nothing, so
    its signal is told here."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except ChildFailedError as error:
        stop(error.get_first_failure()[1].exitcode)
    except subprocess.CalledProcessError as error:
        stop(error.returncode)
    except (KeyboardInterrupt, SignalException):
        sys.exit("error: interrupted; the same command goes on from what is written")


def stop(status: int) -> None:
    """status: of the process that failed first; negative for one that a signal ended."""
    if status < 0:
        name = signal.Signals(-status).name
        sys.exit(f"error: a process was ended by {name}; after SIGKILL, see whether memory ran out (dmesg)")
    sys.exit(1)


def wants_torchrun(deepspeed: bool) -> bool:
    """As LLaMA-Factory's launcher decides, and for DeepSpeed, which wants it always."""
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    return forced or "NPROC_PER_NODE" in os.environ or deepspeed or gpus() > 1


def torchrun_command(module: str, argv: Sequence[str]) -> list[str]:
    """The command line that starts `module` with the arguments argv in every process of NPROC_PER_NODE and NNODES."""
    env = os.environ
    nodes = ["--standalone"]
    if env.get("NNODES", "1") != "1":
        if "MASTER_ADDR" not in env:
            raise UsageError(
                f"NNODES={env['NNODES']} needs MASTER_ADDR, the address of the first machine, and NODE_RANK"
            )
        nodes = ["--nnodes", env["NNODES"], "--node_rank", env.get("NODE_RANK", "0")]
        nodes += ["--master_addr", env["MASTER_ADDR"], "--master_port", env.get("MASTER_PORT", "29500")]
    launch = [sys.executable, "-m", "mimigenrec.training.launch", "torch.distributed.run", *nodes]
    return [*launch, "--nproc_per_node", str(processes_here()), "-m", module, *argv]


def processes(deepspeed: bool) -> int:
    """How many processes share the rows of a run, before and after torchrun has started them."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return processes_here() * int(os.environ.get("NNODES", "1")) if wants_torchrun(deepspeed) else 1


def processes_here() -> int:
    """How many processes torchrun starts on this machine."""
    given = os.environ.get("NPROC_PER_NODE")
    if given and not given.isdigit():
        raise UsageError(f"NPROC_PER_NODE={given} must be a number of processes")
    return int(given) if given else max(1, gpus())


def gpus() -> int:
    import torch

    return torch.accelerator.device_count()


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def check_launch(environment: Mapping[str, str], has_gpu: bool) -> None:
    """Raises UserError if `accelerate launch` was asked for several processes where it silently starts one.

    Without a GPU its simple launcher only sets MASTER_ADDR and CCL_WORKER_COUNT for them, and no WORLD_SIZE.
    """
    if not has_gpu and "CCL_WORKER_COUNT" in environment and "WORLD_SIZE" not in environment:
        raise UserError(
            "accelerate was asked for several processes on a machine without a GPU and started one; use "
            "torchrun --nproc_per_node N -m mimigenrec.grpo.train ..., as trl_trainer.sh does, or --num_processes 1"
        )


if __name__ == "__main__":
    main()
