#!/usr/bin/env bash
set -euo pipefail
# The one command.
#
#   bash run.sh train     STNET ./configs/stnet.yaml [flags]
#   bash run.sh finetune  STNET ./configs/stnet_finetune.yaml --videos=FOLDER [flags]: your own classes, in one command
#   bash run.sh eval      STNET ./configs/stnet.yaml [flags]
#   bash run.sh predict   STNET ./configs/stnet.yaml [flags], for example --video_path=a.mp4
#   bash run.sh inference STNET ./configs/stnet.yaml [flags], for example --format=onnx
#   bash run.sh serve     STNET ./configs/stnet.yaml [flags]: a page and an API, after bash run.sh setup serve
#   bash run.sh data      make, check, pack and show data sets: data --help, data check --list my.list
#   bash run.sh demo      set up, draw clips, train, evaluate, predict
#   bash run.sh test      set up, run the tests; --fast: some, in two minutes; --slow: as CI; --all: also what takes minutes
#   bash run.sh setup     make .venv and install what is needed
#
# Settings: edit them here (epoch=1), or set them in the environment (use_gpu=False bash run.sh ...), which wins in lines
# that name it, such as "${epoch-}". An empty one is left to the config. Flags after the config win over both.
# stnet/flags.py declares them.
use_gpu="${use_gpu-auto}"             # True, False, auto: the GPU if one works
batch_size="${batch_size-}"           # clips a step, over all cards
# train, finetune, eval, predict, inference
save_dir="${save_dir-}"               # default: checkpoints (train), results (eval, predict), inference_model
# train, finetune, eval, predict
log_interval="${log_interval-10}"     # steps between log lines
# eval, predict, inference, serve
weights="${weights-}"                 # default: the released ones
precision="${precision-}"             # fp32, bf16, int8, auto: the fastest that is proven
# eval, predict, serve
engine="${engine-}"                   # auto, paddle, inference, onnxruntime
# train, finetune
pretrain="${pretrain-}"               # weights to start from: a file, released, none
epoch="${epoch-}"                     # epochs
learning_rate="${learning_rate-}"     # initial learning rate
# train
resume="${resume-}"                   # checkpoint to go on from; auto: the newest in save_dir
valid_interval="${valid_interval-1}"  # epochs between validations; 0: none
fix_random_seed="${fix_random_seed-False}" # same seed, same machine: the same losses
# predict
video_path="${video_path-}"           # a video, a folder, a glob or a list file
filelist="${filelist-}"               # list of videos, labels optional
output="${output-}"                   # results.jsonl or results.csv, instead of predict_results.json
infer_topk="${infer_topk-}"           # classes per clip
# serve
host="${host-}"                       # address to listen at; default: 127.0.0.1
# train, eval: processes
nproc="${nproc-}"                     # processes on the CPU; on GPUs, one for each in CUDA_VISIBLE_DEVICES
nnodes="${nnodes-}"                   # machines; run the same command on each of them, but for node_rank
node_rank="${node_rank-}"             # number of this machine: 0, 1, ...
master="${master-}"                   # IP:PORT, the address of machine 0 and a free port on it
# setup
PYTHON="${PYTHON-}"                   # interpreter that .venv is made with; default: python3
PADDLE_PACKAGE="${PADDLE_PACKAGE-}"   # pip requirement for Paddle; default: chosen by what nvidia-smi says

# Streams that are closed lead to /dev/null.
: >&2 || exec 2>/dev/null
{ : <&0; } 2>/dev/null || exec </dev/null
{ : >&1; } 2>/dev/null || exec >/dev/null

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$here/.venv"

die() { echo "error: $*" >&2; exit 2; }
usage() { sed -n '3,/^# Settings/p' "$here/run.sh" | sed '$d; s/^# \{0,1\}//'; }

# The Python to use: .venv if setup made one, else the one on the PATH.
python_command() {
    if [ -x "$venv/bin/python" ]; then echo "$venv/bin/python"; else echo "${PYTHON:-python3}"; fi
}

make_venv() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    local base="${PYTHON:-python3}"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null \
        || die "$base is not a Python 3.9 or newer; set PYTHON to one"
    echo "making $venv"
    rm -rf "$venv"
    if ! "$base" -m venv "$venv"; then
        rm -rf "$venv"
        die "$base -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
    fi
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# Paddle's package indexes for the CUDA versions that the driver can run, the newest first; nothing without a driver.
gpu_indexes() {
    local driver known
    driver="$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)" || true
    [ -n "$driver" ] || return 0
    for known in 13.0 12.9 12.6 11.8; do
        if [ "$(printf '%s\n%s\n' "$known" "$driver" | sort -V | head -n 1)" = "$known" ]; then
            echo "https://www.paddlepaddle.org.cn/packages/stable/cu${known/./}/"
        fi
    done
}

