"""Item texts and interactions to item vectors, one row per item."""
