# verify-image SERVICE: the image of qemu-nbd or nbd-server holds a clean ext4 file system, whose files are as their SHA256SUMS says.
set -e
name=${1^^}_IMAGE
name=${name//-/_}
image=${!name}
e2fsck -f -n "$image" 2>&1
rm -rf tree
mkdir tree
debugfs -R "rdump / tree" "$image" 2>&1
cd tree
sha256sum --check --quiet SHA256SUMS
echo "$(wc -l <SHA256SUMS) files verified"
