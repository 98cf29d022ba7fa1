"""Prompts to ranked legal items."""
