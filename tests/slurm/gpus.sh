#!/usr/bin/env bash
# GPUs: those that Slurm gives to a job, here pretended and run on processors (tests/cuda_host), are seen by all ranks of
# their node, so that they can reach each other's, and each rank computes on one of its own; a job that asks for none uses
# processors; too few are refused. Usage: gpus.sh BERTUNE-CUDA-HOST
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-$(dirname "$bertune")/tests/cuda_host/nccl}"
CLUSTER_GPUS=2 start_cluster
unset CUDA_VISIBLE_DEVICES
set_up

# The program with as many GPUs as Slurm shows it, which it writes down.
cat >"$scratch/bertune" <<SH
#!/bin/bash
echo "\$(hostname) \${CUDA_VISIBLE_DEVICES:-none}" >>"$scratch/seen"
gpus=\${CUDA_VISIBLE_DEVICES//[!,]/}x
[ -n "\${CUDA_VISIBLE_DEVICES:-}" ] || gpus=
CUDA_HOST_DEVICES=\${#gpus} exec "$bertune" "\$@"
SH
chmod +x "$scratch/bertune"
export BERTUNE=$scratch/bertune

# job_sees LINES ARGUMENT ...: submits it and checks which GPUs its ranks see.
job_sees() {
    local wanted=$1
    shift
    rm -f "$scratch/seen"
    submit "$@" train.max_steps=4 run.dir="job$((++count))"
    wait_for 120 left_queue
    equal "$(sort "$scratch/seen" | sed "s/^$(uname -n | sed 's/[.].*//') /node1 /")" "$wanted" "what ranks see"
}
count=0

for launcher in mpirun srun; do
    export LAUNCHER=$launcher
    job_sees $'node1 0,1\nnode1 0,1' --gpus-per-node=2 slurm/train.sbatch c.yaml
    until_end COMPLETED 0
    contains "$log" "GPUs of a node: 2; restart 0; $launcher"
    contains "$log" "2 ranks on cuda"

    job_sees $'node1 none\nnode1 none' slurm/train.sbatch c.yaml
    until_end COMPLETED 0
    contains "$log" "2 ranks x 1 thread on cpu"

    job_sees $'node1 0\nnode1 0' --gpus-per-node=1 slurm/train.sbatch c.yaml run.device=cuda
    until_end FAILED 69
    contains "$log" "job $job: exit code 69, not requeued"
done

if [ "$network" = none ]; then
    echo "NOT CHECKED: two nodes with GPUs of their own: no network namespaces here"
else
    LAUNCHER=mpirun job_sees $'node1 0,1\nnode1 0,1\nnode2 0,1\nnode2 0,1' --gpus-per-node=2 slurm/train-multinode.sbatch c.yaml
    until_end COMPLETED 0
    contains "$log" "4 ranks on cuda"
fi
none_left
