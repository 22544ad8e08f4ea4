#!/usr/bin/env bash
#SBATCH --job-name=unlearn
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#
# One config as one job on one GPU. From the root of the checkout:
#
#   sbatch [SBATCH OPTIONS] launch/slurm.sh CONFIG [FLAGS]
#   sbatch launch/slurm.sh configs/ft.py:utkface --config.data.path=/shared/UTKFace
#
# CONFIG and FLAGS are those of `python -m unlearn_jax.main`. A preempted job, or one whose time
# runs out, goes back to the queue and goes on from its last checkpoint.
#
# Environment:
#   UNLEARN_PYTHON        interpreter; default: .venv/bin/python of the checkout
#   UNLEARN_MAX_RESTARTS  give up after so many returns to the queue; default: 20
set -euo pipefail

fail() {
  echo "launch/slurm.sh: $1" >&2
  exit 2
}

if [[ $# -eq 0 || $1 == -* ]]; then
  fail "the first argument is the config, such as configs/ft.py:utkface; flags follow it"
fi
config=$1
shift

# SLURM runs a copy of this file from elsewhere, so there its own place says nothing.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[[ -f unlearn_jax/main.py ]] || fail "$PWD is not the checkout; run sbatch from its root"
[[ -f ${config%%:*} ]] || fail "there is no config ${config%%:*} in $PWD"
python=${UNLEARN_PYTHON:-$PWD/.venv/bin/python}
[[ ${UNLEARN_MAX_RESTARTS:-20} =~ ^[0-9]+$ ]] ||
  fail "UNLEARN_MAX_RESTARTS is '$UNLEARN_MAX_RESTARTS'; give a whole number"
[[ -x $python ]] || fail "no interpreter at $python; run 'make setup' or set UNLEARN_PYTHON"

restarts=${SLURM_RESTART_COUNT:-0}
max_restarts=${UNLEARN_MAX_RESTARTS:-20}
echo "job ${SLURM_JOB_ID:-(no SLURM)} on $(uname -n), restart $restarts of at most $max_restarts"

# shellcheck disable=SC2317  # the trap calls it
requeue() {
  if (( restarts >= max_restarts )); then
    echo "launch/slurm.sh: no time left, and restarted $restarts times; submit it again to go on" >&2
  else
    # Said before, as SLURM ends the job at once.
    echo "no time left: back to the queue"
    scontrol requeue "$SLURM_JOB_ID" ||
      echo "launch/slurm.sh: SLURM did not take the job back; submit it again to go on" >&2
  fi
}
trap requeue USR1

# backend=gpu: a job that finds no GPU fails at once instead of running for days on the CPU.
"$python" -m unlearn_jax.main --config="$config" --config.parallel.backend=gpu "$@" &
run=$!

# A signal ends `wait` early; the run itself goes on until SLURM ends it.
code=0
wait "$run" || code=$?
if (( code > 128 )); then
  code=0
  wait "$run" || code=$?
fi
exit "$code"
