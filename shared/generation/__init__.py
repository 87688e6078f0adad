"""Writing with a language model: how the next token is chosen, and the loops that choose one after the other.

Read `decoding` first, then `processors` (what can be done to logits) and `cache`; `text` is for strings, `beam` and
`speculative` are other loops, `measures` says what came out.
"""

from shared.generation.cache import GenerationCache, new_caches
from shared.generation.config import GenerationConfig, choose, process
from shared.generation.decoding import Step, generate, pad_left, stream
from shared.generation.text import TextStream, generate_text, stream_text

__all__ = [
    "GenerationCache",
    "GenerationConfig",
    "Step",
    "TextStream",
    "choose",
    "generate",
    "generate_text",
    "new_caches",
    "pad_left",
    "process",
    "stream",
    "stream_text",
]
