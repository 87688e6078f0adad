"""The training loop that the lessons build up to, and what goes with it: stopping early, watching, resuming."""

from shared.training.callback import Callback
from shared.training.checkpoints import checkpoint_info, find_checkpoint
from shared.training.early_stopping import EarlyStopping
from shared.training.history import History
from shared.training.language_model import Trainer
from shared.training.lm_config import LMConfig
from shared.training.loop import accuracy, evaluate, fit, train_one_epoch
from shared.training.lr_finder import find_learning_rate
from shared.training.next_token import (
    accumulate_gradients,
    batch_loss,
    bits_per_character,
    characters_per_token,
    evaluate_loss,
    next_token_loss,
    perplexity,
    sample_text,
    train_step,
)
from shared.training.resume import load_checkpoint, save_checkpoint
from shared.training.run_log import RunLog
from shared.training.schedule import warmup_cosine
from shared.training.tensorboard import TensorBoard

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "LMConfig",
    "RunLog",
    "TensorBoard",
    "Trainer",
    "accumulate_gradients",
    "accuracy",
    "batch_loss",
    "bits_per_character",
    "characters_per_token",
    "checkpoint_info",
    "evaluate",
    "evaluate_loss",
    "find_checkpoint",
    "find_learning_rate",
    "fit",
    "load_checkpoint",
    "next_token_loss",
    "perplexity",
    "sample_text",
    "save_checkpoint",
    "train_one_epoch",
    "train_step",
    "warmup_cosine",
]
