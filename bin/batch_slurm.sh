#!/bin/sh
#SBATCH --job-name=lesions
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
# Segments the T2w scans of a BIDS folder (with -c t2s the T2star scans) in the tasks of a SLURM
# array without gaps, every task its share of the subjects; the commands are on the PATH of the nodes:
#
#   sbatch bin/batch_slurm.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
#
# Each task adds its rows to the tables in RESULTS. Submitted again, it does what is missing. A page
# of all scans is made by the plain command, once, afterwards:
#
#   sct_deepseg_lesion_tuned -i DATASET -ofolder RESULTS [the same options] -qc_page page.html
set -eu
dataset=$1 results=$2
shift 2
count=$SLURM_ARRAY_TASK_COUNT
if [ $((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN + 1)) != "$count" ]; then
    echo "error: the numbers of the array's tasks have gaps; submit it as --array=1-$count" >&2
    exit 2
fi
contrast=T2w
case " $* " in *" -c t2s "*) contrast='T2star*' ;; esac
number=0 share=
for folder in "$dataset"/sub-*/; do
    # shellcheck disable=SC2086 # the contrast is a pattern
    for image in "$folder"anat/*_$contrast.nii* "$folder"ses-*/anat/*_$contrast.nii*; do
        # A link that leads nowhere, a scan not yet fetched, is a scan that fails.
        [ -e "$image" ] || [ -L "$image" ] || continue
        number=$((number + 1))
        [ $(((number - SLURM_ARRAY_TASK_ID) % count)) = 0 ] || break
        share=$share${share:+|}$(basename -- "$folder")
        break
    done
done
if [ "$number" = 0 ]; then
    echo "error: no *_$contrast.nii or *_$contrast.nii.gz in $dataset" >&2
    exit 1
fi
[ -n "$share" ] || exit 0 # more tasks than subjects
exec sct_deepseg_lesion_tuned -i "$dataset" -ofolder "$results" -include "^($share)/" \
    -jobs "${SLURM_CPUS_PER_TASK:-1}" "$@"
