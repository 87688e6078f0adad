"""Sequences of different lengths: `torch.nn.utils.rnn`'s padding."""
# ruff: noqa: F401  (a name is imported here so that users find it)

from shared.ops.sequence import pad_sequence, unpad_sequence
