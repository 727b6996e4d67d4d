/* SPDX-License-Identifier: MIT
 * The administrator's files: devbroker.conf, vms.d/NAME.conf, disks.d/NAME.conf, read once at
 * start.
 *
 * devbroker.conf: [broker] sandbox= worker-uids=BASE:COUNT|none log-level= worker-orphan-time=;
 * [usb] quarantine= host-drivers= usbfs-memory= usbfs-memory-all=; [gpu] software-cpus=;
 * [quota] (defaults of VMs)
 * vms.d/NAME.conf: [vm] qmp= bus= owner=; [usb] slots= socket-group= stream= listen=; [quota]
 * devices= bytes-in-flight= transfers-in-flight= bandwidth= transfers-per-second=; [gpu] memory=
 * virgl= render-node= dmabuf= socket-group= share= frame-rate= contexts= resources= hang-timeout=
 * disks.d/NAME.conf: [disk] image= read-only= cdrom= speed= serial= vm= Unknown sections and keys,
 * keys given twice, over-long lines and bad values are errors that name file and line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "broker/stream-address.h"
#include "protocol/refusal.h"

#define NAME_MAX_LENGTH 63

/* Names of VMs and disks: [A-Za-z0-9][A-Za-z0-9._-]*, at most NAME_MAX_LENGTH bytes. */
bool config_name_ok(const char *name);
/* Text of at most max bytes: letters, digits and those in also; a letter or digit first. */
bool config_word_ok(const char *text, const char *also, size_t max);
/* Names of buses in QEMU, as "xhci.0": letters, digits, '.', '_', '-' and '/', at most 63 bytes. */
bool config_bus_ok(const char *bus);

/* Bounds of what configuration and requests may set. A worker needs room for one transfer of the
 * largest size, and stays under 64 MiB of memory in all. */
#define QUOTA_DEVICES_MAX   64
#define QUOTA_BYTES_MIN     (1 << 20)
#define QUOTA_BYTES_MAX     (32 << 20)
#define QUOTA_TRANSFERS_MAX 1024
/* A guest's drivers give up after some 30 s: what it may ask for at once has to be done by then. */
#define QUOTA_BANDWIDTH_MIN (1 << 20)
#define QUOTA_BANDWIDTH_MAX (UINT64_C(1) << 40)
#define QUOTA_RATE_MIN      10
#define QUOTA_RATE_MAX      100000000

/* Limits of one VM. A worker's own limits are these divided by nothing: each device may use up to
 * the per-device part, and the VM's sum is charged when it is attached. */
struct quota_limits {
	uint32_t devices;             /* lent to the VM at once; default 16 */
	uint64_t bytes_in_flight;     /* per device; default 8 MiB, 1 MiB to 32 MiB */
	uint32_t transfers_in_flight; /* per device; default 64, 1 to 1024 */
	uint64_t bandwidth;           /* of the VM, bytes per second in both directions; 0: none */
	uint64_t transfer_rate;       /* of the VM, per second; 0: none */
};

/* Host USB devices. */
struct config_usb {
	/* Controllers (as in usb_facts::controller) separated by blanks, or "all"; NULL: none. New
	 * devices on their buses get no host driver before policy has decided. */
	char *quarantine;
	bool host_drivers_return;  /* after a VM had the device; default yes */
	uint64_t usbfs_memory;     /* bytes of kernel memory for transfers of one device */
	uint64_t usbfs_memory_all; /* of all; 0: what the kernel allows, less a quarter */
	bool allow_remote;         /* streams to and from other hosts; default no */
};

#define USBFS_MEMORY_MIN (256 << 10)
#define USBFS_MEMORY_MAX (256 << 20)

#define OWNERS_MAX 16

/* Users who may lend to a VM what rules offer to it. */
struct owners {
	uint32_t n;
	uid_t uids[OWNERS_MAX];
};

bool owners_have(const struct owners *o, uid_t uid);
/* One that it has already is fine. False if there are too many. */
bool owners_add(struct owners *o, uid_t uid) _must_check_;

#define SLOTS_MAX   16
#define STREAMS_MAX 16

struct config_stream {
	bool listens;
	struct stream_address address;
};

/* Ways to a VM without QMP. */
struct config_ways {
	uint32_t slots;
	char *group; /* whose members may connect its VMM; NULL: only our user */
	uint32_t n_streams;
	struct config_stream streams[STREAMS_MAX];
};

enum gpu_virgl {
	GPU_VIRGL_NO,
	GPU_VIRGL_YES,      /* 3D; in software if there is no render node */
	GPU_VIRGL_HARDWARE, /* 3D on a render node, or no GPU at all */
};

