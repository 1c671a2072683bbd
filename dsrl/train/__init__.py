"""From selected samples to a trained model: RL or supervised, in a child process that holds the model."""

from dsrl.train.algorithms import Algorithm, DrGrpo, Grpo
from dsrl.train.distill import Distill
from dsrl.train.nothing import NoTraining
from dsrl.train.rft import Rft
from dsrl.train.sft import Sft
from dsrl.train.trl import Trl

__all__ = ["Algorithm", "Distill", "DrGrpo", "Grpo", "NoTraining", "Rft", "Sft", "Trl"]
