"""Metrics: what one scored document is worth, and how a task's documents make a number with its error.

Definitions follow lm-evaluation-harness 0.4.13, ties and denominators included.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.hooks import hookimpl
from evalkit.tasks.scored import ScoredChoice, ScoredGeneration, ScoredPage, ScoredTarget


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def mean_stderr(values: Sequence[float]) -> float | None:
    """Standard error of the mean from the sample standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def no_stderr(values: Sequence[Any]) -> None:
    """For aggregates whose standard error has no closed form."""
    return


@dataclass(frozen=True, slots=True)
class Metric:
    """A named measure. `score` values one document; `aggregate` and `stderr` take all of a task's values.

    A document whose score is None does not count for this metric.
    `unconditional` asks for the choices' log-probabilities without context, too.
    One that counts right samples says what judges a single one (`verdict`), and how many `samples` it needs.
    """

    name: str
    score: Callable[[Any], Any]
    aggregate: Callable[[Sequence[Any]], float] = mean
    stderr: Callable[[Sequence[Any]], float | None] = mean_stderr
    higher_is_better: bool = True
    unconditional: bool = False
    verdict: str | Metric | None = None
    samples: int = 1


def argmax(values: Sequence[float]) -> int:
    """Index of the largest value; the first of equals."""
    return max(range(len(values)), key=lambda index: (values[index], -index))


def _hit(choice: int, gold: Sequence[int]) -> float:
    return float(choice in gold)


def acc(scored: ScoredChoice | ScoredTarget) -> float:
    """1 where the choice with the highest log-probability is right, or where the target is what greedy gives."""
    if isinstance(scored, ScoredTarget):
        return float(scored.is_greedy)
    return _hit(argmax(scored.logprobs), scored.gold)


def acc_norm(scored: ScoredChoice) -> float:
    """acc with each log-probability divided by the choice's length in characters, delimiter excluded."""
    # An empty choice has no length: the harness divides by it and gets an infinity, which never wins.
    lengths = [len(choice) or math.nan for choice in scored.choices]
    return _hit(_argmax_of_ratio(scored.logprobs, lengths), scored.gold)


def acc_bytes(scored: ScoredChoice) -> float:
    """acc with each log-probability divided by the choice's length in UTF-8 bytes."""
    lengths = [len(choice.encode()) or math.nan for choice in scored.choices]
    return _hit(_argmax_of_ratio(scored.logprobs, lengths), scored.gold)


def _argmax_of_ratio(logprobs: Sequence[float], lengths: Sequence[float]) -> int:
    ratios = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
    return argmax([-math.inf if math.isnan(ratio) else ratio for ratio in ratios])


def acc_mutual_info(scored: ScoredChoice) -> float:
    """acc of the log-probability less that of the same choice without context."""
    assert scored.unconditional is not None
    gains = [a - b for a, b in zip(scored.logprobs, scored.unconditional, strict=True)]
    return _hit(argmax(gains), scored.gold)


def choice_pair(scored: ScoredChoice) -> tuple[int, int, int]:
    """(gold class, predicted class, number of classes) of one document, for F1."""
    return (scored.gold[0] if scored.gold else -1), argmax(scored.logprobs), len(scored.choices)


def macro_f1(triples: Sequence[tuple[int, int, int]]) -> float:
    """Mean over the classes of the one-against-rest F1; a class that never occurs counts as 0."""
    classes = max(count for _, _, count in triples)
    return mean([class_f1(triples, label) for label in range(classes)])


def binary_f1(triples: Sequence[tuple[int, int, int]]) -> float:
    """F1 of class 1."""
    return class_f1(triples, 1)


def class_f1(triples: Sequence[tuple[int, int, int]], label: int) -> float:
    """F1 of one class against the rest; 0 where the class neither occurs nor is predicted."""
    true = sum(gold == label == predicted for gold, predicted, _ in triples)
    claimed = sum(predicted == label for _, predicted, _ in triples)
    actual = sum(gold == label for gold, _, _ in triples)
    return 2 * true / (claimed + actual) if claimed + actual else 0.0


def _exp(value: float) -> float:
    """exp, infinite where floats end: a hopeless model must not stop the run."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def target_logprob(scored: ScoredTarget) -> float:
    """Log-probability of the target."""
    return scored.logprob


def target_perplexity(logprobs: Sequence[float]) -> float:
    """exp of the negative mean log-probability of a document's target."""
    return _exp(-mean(logprobs))


def target_perplexity_stderr(logprobs: Sequence[float]) -> float | None:
    """Standard error of `target_perplexity` by the delta method."""
    error = mean_stderr(logprobs)
    return None if error is None else target_perplexity(logprobs) * error


