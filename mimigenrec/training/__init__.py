"""How a training starts, goes on and ends, whichever framework computes it."""
