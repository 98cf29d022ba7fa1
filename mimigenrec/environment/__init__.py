"""What is installed here: could SFT, RL and evaluation run, and what should be installed where they could not?"""
