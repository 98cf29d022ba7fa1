"""Raw logs to who had what, in which order."""
