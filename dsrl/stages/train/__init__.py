"""Train a model on the selected samples, by reinforcement learning or supervised, in a child process."""

from dsrl.stages.train.algorithms import Algorithm, Dapo, DrGrpo, Grpo, Gspo, Ppo, ReinforcePlusPlus, Remax, Rloo
from dsrl.stages.train.base import NoTraining
from dsrl.stages.train.sft import Distill, Rft, Sft
from dsrl.stages.train.trl import Trl
from dsrl.stages.train.verl.stage import Verl

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
