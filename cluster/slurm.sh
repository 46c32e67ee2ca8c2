#!/usr/bin/env bash
# A command on SLURM: a Ray cluster over the nodes of an allocation, for as long as the command takes.
#
#   sbatch cluster/slurm.sh gahb-sweep launch transition --as faces
#   sbatch cluster/slurm.sh gahb-analyze report transition
#   scancel --signal=INT --batch JOB     end it as Ctrl-C does
#
# To edit: the numbers below. Submit it from a shell that finds the command, with the storage in GAHB_STORAGE and the
# record in MLFLOW_TRACKING_URI; home and virtual environment are on folders that all nodes share. docs/cluster.md tells
# the rest.
#SBATCH --job-name=gahb
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
: "${GAHB_STORAGE:?a folder that all nodes share, or s3://bucket/prefix}" "${MLFLOW_TRACKING_URI:?the record}"

# Others may use the same nodes: whoever connects needs a token, and ports and files are this job's own.
export RAY_AUTH_MODE=token
[ -s ~/.ray/auth_token ] || (umask 077; ray get-auth-token --generate > /dev/null)
chmod 600 ~/.ray/auth_token
export port=$((20000 + SLURM_JOB_ID % 10000))
RAY_ADDRESS=$(python -c 'import ray; print(ray.util.get_node_ip_address())'):$port
export RAY_ADDRESS RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 # metrics would answer whoever asks

# Not `ray symmetric-run`: it stops every Ray that the user has on a node, and does not let an interrupted command end.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -uc '
  ulimit -n "$(ulimit -Hn)"
  if [ "$SLURM_PROCID" = 0 ]; then
    role="--head --port=$port --include-dashboard=false"
  else
    role="--address=$RAY_ADDRESS"
    until (: < "/dev/tcp/${RAY_ADDRESS/://}") 2> /dev/null; do sleep 1; done
  fi
  trap : TERM # which SLURM sends to all at the end
  # A folder that nobody else may enter, with a short path, for there are sockets in it.
  folder=$(TMPDIR=/tmp python -m gahb.own_folder "ray-$SLURM_JOB_ID") || exit
  ray start $role --block --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="$folder" \
    --memory=$((SLURM_MEM_PER_NODE * 800000)) --object-store-memory=$((SLURM_MEM_PER_NODE * 100000)) \
    --min-worker-port=0 --max-worker-port=0 > /dev/null
  rm -rf "$folder"
' &
timeout 300 bash << 'END'
until (: < "/dev/tcp/${RAY_ADDRESS/://}") 2> /dev/null; do sleep 1; done
exec python -c 'import os, time, ray
ray.init(log_to_driver=False, logging_level="error")
while sum(node["Alive"] for node in ray.nodes()) < int(os.environ["SLURM_NNODES"]): time.sleep(1)'
END

exec "$@" # in place of this shell, so that the signal before the end of the time reaches it
