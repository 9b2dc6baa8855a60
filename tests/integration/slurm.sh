#!/bin/bash
# Runs a command within a Slurm of one node on loopback; as root, without systemd:
#   apt-get install slurmd slurmctld slurm-client munge
#   tests/integration/slurm.sh python -m pytest --slow tests/integration/test_clusters.py
set -eu
for program in munged slurmctld slurmd sinfo; do
  command -v $program > /dev/null || { echo "error: no $program: apt-get install slurmd slurmctld slurm-client munge" >&2; exit 1; }
done
test "$(id -u)" = 0 || { echo "error: the daemons of Slurm must be started by root" >&2; exit 1; }

# Under /tmp munged requires that it owns all parent directories.
dir=$(mktemp -d /var/tmp/slurm.XXXXXX)
host=$(hostname -s)
export SLURM_CONF=$dir/slurm.conf
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  wait "${pids[@]}" 2> /dev/null || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

mkdir "$dir/state" "$dir/spool"
cat > "$SLURM_CONF" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
KillWait=15
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

head -c 128 /dev/urandom > "$dir/munge.key"
chmod 600 "$dir/munge.key"
munged --foreground --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" --seed-file="$dir/munge.seed" \
  --num-threads=2 > "$dir/munged.log" 2>&1 & pids+=($!)
until test -S "$dir/munge.socket"; do kill -0 "${pids[0]}" || { cat "$dir/munged.log" >&2; exit 1; }; sleep 0.1; done
slurmctld -D > "$dir/slurmctld.log" 2>&1 & pids+=($!)
slurmd -D > "$dir/slurmd.log" 2>&1 & pids+=($!)
for _ in $(seq 60); do
  test "$(sinfo --noheader --format=%T 2> /dev/null)" = idle && break
  sleep 0.5
done
test "$(sinfo --noheader --format=%T 2> /dev/null)" = idle || { echo "error: Slurm does not come up" >&2; tail "$dir"/*.log >&2; exit 1; }
"$@"
