#!/bin/sh
# Segments the T2w scans of a BIDS folder one by one: the loop to start from where a step of your own
# is to go between. sct_deepseg_lesion_tuned -i DATASET does the same, with tables and several at a
# time, and skips what is done.
#
#   bin/batch_loop.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
set -eu
dataset=$1 results=$2 failed=0
shift 2
for image in "$dataset"/sub-*/anat/*_T2w.nii* "$dataset"/sub-*/ses-*/anat/*_T2w.nii*; do
    [ -e "$image" ] || continue
    sct_deepseg_lesion_tuned -i "$image" -bids 1 -ofolder "$results" "$@" || failed=1
done
exit "$failed"
