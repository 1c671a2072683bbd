"""The teacher writes new samples from passages; a vote over its answers labels them."""

from dsrl.stages.generate.generate import Generate
from dsrl.stages.generate.label_sources import OwnAnswer, SelfCorrection
from dsrl.stages.generate.self_instruct import SelfInstruct
from dsrl.stages.generate.synthllm import SynthLlm
from dsrl.stages.generate.targen import TarGen
from dsrl.stages.generate.vote import MajorityVote

__all__ = ["Generate", "MajorityVote", "OwnAnswer", "SelfCorrection", "SelfInstruct", "SynthLlm", "TarGen"]
