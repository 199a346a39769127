#!/bin/sh
# Fetches into this folder what fast-neural-style's script of this name fetched: vgg16.t7, the loss network of train.lua.
# Options go to tools/download_models.py; PYTHON names another interpreter.
models=$(cd "$(dirname "$0")" && pwd) || exit
tool=$models/../tools/download_models.py
if [ ! -f "$tool" ]; then
    echo "download_vgg16.sh: $tool is not there; run this script in a checkout of legacy-style" >&2
    exit 1
fi
PYTHONPATH=$models/..${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" "$tool" --to "$models" "$@" vgg16.t7
