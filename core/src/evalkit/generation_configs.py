"""What a checkpoint's generation_config asks of every text that is generated with it."""

from __future__ import annotations

from typing import Any


def checkpoint_processors(config: Any) -> Any:
    """Penalties and forbidden tokens, as Transformers' `generate` applies them: its own LogitsProcessorList.

    Each takes ids [1, length] and scores [1, vocabulary]. `config` is Transformers' GenerationConfig.
    """
    import transformers

    makers = {
        "sequence_bias": transformers.SequenceBiasLogitsProcessor,
        "repetition_penalty": transformers.RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": transformers.NoRepeatNGramLogitsProcessor,
        "bad_words_ids": lambda words: transformers.NoBadWordsLogitsProcessor(words, eos_token_id=config.eos_token_id),
        "forced_bos_token_id": transformers.ForcedBOSTokenLogitsProcessor,
        "suppress_tokens": transformers.SuppressTokensLogitsProcessor,
    }
    # Values that change nothing. A token id may well be 0 or 1.
    neutral = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    wanted = {name: getattr(config, name, None) for name in makers}
    return transformers.LogitsProcessorList(
        makers[name](value) for name, value in wanted.items() if value not in (None, [], {}, neutral.get(name))
    )
