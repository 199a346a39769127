#!/bin/sh
# Fetches into this folder what the original's script of this name fetched: VGG-19, its prototxt and the normalised
# VGG-19. Options go to tools/download_models.py; PYTHON names another interpreter.
models=$(cd "$(dirname "$0")" && pwd) || exit
tool=$models/../tools/download_models.py
if [ ! -f "$tool" ]; then
    echo "download_models.sh: $tool is not there; run this script in a checkout of legacy-style" >&2
    exit 1
fi
PYTHONPATH=$models/..${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" "$tool" --to "$models" "$@" \
    VGG_ILSVRC_19_layers_deploy.prototxt vgg_normalised.caffemodel VGG_ILSVRC_19_layers.caffemodel
