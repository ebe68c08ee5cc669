#!/bin/bash
# A build over 64 machines' worth of array tasks, then one job that finishes it:
#     sbatch --array=0-63 --job-name=curate corpus_slurm.sh
#     sbatch --dependency=singleton --job-name=curate corpus_slurm.sh
#SBATCH --cpus-per-task=16 --mem=32G --time=24:00:00
rank=${SLURM_ARRAY_TASK_ID:+--rank $SLURM_ARRAY_TASK_ID --world_size 64}
earthworks corpus build recipe.yaml --output /shared/corpus --workers "$SLURM_CPUS_PER_TASK" $rank
