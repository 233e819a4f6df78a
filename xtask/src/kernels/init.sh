#!/bin/busybox sh
# The first process of a guest: makes the host's files its root, with what is written kept in memory.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $busybox insmod "$module" 2>/dev/null; done # one that is there already fails
for word in $($busybox cat /proc/cmdline); do
  case $word in minicni.run=*) run=${word#*=} ;; esac
done
$busybox mount -t virtiofs host /host || { echo "no virtiofs"; $busybox poweroff -f; }
$busybox mount -t tmpfs -o mode=755,size=50% overlay /overlay
$busybox mkdir /overlay/upper /overlay/work
$busybox mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work overlay /root ||
  { echo "no overlay"; $busybox poweroff -f; }
for name in proc sys dev; do $busybox mount --move /$name /root/$name; done
exec $busybox switch_root /root /bin/sh "$run/guest.sh"
