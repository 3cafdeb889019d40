#!/bin/sh
#SBATCH --job-name=lesions
#SBATCH --ntasks=32
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=3G
#SBATCH --time=12:00:00
# Segments the T2w scans of a BIDS folder on all tasks of one SLURM job, by dask.distributed: a
# worker in each task, the scheduler and the command beside them. The nodes see DATASET and RESULTS
# by the same paths, and have this package with its extra `cluster` on their PATH:
#
#   sbatch bin/batch_dask.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
set -eu
dataset=$1 results=$2
shift 2
mkdir -p -- "$results"
file=$results/.scheduler-$SLURM_JOB_ID.json
dask scheduler --no-dashboard --scheduler-file "$file" &
scheduler=$!
srun dask worker --nthreads 1 --no-dashboard --scheduler-file "$file" &
workers=$!
trap 'kill "$workers" "$scheduler" 2>/dev/null || :; wait; rm -f -- "$file"' EXIT
trap 'exit 143' TERM
until [ -e "$file" ]; do
    kill -0 "$scheduler" # it may have failed to start
    sleep 1
done
sct_deepseg_lesion_tuned -i "$dataset" -ofolder "$results" -scheduler_file "$file" "$@"
