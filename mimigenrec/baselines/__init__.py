"""Models to beat, on the same rows with the same metrics."""
