#!/bin/bash
# A sweep on the nodes of one Slurm job: `sbatch configs/cluster/slurm.sh cells`; docs/how-to/cluster.md says more.
#SBATCH --job-name=gradient-dynamics
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%j.log
##SBATCH --gpus-per-node=1
set -euo pipefail

cd "$SLURM_SUBMIT_DIR" # the project, in a folder that all nodes see
# shellcheck source=/dev/null
source .venv/bin/activate

export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate > /dev/null) # in ~/.ray/auth_token, which all nodes see

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
read -r address _ < <(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address)
head="$address:$((20000 + SLURM_JOB_ID % 10000))" # a port of its own, should a node be shared after all

# Starts Ray on every node, sweeps on the first one, and stops Ray everywhere when the sweep has ended.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$head" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    env RAY_ADDRESS="$head" python stages/sweep.py "$@"
