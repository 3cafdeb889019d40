#!/bin/sh
# Segments the lesions of every T2w scan of a BIDS folder, scan by scan, in a plain loop:
#
#   bin/batch_bids.sh DATASET RESULTS [options of sct_deepseg_lesion_tuned]
#
# Masks land in RESULTS/sub-XX[/ses-YY]/anat. A scan that has its mask already is skipped, so the
# same line goes on where it was stopped; with other options, which would make other masks, RESULTS
# is refused. Scans that fail are listed at the end; exit status 1 then.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $(basename -- "$0") DATASET RESULTS [options of sct_deepseg_lesion_tuned]" >&2
    exit 2
fi
dataset=${1%/} results=${2%/}
shift 2
here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
PATH=$PATH:$here

# What the masks of RESULTS are made with, one word a line.
options=$results/batch_bids_options.txt
given=$(printf '%s\n' "$@")
if [ -e "$options" ] && [ "$(cat -- "$options")" != "$given" ]; then
    echo "error: the masks in $results were made with other options: $(paste -s -d ' ' "$options")" >&2
    echo "give another folder for those of now, or remove $results" >&2
    exit 2
fi

done=0 skipped=0 failed=
for image in "$dataset"/sub-*/anat/*_T2w.* "$dataset"/sub-*/ses-*/anat/*_T2w.*; do
    case $image in
        *.[nN][iI][iI] | *.[nN][iI][iI].[gG][zZ]) ;;
        *) continue ;;
    esac
    # A link that leads nowhere, a scan not yet fetched, is a scan that fails.
    [ -e "$image" ] || [ -L "$image" ] || continue
    if [ "${image%.[gG][zZ]}" != "$image" ] && [ -e "${image%.[gG][zZ]}" ]; then
        failed="$failed
  ${image#"$dataset"/} (it is there compressed and not; remove one)"
        continue
    fi
    folder=$results/$(dirname -- "${image#"$dataset"/}")
    name=$(basename -- "$image")
    stem=${name%.[gG][zZ]}
    stem=${stem%.*}
    if [ -e "$folder/${stem}_lesionseg${name#"$stem"}" ]; then
        skipped=$((skipped + 1))
        continue
    fi
    if [ ! -e "$options" ]; then
        mkdir -p -- "$results"
        printf '%s\n' "$given" >"$options"
    fi
    status=0
    sct_deepseg_lesion_tuned -i "$image" -ofolder "$folder" "$@" || status=$?
    case $status in
        0) done=$((done + 1)) ;;
        2 | 130 | 143) exit "$status" ;; # wrong options; stopped
        *) failed="$failed
  ${image#"$dataset"/}" ;;
    esac
done
echo "$done segmented, $skipped already there" >&2
if [ -n "$failed" ]; then
    echo "error: these scans failed, their messages are above:$failed" >&2
    exit 1
fi
if [ $((done + skipped)) = 0 ]; then
    echo "error: no sub-*/[ses-*/]anat/*_T2w.nii[.gz] in $dataset" >&2
    exit 1
fi
