# The first process of a node (machine.rs): `sh machine.sh DIRECTORY NAME DNS`.
set -eu
dir=$1 name=$2 dns=$3

# Our pid as those outside know it, as /proc still is theirs; our parent's; and our namespace, because pids are used again.
read -r pid _ _ parent _ </proc/self/stat
echo "$pid $parent $(stat -L -c %i /proc/self/ns/pid)" >"$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"

mount -n -t proc proc /proc
# A sysfs of this network namespace, cgroups as this cgroup namespace has them, and a bpf file system.
umount -n -R -l /sys
mount -n -t sysfs sysfs /sys
if [ "$(cat "$dir/cgroups")" = /sys/fs/cgroup ]; then
    mount -n -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -n -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r hierarchy; do
        controllers=${hierarchy##*/}
        mkdir "/sys/fs/cgroup/$controllers"
        case $controllers in
        unified) mount -n -t cgroup2 cgroup2 "/sys/fs/cgroup/$controllers" ;;
        systemd) mount -n -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$controllers" ;;
        *) mount -n -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" ;;
        esac
    done <"$dir/cgroups"
fi
mount -n -t bpf bpf /sys/fs/bpf

# Where the programs of a node keep things: on the disk, and each node's own.
for path in /etc/cni /etc/containerd /etc/kubernetes /opt/cni /usr/libexec/kubernetes /var/lib/cni /var/lib/containerd \
    /var/lib/kubelet /var/log/containers /var/log/pods; do
    mkdir -p "$dir/root$path" "$path"
    mount -n --bind "$dir/root$path" "$path"
done
mount -n -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd /etc/cni/net.d /opt/cni/bin
echo "nameserver $dns" >/run/resolv.conf
# What a privileged pod mounts with Bidirectional propagation is to be seen by the node.
mount -n --make-rshared /
hostname "$name"
# kubelet sets these, which no namespace holds; it finds them as it wants them, and the machine keeps its own.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$dir/sysctl/${setting%=*}
    mkdir -p "${file%/*}"
    echo "${setting#*=}" >"$file"
    mount -n --bind "$file" "/proc/sys/${setting%=*}"
done

touch "$dir/ready"
# Who ignores SIGCHLD need not wait for the orphans that become its children.
exec env --ignore-signal=CHLD sleep infinity
