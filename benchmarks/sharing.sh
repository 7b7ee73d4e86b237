#!/bin/sh
# What sharing a GPU costs and what protects, for docs/sharing.md: PYTHON=python3 benchmarks/sharing.sh PLANS OUT STEP...
#   PLANS  folder of googlenet_dyn_fp16_vc.plan and tiny_mlp_fp32_vc.plan, and of own.plan where there is another network
#   OUT    folder of the results
#   STEP   tests, stressors, curve, pair, matrix, fingerprints: each less than ten minutes; matrix and fingerprints go on
#          where they ended
set -u
plans=$1 out=$2
shift 2
mkdir -p "$out"
googlenet=$plans/googlenet_dyn_fp16_vc.plan tiny=$plans/tiny_mlp_fp32_vc.plan

loadtrt() {
    name=$1
    shift
    "${PYTHON:-python3}" -m loadtrt "$@" --json "$out/$name.json" >"$out/$name.txt" 2>&1
    echo "$name: exit code $?"
}

tests() { # before the rest: what they find wrong makes it worthless
    "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider tests/gpu/test_shares.py tests/gpu/test_partitions_hold.py \
        >"$out/tests.txt" 2>&1
    tail -20 "$out/tests.txt"
}

stressors() { # rates, and that a launch takes 1 ms
    for resource in dram l2 pcie sm; do
        loadtrt "stressor-$resource" run --engine "stressor:$resource" --duration 2s --verify
    done
}

curve() { # throughput and p99 against SMs
    for batch in 1 16; do
        loadtrt "curve-b$batch" sweep --allow-host-code --engine "$googlenet" --batch $batch --copies off --contexts 1 \
            --sms 8,16,32,48,64,96,128,132 --warmup 300ms --duration 1s
    done
    loadtrt curve-tiny sweep --allow-host-code --engine "$tiny" --copies off --contexts 1 --sms 8,16,32,64,132 --warmup 300ms --duration 1s
}

one_pair() {
    loadtrt "pair-$1" run --allow-host-code --verify --duration 5s --model "tiny=$tiny,rate=2000/s$2" \
        --model "googlenet=$googlenet,batch=16,contexts=4,no-copies$3"
}

pair() { # one pair in each way to share, at the same load, outputs verified
    one_pair plain "" ""
    one_pair priority ,priority=high ,priority=low
    one_pair sms8 ,sms=8 ""
    one_pair sms32 ,sms=32 ""
    one_pair both ,sms=32,priority=high ,priority=low
}

models() {
    set -- --model "b16=$googlenet,batch=16,contexts=2" --model "b1=$googlenet,batch=1,contexts=2" --model "tiny=$tiny"
    [ -f "$plans/own.plan" ] && set -- "$@" --model "own=$plans/own.plan"
    printf '%s\n' "$@"
}

matrix() {
    [ -f "$out/matrix.json" ] && resume=--resume || resume=
    # shellcheck disable=SC2046,SC2086  # several words
    loadtrt matrix interference --allow-host-code $(models) --share streams,priority,sms=32+100,both --neighbour 90%,closed \
        --rounds 3 --duration 1s --warmup 300ms $resume
}

fingerprints() {
    [ -f "$out/fingerprints.json" ] && resume=--resume || resume=
    # shellcheck disable=SC2046,SC2086  # several words
    loadtrt fingerprints interference --allow-host-code $(models) --stressors --neighbour 90% --rounds 3 --duration 1s --warmup 300ms $resume
}

for step in "$@"; do
    "$step"
done
