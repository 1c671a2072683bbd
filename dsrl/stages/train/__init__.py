"""From selected samples to a trained model: RL or supervised, in a child process that holds the model."""

from dsrl.stages.train.algorithms import Algorithm, Dapo, DrGrpo, Grpo, Gspo, Ppo, ReinforcePlusPlus, Remax, Rloo
from dsrl.stages.train.distill import Distill
from dsrl.stages.train.no_training import NoTraining
from dsrl.stages.train.rft import Rft
from dsrl.stages.train.sft import Sft
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
