#!/usr/bin/env bash
# The paper's two connections in the miniature world, from raw files to tables: no download, about two minutes on two cores.
#
#     runs/mini.sh
#     OUT=elsewhere runs/mini.sh
#
# Stopped or killed anywhere, run it again: every verb resumes, and finished steps are skipped.
set -euo pipefail

OUT=${OUT:-mini-run}        # everything is written here, 200 MB
ITEMS=${ITEMS:-4800}        # raw items of each modality
METHOD=${METHOD:-c-mcr}      # the paper; or auto, which chooses
CONNECT=${CONNECT:-}        # further options of cmcr connect, such as "--set epochs=10"
EVALUATE=${EVALUATE:-}      # further options of cmcr evaluate, such as "--limit 200"
PYTHON=${PYTHON:-python}
recipes=$(dirname "$0")/../recipes

# Raw files: handwritten numbers, spoken numbers, point clouds and captions, each in an order of its own: nothing is paired.
[ -e "$OUT/data" ] || $PYTHON "$recipes/mini/items.py" --out "$OUT/data" --most "$ITEMS"

# Memories. Captions and pictures are each needed in two spaces, because connecting goes through them.
embed() { cmcr embed "$1" "$2" "$OUT/data/$3" --out "$OUT/$1-$2" --batch-size 500; }
embed mini-clip text captions.txt
embed mini-clip image pictures
embed mini-clap text captions.txt
embed mini-clap audio sounds
embed mini-ulip image pictures
embed mini-ulip point_cloud clouds

# A connection's folder appears only when it is whole; remove it, or use --replace, to connect again.
connect() { [ -e "$OUT/$1" ] || cmcr connect "${@:2}" --out "$OUT/$1" --method "$METHOD" $CONNECT; }
connect audio-image "$OUT"/mini-clip-{text,image} "$OUT"/mini-clap-{text,audio} --overlap text
connect cloud-text "$OUT"/mini-clip-{text,image} "$OUT"/mini-ulip-{image,point_cloud} --overlap image

measure() {  # connection, TASK/DATASET. Results are written whole; after connecting again, remove them
    [ -e "$OUT/$1-results/${2/\//-}.json" ] || cmcr evaluate "$OUT/$1" "$2" --out "$OUT/$1-results" $EVALUATE
}

# Spoken numbers and pictures: what finds what, is it the number that is heard, and what connecting cost each space.
measure audio-image retrieval/mini-audio-image
measure audio-image counterfactual/mini
measure audio-image retention/mini-image-text
measure audio-image retention/mini-audio-text

# Point clouds and words: zero-shot classification, retrieval, and what connecting cost.
measure cloud-text classification/mini-point_cloud
measure cloud-text retrieval/mini-point_cloud-text
measure cloud-text retention/mini-image-text
measure cloud-text retention/mini-point_cloud-image
