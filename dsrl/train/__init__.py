"""From selected samples to a trained model: RL or supervised, in a child process that holds the model."""

from dsrl.train.algorithms import (
    Algorithm,
    Dapo,
    DrGrpo,
    Grpo,
    Gspo,
    Ppo,
    ReinforcePlusPlus,
    Remax,
    Rloo,
)
from dsrl.train.distill import Distill
from dsrl.train.nothing import NoTraining
from dsrl.train.rft import Rft
from dsrl.train.sft import Sft
from dsrl.train.trl import Trl
from dsrl.train.verl.stage import Verl

__all__ = [
    "Algorithm",
    "Dapo",
    "Distill",
    "DrGrpo",
    "Grpo",
    "Gspo",
    "NoTraining",
    "Ppo",
    "ReinforcePlusPlus",
    "Remax",
    "Rft",
    "Rloo",
    "Sft",
    "Trl",
    "Verl",
]
