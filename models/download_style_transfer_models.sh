#!/bin/sh
# Fetches into instance_norm and eccv16 beside this script what fast-neural-style's script of this name fetched: the ten
# networks that its authors published. Options go to tools/download_models.py; PYTHON names another interpreter.
models=$(cd "$(dirname "$0")" && pwd) || exit
tool=$models/../tools/download_models.py
if [ ! -f "$tool" ]; then
    echo "download_style_transfer_models.sh: $tool is not there; run this script in a checkout of legacy-style" >&2
    exit 1
fi
PYTHONPATH=$models/..${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" "$tool" --to "$models" "$@" \
    instance_norm/candy.t7 instance_norm/la_muse.t7 instance_norm/mosaic.t7 instance_norm/feathers.t7 \
    instance_norm/the_scream.t7 instance_norm/udnie.t7 \
    eccv16/the_wave.t7 eccv16/starry_night.t7 eccv16/la_muse.t7 eccv16/composition_vii.t7
