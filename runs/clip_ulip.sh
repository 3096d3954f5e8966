#!/usr/bin/env bash
# CLIP and ULIP connected through images, at the paper's scale (Wang et al., NeurIPS 2023, sections 3 and 4): point clouds
# and texts, never paired, joined through 1.28 million images, then measured on zero-shot classification of point clouds.
#
#     DATA=/data OUT=/data/cmcr runs/clip_ulip.sh
#
# Stopped or killed anywhere, run it again: every verb resumes, and finished steps are skipped. docs/reproduce.md says what
# DATA must hold, who publishes it, and how long the steps take.
set -euo pipefail

DATA=${DATA:-data}          # raw data and the evaluation data sets, in the published layouts
OUT=${OUT:-runs-out}        # memories, the connection, results: 12 GB, of which 5 GB only until it is connected
CLIP=${CLIP:-clip}          # spaces, and the models that open them
CLIP_MODEL=${CLIP_MODEL-openai/clip-vit-base-patch32}
ULIP=${ULIP:-ulip}
ULIP_MODEL=${ULIP_MODEL-$DATA/weights/ULIP-2-PointBERT-8k-xyz.pt}  # ULIP-2 with PointBERT: a file that is not fetched
METHOD=${METHOD:-c-mcr-published-ulip}
PROMPTS=${PROMPTS-$DATA/ulip/templates.json}  # ULIP's prompts, with which its figures were reached; else cmcr's own are taken
EMBED=${EMBED:-}            # further options of cmcr embed: "--device cuda", "--engine ray --workers 8 --gpus-per-worker 1"
CONNECT=${CONNECT:-}        # further options of cmcr connect: "--device cuda", "--engine ray"
EVALUATE=${EVALUATE:-}      # further options of cmcr evaluate: "--limit 100"

embed() {  # space, model (none for spaces that need none), modality, input, memory, batch size
    cmcr embed "$1" "$3" "$4" --out "$OUT/$5" --batch-size "$6" ${2:+--model "$2"} $EMBED
}

# The overlap: 1.28 million pictures of ImageNet, each in both spaces, matched by their ids. 1.3 GB each. The memories in
# CLIP are those of runs/clip_clap.sh, and are embedded once for both.
embed "$CLIP" "$CLIP_MODEL" image "$DATA/imagenet/train" images-in-clip 128
embed "$ULIP" "$ULIP_MODEL" image "$DATA/imagenet/train" images-in-ulip 128

# The outer modalities, paired with nothing: 2.33 million captions (2.4 GB), and the 0.8 million clouds of 8,192 points
# that come with ULIP-2 (0.8 GB).
embed "$CLIP" "$CLIP_MODEL" text "$DATA/captions/*.txt" texts-in-clip 256
embed "$ULIP" "$ULIP_MODEL" point_cloud "$DATA/objaverse" clouds-in-ulip 32

# The hyper-parameters of runs/clip_clap.sh; projectors of a single layer that ends in a ReLU, as in the published ULIP-CLIP
# weights. The noise is the published variance, not rescaled, whatever ULIP's width.
# A connection's folder appears only when it is whole; remove it, or use --replace, to connect again.
memories=("$OUT/images-in-clip" "$OUT/texts-in-clip" "$OUT/images-in-ulip" "$OUT/clouds-in-ulip")
[ -e "$OUT/clip-ulip" ] ||
    cmcr connect "${memories[@]}" --out "$OUT/clip-ulip" --overlap image --method "$METHOD" --seed 0 $CONNECT

measure() {  # TASK/DATASET, further options. Results are written whole; after connecting again, remove them
    [ -e "$OUT/clip-ulip-results/${1/\//-}.json" ] ||
        cmcr evaluate "$OUT/clip-ulip" "$@" --data "$DATA" --out "$OUT/clip-ulip-results" $EVALUATE \
            ${CLIP_MODEL:+--model "$CLIP=$CLIP_MODEL" "$ULIP=$ULIP_MODEL"}
}

# Zero-shot classification of point clouds by the text encoder of CLIP. Results name the prompts that they were reached with.
[ -f "$PROMPTS" ] || PROMPTS=
measure classification/modelnet40 ${PROMPTS:+--prompts "$PROMPTS" --prompts-key modelnet40_64}
measure classification/scanobjectnn ${PROMPTS:+--prompts "$PROMPTS" --prompts-key modelnet40_64}
measure classification/objaverse-lvis --allow-missing ${PROMPTS:+--prompts "$PROMPTS" --prompts-key modelnet40_64}

# What connecting cost CLIP of its own.
measure retention/coco
measure retention/flickr30k
