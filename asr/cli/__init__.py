"""The `asr` command: one module a command; the only package that prints."""
