#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, to try sweeps and to test them. Debian:
#
#   apt-get install slurm-wlm munge
#   launch/local_slurm.sh start DIR      prints what to export
#   launch/local_slurm.sh stop DIR
#
# For root only. Its configuration, logs and state are in DIR; nothing else is written. It has no
# accounting, so `sacct` prints nothing. Each node reports two GPUs, whether or not the machine has
# any: a task with `--gres=gpu:1` finds the number of its GPU in CUDA_VISIBLE_DEVICES.
set -euo pipefail

fail() {
  echo "launch/local_slurm.sh: $1" >&2
  exit 2
}

[[ $# -eq 2 && ($1 == start || $1 == stop) ]] || fail "usage: launch/local_slurm.sh start|stop DIR"
mkdir -p "$2"
directory=$(cd "$2" && pwd)
pids=$directory/pids

# Ends the processes started here by number; a number that another process now has is skipped.
stop() {
  [[ -f $pids ]] || return 0
  while read -r pid name; do
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$name" ]] && kill "$pid" 2>/dev/null || true
  done < <(tac "$pids")
  for _ in $(seq 50); do
    alive=0
    while read -r pid name; do
      [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$name" ]] && alive=1
    done < "$pids"
    (( alive )) || break
    sleep 0.1
  done
  rm -f "$pids"
}

if [[ $1 == stop ]]; then
  stop
  exit
fi

[[ $(id -u) == 0 ]] || fail "only root can start it"
for program in munged slurmctld slurmd; do
  command -v "$program" >/dev/null || fail "there is no $program: apt-get install slurm-wlm munge"
done
stop
mkdir -p "$directory"/{state,spool1,spool2,munge}
chmod 755 "$directory"
chmod 700 "$directory/munge"
socket=$directory/munge/socket
host=$(uname -n)
cores=$(nproc)
base=$(( 20000 + $$ % 20000 ))

if [[ ! -s $directory/munge/key ]]; then
  dd if=/dev/urandom of="$directory/munge/key" bs=1024 count=1 status=none
  chmod 600 "$directory/munge/key"
fi
# The devices that SLURM hands out; they are like /dev/null.
for gpu in "$directory"/gpu{0,1}; do
  [[ -c $gpu ]] || mknod "$gpu" c 1 3 || fail "no devices can be made in $directory"
done
echo "NodeName=1,2 Name=gpu Flags=nvidia_gpu_env File=$directory/gpu[0-1]" > "$directory/gres.conf"
cat > "$directory/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
AuthType=auth/munge
AuthInfo=socket=$socket
CryptoType=crypto/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd%n.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd%n.log
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName=1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(( base + 1 )) CPUs=$cores Gres=gpu:2 State=UNKNOWN
NodeName=2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(( base + 2 )) CPUs=$cores Gres=gpu:2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=1,2 Default=YES MaxTime=INFINITE State=UP GraceTime=60
PartitionName=urgent Nodes=1,2 MaxTime=INFINITE State=UP PriorityTier=2
END
export SLURM_CONF=$directory/slurm.conf

# Daemons stay in the foreground of their own sessions, so their process numbers are known.
begin() {
  setsid "$@" </dev/null >>"$directory/daemons.log" 2>&1 &
  echo "$! $(basename "$1")" >> "$pids"
}
begin munged --foreground --force --socket="$socket" --key-file="$directory/munge/key" \
  --pid-file="$directory/munge/pid" --log-file="$directory/munge/log" \
  --seed-file="$directory/munge/seed"
for _ in $(seq 100); do
  [[ -S $socket ]] && break
  sleep 0.1
done
begin slurmctld -D -f "$SLURM_CONF"
begin slurmd -D -f "$SLURM_CONF" -N 1
begin slurmd -D -f "$SLURM_CONF" -N 2
for _ in $(seq 200); do
  [[ $(sinfo -h -t idle -o %D 2>/dev/null) == 2 ]] && break
  sleep 0.1
done
if [[ $(sinfo -h -t idle -o %D 2>/dev/null) != 2 ]]; then
  tail -n 5 "$directory"/*.log >&2
  stop
  fail "it did not start; its logs are in $directory"
fi
echo "export SLURM_CONF=$SLURM_CONF"
