#!/bin/bash
# cluster.sh start|stop FOLDER: a real Slurm of two nodes with accounting on this machine, as root. No systemd, no container.
# Each node has its own network, host name, process table and /dev/shm, so that it is a machine of its own to what runs there.
# Debian's packages: slurm-wlm slurmdbd slurm-wlm-mysql-plugin mariadb-server munge iproute2 procps. FOLDER must be short.
# Afterwards: export SLURM_CONF=FOLDER/etc/slurm.conf
set -euo pipefail
R=$2 N=2 SUBNET=10.87.0 BRIDGE=dsrlbr0
H=$(hostname -s) CONTROLLER=$SUBNET.254
export SLURM_CONF=$R/etc/slurm.conf

wait_for() {  # TENTHS COMMAND...
  local n=$1; shift
  for _ in $(seq "$n"); do "$@" >/dev/null 2>&1 && return 0; sleep .1; done
  echo "timeout: $*" >&2; return 1
}

settings() {
  mkdir -p "$R"/{etc,state,log,run,spool,db}; chmod 755 "$R"
  [ -f "$R/etc/munge.key" ] || { dd if=/dev/urandom bs=1024 count=1 of="$R/etc/munge.key" status=none; chmod 400 "$R/etc/munge.key"; }
  for i in 0 1 2 3; do [ -e /dev/fakegpu$i ] || mknod /dev/fakegpu$i c 1 3; done
  cat > "$SLURM_CONF" <<C
ClusterName=test
SlurmctldHost=$H($CONTROLLER)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$R/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$R/state
SlurmdSpoolDir=$R/spool/%n
SlurmctldPidFile=$R/run/slurmctld.pid
SlurmdPidFile=$R/run/slurmd-%n.pid
SlurmctldLogFile=$R/log/slurmctld.log
SlurmdLogFile=$R/log/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
GresTypes=gpu
SlurmdParameters=config_overrides
KillWait=15
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=30
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$R/run/munge.sock
$(for i in $(seq $N); do echo "NodeName=node$i NodeAddr=$SUBNET.$i Port=16818 CPUs=8 RealMemory=16000 Gres=gpu:4 State=UNKNOWN"; done)
PartitionName=main Nodes=node[1-$N] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=node[1-$N] Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=node[1-$N] Default=NO MaxTime=10 State=UP PriorityTier=1
C
  printf 'AutoDetect=off\nNodeName=node[1-%s] Name=gpu File=/dev/fakegpu[0-3]\n' $N > "$R/etc/gres.conf"
  printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > "$R/etc/cgroup.conf"
  { echo "127.0.0.1 localhost"; echo "$CONTROLLER $H"; for i in $(seq $N); do echo "$SUBNET.$i node$i"; done; } > "$R/etc/hosts"
  cat > "$R/etc/slurmdbd.conf" <<C
AuthType=auth/munge
AuthInfo=socket=$R/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile=$R/log/slurmdbd.log
PidFile=$R/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
C
  chmod 600 "$R/etc/slurmdbd.conf"
}

accounting() {
  [ -d "$R/db/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$R/db" --auth-root-authentication-method=normal --skip-test-db > "$R/log/dbinstall.log" 2>&1
  setsid mariadbd --no-defaults --user=root --datadir="$R/db" --socket="$R/run/mysql.sock" --pid-file="$R/run/mariadbd.pid" --skip-networking=1 \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 --log-error="$R/log/mariadbd.err" </dev/null >/dev/null 2>&1 &
  wait_for 300 mariadb-admin -uroot -S "$R/run/mysql.sock" ping
  mariadb --no-defaults -uroot -S "$R/run/mysql.sock" -e "create database if not exists slurm_acct_db"
  MYSQL_UNIX_PORT=$R/run/mysql.sock slurmdbd
  wait_for 300 sacctmgr -n show cluster
  sacctmgr -i add cluster test >/dev/null 2>&1 || true
  sacctmgr -i add account default Description=d Organization=o >/dev/null 2>&1 || true
  sacctmgr -i add user root Account=default >/dev/null 2>&1 || true
}

network() {
  ip link add $BRIDGE type bridge; ip addr add $CONTROLLER/24 dev $BRIDGE; ip link set $BRIDGE up
  for i in $(seq $N); do
    ip netns add dsrl$i; ip link add dsrl$i type veth peer name eth0 netns dsrl$i; ip link set dsrl$i master $BRIDGE up
    ip -n dsrl$i link set lo up; ip -n dsrl$i addr add $SUBNET.$i/24 dev eth0; ip -n dsrl$i link set eth0 up
    ip -n dsrl$i route add default via $CONTROLLER
  done
}

nodes() {
  # `ip netns exec` would hide /sys/fs/cgroup from slurmd. Process 1 is bash, which reaps orphans; slurmd would not.
  for i in $(seq $N); do
    setsid nsenter --net=/run/netns/dsrl$i unshare --uts --mount --pid --fork --kill-child --mount-proc bash -c "
      hostname node$i; mount --bind $R/etc/hosts /etc/hosts; mount -t tmpfs -o size=4g tmpfs /dev/shm
      slurmd -D -N node$i & wait" </dev/null >"$R/log/slurmd-node$i.out" 2>&1 &
    echo $! > "$R/run/ns-node$i.pid"
  done
  wait_for 300 bash -c "[ \"\$(sinfo -h -p main -t idle -o %D)\" = $N ]"
}

start() {
  settings
  munged --key-file="$R/etc/munge.key" --socket="$R/run/munge.sock" --pid-file="$R/run/munged.pid" --log-file="$R/log/munged.log" --seed-file="$R/run/munge.seed" --num-threads=10
  accounting; network; slurmctld -c; nodes; sinfo -N
}

stop() {
  set +e
  for i in $(seq $N); do [ -f "$R/run/ns-node$i.pid" ] && kill -9 -- "-$(cat "$R/run/ns-node$i.pid")"; rm -f "$R/run/ns-node$i.pid"; done 2>/dev/null
  for name in slurmctld slurmdbd munged; do [ -f "$R/run/$name.pid" ] && kill "$(cat "$R/run/$name.pid")"; done 2>/dev/null
  for i in $(seq $N); do ip netns pids dsrl$i | xargs -r kill -9; ip netns del dsrl$i; done 2>/dev/null
  ip link del $BRIDGE 2>/dev/null
  [ -S "$R/run/mysql.sock" ] && mariadb-admin -uroot -S "$R/run/mysql.sock" shutdown 2>/dev/null
  return 0
}

case $1 in start) start ;; stop) stop ;; *) echo "usage: $0 start|stop FOLDER"; exit 2 ;; esac
