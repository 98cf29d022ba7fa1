"""Histories and catalogue to (question, answer) samples, one task per file."""
