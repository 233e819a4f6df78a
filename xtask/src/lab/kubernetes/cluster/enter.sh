# Runs a command inside a node, in its cgroups and all of its namespaces: `sh enter.sh DIRECTORY COMMAND...`.
set -eu
dir=$1
shift
name=$(cat "$dir/cgroup")
while read -r hierarchy; do
    echo $$ >"$hierarchy/$name/cgroup.procs"
done <"$dir/cgroups"
read -r pid _ <"$dir/pid"
cd /
exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup -- "$@"
