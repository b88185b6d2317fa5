#!/usr/bin/env bash
# A fast selection of the suite on emulated 64-bit ARM: what the engine gives, kept machine code, and instructions.
# Results and machine code are compared on each core; the NumPy reference runs and instructions are counted on the first, tests of kept code run on the last.
#
#   suite.sh PYTHON [DIR] [CPU ...]    PYTHON: a native one with evsnn[test]; DIR: where the emulated one is, or is made
#
# One line and exit status 0 where it cannot be set up. The cores are emulated side by side.
set -euo pipefail
python=$(realpath -s "${1:?usage: suite.sh PYTHON [DIR] [CPU ...]}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dir=${2:-$work/python}
shift $(($# < 2 ? $# : 2))
cpus=${*:-cortex-a72 cortex-a76}
cd "$(dirname "$0")/../.."
chmod 700 "$work"

timeout 400 tests/arm/setup.sh "$dir" "$python" || case $? in
    3) exit 0 ;;  # it has said why
    124) echo "no emulated aarch64: packages take too long to fetch" && exit 0 ;;
    *) exit 1 ;;
esac

export EVSNN_CACHE_DIR="${EVSNN_CACHE_DIR:-$work/native}"
"$python" tests/arm/results.py make "$work/cases"
"$python" tests/arm/results.py run "$work/cases" 2> "$work/native.log" > "$work/native.json" &
native=$!

on() {  # CPU: all of it on one core; machine code is made on this side, and is what the emulated numba makes
    export EVSNN_ARM_CPU=$1 EVSNN_CACHE_DIR="$work/$1" PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTEST_ADDOPTS="-p no:cacheprovider -o addopts=-q"
    PYTHONPATH='' "$python" tests/arm/results.py fill "$work/cases" "$dir/armpy" "$1" "$EVSNN_CACHE_DIR"
    "$dir/armpy" tests/arm/results.py run "$work/cases" $([ "$1" = "${cpus%% *}" ] || echo --engine) > "$work/$1.json"
    echo "results after $SECONDS s"
    mkdir "$work/$1-made"
    if [ "$1" = "${cpus##* }" ]; then
        "$dir/armpy" -m pytest --basetemp="$work/$1-made" tests/engine/test_code.py -k "second_process or kept_code_is_numbas or cannot_be_made"
    fi
    EVSNN_CACHE_DIR="$work/$1-made/int8" "$dir/armpy" -m evsnn.run warm --arithmetic int8
    PYTHONPATH='' "$python" tests/arm/results.py same "$EVSNN_CACHE_DIR" "$work/$1-made"
    echo "machine code after $SECONDS s"
    if [ "$1" = "${cpus%% *}" ]; then
        PYTHONPATH='' "$python" tests/arm/instructions.py "$dir/armpy" "$1"
        echo "instructions after $SECONDS s"
    fi
}

running=()
for cpu in $cpus; do
    (set -e; on "$cpu") > "$work/$cpu.log" 2>&1 &
    running+=("$!:$cpu")
done
failed=0
wait $native || { failed=1; cat "$work/native.log"; }
for pair in "${running[@]}"; do
    cpu=${pair#*:}
    wait "${pair%%:*}" || { failed=1; echo "$cpu, emulated: FAILED"; }
    grep -v '^memory: ' "$work/$cpu.log" || true
    if diff "$work/native.json" "$work/$cpu.json"; then
        echo "$cpu, emulated: the same $(grep -c '^ "' "$work/$cpu.json") results as on $(uname -m), bit for bit"
    else
        failed=1
    fi
done
exit $failed
