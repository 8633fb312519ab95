"""Continuous generation, written once: an engine brings the passes of its model, everything else is here."""

from evalkit.decoding.continuous import stream, with_backoff, without_beams
from evalkit.decoding.group import Decoder, Limits
from evalkit.decoding.live import Feed, LiveAnswers, live, live_with_backoff
from evalkit.decoding.rows import Row, make_output, make_rows, merge, take
from evalkit.decoding.sampling import Adjust, choose, generator
from evalkit.decoding.sequences import SequenceDecoder

__all__ = [
    "Adjust",
    "Decoder",
    "Feed",
    "Limits",
    "LiveAnswers",
    "Row",
    "SequenceDecoder",
    "choose",
    "generator",
    "live",
    "live_with_backoff",
    "make_output",
    "make_rows",
    "merge",
    "stream",
    "take",
    "with_backoff",
    "without_beams",
]
