#!/bin/sh
# Segments the T2w scans of a BIDS folder one by one: the loop to start from where a step of your own
# is to go between. sct_deepseg_lesion_tuned -i DATASET does the same, with tables and several at a
# time, and skips what is done.
#
#   bin/batch_loop.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
set -eu
dataset=$1 results=$2 found=0 failed=0
shift 2
for image in "$dataset"/sub-*/anat/*_T2w.nii* "$dataset"/sub-*/ses-*/anat/*_T2w.nii*; do
    # A link that leads nowhere, a scan not yet fetched, is a scan that fails.
    [ -e "$image" ] || [ -L "$image" ] || continue
    found=1 status=0
    sct_deepseg_lesion_tuned -i "$image" -bids 1 -ofolder "$results" "$@" || status=$?
    case $status in
        0) ;;
        130 | 143) exit "$status" ;;
        *) failed=1 ;;
    esac
done
if [ "$found" = 0 ]; then
    echo "error: no *_T2w.nii or *_T2w.nii.gz in $dataset" >&2
    exit 1
fi
exit "$failed"
