"""Writing with a language model: how the next token is chosen, and the loops that choose one after the other.

Read `decoding` first, then `processors` (what can be done to logits) and `cache`; `text` is for strings, `beam` and
`speculative` are other loops, `measures` says what came out.
"""

from shared.generation.beam import Beam, beam_search, extend_beams, length_normalised
from shared.generation.cache import GenerationCache, new_caches
from shared.generation.config import GenerationConfig, choose, process
from shared.generation.decoding import Step, generate, pad_left, stream
from shared.generation.measures import distinct_n, entropy, log_probability, repetition, surprise
from shared.generation.speculative import (
    Draft,
    Round,
    Speculation,
    accept,
    acceptance_probability,
    expected_tokens,
    residual,
    speculate,
    speculative_stream,
)
from shared.generation.text import TextStream, generate_text, stream_text

__all__ = [
    "Beam",
    "Draft",
    "GenerationCache",
    "GenerationConfig",
    "Round",
    "Speculation",
    "Step",
    "TextStream",
    "accept",
    "acceptance_probability",
    "beam_search",
    "choose",
    "distinct_n",
    "entropy",
    "expected_tokens",
    "extend_beams",
    "generate",
    "generate_text",
    "length_normalised",
    "log_probability",
    "new_caches",
    "pad_left",
    "process",
    "repetition",
    "residual",
    "speculate",
    "speculative_stream",
    "stream",
    "stream_text",
    "surprise",
]
