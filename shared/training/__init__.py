"""The training loop that the lessons build up to, and what goes with it: stopping early, watching, resuming."""

from shared.training.callback import Callback
from shared.training.checkpoints import checkpoint_info, find_checkpoint
from shared.training.early_stopping import EarlyStopping
from shared.training.history import History
from shared.training.loop import accuracy, evaluate, fit, train_one_epoch
from shared.training.resume import load_checkpoint, save_checkpoint
from shared.training.tensorboard import TensorBoard

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "TensorBoard",
    "accuracy",
    "checkpoint_info",
    "evaluate",
    "find_checkpoint",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
    "train_one_epoch",
]
