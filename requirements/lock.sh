#!/bin/sh
# Writes the locked versions anew: names and versions only, so that the files hold for every package index.
set -eu
cd "$(dirname "$0")/.."
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
for version in 3.11 3.12; do
  uv pip compile --quiet --universal --python-version "$version" --extra local --extra slurm --extra wandb --extra dev --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links --constraint requirements/constraints.txt pyproject.toml |
    sed -E '/^(cuda|nvidia|triton)/d; s/^(torch==[0-9.]+).*/\1/' | awk '!seen[$0]++' > "requirements/local-$version.txt"
done
