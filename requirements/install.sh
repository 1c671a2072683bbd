#!/bin/sh
# Usage: install.sh PYTHON VENV. Creates a virtual environment with the locked versions and this checkout.
# PIP_FIND_LINKS may name a folder with a CPU wheel of torch. Otherwise uv installs torch from PyTorch's CPU index.
set -eu
python=$1 venv=$2
here=$(dirname "$0")
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' "$here/uv.txt")"
version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
lock=$here/local-$version.txt
export VIRTUAL_ENV="$PWD/$venv" UV_LINK_MODE="${UV_LINK_MODE:-copy}"
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
tag=cp$(echo "$version" | tr -d .)
wheel=
for folder in ${PIP_FIND_LINKS:-}; do
  for file in "$folder"/torch-*+cpu-"$tag"-*.whl; do [ ! -e "$file" ] || wheel=$file; done
done
uv() { "$venv/bin/uv" pip install --quiet "$@"; }
if [ -n "$wheel" ]; then
  uv -r "$lock"
else
  uv --torch-backend=cpu -r "$lock" || { echo "no CPU wheel of torch to be had: taking the registry's own build"; uv -r "$lock"; }
fi
uv --no-deps -e .
