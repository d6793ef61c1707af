#!/usr/bin/env bash
# A real Slurm cluster on this machine for the tests: munged, slurmctld and a slurmd for each of its nodes, as root,
# without systemd, cgroups or accounting, beside any other cluster.
#   cluster.sh start DIR [NODES]   starts it and waits until all nodes are idle; DIR: at most 60 characters, no spaces
#   cluster.sh stop DIR            cancels its jobs and ends all that start began; again does no harm
#   cluster.sh env DIR             prints what its clients and jobs need in their environment
# CLUSTER_GPUS: pretend GPUs of a node (0); CLUSTER_CONF: more lines of slurm.conf.
# Where the kernel allows it, nodes have their own network, host name and /dev/shm (DIR/net says netns), else, or with
# CLUSTER_NET=none, they share this machine's (none).
set -u
umask 022
export PATH=$PATH:/usr/sbin:/sbin
command=${1:?usage: cluster.sh start|stop|env DIR [NODES]}
dir=$(realpath -m "${2:?which directory?}")
nodes=${3:-1}
gpus=${CLUSTER_GPUS:-0}
export SLURM_CONF=$dir/slurm.conf

fail() {
    echo "cluster.sh: $*" >&2
    for log in "$dir"/log/*; do
        [ ! -s "$log" ] || { echo "--- $log" && tail -n 5 "$log"; } >&2
    done
    stop
    exit 1
}

# Names, addresses and ports follow from a number that no other cluster has.
numbered() {
    id=btslurm$1 port=$((21000 + $1 * 25)) subnet=198.18.$1
}

listened() { # PORT
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf %04X "$1")" '$2 ~ ":" port "$" && $4 == "0A" { found = 1 } END { exit !found }'
}

choose_number() {
    local number n used
    for number in {0..99}; do
        numbered "$number"
        used=$(ip netns list 2>/dev/null | grep "^$id-")$(ip -4 addr 2>/dev/null | grep " $subnet\.")
        for ((n = 0; n <= nodes; n++)); do
            if listened $((port + n)); then used=yes; fi
        done
        [ -n "$used" ] || { echo "$number" >"$dir/number" && return; }
    done
    fail "100 clusters are there already"
}

spaces() { ip netns list 2>/dev/null | grep -o "^$id-[^ ]*"; }

# Does the kernel let us make networks and mounts?
netns_allowed() {
    local code=0
    command -v ip unshare nsenter >/dev/null && ip netns add "$id-try" 2>/dev/null || return 1
    { ip -n "$id-try" link add a0 type veth peer name a1 && ip -n "$id-try" link add br0 type bridge &&
        unshare -m -u sh -c 'mount -t tmpfs tmpfs /dev/shm'; } 2>/dev/null || code=1
    ip netns del "$id-try"
    return $code
}

# plug NETNS BYTE: a cable from a node, or this machine (NETNS -), to the bridge, at address BYTE. The bridge has a name
# space of its own, where no firewall of the host's filters.
plug() {
    local at=(-n "$1") device=eth0
    ip link add "$id-x" type veth peer name "p$2" netns "$id-sw" && ip -n "$id-sw" link set "p$2" master br0 up || return
    if [ "$1" = - ]; then
        at=() device=$id-host
        ip link set "$id-x" name "$device" || return
    else
        ip link set "$id-x" netns "$1" name eth0 && ip -n "$1" link set lo up || return
    fi
    ip "${at[@]}" addr add "$subnet.$2/24" dev "$device" && ip "${at[@]}" link set "$device" up
}

# address NODE, 0 for the controller
address() {
    if [ "$net" = none ]; then echo 127.0.0.1; else echo "$subnet.$(($1 + 10))"; fi
}

lay_network() {
    local n
    net=none
    if [ "${CLUSTER_NET:-}" != none ] && netns_allowed; then net=netns; fi
    echo $net >"$dir/net"
    [ $net = netns ] || { echo "cluster.sh: no network namespaces here: the nodes share this machine's network" && return; }
    { ip netns add "$id-sw" && ip -n "$id-sw" link add br0 type bridge && ip -n "$id-sw" link set br0 up &&
        plug - 10; } || fail "no network"
    for ((n = 1; n <= nodes; n++)); do
        { ip netns add "$id-node$n" && plug "$id-node$n" $((n + 10)); } || fail "no network for node$n"
    done
    { echo "127.0.0.1 localhost" && echo "$(address 0) $host" &&
        for ((n = 1; n <= nodes; n++)); do echo "$(address $n) node$n"; done; } >"$dir/hosts"
}

# cred_expire bounds how long a requeued job waits. Jobs may ask for more CPUs than there are. Of PMIx's fences the
# default one lets a few of a thousand steps on two nodes crash. GPUs must be character devices. slurmd loads a plugin
# for cgroups although it is told to use none.
configure() {
    local n
    echo CgroupPlugin=cgroup/v1 >"$dir/cgroup.conf"
    echo PMIxCollFence=tree >"$dir/mpi.conf"
    : >"$dir/gres.conf"
    for ((n = 0; n < gpus; n++)); do
        ln -s /dev/null "$dir/gpu$n"
        echo "Name=gpu File=$dir/gpu$n" >>"$dir/gres.conf"
    done
    cat >"$SLURM_CONF" <<CONF
ClusterName=bertune
SlurmctldHost=$host($(address 0))
SlurmUser=root
AuthInfo=socket=$dir/munge.sock,cred_expire=5
SlurmctldPort=$port
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp/%n
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,sched_interval=1,bf_interval=1
GresTypes=gpu
MpiDefault=none
EnforcePartLimits=ALL
ReturnToService=2
${CLUSTER_CONF:-}
$(for ((n = 1; n <= nodes; n++)); do
        echo "NodeName=node$n NodeAddr=$(address $n) Port=$((port + n)) CPUs=8 RealMemory=1000000 Gres=gpu:$gpus"
    done)
PartitionName=test Nodes=ALL Default=YES OverSubscribe=YES:8
CONF
}

# A node is a slurmd, with its own host name, /dev/shm, /etc/hosts and /sys where it has its own network.
start_node() {
    mkdir -p "$dir/tmp/$1" "$dir/spool/$1"
    if [ "$net" = none ]; then
        slurmd -f "$SLURM_CONF" -N "$1"
    else
        # shellcheck disable=SC2016
        nsenter --net="/run/netns/$id-$1" unshare -m -u sh -c '
            echo "$1" >/proc/sys/kernel/hostname && mount -t tmpfs tmpfs /dev/shm && mount --bind "$2/hosts" /etc/hosts &&
            { mount -t sysfs sysfs /sys || :; } && exec slurmd -f "$2/slurm.conf" -N "$1"' sh "$1" "$dir"
    fi >"$dir/log/$1.out" 2>&1 || fail "slurmd of $1 does not start"
}

wait_until_idle() {
    local i
    for ((i = 0; i < 150; i++)); do
        [ "$(timeout 5 sinfo -h -N -p test -o %T 2>/dev/null | grep -cx idle)" != "$nodes" ] || return 0
        sleep 0.2
    done
    sinfo -N -o '%N %T %E' >&2
    fail "the nodes are not idle after 30 s"
}

start() {
    local program n
    [ "$(id -u)" = 0 ] || fail "must run as root"
    case $dir in *[[:space:]]*) fail "no spaces: $dir" ;; esac
    [ ${#dir} -le 60 ] || fail "too long a path for sockets: $dir"
    for program in munged slurmctld slurmd sbatch srun; do
        command -v $program >/dev/null || fail "no $program: apt-get install slurmctld slurmd slurm-client munge"
    done
    mkdir -p "$dir"/{state,spool,log,tmp} || fail "cannot write $dir"
    host=$(uname -n)
    host=${host%%.*}
    exec 9</tmp && flock 9  # two that start at once would choose the same number
    choose_number
    lay_network
    configure
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    munged --force --socket="$dir/munge.sock" --key-file="$dir/munge.key" --pid-file="$dir/munged.pid" \
        --log-file="$dir/log/munged.log" --seed-file="$dir/munge.seed" >"$dir/log/munged.out" 2>&1 9<&- ||
        fail "munged does not start"
    slurmctld -c -f "$SLURM_CONF" >"$dir/log/slurmctld.out" 2>&1 9<&- || fail "slurmctld does not start"
    for ((n = 1; n <= nodes; n++)); do start_node node$n 9<&-; done
    exec 9<&-
    wait_until_idle
}

# The pids of our daemons that still run: neither zombies nor others that got the number.
daemons() {
    local file pid
    for file in "$dir"/*.pid; do
        pid=$(cat "$file" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$dir/" &&
            echo "$pid"
    done
}

# The pids of what jobs have left: all in our networks, slurmstepds with our files open, and whatever is of our jobs.
strays() {
    local space pid file
    for space in $(spaces); do ip netns pids "$space"; done
    for pid in $(pgrep -x slurmstepd); do
        readlink "/proc/$pid"/fd/* 2>/dev/null | grep -qF "$dir/" && echo "$pid"
    done
    for file in /proc/[0-9]*/environ; do
        pid=${file//[!0-9]/}
        [ "$pid" != $$ ] && grep -zqxF "SLURM_CONF=$SLURM_CONF" "$file" && grep -zq '^SLURM_JOB_ID=' "$file" && echo "$pid"
    done 2>/dev/null
}

# finish LIST: TERM to the pids that the function LIST prints, after ten seconds KILL.
finish() {
    local i
    local -a pids
    for ((i = 0; i < 110; i++)); do
        mapfile -t pids < <($1)
        [ ${#pids[@]} -gt 0 ] || return 0
        case $i in
            0) kill "${pids[@]}" 2>/dev/null ;;
            100) kill -9 "${pids[@]}" 2>/dev/null ;;
        esac
        sleep 0.1
    done
    echo "cluster.sh: still there: ${pids[*]}" >&2
}

stop() {
    local i space
    [ -f "$dir/number" ] || return 0
    numbered "$(cat "$dir/number")"
    if [ -n "$(daemons)" ]; then
        timeout 10 scancel -u root 2>/dev/null
        for ((i = 0; i < 40; i++)); do
            [ -n "$(timeout 5 squeue -h 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    finish daemons
    finish strays
    for space in $(spaces); do ip netns del "$space"; done
    ip link del "$id-host" 2>/dev/null
    rm -f "$dir/number" "$dir"/*.pid
}

case $command in
    start) start ;;
    stop) stop ;;
    env)
        # Nodes that share one /dev/shm must not use it. Ranks outnumber processors: they must not spin or be bound.
        btl=self,vader,tcp
        [ "$(cat "$dir/net")" = netns ] || btl=self,tcp
        echo "export SLURM_CONF=$SLURM_CONF TMPDIR=$dir/tmp OMPI_MCA_btl=$btl OMPI_MCA_mpi_yield_when_idle=1"
        echo "export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_odls_base_sigkill_timeout=1"
        ;;
    *) echo "cluster.sh: $command?" >&2 && exit 64 ;;
esac