reachable() {
    "$venv/bin/python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=15)' "$1" 2>/dev/null
}

install_paddle() {
    "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("paddle") is None)' && return
    if [ -n "${PADDLE_PACKAGE-}" ]; then
        echo "installing $PADDLE_PACKAGE"
        pip_install "$PADDLE_PACKAGE"
        return
    fi
    local index indexes
    indexes="$(gpu_indexes)"
    for index in $indexes; do
        reachable "$index" || continue
        echo "installing paddlepaddle-gpu from $index"
        pip_install --index-url "$index" 'paddlepaddle-gpu>=3.0,<4' && return
    done
    [ -z "$indexes" ] || echo "there is an NVIDIA driver, but Paddle's package index is out of reach: taking the CPU package"
    echo "installing paddlepaddle (CPU)"
    pip_install -e "$here[cpu]"
}

# setup [EXTRA ...]: quick when everything is there.
setup() {
    local extras="$*" extra known
    known="$(sed -n '/extras_require/,$s/^        "\([a-z-]*\)": \[.*/\1/p' "$here/setup.py" | paste -sd ' ')"
    for extra in "$@"; do
        [[ " $known " == *" $extra "* ]] || die "unknown extra '$extra'; known: $known"
    done
    local stamp="$venv/.installed-${extras// /-}"
    if [ -f "$stamp" ] && [ "$stamp" -nt "$here/setup.py" ] && [ -x "$venv/bin/python" ]; then return; fi
    make_venv
    install_paddle
    pip_install -e "$here${extras:+[${extras// /,}]}"
    if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
        echo "opencv-python needs libraries that this machine lacks: installing opencv-python-headless instead"
        "$venv/bin/python" -m pip uninstall --quiet --yes opencv-python
        pip_install opencv-python-headless
    fi
    touch "$stamp"
}

# Every variable that is assigned above, in whatever way, in the environment, for stnet/flags.py, which knows what takes
# it: STNET_SET_epoch and so on; and two that the command to go on needs, too.
export_settings() {
    local setting
    unset "${!STNET_SET_@}"
    for setting in $(sed -n '1,/^here=/{s/^[[:space:]]*#.*//;s/[[:space:]]#.*//;p;}' "$here/run.sh" \
        | grep -oE '\b[a-z_]+[:+]?=' | tr -d ':+=') PYTHON CUDA_VISIBLE_DEVICES; do
        [ -z "${!setting+set}" ] || export "STNET_SET_$setting=${!setting}"
    done
}

