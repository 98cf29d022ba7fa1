"""The one door to TRL's private methods."""
