"""Training with veRL: Ray, vLLM rollouts and FSDP, on GPUs or, for tiny models, on the CPU.

The parent describes the training (`stage`) and checks it in the trainer's environment (`preflight`). The child
(`worker`) runs veRL in a process of its own (`launch`), follows its metrics, kills everything it started, and turns the
chosen checkpoint into a Hugging Face folder (`export`).
"""
