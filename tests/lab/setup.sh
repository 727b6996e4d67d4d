# SPDX-License-Identifier: MIT
# Sourced by tests/run, tests/demo and tests/bench: installs what is missing on a Debian 12, builds.
# Sets SOURCE (the repository). Everything that is cached lies in build/.

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONDONTWRITEBYTECODE=1

# command or file that shows it is there : package
LAB_NEEDS="
gcc:gcc
clang:clang
/usr/include/stdio.h:libc6-dev
meson:meson
ninja:ninja-build
pkg-config:pkg-config
python3:python3
/usr/include/libusb-1.0/libusb.h:libusb-1.0-0-dev
/usr/include/usbredirparser.h:libusbredirparser-dev
usbredirect:usbredirect
strace:strace
tmux:tmux
tshark:tshark
/usr/include/systemd/sd-bus.h:libsystemd-dev
/usr/include/libudev.h:libudev-dev
/usr/include/sha2.h:libmd-dev
/usr/include/seccomp.h:libseccomp-dev
/usr/include/ini.h:libinih-dev
/usr/include/jansson.h:libjansson-dev
/usr/include/png.h:libpng-dev
/usr/include/xf86drm.h:libdrm-dev
/usr/include/virgl/virglrenderer.h:libvirglrenderer-dev
/usr/include/EGL/egl.h:libegl-dev
/usr/include/GLES2/gl2.h:libgles-dev
/usr/share/glvnd/egl_vendor.d/50_mesa.json:libegl-mesa0
/usr/share/drirc.d/00-mesa-defaults.conf:libgl1-mesa-dri
virgl_test_server:virgl-server
glmark2-es2:glmark2-es2-x11
glxgears:mesa-utils
Xvfb:xvfb
/usr/share/doc/piglit:piglit
/usr/include/cmocka.h:libcmocka-dev
scdoc:scdoc
qemu-system-x86_64:qemu-system-x86
/usr/lib/qemu/vhost-user-gpu:qemu-system-gui
/usr/share/seabios/bios-256k.bin:seabios
/bin/busybox:busybox-static
cpio:cpio
/sbin/depmod:kmod
xz:xz-utils
sfdisk:fdisk
mkfs.vfat:dosfstools
mcopy:mtools
xorriso:xorriso
qemu-nbd:qemu-utils
/usr/include/libnbd.h:libnbd-dev
setpriv:util-linux
busctl:systemd
dbus-daemon:dbus-daemon
gdbus:libglib2.0-bin
mount:mount
losetup:mount
mkfs.ext4:e2fsprogs
/lib/systemd/systemd-udevd:udev
lsusb:usbutils
usbredirect:usbredirect
clang-format:clang-format
clang-tidy:clang-tidy
run-clang-tidy:clang-tidy
cppcheck:cppcheck
/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.asan-x86_64.a:libclang-rt-14-dev
"

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

lab_missing() {
	local line probe
	for line in $LAB_NEEDS; do
		probe=${line%%:*}
		case $probe in
		/*libclang_rt*) ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-*.a >/dev/null 2>&1 ||
			printf '%s ' "${line##*:}" ;;
		/*) [ -e "$probe" ] || printf '%s ' "${line##*:}" ;;
		*) PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null || printf '%s ' "${line##*:}" ;;
		esac
	done
}

# Installs the packages that are missing.
lab_packages() {
	local missing
	missing=$(lab_missing)
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || die "these packages are missing, and installing them takes root: $missing"
	command -v apt-get >/dev/null || die "these packages are missing: $missing"
	say "Installing: $missing"
	mkdir -p "$SOURCE/build"
	# apt-get download, for the kernel, wants lists too.
	# Of piglit's 2 GB all but 140 MB are tests that are generated, and not run here.
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		-o 'DPkg::Options::=--path-exclude=/usr/lib/*/piglit/generated_tests/*' $missing; } \
		>"$SOURCE/build/apt.log" 2>&1 </dev/null || {
		tail -5 "$SOURCE/build/apt.log" >&2
		die "installing packages failed; see build/apt.log"
	}
}

# Builds into build/ (lab_build) or another folder with more meson options (lab_build DIR OPTION…).
lab_build() {
	local dir=${1:-$SOURCE/build} log
	shift || true
	log=$dir/build.log
	mkdir -p "$dir"
	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$SOURCE" "$@" >"$log" 2>&1 </dev/null || {
			tail -20 "$log" >&2
			die "meson setup failed; see $log"
		}
	fi
	ninja -C "$dir" >"$log" 2>&1 </dev/null || {
		grep -B2 -A12 -E 'FAILED|error' "$log" | head -60 >&2
		die "the build failed; see $log"
	}
}

# The sanitizers' build. Leaks are looked for outside the sandbox only: inside there is no ptrace.
lab_build_asan() {
	CC=clang lab_build "$SOURCE/build/asan" -Db_sanitize=address,undefined -Db_lundef=false \
		-Dbuildtype=debug -Doptimization=1
}
