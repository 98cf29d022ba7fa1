"""Item text to integer codes to SID tokens."""
