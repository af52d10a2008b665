"""Emissions to words: greedy and beam search, lexicon, pronunciations, language models, hot words, confidences."""
