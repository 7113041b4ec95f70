#!/bin/bash
# Select from a large pool on several nodes: sbatch ray_slurm.sh
# srun starts Ray on every node, the command runs on the first, and its end stops Ray on all.
#SBATCH --job-name=labelwise
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --exclusive
#SBATCH --time=04:00:00

set -euo pipefail

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head_node" hostname --ip-address | awk '{print $1}')

# Who can reach a Ray without a token can run code on it; srun hands the token to every node.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

srun ray symmetric-run \
  --address "$head_ip:6379" \
  --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" \
  -- \
  labelwise select \
  --pool pool.extxyz --train train.extxyz --n-select 1250 --out batch.extxyz \
  --model mace.model --trust-model --device cuda \
  --store features --memory 16GB --ray auto