/* "no", "yes" or "hardware". 0 or -EINVAL. */
int gpu_virgl_parse(const char *text, enum gpu_virgl *out) _must_check_;

enum gpu_share {
	GPU_SHARE_BEST_EFFORT, /* what nobody else wants, like everybody else */
	GPU_SHARE_FAIR,        /* that much of it for sure, and its part of what is idle */
	GPU_SHARE_FIXED,       /* that much of it and never more */
	GPU_SHARE_COUNT_,
};

/* Limits of a VM's GPU beside its memory. */
struct gpu_limits {
	enum gpu_share share;
	uint32_t percent;    /* of the time of what draws (fair, fixed), 1 to 100 */
	uint32_t frame_rate; /* per second, of each scanout; 0: none */
	uint32_t contexts;   /* of 3D; 0: as many as a renderer has */
	uint32_t resources;  /* likewise */
};

#define GPU_FRAME_RATE_MAX      1000
#define GPU_CONTEXTS_LIMIT_MAX  256
#define GPU_RESOURCES_LIMIT_MAX 65536
#define GPU_CPUS_MAX            1024

/* "best-effort", "fair:N%" or "fixed:N%". 0 or -EINVAL. */
int gpu_share_parse(const char *text, struct gpu_limits *out) _must_check_;
/* What a request says of it (NULL: nothing). 0 or REFUSAL_INVALID with text. */
int gpu_share_read(
	const char *share, struct gpu_limits *out, struct refusal_text *text) _must_check_;
/* The reverse. Returns out. */
const char *gpu_share_print(const struct gpu_limits *l, char *out, size_t size);
/* Whether limits that a request asks for are within what configuration could say. 0 or
 * REFUSAL_INVALID. */
int gpu_limits_check(const struct gpu_limits *l, struct refusal_text *text) _must_check_;
/* The same for the memory of a GPU that there is, in bytes. */
int gpu_memory_check(const char *vm, uint64_t bytes, struct refusal_text *text) _must_check_;

struct config_vm {
	struct list link; // config::vms
	char *name;
	char *qmp; /* absolute path; NULL: ways are given */
	struct config_ways ways;
	char *bus; /* default "xhci.0" */
	struct owners owners;
	struct quota_limits quota;
	uint64_t gpu_memory; /* bytes of the guest's images; 0: it has no GPU */
	char *gpu_group;     /* whose members may connect its VMM; NULL: only our user */
	enum gpu_virgl gpu_virgl;
	char *render_node;         /* absolute path; NULL: the one that is tagged in udev */
	bool gpu_dmabuf;           /* its VMM shows DMABUFs */
	uint32_t gpu_hang_seconds; /* until drawing that does not end is ended; 0: as devbroker-gpu
				      has it */
	struct gpu_limits gpu_limits;
};

#define GPU_HANG_SECONDS_MAX 600

#define GPU_MEMORY_MIN (16 << 20)
#define GPU_MEMORY_MAX (UINT64_C(16) << 30)

struct config_disk {
	struct list link; // config::disks
	char *name;
	char *image;  /* absolute path */
	char *speed;  /* "high" or "super" */
	char *serial; /* NULL: made from the name */
	char *vm;     /* may be NULL: attached to nobody at start */
	bool read_only;
	bool cdrom;
	/* Where it stands, for errors found later ("disks.d/stick.conf:3"). */
	char *where_image;
	char *where_vm;
};

#define ORPHAN_SECONDS_DEFAULT 300
#define ORPHAN_SECONDS_MAX     3600

struct config {
	uint32_t sandbox_stages; /* enum sandbox_stage bits, from sandbox_parse */
	char *sandbox;           /* as written */
	bool worker_uids_set;    /* worker-uids= was given */
	uint32_t worker_uid_base;
	uint32_t worker_uid_count; /* 0: "none" */
	enum log_level log_level;
	uint32_t worker_orphan_seconds; /* 0: workers end with their broker */
	struct quota_limits quota;      /* defaults of VMs */
	struct config_usb usb;
	uint32_t software_cpus; /* what all that draws in software has together; 0: all CPUs */
	struct list vms;
	struct list disks;
};

/* Reads DIR. A DIR or devbroker.conf that does not exist means the defaults; a file that can't be
 * read is an error. 0; -errno; or REFUSAL_CONFIG with text ("vms.d/win11.conf:4: …"). On failure
 * nothing is left in *out. */
int config_load(const char *dir, struct config *out, struct refusal_text *text) _must_check_;
void config_finish(struct config *c);
void quota_limits_default(struct quota_limits *out);
/* "none" or a number within the bounds above. 0 or -errno. */
int quota_parse_bandwidth(const char *text, uint64_t *out) _must_check_;
int quota_parse_rate(const char *text, uint64_t *out) _must_check_;
