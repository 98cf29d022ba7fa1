"""Interactions and SIDs -> SFT and RL rows: `mimigenrec preprocess`. See --help."""

from mimigenrec.cli import start
from mimigenrec.tasks.build import BuildConfig, main

if __name__ == "__main__":
    start(main, BuildConfig)
