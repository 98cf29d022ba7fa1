"""Runs a launcher, torchrun or accelerate's, without its traceback: the process that failed has said why.

python -m mimigenrec.launch torch.distributed.run --nproc_per_node 2 -m mimigenrec.grpo.train ...
"""

import runpy
import signal
import subprocess
import sys


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


if __name__ == "__main__":
    main()