def exact_match(
    *, ignore_case: bool = False, ignore_punctuation: bool = False, regexes_to_ignore: Sequence[str] = ()
) -> Callable[[ScoredGeneration], float]:
    """A score: 1 where the text equals any target once both are normalised (regexes first, in order)."""
    patterns = [re.compile(pattern) for pattern in regexes_to_ignore]
    punctuation = str.maketrans("", "", string.punctuation)

    def normal(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub("", text)
        text = text.lower() if ignore_case else text
        return text.translate(punctuation) if ignore_punctuation else text

    def score(scored: ScoredGeneration) -> float:
        text = normal(scored.text)
        return float(any(text == normal(target) for target in scored.targets))

    return score


def pass_at(metric: str | Metric, k: int) -> Metric:
    """The chance that one of `k` samples is right by `metric`, without bias (Chen et al. 2021, arXiv:2107.03374).

    Documents with fewer than `k` samples do not count.
    """

    def score(scored: ScoredGeneration) -> float | None:
        right = sum(find_metric(metric).score(single) for single in scored.singles())
        return estimate_pass_at(k, len(scored.texts), round(right))

    return Metric(f"pass@{k}", score, verdict=metric, samples=k)


def estimate_pass_at(k: int, samples: int, right: int) -> float | None:
    """1 - C(samples - right, k) / C(samples, k); None where there are fewer samples than `k`."""
    return None if samples < k else 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def find_metric(metric: str | Metric) -> Metric:
    """A metric by its name, or itself. Raises UnknownNameError."""
    from evalkit.plugins import get_plugins  # it loads this module as a built-in plugin

    return metric if isinstance(metric, Metric) else get_plugins().metrics.get(metric)


def words_weight(scored: ScoredPage) -> tuple[float, int]:
    """(log-probability, words) of a document."""
    return scored.logprob, scored.words


def bytes_weight(scored: ScoredPage) -> tuple[float, int]:
    """(log-probability, bytes) of a document."""
    return scored.logprob, scored.bytes


def nats_per_unit(pairs: Sequence[tuple[float, int]]) -> float:
    """Negative log-probability per unit, over all documents together."""
    return -math.fsum(logprob for logprob, _ in pairs) / sum(units for _, units in pairs)


def nats_per_unit_stderr(pairs: Sequence[tuple[float, int]]) -> float | None:
    """Standard error of the ratio of sums, documents being the sample (linearised ratio estimator)."""
    count = len(pairs)
    if count < 2:
        return None
    ratio = nats_per_unit(pairs)
    squares = math.fsum((-logprob - ratio * units) ** 2 for logprob, units in pairs)
    return math.sqrt(squares * count / (count - 1)) / sum(units for _, units in pairs)


def weighted_perplexity(pairs: Sequence[tuple[float, int]]) -> float:
    """exp of the negative log-probability per unit."""
    return _exp(nats_per_unit(pairs))


def weighted_perplexity_stderr(pairs: Sequence[tuple[float, int]]) -> float | None:
    """Standard error of `weighted_perplexity` by the delta method."""
    error = nats_per_unit_stderr(pairs)
    return None if error is None else weighted_perplexity(pairs) * error


def bits_per_unit(pairs: Sequence[tuple[float, int]]) -> float:
    """Negative log-probability per unit in bits."""
    return nats_per_unit(pairs) / math.log(2)


def bits_per_unit_stderr(pairs: Sequence[tuple[float, int]]) -> float | None:
    """Standard error of `bits_per_unit`."""
    error = nats_per_unit_stderr(pairs)
    return None if error is None else error / math.log(2)


BUILT_IN = (
    Metric("acc", acc),
    Metric("acc_norm", acc_norm),
    Metric("acc_bytes", acc_bytes),
    Metric("acc_mutual_info", acc_mutual_info, unconditional=True),
    Metric("f1", choice_pair, binary_f1, no_stderr),
    Metric("perplexity", target_logprob, target_perplexity, target_perplexity_stderr, higher_is_better=False),
    Metric("exact_match", exact_match()),
    Metric("word_perplexity", words_weight, weighted_perplexity, weighted_perplexity_stderr, higher_is_better=False),
    Metric("byte_perplexity", bytes_weight, weighted_perplexity, weighted_perplexity_stderr, higher_is_better=False),
    Metric("bits_per_byte", bytes_weight, bits_per_unit, bits_per_unit_stderr, higher_is_better=False),
)


@hookimpl
def register_metrics(register: Callable[[Metric], None]) -> None:
    """Register the metrics that come with the core."""
    for metric in BUILT_IN:
        register(metric)
