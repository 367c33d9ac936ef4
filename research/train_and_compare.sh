#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on all GPUs of a machine and compare with another checkout's weights, in a time that is known beforehand.
#
#   research/train_and_compare.sh OUT MINUTES [OLD] [OPTION...]
#
# OUT is the folder of everything that comes out. OLD is a checkout whose weights are the ones to beat ("" for none).
# It may hold an earlier network, since its own code evaluates them. Options go to `pixel4d train`. Data lie in ../shared.
# Run again with the same OUT after an interruption, it goes on from the last checkpoint. MINUTES counts training alone,
# earlier starts included. Before it come the kernels (80 s) and the flow network's labels (3 minutes on two GPUs,
# OUT/labels is reused), after it 3 minutes of evaluation. START=FILE starts from other weights than those of the tree,
# START= from none (then give --backbone).
set -euo pipefail
out=$1 minutes=$2 old=${3:-}
shift $(($# < 3 ? $# : 3))
cases=(--images "${IMAGES:-8}" --only kitti_0002 kitti_0056 kitti_0052 rooms stereo2015 pairs)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
mkdir -p "$out"
out=$(realpath "$out")

# First use compiles all kernels. Processes that start to train meanwhile would wait for each other.
python3 -c "from pixel4d_ros.forecaster import Forecaster; Forecaster.load(device='cuda').warm_up()"

if [ -n "$old" ] && [ ! -e "$out/old.json" ]; then
    shared=$(realpath ../shared)
    (cd "$old" && PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} python3 research/compare_weights.py shipped "${cases[@]}" \
        --shared "$shared" --device cuda --json "$out/old.json")
fi

start=()
first=${START-weights/pixel4d.safetensors}
[ -z "$first" ] || start=(--weights "$first")
[ ! -e "$out/weights.resume.safetensors" ] || start+=(--resume)
teacher=../shared/teacher/flownet.pkl
[ ! -e "$teacher" ] || start+=(--flow-teacher "$teacher")
python3 -m torch.distributed.run --standalone --nproc_per_node gpu -m pixel4d_ros.cli train \
    --config config/train.yaml "${start[@]}" --minutes "$minutes" --out "$out/weights.safetensors" "$@"

beside=()
[ ! -e "$out/old.json" ] || beside=(--beside "$out/old.json")
python3 research/compare_weights.py "$out/weights.safetensors" "${cases[@]}" "${beside[@]}" --device cuda \
    --json "$out/new.json" | tee "$out/table.md"
python3 research/draw_depth.py "$out/depth.png" --weights "$out/weights.safetensors"
