"""Training with veRL: Ray, vLLM rollouts and FSDP, on GPUs or, for tiny models, on the CPU.

The parent describes (`stage`) and checks (`preflight`, in the trainer's environment). The child (`worker`) starts veRL
in a process of its own (`launch`), follows it, ends all that it left behind and makes a Hugging Face folder of the
chosen checkpoint (`export`).
"""
