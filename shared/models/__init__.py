"""Whole models, put together from the layers of `shared.nn`."""

from shared.models.gpt import GPT, PRESETS, GPTConfig, GPTDecoderBlock, next_token_loss

__all__ = ["GPT", "GPTConfig", "GPTDecoderBlock", "PRESETS", "next_token_loss"]
