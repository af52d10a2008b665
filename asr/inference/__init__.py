"""Recognizers, streams and sessions: where utterances end, second passes, batching, files and archives."""
