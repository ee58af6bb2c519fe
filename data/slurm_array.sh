#!/bin/bash
# A stage as a SLURM array: each task makes its share of the clips on one GPU, on a disk that all nodes see. An example; the
# partition, the time and how your site starts an environment are yours to fill in. From the repository's folder:
#
#   sbatch data/slurm_array.sh propagate paper
#
# Tasks may end and be submitted again in any order: what is finished is kept, and what a killed one left is taken over. A
# stage needs all of the one before it (`--dependency=afterok:JOB`). After `evaluate` as an array, `python -m rmkit evaluate`
# once without a shard writes metrics.csv.
#SBATCH --job-name=rmkit
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=96G
#SBATCH --time=24:00:00
#SBATCH --output=rmkit-%A_%a.log
set -eu
stage=$1 profile=$2
source .venv/bin/activate
srun python -m rmkit "$stage" --profile "$profile" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
