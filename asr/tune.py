"""Decoding settings and confidence weights of a checkpoint, found on transcribed utterances that it was not trained on.

The language model's weight, the score of a word and the scale of the label priors by coordinate search for the least
word error rate, averaged over corpora. Then the weights of both confidences (beam search and greedy) by logistic
regression on right and wrong words. The model runs once; its emissions are kept and decoded many times.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from asr import checkpoint as checkpoints
from asr.checkpoint import Checkpoint, DecodingConfig
from asr.confidence import Confidence
from asr.decoder import BeamDecoder, Decoder, Emissions, GreedyDecoder
from asr.errors import ManifestError
from asr.evaluate import choose, of_split, scored_words
from asr.latency import PRESETS
from asr.manifest import Utterance, load
from asr.progress import AudioProgress
from asr.recognizer import BATCH, Recognizer
from asr.results import Word
from asr.scoring import align_words, auroc, fit_logistic, normalised_cross_entropy, score, spoken
from asr.text import has_digits
