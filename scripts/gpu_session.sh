#!/usr/bin/env bash
# What one CUDA GPU is needed for, in a few minutes: numerics, the true sizes, runs of real models.
#
#   scripts/gpu_session.sh [--device cuda|cpu] [--tiny] [--small FOLDER]
#       [--out docs/results/gpu_session.json] [--minutes 8]
#
# Works in a checkout that is not installed. PYTHON names another interpreter than python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$root/scripts/gpu_session.py" "$@"
