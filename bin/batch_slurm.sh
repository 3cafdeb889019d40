#!/bin/sh
#SBATCH --job-name=lesions
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
# Segments the T2w scans of a BIDS folder in the tasks of a SLURM array, every task its share of the
# subjects; the commands are on the PATH of the nodes:
#
#   sbatch bin/batch_slurm.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
#
# Each task adds its rows to the tables in RESULTS. Submitted again, it does what is missing.
set -eu
dataset=$1 results=$2
shift 2
number=0 share=
for folder in "$dataset"/sub-*/; do
    number=$((number + 1))
    [ $(((number - SLURM_ARRAY_TASK_ID) % SLURM_ARRAY_TASK_COUNT)) = 0 ] || continue
    share=$share${share:+|}$(basename -- "$folder")
done
[ -n "$share" ] || exit 0 # more tasks than subjects
exec sct_deepseg_lesion_tuned -i "$dataset" -ofolder "$results" -include "^($share)/" \
    -jobs "${SLURM_CPUS_PER_TASK:-1}" "$@"
