#!/bin/bash
# A one-node S3 server (Ceph radosgw) on loopback, for tests and benchmarks.
#
#   radosgw.sh start DIR PORT ACCESS_KEY SECRET_KEY     returns once the server answers
#   radosgw.sh stop DIR
#
# Environment: MONPORT (default 13300), STORE (memstore | bluestore), SIZE (bytes the store may hold).
# Needs root and: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common curl
# Everything it writes lies under DIR; every port is on 127.0.0.1; the three daemons are stopped by
# the pids they wrote there.
set -eu
action=${1:?start or stop} dir=${2:?directory}

if [ "$action" = stop ]; then
  for daemon in client.rgw.a osd.0 mon.a; do
    file=$dir/run/$daemon.pid
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 25); do kill -0 "$pid" 2>/dev/null || break; sleep .2; done
    kill -9 "$pid" 2>/dev/null || true
  done
  exit 0
fi

port=${3:?port} access=${4:?access key} secret=${5:?secret key}
mon=${MONPORT:-13300} store=${STORE:-memstore} size=${SIZE:-8589934592}
mkdir -p "$dir"/{mon,osd,run,log,rgw}
keyring=$dir/keyring fsid=$(cat /proc/sys/kernel/random/uuid)

# cephx stays on with one keyring: with "auth required = none" radosgw hangs at start.
# tcp_nodelay spares every small answer, such as a listing, a wait of 40 ms for an acknowledgement.
# The paxos line: by default the monitor gathers changes for a second before it agrees on them, and
# the first start of radosgw makes four pools one after the other (12.6 s with it, 1.8 s without).
# The watch line: a radosgw that was killed is waited for that long by every change of a bucket.
# The rgw gc lines give deleted space back after seconds; by default it stays taken for two hours,
# and a full store does not fail: puts hang.
cat > "$dir/ceph.conf" <<EOC
[global]
fsid = $fsid
mon host = v2:127.0.0.1:$mon/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon data = $dir/mon
osd data = $dir/osd
rgw data = $dir/rgw
keyring = $keyring
log file = $dir/log/\$name.log
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
osd objectstore = $store
bluestore block size = $size
memstore device bytes = $size
osd memory target = 1000000000
paxos propose interval = 0.05
osd client watch timeout = 3
mon data avail warn = 2
mon data avail crit = 1
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw gc processor max time = 5
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
EOC

conf="-c $dir/ceph.conf"
ceph-authtool -C "$keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
ceph-authtool "$keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' >/dev/null
ceph-authtool "$keyring" --gen-key -n client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx' >/dev/null
ceph-authtool "$keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' >/dev/null
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon]" "$dir/monmap" >/dev/null
ceph-mon $conf --mkfs -i a --monmap "$dir/monmap" --keyring "$keyring"
ceph-mon $conf -i a
timeout 60 ceph $conf osd create >/dev/null
ceph-osd $conf -i 0 --mkfs 2>/dev/null
ceph-osd $conf -i 0 2>/dev/null
for _ in $(seq 150); do timeout 5 ceph $conf osd stat 2>/dev/null | grep -q '1 up' && break; sleep .2; done
timeout 100 radosgw $conf -n client.rgw.a
for _ in $(seq 150); do curl -s -o /dev/null "http://127.0.0.1:$port/" && break; sleep .2; done
curl -s -o /dev/null "http://127.0.0.1:$port/"
radosgw-admin $conf user create --uid=test --display-name=test \
  --access-key="$access" --secret-key="$secret" >/dev/null 2>&1
