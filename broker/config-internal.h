/* SPDX-License-Identifier: MIT
 * What the files that know keys share: config.c and config-usb.c.
 */
#pragma once

#include "broker/config-file.h"
#include "broker/config.h"

/* What the keys of one file fill. */
struct config_target {
	struct quota_limits *quota; // may be NULL
	struct config *config;      // may be NULL
	struct config_vm *vm;       // may be NULL
	struct config_disk *disk;   // may be NULL
};

/* owner= of [vm]: the target is a struct config_target. */
int config_set_owner(void *target, const char *value, const struct config_place *place);

/* The keys of [usb]; target is a struct config_target. */
int config_usb_set_quarantine(void *target, const char *value, const struct config_place *place);
int config_usb_set_host_drivers(void *target, const char *value, const struct config_place *place);
int config_usb_set_memory(void *target, const char *value, const struct config_place *place);
int config_usb_set_memory_all(void *target, const char *value, const struct config_place *place);

int config_usb_set_remote(void *target, const char *value, const struct config_place *place);

/* The keys of [usb] of a VM; the same. */
int config_ways_set_slots(void *target, const char *value, const struct config_place *place);
int config_ways_set_group(void *target, const char *value, const struct config_place *place);
int config_ways_set_stream(void *target, const char *value, const struct config_place *place);
int config_ways_set_listen(void *target, const char *value, const struct config_place *place);
/* Whether the VM can be reached, and in one way only. 0 or REFUSAL_CONFIG. */
int config_ways_check(const struct config_vm *vm, const struct config_place *place);

/* The keys of [gpu]: of a VM, and (set_cpus) of all; the same. */
int config_gpu_set_memory(void *target, const char *value, const struct config_place *place);
int config_gpu_set_group(void *target, const char *value, const struct config_place *place);
int config_gpu_set_virgl(void *target, const char *value, const struct config_place *place);
int config_gpu_set_node(void *target, const char *value, const struct config_place *place);
int config_gpu_set_dmabuf(void *target, const char *value, const struct config_place *place);
int config_gpu_set_share(void *target, const char *value, const struct config_place *place);
int config_gpu_set_hang(void *target, const char *value, const struct config_place *place);
int config_gpu_set_frame_rate(void *target, const char *value, const struct config_place *place);
int config_gpu_set_contexts(void *target, const char *value, const struct config_place *place);
int config_gpu_set_resources(void *target, const char *value, const struct config_place *place);
int config_gpu_set_cpus(void *target, const char *value, const struct config_place *place);

/* A copy of value in *field, which was NULL. 0 or -ENOMEM. */
int config_set_string(char **field, const char *value);
/* The same of an absolute path of at most max bytes. */
int config_set_path(char **field, const char *value, const char *key, size_t max,
	const struct config_place *place);

void config_usb_default(struct config_usb *out);
void config_usb_finish(struct config_usb *c);
