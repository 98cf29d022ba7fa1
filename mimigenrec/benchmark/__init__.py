"""Every chosen method on the same rows, measured by the same code: stages, and one report at the end."""
