# The first process of a host (mod.rs): `sh setup.sh HOST LAB`, the directories of both.
set -eu
host=$1 lab=$2

# Our pid as those outside know it, as /proc still is theirs; our parent's; and our namespace, because pids are used again.
read -r pid _ _ parent _ </proc/self/stat
echo "$pid $parent $(stat -L -c %i /proc/self/ns/pid)" >"$host/pid.new"
mv "$host/pid.new" "$host/pid"

# Namespaces and bpf file systems of others go when they are removed, not when we end.
cut -d ' ' -f 5 /proc/self/mountinfo | while read -r path; do
    case $path in
    "$lab"/*) ;;
    /run/*) umount -n -l "$path" 2>/dev/null || : ;;
    esac
done

mount -n -t proc proc /proc
mount -n -t tmpfs tmpfs /dev/shm
# Where runtimes keep things on a disk.
for path in /etc/cni /etc/containers /opt /tmp /var/lib /var/log /var/tmp; do
    mkdir -p "$host/root$path"
    mount -n --bind "$host/root$path" "$path"
done
# /run is our own, but the lab is seen in it: its plugin's state, its bpf file system.
mkdir "$host/run"
mount -n -t tmpfs -o mode=755 tmpfs "$host/run"
mkdir -p "$host$lab" "$host/run/lock" "$host/run/netns"
mount -n --rbind "$lab" "$host$lab"
mount -n --move "$host/run" /run

touch "$host/ready"
# Who ignores SIGCHLD need not wait for the orphans that become its children.
exec env --ignore-signal=CHLD sleep infinity
