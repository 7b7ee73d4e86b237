#!/bin/sh
# A GPU beside trtexec, and several GPUs of a host: PYTHON=python3 benchmarks/h200.sh PLANS OUT STEP...
#   PLANS  folder of googlenet_dyn_fp16_vc.plan and tiny_mlp_fp32_vc.plan; `plans` adds own.plan, and convnet.plan,
#          which only the TensorRT that builds it can load
#   OUT    folder of the results
#   STEP   below, with the seconds that it is expected to take and those after which it is ended; what it measured by
#          then is kept. All end at the Unix time UNTIL, where that is given
#              plans      25, 240   needs TensorRT's builder, and its lean runtime beside it
#              rows      280, 300   needs convnet.plan, and in TRTEXEC the command of a trtexec of the same TensorRT
#              beside    110, 180
#              together  130, 200   on the GPUs of DEVICES ("0 1"), as all below
#              routing   250, 360
#              lost       20,  60
#              ray        90, 180   needs a Ray cluster of this host
set -u
plans=$1 out=$2
shift 2
mkdir -p "$out"
googlenet=$plans/googlenet_dyn_fp16_vc.plan tiny=$plans/tiny_mlp_fp32_vc.plan python=${PYTHON:-python3}

within() { # SECONDS NAME COMMAND...: Ctrl-C then, so that the command writes what it has
    limit=$1 name=$2 began=$(date +%s)
    left=$((${UNTIL:-9999999999} - began))
    shift 2
    [ $left -gt 0 ] && timeout -s INT -k 30 $((left < limit ? left : limit)) "$@" >"$out/$name.txt" 2>&1
    echo "$name: exit code $?, $(($(date +%s) - began)) s"
    tail -4 "$out/$name.txt"
}

build() { # PLAN NET OPTION...
    plan=$1 net=$2
    shift 2
    within 110 "build-$plan" "$python" -m loadtrt build "$out/nets/$net.onnx" -o "$plans/$plan.plan" --force \
        --builder-optimization-level 0 "$@"
}

plans() { # MobileNet at batch 4 and a digit classifier
    within 60 nets "$python" -m benchmarks.nets "$out/nets"
    build own mobilenet --fp16 --version-compatible
    build convnet convnet
    rm -r "$out/nets"
}

rows() { # with and without device times
    within 300 rows "$python" -m benchmarks.against_trtexec --trtexec "${TRTEXEC:-trtexec} --versionCompatible" \
        --loadtrt=--allow-host-code --tree on=. --tree "off=. --device-times off" --rounds 3 --seconds 1 --warmup .5 \
        --within 280 --json "$out/rows.json" --row convnet "$plans/convnet.plan" - 4,1 \
        --row "GoogLeNet b16" "$googlenet" data:16x3x224x224 4 --row tiny "$tiny" - 1,4
}

readme() { # NAME: the run that README shows
    within 40 "$1" "$python" -m loadtrt run --engine "$googlenet" --allow-host-code --batch 16 --contexts 4 --duration 3s \
        --json "$out/$1.json"
}

beside() { # alone, and beside another process that takes 0.5, 2, 5 and 10 % of the SMs' time
    readme beside-0
    for rate in 5 20 50 100; do
        timeout 60 "$python" -m loadtrt run --engine stressor:sm,time=1ms --rate $rate/s --duration 15s --shared-gpu \
            >"$out/stressor-$rate.txt" 2>&1 &
        sleep 6 # it has loaded by then
        readme "beside-$rate"
        wait
    done
}

gpus() { # SECONDS NAME WHAT ENGINE OPTION...
    limit=$1 name=$2 what=$3 engine=$4
    shift 4
    # shellcheck disable=SC2086
    within "$limit" "$name" "$python" -m benchmarks.many_gpus "$what" "$engine" "$out/$name" \
        --devices ${DEVICES:-0 1} "$@"
}

together() {
    gpus 100 together-b16 together "$googlenet" --batch 16 --duration 2s
    gpus 100 together-tiny together "$tiny" --duration 2s
}

routing() {
    gpus 360 routing routing "$googlenet" --batch 16 --duration 1500ms
}

lost() {
    gpus 60 lost lost "$googlenet" --batch 16 --duration 12s
}

ray() {
    gpus 90 ray-b16 together "$googlenet" --batch 16 --duration 2s --ray
    gpus 90 ray-tiny together "$tiny" --duration 2s --ray
}

for step in "$@"; do
    "$step"
done
