"""The one door to LLaMA-Factory."""