# entry SCRIPT NAME CONFIG [flags]: run it with the settings above, as far as they are set.
entry() {
    local script="$1" name="$2" config="$3"
    shift 3
    export_settings
    export STNET_TYPED="bash $0"
    local command=("$(python_command)") launch=() log flag before=""
    local folder="${STNET_SET_save_dir-}" gpu="${STNET_SET_use_gpu-}" processes="${STNET_SET_nproc-}"
    for flag in "$@"; do
        case "$before $flag" in *" --save_dir="?*) folder="${flag#*=}" ;; "--save_dir "?*) folder="$flag" ;; esac
        case "$before $flag" in *" --use_gpu="?*) gpu="${flag#*=}" ;; "--use_gpu "?*) gpu="$flag" ;; esac
        before="$flag"
    done
    if [ "$script" = train.py ] || [ "$script" = eval.py ]; then
        [ -n "$folder" ] || case "$script" in train.py) folder=checkpoints ;; *) folder=results ;; esac
        log="$folder/log"
        local cards="${CUDA_VISIBLE_DEVICES-}"
        if [[ "$cards" == *,* ]] && [[ ! "$gpu" =~ ^([Ff]alse|FALSE|0)$ ]] && gpu_works; then
            launch=(--devices "$cards")
        elif [ -n "$processes" ] && [[ ! "$processes" =~ ^[1-9][0-9]*$ ]]; then
            die "nproc: expected a number of processes, found '$processes'"
        elif [ "${processes:-1}" -gt 1 ]; then
            launch=(--nproc_per_node "$processes")
        fi
        if [ "${nnodes:-1}" != 1 ]; then
            check_nodes
            launch+=(--nnodes "$nnodes" --rank "$node_rank" --master "$master")
            [ "$node_rank" != 0 ] || launch+=(--host "${master%:*}") # what it finds by itself may be 127.0.1.1
            log="$log/node$node_rank"
        fi
    fi
    set -- "$here/$script" "--model_name=$name" "--config=$config" "$@"
    [ ${#launch[@]} -gt 0 ] || exec "${command[@]}" "$@"
    command+=(-W "ignore:No ccache found" -m paddle.distributed.launch --log_level WARNING)
    launched "${command[@]}" "${launch[@]}" --log_dir "$log" "$@" >&2 # it mixes the log of rank 0 with its own
}

# Whether Paddle computes on a GPU here: ranks would be launched for nothing, each with a message of its own.
gpu_works() {
    PYTHONPATH="$here" "$(python_command)" -c 'import sys; from stnet import runtime; sys.exit(not runtime.gpu_works())' \
        >/dev/null 2>&1
}

check_nodes() {
    [[ "$nnodes" =~ ^[1-9][0-9]*$ ]] || die "nnodes: expected the number of machines, found '$nnodes'"
    [[ "${node_rank-}" =~ ^[0-9]+$ ]] && [ "$node_rank" -lt "$nnodes" ] \
        || die "node_rank: expected the number of this machine, 0 to $((nnodes - 1)), found '${node_rank-}'"
    [[ "${master-}" =~ ^[0-9]+(\.[0-9]+){3}:[0-9]+$ ]] \
        || die "master: expected IP:PORT, the address of machine 0 and a free port on it, found '${master-}'"
}

# Run a launcher of several ranks. Signals go to the ranks themselves: the launcher would not let them save. The ranks
# look whether this script, STNET_RUN_SH, is still there.
launched() {
    local launcher stop="" code=0
    export STNET_RUN_SH=$$
    set -m # a process group of its own: Ctrl-C reaches this script alone
    "$@" &
    launcher=$!
    signal_ranks() { kill -s "$1" $(cat "/proc/$launcher/task/$launcher/children") 2>/dev/null || kill -s "$1" "$launcher"; }
    trap 'stop=143; signal_ranks TERM' TERM
    trap 'stop=130; signal_ranks INT' INT
    trap 'stop=129; signal_ranks HUP' HUP # without effect under nohup
    while kill -0 "$launcher" 2>/dev/null; do
        code=0
        wait "$launcher" || code=$?
    done
    [ "$code" != 241 ] || code=1 # of the ranks that the launcher ended because one had failed
    exit "${stop:-$code}"
}

demo() {
    setup
    local python="$venv/bin/python" began=$SECONDS folder="$here/demo"
    local seed="${DEMO_SEED:-0}"
    export STNET_TYPED="bash run.sh"
    cd "$here"
    [ ! -e "$folder" ] || echo "removing the earlier demo in $folder"
    rm -rf "$folder"
    echo "== 1/4 drawing clips"
    "$python" -m tools.demo_clips "$folder" --seed "$seed"
    local common=(--model_name=STNET --config=configs/stnet_demo.yaml --use_gpu="${use_gpu-}")
    echo "== 2/4 training"
    "$python" train.py "${common[@]}" --save_dir="$folder/checkpoints" --pretrain=none --valid_interval=0 \
        --fix_random_seed=True "$@"
    echo "== 3/4 evaluating on held-out clips"
    "$python" eval.py "${common[@]}" --weights="$folder/checkpoints/STNET_final.pdparams" --save_dir="$folder/results"
    echo "== 4/4 predicting one clip"
    "$python" predict.py "${common[@]}" --weights="$folder/checkpoints/STNET_final.pdparams" \
        --save_dir="$folder/results" --video_path="$folder/clips/val_left_000.mp4"
    "$python" -m tools.demo_report "$folder" $((SECONDS - began))
}

# What `test --fast` runs: some of every folder.
fast=(
    tests/test_floors.py tests/test_demo.py tests/test_config.py tests/test_flags.py tests/utils tests/metrics
    tests/models/test_stnet.py tests/weights/test_load.py
    tests/reader/test_sampling.py tests/reader/test_lists.py tests/reader/test_transforms.py tests/reader/test_pickles.py
    tests/backends/test_engines.py tests/weights/test_loading.py tests/tools/test_dataset_lists.py
    tests/serve/test_answers.py tests/benchmarks/test_timer.py
)

main() {
    local action="${1:-}"
    [ $# -gt 0 ] && shift
    case "$action" in
        train | finetune | eval | predict | inference | serve)
            [ $# -ge 2 ] || die "expected: bash run.sh $action NAME CONFIG [flags]"
            case "$action" in inference | serve) action="${action}_model" ;; esac
            entry "$action.py" "$@"
            ;;
        data)
            export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
            exec "$(python_command)" -m stnet data "$@"
            ;;
        setup) setup "$@" ;;
        demo) demo "$@" ;;
        test)
            setup test
            cd "$here"
            local parallel=(-n auto --maxprocesses 4 --dist worksteal)
            case "${1:-}" in
                "") set -- "${parallel[@]}" ;;
                --slow) set -- "${parallel[@]}" -m "not long" "${@:2}" ;;
                --all) set -- "${parallel[@]}" -m "" "${@:2}" ;;
                --fast) set -- "${fast[@]}" "${@:2}" ;;
            esac
            exec "$venv/bin/python" -m pytest "$@"
            ;;
        "" | help | -h | --help) usage ;;
        *) usage >&2; die "unknown action '$action'" ;;
    esac
}

main "$@"
