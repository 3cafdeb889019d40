#!/bin/sh
# Segments the lesions of one subject; a script for sct_run_batch:
#
#   sct_run_batch -script bin/batch_subject.sh -path-data DATASET -path-output RESULTS -jobs 4
#
# sct_run_batch calls it with the subject's folder ("sub-01" or "sub-01/ses-02") and sets PATH_DATA,
# PATH_DATA_PROCESSED, PATH_RESULTS and PATH_QC. Options for sct_deepseg_lesion_tuned go into
# LESION_OPTIONS, in place of its default: LESION_OPTIONS="-lesions 1"
set -eu

subject=$1
: "${PATH_DATA:?is set by sct_run_batch}" "${PATH_RESULTS:?is set by sct_run_batch}"
here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
PATH=$PATH:$here

# One thread a job: sct_run_batch starts as many jobs as there are processors.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS:-1}}"

# Word splitting of the options is meant.
# shellcheck disable=SC2086
set -- ${LESION_OPTIONS--lesions 1}
if [ -n "${PATH_QC:-}" ] && command -v sct_qc >/dev/null; then
    set -- "$@" -qc "$PATH_QC" -qc-dataset "$(basename -- "$PATH_DATA")" -qc-subject "$subject"
fi

found=0 failed=0
for image in "$PATH_DATA/$subject"/anat/*_T2w.*; do
    case $image in
        *.[nN][iI][iI] | *.[nN][iI][iI].[gG][zZ]) ;;
        *) continue ;;
    esac
    # A link that leads nowhere, a scan not yet fetched, is a scan that fails.
    [ -e "$image" ] || [ -L "$image" ] || continue
    found=1
    if [ "${image%.[gG][zZ]}" != "$image" ] && [ -e "${image%.[gG][zZ]}" ]; then
        echo "error: $(basename -- "$image") is there compressed and not; remove one" >&2
        failed=1
        continue
    fi
    status=0
    sct_deepseg_lesion_tuned -i "$image" -ofolder "$PATH_RESULTS/$subject/anat" "$@" || status=$?
    case $status in
        0) ;;
        130 | 143) exit "$status" ;;
        *) failed=1 ;;
    esac
done
if [ "$found" = 0 ]; then
    echo "error: no *_T2w.nii or *_T2w.nii.gz in $subject/anat" >&2
    exit 1
fi
exit "$failed"
