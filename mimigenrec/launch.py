"""Runs a launcher, torchrun or accelerate's, without its traceback: the process that failed has said why.

python -m mimigenrec.launch torch.distributed.run --nproc_per_node 2 -m mimigenrec.grpo.train ...
"""

import runpy
import subprocess
import sys


def main() -> None:
    """The launcher's exit status, 1 where one of its processes failed."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except (ChildFailedError, subprocess.CalledProcessError):
        sys.exit(1)


if __name__ == "__main__":
    main()
