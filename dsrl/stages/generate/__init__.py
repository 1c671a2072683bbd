"""The teacher writes new samples, and verifiers such as a majority vote over its answers label them."""

from dsrl.stages.generate.generate import Generate
from dsrl.stages.generate.self_instruct import OwnAnswer, SelfInstruct
from dsrl.stages.generate.synthllm import SynthLlm
from dsrl.stages.generate.targen import SelfCorrection, TarGen
from dsrl.stages.generate.vote import MajorityVote

__all__ = ["Generate", "MajorityVote", "OwnAnswer", "SelfCorrection", "SelfInstruct", "SynthLlm", "TarGen"]
