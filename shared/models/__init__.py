"""Whole models, put together from the layers of `shared.nn`, and how those of others become them."""

from shared.models.gpt import GPT, PRESETS, GPTConfig, GPTDecoderBlock
from shared.models.hub import pretrained_folder
from shared.models.hugging_face import (
    config_from_hugging_face,
    config_to_hugging_face,
    from_hugging_face,
    to_hugging_face,
)
from shared.models.pretrained import load_pretrained, load_pretrained_tokenizer, save_pretrained
from shared.models.sorter import load_sorter, look_inside, look_inside_block, reference_activations, sort_letters
from shared.training.next_token import next_token_loss

__all__ = [
    "GPT",
    "GPTConfig",
    "GPTDecoderBlock",
    "PRESETS",
    "config_from_hugging_face",
    "config_to_hugging_face",
    "from_hugging_face",
    "load_pretrained",
    "load_pretrained_tokenizer",
    "load_sorter",
    "look_inside",
    "look_inside_block",
    "next_token_loss",
    "pretrained_folder",
    "reference_activations",
    "save_pretrained",
    "sort_letters",
    "to_hugging_face",
]
