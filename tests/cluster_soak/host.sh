#!/usr/bin/env bash
# Process 1 of a host that exists only as namespaces: mounts what is its own, and runs its sshd until it is killed.
# usage: host.sh NAME FOLDER [KEEP...]   KEEP: folders that stay in sight though they lie in /tmp
set -euo pipefail
name=$1 folder=$2
shift 2

hostname "$name"
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/home /mnt/keep
mount --bind "$folder/home" /mnt/home
mount --bind "$folder/passwd" /etc/passwd # where the home of root is /mnt/home
number=0
for path in "$@"; do
  mkdir "/mnt/keep/$((++number))"
  mount --bind "$path" "/mnt/keep/$number"
done
cp "$folder/sshd_config" "$folder/host_key" /mnt/
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
number=0
for path in "$@"; do
  mkdir -p "$path"
  mount --bind "/mnt/keep/$((++number))" "$path"
done

/usr/sbin/sshd -D -e -f /mnt/sshd_config &
touch /mnt/home/.up
wait # and bury whoever is left without a parent
