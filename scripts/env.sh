# Sourced by run, test and the benchmarks: makes .venv on first call, or again after what it is made from changed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
stamp="$venv/.csp-embed-stamp"
python="$venv/bin/python"
if [ ! -x "$python" ]; then
  python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: Python 3.11 or newer is needed; found $("$python" --version) at $python" >&2
    exit 2
  fi
fi
# The tables that say what is installed and how; a comment, or a setting of ruff or pyright, changes nothing here.
want=$("$python" -I -S -c '
import json, sys, tomllib
with open(sys.argv[1], "rb") as file:
    text = tomllib.load(file)
tables = text["build-system"], text["project"], text["dependency-groups"], text["tool"]["setuptools"]
print(json.dumps(tables, sort_keys=True))
' "$root/pyproject.toml")
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  echo "csp-embed: making the environment in $venv (once; two minutes)" >&2
  "$python" -m venv "$venv"
  # Setuptools prints a banner about editable installations: shown only where something fails.
  log="$venv/install.log"
  if ! {
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --upgrade "pip>=25.1" &&
      "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -e "$root[plot,onnx,tflite,dask,enumerate]" --group "$root/pyproject.toml:dev" &&
      "$venv/bin/python" -m csp_embed.warm
  } > "$log" 2>&1; then
    cat "$log" >&2
    exit 2
  fi
  echo "$want" > "$stamp"
fi
export PATH="$venv/bin:$PATH"
# Scripts use the tests' oracles.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
