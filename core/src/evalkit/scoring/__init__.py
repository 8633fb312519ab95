"""Pure token code, shared by all engines: pairs, windows, batches and stops. No tensors."""

from evalkit.scoring.batches import plan_batches, run_with_backoff
from evalkit.scoring.drafts import Drafter
from evalkit.scoring.pairs import EncodedPair, Tokenizer, encode_pairs
from evalkit.scoring.spans import ScoredTokens, Scores, Span, Top, truncated_span
from evalkit.scoring.stops import StopWatch, cut_at_stops
from evalkit.scoring.windows import rolling_spans

__all__ = [
    "Drafter",
    "EncodedPair",
    "ScoredTokens",
    "Scores",
    "Span",
    "StopWatch",
    "Tokenizer",
    "Top",
    "cut_at_stops",
    "encode_pairs",
    "plan_batches",
    "rolling_spans",
    "run_with_backoff",
    "truncated_span",
]
