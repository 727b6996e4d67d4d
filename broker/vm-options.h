/* SPDX-License-Identifier: MIT
 * What a VM is made with: by configuration, by a client, for an export, or as an earlier broker
 * noted it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/config.h"
#include "broker/gpu-arbiter.h"
#include "broker/quota.h"
#include "protocol/refusal.h"

struct broker;

struct vm_options {
	const char *name;
	const char *qmp;                // either this or
	const struct config_ways *ways; // this is NULL
	const char *bus;                /* NULL: "xhci.0" */
	struct quota_limits limits;
	const struct owners *owners; /* may be NULL: nobody */
	uint64_t gpu_memory;         /* 0: no GPU */
	const char *gpu_group;       /* may be NULL */
	enum gpu_virgl gpu_virgl;
	const char *render_node;   /* may be NULL: the one that is tagged */
	bool gpu_dmabuf;           /* its VMM shows DMABUFs */
	uint32_t gpu_hang_seconds; /* 0: as devbroker-gpu has it */
	struct gpu_limits gpu_limits;
	bool from_config;
	/* devbroker export: ways has one stream, and name may be any. */
	bool is_export;
	bool keep;
	const int *listen_fd; // may be NULL; as in struct ways_options
};

/* Whether b can have such a VM now. 0 with what its GPU is to draw on ("": the CPUs, or nothing in
 * 3D); REFUSAL_INVALID, REFUSAL_EXISTS, REFUSAL_QUOTA with text; -errno. */
int vm_options_check(struct broker *b, const struct vm_options *o,
	char pool_out[static GPU_POOL_NAME_SIZE], struct refusal_text *text) _must_check_;
