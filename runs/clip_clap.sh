#!/usr/bin/env bash
# CLIP and CLAP connected through texts, at the paper's scale (Wang et al., NeurIPS 2023, sections 3 and 4): audio and
# images, never paired, joined through 2.33 million texts, then measured on the paper's audio-visual data sets.
#
#     DATA=/data OUT=/data/cmcr runs/clip_clap.sh
#
# Stopped or killed anywhere, run it again: every verb resumes, and finished steps are skipped. docs/reproduce.md says what
# DATA must hold, who publishes it, and how long the steps take.
set -euo pipefail

DATA=${DATA:-data}          # raw data and the evaluation data sets, in the published layouts
OUT=${OUT:-runs-out}        # memories, the connection, results: 18 GB, of which 10 GB only until it is connected
CLIP=${CLIP:-clip}          # spaces, and the models that open them: the paper's encoders, both 512 wide
CLIP_MODEL=${CLIP_MODEL-openai/clip-vit-base-patch32}
CLAP=${CLAP:-clap}
CLAP_MODEL=${CLAP_MODEL-laion/clap-htsat-fused}
METHOD=${METHOD:-c-mcr-published}
EMBED=${EMBED:-}            # further options of cmcr embed: "--device cuda", "--engine ray --workers 8 --gpus-per-worker 1"
CONNECT=${CONNECT:-}        # further options of cmcr connect: "--device cuda", "--engine ray"
EVALUATE=${EVALUATE:-}      # further options of cmcr evaluate: "--limit 100"

embed() {  # space, model (none for spaces that need none), modality, input, memory, batch size
    cmcr embed "$1" "$3" "$4" --out "$OUT/$5" --batch-size "$6" ${2:+--model "$2"} $EMBED
}

# The overlap: captions of COCO, CC3M, MSR-VTT, MAD, AudioCaps and Clotho, one a line, a file each. Both memories are of the
# same list; a text that one encoder cannot embed is left out of both, by its id. 2.4 GB each.
embed "$CLIP" "$CLIP_MODEL" text "$DATA/captions/*.txt" texts-in-clip 256
embed "$CLAP" "$CLAP_MODEL" text "$DATA/captions/*.txt" texts-in-clap 256

# The outer modalities, paired with nothing: 1.28 million pictures of ImageNet (1.3 GB) and 1.8 million clips of AudioSet
# (1.8 GB). Decoding the clips takes longest of all. runs/clip_ulip.sh uses the memories in CLIP again.
embed "$CLIP" "$CLIP_MODEL" image "$DATA/imagenet/train" images-in-clip 128
embed "$CLAP" "$CLAP_MODEL" audio "$DATA/audioset" sounds-in-clap 32

# c-mcr-published pins the paper's hyper-parameters: temperatures 1/100, noise of variance 0.004, lambda 0.1, 36 passes in
# batches of 10,240, AdamW at 1e-3 with a cosine decay; projectors as in the published CLAP-CLIP weights.
# A connection's folder appears only when it is whole; remove it, or use --replace, to connect again.
memories=("$OUT/texts-in-clip" "$OUT/images-in-clip" "$OUT/texts-in-clap" "$OUT/sounds-in-clap")
[ -e "$OUT/clip-clap" ] ||
    cmcr connect "${memories[@]}" --out "$OUT/clip-clap" --overlap text --method "$METHOD" --seed 0 $CONNECT

measure() {  # TASK/DATASET, further options. Results are written whole; after connecting again, remove them
    [ -e "$OUT/clip-clap-results/${1/\//-}.json" ] ||
        cmcr evaluate "$OUT/clip-clap" "$@" --data "$DATA" --out "$OUT/clip-clap-results" $EVALUATE \
            ${CLIP_MODEL:+--model "$CLIP=$CLIP_MODEL" "$CLAP=$CLAP_MODEL"}
}

# Audio-image retrieval. Clips come from YouTube and Flickr, where some are always gone: they are counted in the result.
measure retrieval/vgg-ss --allow-missing
measure retrieval/flickr-soundnet --allow-missing
measure retrieval/ave --allow-missing

# Where in the picture is the sound?
measure localization/vgg-ss --allow-missing
measure localization/flickr-soundnet --allow-missing
measure localization/music-solo --allow-missing

# Is what sounds in the picture at all?
measure counterfactual/ex-vgg-ss --allow-missing
measure counterfactual/ex-flickrnet --allow-missing

# What connecting cost each space of its own.
measure retention/coco
measure retention/flickr30k
measure retention/audiocaps --allow-missing
measure retention/clotho
