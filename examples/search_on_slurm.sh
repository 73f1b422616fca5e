#!/usr/bin/env bash
# A search as an array job: each task is a worker, all share one study in a folder that all nodes see.
#
#   STUDY=/shared/trials sbatch examples/search_on_slurm.sh --trials 40 --epochs 20
#
# More workers later: submit it again with the same STUDY. A task that is killed loses its trial's
# epochs and no more: `--requeue` or a later task runs that trial again.
#SBATCH --job-name=kfusion-search
#SBATCH --array=0-3
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=search_%A_%a.log
set -euo pipefail

# sbatch runs a copy of this script: programs are found from where it was submitted.
cd "${SLURM_SUBMIT_DIR:-.}"
: "${STUDY:?set STUDY to a folder that all nodes see, on a file system with working locks}"

# A task's share of its node, or tasks on one node would each start a thread for every core.
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export TF_NUM_INTRAOP_THREADS="$OMP_NUM_THREADS" TF_NUM_INTEROP_THREADS=1

# SLURM has set CUDA_VISIBLE_DEVICES to the task's own GPU.
echo "worker ${SLURM_ARRAY_TASK_ID:-0} on $(hostname)" >&2
exec python examples/search_together.py --directory "$STUDY" "$@"
