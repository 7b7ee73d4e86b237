#!/bin/sh
# What sharing a GPU costs and what protects, for docs/sharing.md: PYTHON=python3 benchmarks/sharing.sh PLANS OUT STEP...
#   PLANS  folder of googlenet_dyn_fp16_vc.plan and tiny_mlp_fp32_vc.plan, and of own.plan where there is another network
#   OUT    folder of the results
#   STEP   below, the most important first, with the seconds that it is expected to take and those after which it is
#          ended; what it measured by then is kept. All end at the Unix time UNTIL, where that is given
#              tests         360, 480
#              partitions    120, 300
#              pair           90, 350
#              worst         290, 420    goes on where it ended
#              stressors      30, 120
#              curve          65, 180
#              fingerprints  240, 400    goes on where it ended
#              short         240, 400    goes on where it ended
#              processes      80, 120    goes on where it ended
#              matrix        460, 500    goes on where it ended
#              protect       520, 620    goes on where it ended
set -u
plans=$1 out=$2
shift 2
mkdir -p "$out"
googlenet=$plans/googlenet_dyn_fp16_vc.plan tiny=$plans/tiny_mlp_fp32_vc.plan

within() { # SECONDS COMMAND...: Ctrl-C then, so that the command writes what it has
    limit=$1 left=$((${UNTIL:-9999999999} - $(date +%s)))
    shift
    [ $left -gt 0 ] && timeout -s INT -k 30 $((left < limit ? left : limit)) "$@"
}

loadtrt() { # SECONDS NAME ARGUMENT...
    limit=$1 name=$2 began=$(date +%s)
    shift 2
    case " $* " in *" --resume "*) ;; *) rm -f "$out/$name.json" ;; esac
    within "$limit" "${PYTHON:-python3}" -m loadtrt "$@" --json "$out/$name.json" >"$out/$name.txt" 2>&1
    echo "$name: exit code $?, $(($(date +%s) - began)) s"
    tail -4 "$out/$name.txt"
}

resumed() { # SECONDS NAME ARGUMENT...: as loadtrt, from what the file has
    limit=$1 name=$2
    shift 2
    [ -f "$out/$name.json" ] && set -- "$@" --resume
    loadtrt "$limit" "$name" "$@"
}

tests() { # before the rest: what they find wrong makes it worthless
    PLANS=$plans within 480 "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider --durations 10 tests/gpu/test_shares.py \
        tests/gpu/test_neighbours.py tests/gpu/test_models_together.py tests/gpu/test_partitions_hold.py \
        >"$out/tests.txt" 2>&1
    tail -40 "$out/tests.txt"
}

one_pair() {
    loadtrt 50 "pair-$1" run --allow-host-code --verify --duration 5s --model "tiny=$tiny,rate=2000/s$2" \
        --model "googlenet=$googlenet,batch=16,contexts=4,no-copies$3"
}

pair() { # one pair in each way to share, at the same load, outputs verified
    one_pair quiet "" ,rate=1/s
    one_pair plain "" ""
    (export CUDA_DEVICE_MAX_CONNECTIONS=32 && one_pair plain32 "" "") # how much of it is streams that share a queue
    one_pair priority ,priority=high ,priority=low
    one_pair sms8 ,sms=8 ""
    one_pair sms32 ,sms=32 ""
    one_pair both ,sms=32,priority=high ,priority=low
}

alone_on_sms() { # NAME TINY B16: a small model beside a large one, neither copies
    loadtrt 40 "partitions-$1" run --allow-host-code --duration 2s --warmup 300ms --model "tiny=$tiny,rate=2000/s,$2" \
        --model "b16=$googlenet,batch=16,contexts=2,$3"
}

partitions() { # what a model waits for on SMs of its own: hardware queues, copies, graphs, or a neighbour's partition
    for queues in 1 8 32; do
        (export CUDA_DEVICE_MAX_CONNECTIONS=$queues && alone_on_sms "copies-$queues" sms=16 "" &&
            alone_on_sms "no-copies-$queues" sms=16,no-copies no-copies)
    done
    alone_on_sms no-graph sms=16,no-copies,no-graph no-copies,no-graph
    alone_on_sms one-graph sms=16,submit=graph no-copies
    alone_on_sms priority sms=16,no-copies,priority=high no-copies,priority=low
    alone_on_sms large sms=64,no-copies no-copies
}

measured() { # SECONDS NAME ARGUMENT...
    limit=$1 name=$2
    shift 2
    resumed "$limit" "$name" interference --allow-host-code --duration 1s --warmup 300ms "$@"
}

worst() { # the pair whose p99 is expected to rise most, by all ways; 1%: what a second model costs the host's loop. tiny has
    # a rate at which a host that takes 10 µs to submit a request is not what limits it
    measured 420 worst --model "tiny=$tiny,rate=2000/s" --model "b16=$googlenet,batch=16,contexts=2" --neighbour 1%,90%,closed \
        --share streams,priority,sms=16+116,both --rounds 3
}

stressors() { # rates, and that a launch takes 1 ms
    for resource in sm dram l2 pcie; do
        loadtrt 30 "stressor-$resource" run --engine "stressor:$resource" --duration 2s --verify
    done
}

curve() { # throughput and p99 against SMs
    for batch in 16 1; do
        loadtrt 60 "curve-b$batch" sweep --allow-host-code --engine "$googlenet" --batch $batch --copies off \
            --contexts 1 --sms 8,16,32,48,64,96,132 --warmup 300ms --duration 1s
    done
    loadtrt 60 curve-tiny sweep --allow-host-code --engine "$tiny" --copies off --contexts 1 --sms 8,16,32,64,132 \
        --warmup 300ms --duration 1s
}

of_all() { # SECONDS NAME ARGUMENT...
    [ -f "$plans/own.plan" ] && set -- "$@" --model "own=$plans/own.plan"
    measured "$@" --model "b16=$googlenet,batch=16,contexts=2" --model "b1=$googlenet,batch=1,contexts=2" \
        --model "tiny=$tiny,rate=2000/s"
}

fingerprints() {
    of_all 400 fingerprints --stressors --neighbour 90% --rounds 2
}

short() { # fingerprints by launches on the SMs of 50 µs instead of 1 ms
    of_all 400 short --stressors --stressor 'sm="stressor:sm,time=50us"' --neighbour 90% --rounds 2
}

processes() { # a process for each model
    measured 120 processes --model "tiny=$tiny,rate=2000/s" --model "b16=$googlenet,batch=16,contexts=2" \
        --neighbour 90% --share processes --rounds 2
}

matrix() {
    of_all 500 matrix --share streams,priority,sms=32+100,both --neighbour 90% --rounds 2
}

beside_b16() { # NAME MODEL: in rounds that are long enough for an interval of its p99
    resumed 310 "protect-$1" interference --allow-host-code --duration 6s --warmup 300ms --rounds 3 --neighbour 90% \
        --share priority,sms=32+100,streams --model "$1=$2" --model "b16=$googlenet,batch=16,contexts=2"
}

protect() { # the worst pairs
    beside_b16 b1 "$googlenet,batch=1,contexts=2"
    [ ! -f "$plans/own.plan" ] || beside_b16 own "$plans/own.plan"
}

for step in "$@"; do
    "$step"
done
