"""Item vectors to integer codes to SID tokens."""
