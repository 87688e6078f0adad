"""Helpers for gradients, parameters and sequences."""
# ruff: noqa: F401  (a name is imported here so that users find it)

from shared.nn.utils import rnn
from shared.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from shared.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from shared.nn.utils.init import skip_init
