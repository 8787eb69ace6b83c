#!/bin/bash
# One run of Gristmill on Slurm, on a Ray cluster that lives as long as the job:
#
#   sbatch --nodes=8 infra/deploy/slurm.sh RECIPE INPUT OUT [more options of `gristmill run`]
#
# INPUT and OUT are in an object store or on a file system that every node sees. Preempted, or at the end of its time,
# the job puts itself back into the queue, and the same command goes on after the last committed task.
#
# GRISTMILL_SHARED   folder that every node sees, for Ray's token [default: where sbatch was called]
# GRISTMILL_VENV     virtual environment with Gristmill, on shared storage [default: what is on PATH]
# GRISTMILL_HEAD_IP  address of the first node for the others [default: its first]
# GRISTMILL_WAIT     seconds to wait for all nodes [default: 300]
#
#SBATCH --job-name=gristmill
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=16
# A worker slot is 1 CPU, 1.5 GiB and the parser's ceiling of 2 GiB (docs/scale.md); the rest is for Ray itself.
#SBATCH --mem-per-cpu=3700M
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM to this script 120 s before the time is over; preemption sends the same signal.
#SBATCH --signal=B:TERM@120

set -euo pipefail

say() { echo "slurm.sh: $*" >&2; }

if (($# < 3)); then
    say "usage: sbatch [options of sbatch] infra/deploy/slurm.sh RECIPE INPUT OUT [more options of gristmill run]"
    exit 2
fi
recipe=$1 input=$2 out=$3
shift 3

if [[ -n ${GRISTMILL_VENV:-} ]]; then
    export PATH="$GRISTMILL_VENV/bin:$PATH"
fi
for command in gristmill ray; do
    if ! command -v "$command" >/dev/null; then
        say "no $command on PATH: activate the environment before sbatch, or set GRISTMILL_VENV"
        exit 1
    fi
done

steps=()
driver=
ending=

end() {
    if ((${#steps[@]})); then
        kill "${steps[@]}" 2>/dev/null || true
        wait "${steps[@]}" 2>/dev/null || true
    fi
    rm -f -- "$token"
}

on_term() {
    ending=yes
    say "SIGTERM: ending; what is committed stays"
    if [[ -n $driver ]]; then
        kill -TERM "$driver" 2>/dev/null || true
    fi
}

# Back into the queue, unless somebody cancelled the job: then its state is RUNNING no more.
requeue() {
    if [[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]]; then
        scontrol requeue "$SLURM_JOB_ID"
        say "requeued; the next start goes on from here"
    fi
}

# The token goes from file to file: as an argument or in a variable it would show in process and job listings.
# mktemp makes the file with mode 0600.
token=$(mktemp "${GRISTMILL_SHARED:-$SLURM_SUBMIT_DIR}/.gristmill-token.XXXXXXXX")
trap end EXIT
trap on_term TERM
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token"
unset RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token

# This script runs on the first node of the allocation, which becomes the head.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=${GRISTMILL_HEAD_IP:-$(hostname --all-ip-addresses | cut -d' ' -f1)}
export RAY_ADDRESS=$head_ip:6379
say "start ${SLURM_RESTART_COUNT:-0} on ${#nodes[@]} nodes, head $head ($head_ip)"

# srun does not inherit --cpus-per-task from Slurm 22.05 on. A folder of the job's own: /tmp/ray may be somebody else's.
in_step=(--export=ALL --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0)
of_ray=(--num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=268435456 --temp-dir="/tmp/gm-$SLURM_JOB_ID"
    --disable-usage-stats --block)
srun --nodes=1 --ntasks=1 --nodelist="$head" "${in_step[@]}" \
    ray start --head --node-ip-address="$head_ip" --port=6379 --dashboard-host=127.0.0.1 "${of_ray[@]}" &
steps+=($!)

until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    if [[ -n $ending ]]; then
        requeue
        exit 143
    fi
    if ! kill -0 "${steps[0]}" 2>/dev/null || ((SECONDS > ${GRISTMILL_WAIT:-300})); then
        say "the Ray head does not start: see above, and /tmp/gm-$SLURM_JOB_ID/session_latest/logs on $head"
        exit 1
    fi
    sleep 1
done

others=$((${#nodes[@]} - 1))
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" "${in_step[@]}" \
        ray start --address="$RAY_ADDRESS" "${of_ray[@]}" &
    steps+=($!)
fi

joined() {
    ray list nodes --address http://127.0.0.1:8265 --filter state=ALIVE --limit 10000 --format json 2>/dev/null |
        grep -c '"node_id"' || true
}

until (($(joined) >= ${#nodes[@]})); do
    if [[ -n $ending ]]; then
        requeue
        exit 143
    fi
    if ((SECONDS > ${GRISTMILL_WAIT:-300})); then
        say "$(joined) of ${#nodes[@]} nodes have joined in ${GRISTMILL_WAIT:-300} s; going on, the others may still come"
        break
    fi
    sleep 1
done

# A requeued job comes after its predecessor has ended, on other machines: it takes over what that held.
again=()
[[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]] && again=(--take-over)
gristmill run "$recipe" --input "$input" --out "$out" --address auto "${again[@]}" "$@" &
driver=$!
if [[ -n $ending ]]; then
    kill -TERM "$driver" 2>/dev/null || true # the signal came before there was a driver to pass it to
fi
status=0
wait "$driver" || status=$?
if [[ -n $ending ]]; then
    while kill -0 "$driver" 2>/dev/null; do # the signal cut the first wait short, and a second one may come
        sleep 1
    done
    status=0
    wait "$driver" || status=$?
    if ((status)); then
        requeue
    fi
fi
exit "$status"
