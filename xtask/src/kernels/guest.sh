# The first process once the root is there. Modules, the directory of the run and the command are set above.
export HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount() { /bin/busybox mount "$@"; }
mount -t tmpfs run /run
mkdir -p /run/lock /dev/shm /dev/pts /dev/net
mount -t tmpfs shm /dev/shm
mount -t devpts devpts /dev/pts
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debug /sys/kernel/debug
# What udev would do.
ln -sfn /proc/self/fd /dev/fd
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
rm -rf /lib/modules/* && mkdir -p /lib/modules && ln -s "$modules" "/lib/modules/$(uname -r)"
for port in /sys/class/virtio-ports/*; do
  case $(cat "$port/name") in
    minicni.output) output=/dev/${port##*/} ;;
    minicni.status) status=/dev/${port##*/} ;;
  esac
done
/bin/busybox ip link set lo up
# Nobody asks for the modules that tests in namespaces need: those of the kernel would be there, or be loaded by name.
modprobe -a veth vxlan nf_conntrack nft_nat nft_masq nft_ct nft_fib_inet nft_compat xt_conntrack br_netfilter cls_bpf sch_ingress \
  ip_tables iptable_nat iptable_filter ip6table_nat ip6table_filter nft_flow_offload nf_flow_table_inet ip_vs ip_vs_rr 2>/dev/null
cd "$directory"
setsid sh "$run/command.sh" < /dev/null > "$output" 2>&1
echo $? > "$status"
sync
/bin/busybox poweroff -f
